package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// logs are the partitions of the topics, as logs.
type logs interface {
	// read is kafkalog.Read.
	read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error)
	// ends and starts are kafkalog.Ends and kafkalog.Starts.
	ends(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error)
	starts(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error)
	// since is kafkalog.Since.
	since(ctx context.Context, topic string, partition int32, t time.Time) (int64, error)
	// writer is kafkalog.NewWriter.
	writer(topic string, partition int32) writer
}

// writer is a kafkalog.Writer.
type writer interface {
	Append(ctx context.Context, recs []kafkalog.Record) (base int64, err error)
}

// clusterLogs are logs on a cluster. Their writers share requests: at low load that is a third of the CPU.
type clusterLogs struct {
	cluster  *kafkaconn.Cluster
	requests *batch.Requests
}

func newClusterLogs(c *kafkaconn.Cluster) clusterLogs { return clusterLogs{c, batch.NewRequests(c)} }

func (l clusterLogs) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error) {
	return kafkalog.Read(ctx, l.cluster, topic, partition, offset, maxBytes, wait)
}

func (l clusterLogs) ends(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	return kafkalog.Ends(ctx, l.cluster, topic, partitions)
}

func (l clusterLogs) starts(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	return kafkalog.Starts(ctx, l.cluster, topic, partitions)
}

func (l clusterLogs) since(ctx context.Context, topic string, partition int32, t time.Time) (int64, error) {
	return kafkalog.Since(ctx, l.cluster, topic, partition, t)
}

func (l clusterLogs) writer(topic string, partition int32) writer {
	return kafkalog.NewWriter(l.cluster, topic, partition, kafkalog.WriterOptions{Codec: compress.Lz4, Requests: l.requests})
}

// readTo calls fn with the records of a partition from one offset to another, in order.
func readTo(ctx context.Context, l logs, topic string, partition int32, from, to int64, fn func([]kafkalog.Record) error) error {
	for from < to {
		chunk, err := l.read(ctx, topic, partition, from, readBytes, time.Second)
		if err != nil {
			return err
		}
		recs := chunk.Records
		for len(recs) > 0 && recs[len(recs)-1].Offset >= to {
			recs = recs[:len(recs)-1]
		}
		if err := fn(recs); err != nil {
			return err
		}
		from = max(from, chunk.Next)
	}
	return nil
}

// readToEnd calls fn with the records of a partition from an offset to its end, which it returns. A record that compaction removes
// meanwhile has a newer one, perhaps behind the end that there was at first: so the end is the one after all was read.
func readToEnd(ctx context.Context, l logs, topic string, partition int32, from int64, fn func([]kafkalog.Record) error) (end int64, err error) {
	for {
		ends, err := l.ends(ctx, topic, partition)
		if err != nil || ends[partition] <= from {
			return from, err
		}
		if err := readTo(ctx, l, topic, partition, from, ends[partition], fn); err != nil {
			return from, err
		}
		from = ends[partition]
	}
}

// readThere reads from an offset at which there was a record; none are returned if it is gone for good. A leader that has just
// become one may not show all that it has: that is an error, which passes.
func readThere(ctx context.Context, l logs, topic string, partition int32, at int64, maxBytes int) ([]kafkalog.Record, error) {
	chunk, err := l.read(ctx, topic, partition, at, maxBytes, 0)
	if _, gone := startsAfter(err, at); gone {
		return nil, nil
	}
	if err == nil && len(chunk.Records) == 0 {
		err = fmt.Errorf("offset %d cannot be seen yet", at)
	}
	if err != nil {
		return nil, fmt.Errorf("read topic %s, partition %d: %w", topic, partition, err)
	}
	return chunk.Records, nil
}

// startsAfter reports whether reading from an offset failed because the log begins behind it now, and where.
func startsAfter(err error, offset int64) (start int64, gone bool) {
	out := new(kafkalog.OutOfRange)
	gone = errors.As(err, &out) && offset < out.Start
	return out.Start, gone
}

// readBytes is about how much is read at once.
const readBytes = 1 << 20
