package kafkasink

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"sync"

	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay"
)

// Places in a record batch of Kafka's format 2, which in a request stands after the four bytes of its size. The length counts
// what follows it, the checksum likewise.
const (
	batchAt       = 4
	lengthAt      = batchAt + 8
	lengthFrom    = batchAt + 12
	checksumAt    = batchAt + 17
	checkedFrom   = batchAt + 21
	batchOverhead = batchAt + 61
)

// batchBuilder makes record batches, which kafka-go can do as well, but without naming their producer and at several times
// the cost. Its buffers are used again; what it returns is valid until then.
type batchBuilder struct {
	batch   bytes.Buffer
	record  []byte
	records []byte // all of them, where they are to be compressed
}

var builders = sync.Pool{New: func() any { return new(batchBuilder) }}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// build makes the batch of a producer's next request, with its size in front.
func (b *batchBuilder) build(p *producer, batch []relay.Attempt, codec compress.Compression, cloudEvents bool) ([]byte, error) {
	first, newest := batch[0].ReceivedAt.UnixMilli(), batch[0].ReceivedAt.UnixMilli()
	b.records = b.records[:0]
	for i := range batch {
		at := batch[i].ReceivedAt.UnixMilli()
		newest = max(newest, at)
		b.record = appendRecord(b.record[:0], &batch[i], cloudEvents, at-first, i)
		b.records = binary.AppendVarint(b.records, int64(len(b.record)))
		b.records = append(b.records, b.record...)
	}
	epoch, sequence := p.epoch, p.next
	if p.id == anonymous {
		epoch, sequence = -1, -1
	}
	head := make([]byte, 0, batchOverhead)
	head = append(head, make([]byte, lengthFrom)...)       // size, offset for the broker to fill, length
	head = binary.BigEndian.AppendUint32(head, ^uint32(0)) // leader epoch, likewise
	head = append(head, 2)                                 // format
	head = append(head, make([]byte, checkedFrom-checksumAt)...)
	head = binary.BigEndian.AppendUint16(head, uint16(codec))
	head = binary.BigEndian.AppendUint32(head, uint32(len(batch)-1)) // offset of the last record
	head = binary.BigEndian.AppendUint64(head, uint64(first))
	head = binary.BigEndian.AppendUint64(head, uint64(newest))
	head = binary.BigEndian.AppendUint64(head, uint64(p.id))
	head = binary.BigEndian.AppendUint16(head, uint16(epoch))
	head = binary.BigEndian.AppendUint32(head, uint32(sequence))
	head = binary.BigEndian.AppendUint32(head, uint32(len(batch)))
	b.batch.Reset()
	b.batch.Write(head)
	if err := b.compress(codec); err != nil {
		return nil, err
	}
	made := b.batch.Bytes()
	binary.BigEndian.PutUint32(made, uint32(len(made)-batchAt))
	binary.BigEndian.PutUint32(made[lengthAt:], uint32(len(made)-lengthFrom))
	binary.BigEndian.PutUint32(made[checksumAt:], crc32.Checksum(made[checkedFrom:], castagnoli))
	return made, nil
}

func (b *batchBuilder) compress(codec compress.Compression) error {
	if codec == compress.None {
		b.batch.Write(b.records)
		return nil
	}
	w := codec.Codec().NewWriter(&b.batch)
	if _, err := w.Write(b.records); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
