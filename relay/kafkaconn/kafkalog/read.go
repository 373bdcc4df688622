package kafkalog

import (
	"context"
	"errors"
	"time"

	"ncs-relay/relay/kafkaconn"
)

// Read returns records from offset on: at least one if there is one, up to about maxBytes, waiting for the first at most as
// long as wait. It follows the partition to its next leader until ctx ends. The error of an offset that is not in the log
// has an *OutOfRange in its chain.
func Read(ctx context.Context, c *kafkaconn.Cluster, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (Chunk, error) {
	return Chunk{}, errors.ErrUnsupported
}

// Ends returns the ends (high watermarks) of the partitions, as their leaders know them.
func Ends(ctx context.Context, c *kafkaconn.Cluster, topic string, partitions []int32) (map[int32]int64, error) {
	return nil, errors.ErrUnsupported
}

// Starts returns the first offsets of the partitions, as their leaders know them.
func Starts(ctx context.Context, c *kafkaconn.Cluster, topic string, partitions []int32) (map[int32]int64, error) {
	return nil, errors.ErrUnsupported
}
