package kafkalog

import (
	"context"
	"errors"

	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay/kafkaconn"
)

// WriterOptions say how a Writer writes. The zero value does not compress.
type WriterOptions struct {
	Codec compress.Compression
}

// Writer appends to one partition as one idempotent producer, with one request in flight. It is not for concurrent use.
type Writer struct{}

// NewWriter makes a Writer of the partition. It asks nothing of the cluster; the first Append does.
func NewWriter(c *kafkaconn.Cluster, topic string, partition int32, o WriterOptions) *Writer {
	return &Writer{}
}

// Append writes the records as one batch and returns the offset of the first, once all in-sync replicas have them; the
// others follow it without a gap. It repeats the request, byte for byte, until the answer is final or ctx ends. The offset is
// -1 if the broker only says that it has them already.
//
// A *Refused in the error's chain says that none was written. After any other error nobody knows whether they were, or will
// be; the next Append is then a new producer's.
func (w *Writer) Append(ctx context.Context, recs []Record) (base int64, err error) {
	return 0, errors.ErrUnsupported
}

// Fitting returns how many records at the head of recs make a batch of at most maxBytes before compression; at least one,
// if there is one. A topic's max.message.bytes is for the batch after compression.
func Fitting(recs []Record, maxBytes int) int {
	return len(recs)
}
