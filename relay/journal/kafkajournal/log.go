package kafkajournal

import (
	"context"
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

// readBytes is about how much is read at once.
const readBytes = 1 << 20
