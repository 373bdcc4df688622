package kafkasink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"sync"

	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay"
)

// A record batch of Kafka's format 2 begins with a head of 61 bytes. In a request its size stands before it.
const (
	batchAt       = 4
	batchOverhead = batchAt + 61
)

// batchBuilder makes record batches, which kafka-go can do as well, but without naming their producer and at several times
// the cost. Its buffers are used again; what it returns is valid until then.
type batchBuilder struct {
	record []byte
	plain  []byte
	packed bytes.Buffer
}

var builders = sync.Pool{New: func() any { return new(batchBuilder) }}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// build makes the batch of a producer's next request, with its size in front.
func (b *batchBuilder) build(p *producer, batch []relay.Attempt, codec compress.Compression, cloudEvents bool) ([]byte, error) {
	first, newest := batch[0].ReceivedAt.UnixMilli(), batch[0].ReceivedAt.UnixMilli()
	b.plain = append(b.plain[:0], make([]byte, batchOverhead)...) // filled in below
	for i := range batch {
		at := batch[i].ReceivedAt.UnixMilli()
		newest = max(newest, at)
		b.record = appendRecord(b.record[:0], &batch[i], cloudEvents, at-first, i)
		b.plain = binary.AppendVarint(b.plain, int64(len(b.record)))
		b.plain = append(b.plain, b.record...)
	}
	made, err := b.compressed(codec)
	if err != nil {
		return nil, err
	}
	epoch, sequence := p.epoch, p.next
	if p.id == anonymous {
		epoch, sequence = -1, -1
	}
	be := binary.BigEndian
	be.PutUint32(made, uint32(len(made)-batchAt))
	head := made[batchAt:]
	be.PutUint64(head, 0) // offset, for the broker to fill in
	be.PutUint32(head[8:], uint32(len(head)-12))
	be.PutUint32(head[12:], ^uint32(0)) // the leader's epoch, likewise
	head[16] = 2                        // format
	be.PutUint16(head[21:], uint16(codec))
	be.PutUint32(head[23:], uint32(len(batch)-1)) // the last record's offset
	be.PutUint64(head[27:], uint64(first))
	be.PutUint64(head[35:], uint64(newest))
	be.PutUint64(head[43:], uint64(p.id))
	be.PutUint16(head[51:], uint16(epoch))
	be.PutUint32(head[53:], uint32(sequence))
	be.PutUint32(head[57:], uint32(len(batch)))
	be.PutUint32(head[17:], crc32.Checksum(head[21:], castagnoli))
	return made, nil
}

// encoders bounds the batches being compressed: an encoder of zstd holds megabytes, and more than there are processors are
// no faster.
var encoders = make(chan struct{}, runtime.GOMAXPROCS(0))

// compressed returns the batch with its records packed; what stands before them is still to be filled in.
func (b *batchBuilder) compressed(codec compress.Compression) ([]byte, error) {
	if codec == compress.None {
		return b.plain, nil
	}
	encoders <- struct{}{}
	defer func() { <-encoders }()
	b.packed.Reset()
	b.packed.Write(b.plain[:batchOverhead])
	w := codec.Codec().NewWriter(&b.packed)
	_, err := w.Write(b.plain[batchOverhead:])
	err = errors.Join(err, w.Close()) // which writes the rest
	return b.packed.Bytes(), err
}
