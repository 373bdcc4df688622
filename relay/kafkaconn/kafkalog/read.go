package kafkalog

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/fetch"

	"ncs-relay/relay/kafkaconn"
)

const (
	// largestBatch bounds what a broker may answer with: at least one whole batch, however few bytes were asked for. Topics
	// with a larger max.message.bytes cannot be read.
	largestBatch = 80 << 20

	// unpackedRatio is how much larger than packed a chunk may be.
	unpackedRatio = 8

	// emptyPause keeps a broker that does not wait from being asked all the time.
	emptyPause = 20 * time.Millisecond
)

// Read returns records from offset on: at least one if there is one, up to about maxBytes as they are stored, waiting for
// the first at most as long as wait. It follows the partition to its next leader until ctx ends. The error of an offset that
// is not in the log has an *OutOfRange in its chain, that of one that cannot be read a *Corrupt. Records share the memory of
// what was read with them.
func Read(ctx context.Context, c *kafkaconn.Cluster, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (chunk Chunk, err error) {
	until := time.Now().Add(wait)
	err = insist(ctx, c, topic, func() (err error) {
		chunk, err = readSome(ctx, c, topic, partition, offset, maxBytes, until)
		return err
	})
	if err != nil {
		return Chunk{}, fmt.Errorf("read %s/%d from offset %d: %w", topic, partition, offset, err)
	}
	return chunk, nil
}

// readSome fetches until there is a record, or nothing more to wait for.
func readSome(ctx context.Context, c *kafkaconn.Cluster, topic string, partition int32, offset int64, maxBytes int, until time.Time) (Chunk, error) {
	next := offset
	for {
		wait := max(0, time.Until(until))
		got, err := fetchOne(ctx, c, topic, partition, next, maxBytes, wait)
		if err != nil || len(got.Records) > 0 {
			return got, err
		}
		empty := got.Next == next
		next = got.Next
		if left := time.Until(until); empty && (left <= 0 || !kafkaconn.Pause(ctx, min(left, emptyPause))) {
			return got, context.Cause(ctx)
		}
	}
}

func fetchOne(ctx context.Context, c *kafkaconn.Cluster, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (Chunk, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+kafkaconn.RequestTimeout)
	defer cancel()
	response, err := kafkaconn.Answer[*kafkaconn.FetchResponse](c.ToLeader(ctx, topic, partition, &fetch.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(wait.Milliseconds()),
		MinBytes:     1,
		MaxBytes:     largestBatch,
		SessionEpoch: -1, // no session
		Topics: []fetch.RequestTopic{{Topic: topic, Partitions: []fetch.RequestPartition{{
			Partition: partition, CurrentLeaderEpoch: -1, FetchOffset: offset, LogStartOffset: -1, PartitionMaxBytes: int32(maxBytes),
		}}}},
	}))
	switch {
	case err != nil:
		return Chunk{}, err
	case response.ErrorCode != 0:
		return Chunk{}, kafka.Error(response.ErrorCode)
	case len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1:
		return Chunk{}, fmt.Errorf("the answer is about %d topics", len(response.Topics))
	}
	found := &response.Topics[0].Partitions[0]
	if code := kafka.Error(found.ErrorCode); code == kafka.OffsetOutOfRange {
		return Chunk{}, outOfRange(ctx, c, topic, partition, offset)
	} else if code != 0 {
		return Chunk{}, code
	}
	chunk := Chunk{End: found.HighWatermark, Start: found.LogStartOffset}
	chunk.Records, chunk.Next, err = decode(found.Records, offset, unpackedRatio*maxBytes)
	if err == nil && chunk.Next > max(chunk.End, offset) { // the checksum is not about offsets
		err = &Corrupt{offset, fmt.Errorf("it ends at %d, the log at %d", chunk.Next, chunk.End)}
	}
	return chunk, err
}

// outOfRange says where the log is that the offset is not in.
func outOfRange(ctx context.Context, c *kafkaconn.Cluster, topic string, partition int32, offset int64) error {
	starts, err := Starts(ctx, c, topic, []int32{partition})
	if err != nil {
		return err
	}
	ends, err := Ends(ctx, c, topic, []int32{partition})
	if err != nil {
		return err
	}
	if e := (&OutOfRange{Offset: offset, Start: starts[partition], End: ends[partition]}); offset < e.Start || offset > e.End {
		return e
	}
	return kafka.OffsetNotAvailable // the leader has changed since
}
