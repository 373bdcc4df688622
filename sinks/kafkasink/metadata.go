package kafkasink

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// partitions tells how many partitions the topic has: at least one, or an error. It reads what the transport last
// learnt; only the first call waits for a broker. Client.Metadata would give the same after copying every partition.
func (s *Sink) partitions(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := s.transport.RoundTrip(ctx, s.client.Addr, &metadata.Request{TopicNames: []string{topic}})
	if err != nil {
		return 0, fmt.Errorf("ask for the partitions of topic %s: %w", topic, err)
	}
	response, ok := answer.(*metadata.Response)
	if !ok || len(response.Topics) != 1 {
		return 0, fmt.Errorf("ask for the partitions of topic %s: odd answer", topic)
	}
	found := response.Topics[0]
	switch code := kafka.Error(found.ErrorCode); {
	case code == kafka.UnknownTopicOrPartition:
		return 0, fmt.Errorf("topic %s does not exist on the cluster: %w", topic, code)
	case code != 0:
		return 0, fmt.Errorf("topic %s: %w", topic, code)
	case len(found.Partitions) == 0:
		return 0, fmt.Errorf("topic %s has no partitions: %w", topic, kafka.UnknownTopicOrPartition)
	}
	return len(found.Partitions), nil
}

// refreshTimeout bounds a forced refresh, which other lanes may be waiting for.
const refreshTimeout = time.Second

// refresh makes the transport look at the cluster again, unless another lane made it do so after since. kafka-go has no
// call for that, but looks after each CreateTopics, also after one that names no topic and so creates none and needs no
// permission. Where that fails the next regular look comes within metadataTTL, so its error changes nothing.
func (s *Sink) refresh(ctx context.Context, since time.Time) {
	var last time.Time
	select {
	case last = <-s.refreshes:
	case <-ctx.Done():
		return
	}
	if last.Before(since) {
		last = time.Now()
		ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
		_, _ = s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{})
		cancel()
	}
	s.refreshes <- last
}
