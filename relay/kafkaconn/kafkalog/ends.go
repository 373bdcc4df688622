package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/listoffsets"

	"ncs-relay/relay/kafkaconn"
)

// Times that stand for the ends of a log.
const (
	atEnd   = -1
	atStart = -2
)

// Ends returns the ends (high watermarks) of the partitions, as their leaders know them: all of them, or an error.
func Ends(ctx context.Context, c *kafkaconn.Cluster, topic string, partitions []int32) (map[int32]int64, error) {
	return offsets(ctx, c, topic, partitions, atEnd)
}

// Starts returns the first offsets of the partitions, as their leaders know them: all of them, or an error.
func Starts(ctx context.Context, c *kafkaconn.Cluster, topic string, partitions []int32) (map[int32]int64, error) {
	return offsets(ctx, c, topic, partitions, atStart)
}

// Since returns the first offset of a partition at which there is a record of a time or later, as its leader knows it; the end if
// there is none.
func Since(ctx context.Context, c *kafkaconn.Cluster, topic string, partition int32, t time.Time) (int64, error) {
	found, err := offsets(ctx, c, topic, []int32{partition}, t.UnixMilli())
	if err == nil && found[partition] < 0 {
		found, err = Ends(ctx, c, topic, []int32{partition})
	}
	return found[partition], err
}

func offsets(ctx context.Context, c *kafkaconn.Cluster, topic string, partitions []int32, at int64) (map[int32]int64, error) {
	found := make(map[int32]int64, len(partitions))
	err := insist(ctx, c, topic, func() error { return askOffsets(ctx, c, topic, partitions, at, found) })
	if err != nil {
		return nil, fmt.Errorf("ask for offsets of topic %s: %w", topic, err)
	}
	return found, nil
}

// askOffsets asks the leaders of the partitions that are not yet found, each once, all at the same time.
func askOffsets(ctx context.Context, c *kafkaconn.Cluster, topic string, partitions []int32, at int64, found map[int32]int64) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaconn.RequestTimeout)
	defer cancel()
	var problems []error
	led := make(map[string][]int32)
	for _, partition := range partitions {
		if _, has := found[partition]; has {
			continue
		}
		leader, err := c.Leader(topic, partition)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		led[leader] = append(led[leader], partition)
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, some := range led {
		asking.Go(func() {
			response, err := kafkaconn.Answer[*listoffsets.Response](c.ToLeader(ctx, topic, some[0], offsetsRequest(topic, some, at)))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				err = offsetsOf(response, topic, some, found)
			}
			problems = append(problems, err)
		})
	}
	asking.Wait()
	return firstFinal(problems)
}

func offsetsRequest(topic string, partitions []int32, at int64) *listoffsets.Request {
	asked := listoffsets.RequestTopic{Topic: topic}
	for _, partition := range partitions {
		asked.Partitions = append(asked.Partitions, listoffsets.RequestPartition{Partition: partition, CurrentLeaderEpoch: -1, Timestamp: at})
	}
	return &listoffsets.Request{ReplicaID: -1, Topics: []listoffsets.RequestTopic{asked}}
}

// offsetsOf adds what is answered to found.
func offsetsOf(response *listoffsets.Response, topic string, asked []int32, found map[int32]int64) error {
	var problems []error
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			switch {
			case t.Topic != topic || !slices.Contains(asked, p.Partition):
			case p.ErrorCode != 0:
				problems = append(problems, fmt.Errorf("partition %d: %w", p.Partition, kafka.Error(p.ErrorCode)))
			default:
				found[p.Partition] = p.Offset
			}
		}
	}
	for _, partition := range asked {
		if _, has := found[partition]; !has && len(problems) == 0 {
			problems = append(problems, errors.New("the answer does not name all partitions"))
		}
	}
	return firstFinal(problems)
}

// firstFinal returns the first error that is no reason to ask again, or else the first.
func firstFinal(problems []error) error {
	var first error
	for _, err := range problems {
		if err != nil && !new(persistence).again(err) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}
