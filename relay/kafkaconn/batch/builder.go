// Package batch makes Kafka's record batches, and brings them to the leaders of their partitions, for those who write
// partitions as idempotent producers.
package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

// A record batch of Kafka's format 2 begins with a head of 61 bytes. In a request its size stands before it.
const (
	SizeBytes = 4
	Overhead  = SizeBytes + 61
)

// Anonymous is the producer id of batches that are not known when they are repeated.
const Anonymous = -1

// Head is what a batch says besides its records.
type Head struct {
	Producer      int64 // its id, or Anonymous
	Epoch         int16
	Sequence      int32 // of the first record
	First, Newest int64 // times of records: of the first, from which those of all are told, and the latest; in ms since 1970
}

// Builder makes record batches, which kafka-go can do as well, but without naming their producer and at several times the
// cost. Its buffers are used again; what it returns is valid until then. It is not for concurrent use.
type Builder struct {
	plain  []byte
	packed bytes.Buffer
	count  int
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Reset begins a batch.
func (b *Builder) Reset() {
	b.plain = append(b.plain[:0], make([]byte, Overhead)...) // filled in by Build
	b.count = 0
}

// Count is how many records the batch has, and so the offset in it of the next.
func (b *Builder) Count() int { return b.count }

// Add appends a record in Kafka's format 2, without the length that stands before it.
func (b *Builder) Add(record []byte) {
	b.plain = binary.AppendVarint(b.plain, int64(len(record)))
	b.plain = append(b.plain, record...)
	b.count++
}

// Build returns the batch with its size in front.
func (b *Builder) Build(h Head, codec compress.Compression) ([]byte, error) {
	made, err := b.compressed(codec)
	if err != nil {
		return nil, err
	}
	if h.Producer == Anonymous {
		h.Epoch, h.Sequence = -1, -1
	}
	be := binary.BigEndian
	be.PutUint32(made, uint32(len(made)-SizeBytes))
	head := made[SizeBytes:]
	be.PutUint64(head, 0) // offset, for the broker to fill in
	be.PutUint32(head[8:], uint32(len(head)-12))
	be.PutUint32(head[12:], ^uint32(0)) // the leader's epoch, likewise
	head[16] = 2                        // format
	be.PutUint16(head[21:], uint16(codec))
	be.PutUint32(head[23:], uint32(b.count-1)) // the last record's offset
	be.PutUint64(head[27:], uint64(h.First))
	be.PutUint64(head[35:], uint64(h.Newest))
	be.PutUint64(head[43:], uint64(h.Producer))
	be.PutUint16(head[51:], uint16(h.Epoch))
	be.PutUint32(head[53:], uint32(h.Sequence))
	be.PutUint32(head[57:], uint32(b.count))
	be.PutUint32(head[17:], crc32.Checksum(head[21:], castagnoli))
	return made, nil
}

// AppendBytes appends a key, a value or the value of a header to a record; nil is null.
func AppendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// LostIdentity reports whether a broker does not know the producer any more, or not in this state, and did not write what
// came from it.
func LostIdentity(err error) bool {
	var code kafka.Error
	errors.As(err, &code)
	switch code {
	case kafka.OutOfOrderSequenceNumber, kafka.InvalidProducerEpoch, kafka.InvalidProducerIDMapping, kafka.UnknownProducerId, kafka.ProducerFenced:
		return true
	}
	return false
}

// encoders bounds the batches being compressed: an encoder of zstd holds megabytes, and more than there are processors are
// no faster.
var encoders = make(chan struct{}, runtime.GOMAXPROCS(0))

// compressed returns the batch with its records packed; what stands before them is still to be filled in.
func (b *Builder) compressed(codec compress.Compression) ([]byte, error) {
	if codec == compress.None {
		return b.plain, nil
	}
	encoders <- struct{}{}
	defer func() { <-encoders }()
	b.packed.Reset()
	b.packed.Write(b.plain[:Overhead])
	w := codec.Codec().NewWriter(&b.packed)
	_, err := w.Write(b.plain[Overhead:])
	err = errors.Join(err, w.Close()) // which writes the rest
	return b.packed.Bytes(), err
}
