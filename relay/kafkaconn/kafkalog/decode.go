package kafkalog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/segmentio/kafka-go/compress"
)

// Corrupt is the error of reading a batch that is not what a broker can have been given. The records before it can be read.
type Corrupt struct {
	Offset int64 // where the batch begins, or what was asked for if that is in it
	Err    error
}

func (e *Corrupt) Error() string { return fmt.Sprintf("the batch at offset %d: %v", e.Offset, e.Err) }

// Unwrap returns what is wrong with it.
func (e *Corrupt) Unwrap() error { return e.Err }

// Of a batch of Kafka's format 2.
const (
	sizeEnd  = 12 // what the size counts begins here: offset and size are not in it
	checkEnd = 21 // and what the checksum covers, here
	headSize = 61

	codecBits     = 0x07
	appendTimeBit = 0x08 // the time of all records is that of appending
	controlBit    = 0x20 // it says how a transaction ended

	smallestRecord = 7 // bytes, with its length: one for each field
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// decode reads the batches that a fetch brought, from offset on, until they are more than most bytes unpacked; there is
// always room for one. The last may be cut off. next is the offset to go on from.
func decode(raw []byte, offset int64, most int) (records []Record, next int64, err error) {
	d := decoder{next: offset, names: make(map[string]string)}
	for len(raw) > 0 && d.unpacked <= most {
		size := batchSize(raw)
		if size > len(raw) {
			break
		}
		if size < headSize {
			return d.done(fmt.Errorf("its size is %d", size))
		}
		if err := d.batch(raw[:size]); err != nil {
			return d.done(err)
		}
		raw = raw[size:]
	}
	if d.next == offset && len(raw) > 0 {
		return d.done(fmt.Errorf("it is cut off after %d bytes", len(raw)))
	}
	return d.records, d.next, nil
}

// batchSize is how many bytes the batch at the head of raw has; more than there are if it is cut off.
func batchSize(raw []byte) int {
	if len(raw) < sizeEnd {
		return sizeEnd
	}
	return sizeEnd + int(int32(binary.BigEndian.Uint32(raw[sizeEnd-4:])))
}

type decoder struct {
	records  []Record
	next     int64             // the offset after all that was read
	unpacked int               // bytes
	names    map[string]string // of headers: there are few, and many records
}

// done returns what was read before a batch that is corrupt. Whoever goes on from there meets it first.
func (d *decoder) done(err error) ([]Record, int64, error) {
	if len(d.records) > 0 {
		return d.records, d.next, nil
	}
	return nil, d.next, &Corrupt{d.next, err}
}

// head is what a batch says of its records.
type head struct {
	base, last int64 // offsets of the first and the last record, which compaction may have removed
	codec      compress.Compression
	appendTime bool
	control    bool
	first, max int64 // times in ms since 1970; -1 = none
	count      int
}

func parseHead(b []byte) (h head, err error) {
	be := binary.BigEndian
	if format := b[16]; format != 2 {
		return h, fmt.Errorf("its format is %d, and only 2 is known", format)
	}
	if sum := crc32.Checksum(b[checkEnd:], castagnoli); sum != be.Uint32(b[17:]) {
		return h, fmt.Errorf("its checksum is %08x, and it says %08x", sum, be.Uint32(b[17:]))
	}
	attributes := be.Uint16(b[21:])
	span, count := int32(be.Uint32(b[23:])), int32(be.Uint32(b[57:]))
	h = head{
		base:       int64(be.Uint64(b)),
		codec:      compress.Compression(attributes & codecBits),
		appendTime: attributes&appendTimeBit != 0,
		control:    attributes&controlBit != 0,
		first:      int64(be.Uint64(b[27:])),
		max:        int64(be.Uint64(b[35:])),
		count:      int(count),
	}
	h.last = h.base + int64(span)
	if h.base < 0 || span < 0 || h.last < h.base || count < 0 || int64(count) > int64(span)+1 {
		return h, fmt.Errorf("it has %d records from %d to %d", count, h.base, h.last)
	}
	return h, nil
}

// batch reads a whole batch. What is wrong with it leaves d as it was.
func (d *decoder) batch(b []byte) error {
	h, err := parseHead(b)
	if err != nil {
		return err
	}
	if h.last < d.next || h.control {
		d.next = max(d.next, h.last+1)
		return nil
	}
	payload, err := unpack(h.codec, b[headSize:])
	if err != nil {
		return fmt.Errorf("unpack %s: %w", h.codec, err)
	}
	if h.count > len(payload)/smallestRecord {
		return fmt.Errorf("it says that %d bytes are %d records", len(payload), h.count)
	}
	before := len(d.records)
	if err := d.all(h, payload); err != nil {
		d.records = d.records[:before]
		return err
	}
	d.next = h.last + 1
	d.unpacked += len(payload)
	return nil
}

func (d *decoder) all(h head, payload []byte) error {
	f := fields{rest: payload}
	before := int64(-1)
	for i := range h.count {
		at, record := d.record(h, f.bytes())
		if f.bad || at <= before || h.base+at > h.last {
			return fmt.Errorf("record %d of %d is none", i+1, h.count)
		}
		before = at
		if record.Offset >= d.next {
			d.records = append(d.records, record)
		}
	}
	if len(f.rest) > 0 {
		return fmt.Errorf("%d bytes follow its records", len(f.rest))
	}
	return nil
}

// record reads one record; at is its offset in the batch, -1 if it is none.
func (d *decoder) record(h head, b []byte) (at int64, r Record) {
	f := fields{rest: b}
	f.take(1) // attributes, of which there are none
	later := f.varint()
	at = f.varint()
	r = Record{Offset: h.base + at, Time: h.time(later), Key: f.bytes(), Value: f.bytes()}
	count := f.varint()
	if count < 0 || count > int64(len(f.rest))/2 { // each has two lengths
		return -1, r
	}
	if count > 0 {
		r.Headers = make([]Header, count)
	}
	for i := range r.Headers {
		r.Headers[i] = Header{Key: d.name(f.bytes()), Value: f.bytes()}
	}
	if f.bad || len(f.rest) > 0 {
		return -1, r
	}
	return at, r
}

func (d *decoder) name(b []byte) string {
	name, known := d.names[string(b)] // which takes no memory
	if !known {
		name = string(b)
		d.names[name] = name
	}
	return name
}

func (h head) time(later int64) time.Time {
	at := h.first + later
	if h.appendTime {
		at = h.max
	}
	if at < 0 {
		return time.Time{}
	}
	return time.UnixMilli(at)
}

// fields are what is left of a record.
type fields struct {
	rest []byte
	bad  bool // something was longer than the rest, or no number; all that follows is zero
}

func (f *fields) take(n int64) []byte {
	if f.bad || n < 0 || n > int64(len(f.rest)) {
		f.bad, f.rest = true, nil
		return nil
	}
	taken := f.rest[:n:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) varint() int64 {
	n, size := binary.Varint(f.rest)
	if size <= 0 {
		f.bad, f.rest = true, nil
		return 0
	}
	f.rest = f.rest[size:]
	return n
}

// bytes reads bytes with their length in front; nil = null.
func (f *fields) bytes() []byte {
	n := f.varint()
	if n == -1 && !f.bad {
		return nil
	}
	return f.take(n)
}
