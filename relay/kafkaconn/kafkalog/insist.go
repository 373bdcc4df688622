package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
)

// persistence says which failures are worth another try, of one request that is made again and again.
type persistence struct {
	doubts int // failures that another broker, or another copy of the bytes, may not give
}

// enoughDoubts is how often a doubtful answer is believed.
const enoughDoubts = 3

// again reports whether what failed so may succeed soon without anybody's doing.
func (p *persistence) again(err error) bool {
	var code kafka.Error
	switch {
	case errors.Is(err, net.ErrClosed): // we are closed
		return false
	case kafkaconn.Leaderless(err):
		return true
	case errors.As(err, new(*Corrupt)): // on the way, perhaps
		return p.doubtful()
	case !errors.As(err, &code):
		return false
	}
	switch code {
	case kafka.NotEnoughReplicas, kafka.NotEnoughReplicasAfterAppend, kafka.KafkaStorageError, kafka.NetworkException,
		kafka.BrokerNotAvailable, kafka.UnknownLeaderEpoch, kafka.OffsetNotAvailable, kafka.GroupLoadInProgress, kafka.GroupCoordinatorNotAvailable:
		return true
	case kafka.UnknownTopicOrPartition, // by a broker that has just started
		kafka.InvalidMessage: // damaged on the way
		return p.doubtful()
	}
	return false
}

func (p *persistence) doubtful() bool {
	p.doubts++
	return p.doubts < enoughDoubts
}

// insist calls f, with the topic's leaders known, until it does not fail any more, or in vain, or ctx ends. The error is
// always what failed last.
func insist(ctx context.Context, c *kafkaconn.Cluster, topic string, f func() error) error {
	var p persistence
	for {
		err := known(ctx, c, topic)
		if err == nil {
			err = f()
		}
		if err == nil || !p.again(err) || ctx.Err() != nil {
			return err
		}
		_ = c.Look(ctx, time.Now())
		if !kafkaconn.Pause(ctx, batch.ElectionPause) {
			return err
		}
	}
}

// known returns when the cluster has told of the topic.
func known(ctx context.Context, c *kafkaconn.Cluster, topic string) error {
	if _, err := c.Leader(topic, 0); err == nil {
		return nil
	}
	found, err := c.Topic(ctx, topic)
	if err == nil && found.Err != 0 {
		err = fmt.Errorf("topic %s: %w", topic, found.Err)
	}
	return err
}
