package kafkasink

import (
	"sync"

	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn/batch"
)

const (
	batchAt       = batch.SizeBytes
	batchOverhead = batch.Overhead
	anonymous     = batch.Anonymous // the id of a producer without one
)

// batchBuilder makes record batches of events. Its buffers are used again; what it returns is valid until then.
type batchBuilder struct {
	batch.Builder
	record []byte
}

var builders = sync.Pool{New: func() any { return new(batchBuilder) }}

// build makes the batch of a producer's next request, with its size in front.
func (b *batchBuilder) build(p *producer, events []relay.Attempt, codec compress.Compression, cloudEvents bool) ([]byte, error) {
	first := events[0].ReceivedAt.UnixMilli()
	head := batch.Head{Producer: p.id, Epoch: p.epoch, Sequence: p.next, First: first, Newest: first}
	b.Reset()
	for i := range events {
		at := events[i].ReceivedAt.UnixMilli()
		head.Newest = max(head.Newest, at)
		b.record = appendRecord(b.record[:0], &events[i], cloudEvents, at-first, i)
		b.Add(b.record)
	}
	return b.Build(head, codec)
}
