package kafkasink

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"ncs-relay/relay"
)

// checkLanes compares the topic's partitions as its lanes were told with those the cluster has now.
func (s *Sink) checkLanes(ctx context.Context, topic string) error {
	began := time.Now()
	found, err := s.partitions(ctx, topic)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		s.refresh(ctx, began)
		found, err = s.partitions(ctx, topic)
	}
	if errors.Is(err, kafka.UnknownTopicOrPartition) && s.createTopics != nil {
		if err := s.createTopic(ctx, topic); err != nil {
			return err
		}
		found, err = s.partitions(ctx, topic)
	}
	if err != nil {
		return err
	}
	if s.setFound(topic, found) {
		return nil
	}
	s.learnLimit(ctx, topic, 0)
	return relay.ErrRelane
}

// setFound notes how many partitions the topic has and tells whether its lanes are up to date.
func (s *Sink) setFound(topic string, found int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[topic]
	if t.laned == found {
		return true
	}
	t.found = found
	s.topics[topic] = t
	return false
}

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
		return 0, fmt.Errorf("topic %s has no partitions: %w", topic, kafka.LeaderNotAvailable)
	}
	return len(found.Partitions), nil
}

// createTopic creates a topic that does not exist, and returns when the transport knows it.
func (s *Sink) createTopic(ctx context.Context, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	wanted := kafka.TopicConfig{
		Topic:             topic,
		NumPartitions:     brokersChoice(s.createTopics.Partitions),
		ReplicationFactor: brokersChoice(s.createTopics.Replication),
	}
	for name, value := range s.createTopics.Configs {
		wanted.ConfigEntries = append(wanted.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	response, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{wanted}})
	if err == nil {
		err = response.Errors[topic]
	}
	switch {
	case errors.Is(err, kafka.TopicAlreadyExists): // another relay was faster
		s.refresh(ctx, time.Now())
		return nil
	case err != nil:
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	s.log.Info("Kafka topic created", "topic", topic)
	return nil
}

// brokersChoice is -1, the cluster's default, where nothing is configured.
func brokersChoice(n int) int {
	if n == 0 {
		return -1
	}
	return n
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

// limit is how many bytes a request to the topic may have; 0 = unknown. It only keeps requests from being refused and
// halved: what a topic takes is for its broker to say, which may have changed its mind.
func (s *Sink) limit(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topics[topic].limit
}

// learnLimit asks for the topic's max.message.bytes. A request of refused bytes was too large; 0 = none was. Where we may
// not ask, half of it is the next guess, and 0 is what it answers.
func (s *Sink) learnLimit(ctx context.Context, topic string, refused int) int {
	limit, err := s.maxMessageBytes(ctx, topic)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[topic]
	if t.limit = limit; err != nil {
		t.limit = refused / 2
	}
	s.topics[topic] = t
	return limit
}

func (s *Sink) maxMessageBytes(ctx context.Context, topic string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	const name = "max.message.bytes"
	response, err := s.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name}},
	}})
	switch {
	case err != nil:
		return 0, err
	case len(response.Resources) != 1 || len(response.Resources[0].ConfigEntries) != 1:
		return 0, errors.New("odd answer")
	case response.Resources[0].Error != nil:
		return 0, response.Resources[0].Error
	}
	return strconv.Atoi(response.Resources[0].ConfigEntries[0].ConfigValue)
}
