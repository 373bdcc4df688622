package diskjournal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// position orders the records on disk; 0 is before everything. Some numbers are lost with appends that failed.
type position = ledger.Offset

type (
	decoder       = ledger.Decoder
	savedDelivery = ledger.Delivery
)

// at is a position as others know it: there is one shard.
func at(p position) journal.Position { return journal.Position{Offset: uint64(p)} }

// in is the opposite of at; nothing is at a position of another shard.
func in(p journal.Position) position {
	if p.Shard != 0 {
		return 0
	}
	return position(p.Offset)
}

// sinkID stands for a sink's name on disk. It is never used for another name.
type sinkID uint32

// sinkNames are the names of the sinks from number 1 on. A list is never changed, but replaced by a longer one.
type sinkNames []string

// of is the name behind a number, and for one that is not known, in a journal whose state is lost, a word that is no sink's name.
func (n sinkNames) of(id sinkID) string {
	if id == 0 || int(id) > len(n) {
		return fmt.Sprintf("#%d", id)
	}
	return n[id-1]
}

// On disk a record is a header of fixed size and a payload, padded with zeros to a multiple of recordAlign so that
// a search for the next record after damage need not look at every byte.
//
//	0  CRC-32C of the segment's salt and bytes 4..32
//	4  length of the payload
//	8  CRC-32C of the payload
//	12 zero
//	16 position
//	24 synced: the offset up to which the segment was durable when this record was written
//
// The salt is random per segment: a body that contains the image of a record, by chance or by intent, is never taken
// for one. All numbers are little endian.
const (
	recordHeader = 32
	recordAlign  = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type frame struct {
	length     uint32
	payloadCRC uint32
	pos        position
	synced     int64
}

// size is what the record takes in its segment.
func (f frame) size() int64 { return frameSize(int(f.length)) }

func frameSize(payload int) int64 {
	return (int64(recordHeader) + int64(payload) + recordAlign - 1) &^ (recordAlign - 1)
}

func (f frame) put(b []byte, salt uint64) {
	binary.LittleEndian.PutUint32(b[4:], f.length)
	binary.LittleEndian.PutUint32(b[8:], f.payloadCRC)
	binary.LittleEndian.PutUint32(b[12:], 0)
	binary.LittleEndian.PutUint64(b[16:], uint64(f.pos))
	binary.LittleEndian.PutUint64(b[24:], uint64(f.synced))
	binary.LittleEndian.PutUint32(b, frameCRC(b, salt))
}

// parseFrame reads a record header and reports whether it is one of the segment with this salt.
func parseFrame(b []byte, salt uint64) (frame, bool) {
	if len(b) < recordHeader {
		return frame{}, false
	}
	f := frame{
		length:     binary.LittleEndian.Uint32(b[4:]),
		payloadCRC: binary.LittleEndian.Uint32(b[8:]),
		pos:        position(binary.LittleEndian.Uint64(b[16:])),
		synced:     int64(binary.LittleEndian.Uint64(b[24:])),
	}
	if f.length < payloadFixed || f.length > maxPayload { // most bytes fail here, before the sum is made
		return frame{}, false
	}
	if binary.LittleEndian.Uint32(b) != frameCRC(b, salt) {
		return frame{}, false
	}
	return f, true
}

func frameCRC(b []byte, salt uint64) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, b[4:recordHeader])
}

// The payload starts with what readers look at without decoding the rest:
//
//	0 version, 1 id, 17 key, 33 time in ms, 41 span id, 49 trace flags, 50 product, event type, sinks (count, ids);
//	then the strings (count of bytes, bytes), then the body to the end.
const (
	payloadVersion = 1
	payloadFixed   = 50
	maxPayload     = 1 << 30
)

// appendPayload encodes everything but the position.
func appendPayload(b []byte, r *journal.Record, sinks []sinkID) []byte {
	b = append(b, payloadVersion)
	b = append(b, r.ID[:]...)
	b = append(b, r.Key[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Time.UnixMilli()))
	b = append(b, r.SpanID[:]...)
	b = append(b, r.TraceFlags)
	b = binary.AppendVarint(b, int64(r.ProductID))
	b = binary.AppendVarint(b, int64(r.EventType))
	b = binary.AppendUvarint(b, uint64(len(sinks)))
	for _, id := range sinks {
		b = binary.AppendUvarint(b, uint64(id))
	}
	for _, s := range [...]string{r.Source, r.Entity, r.Quarantine, r.ContentType, r.SignatureV1, r.SignatureV2} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return append(b, r.Body...)
}

func payloadID(p []byte) (id [16]byte)   { copy(id[:], p[1:]); return id }
func payloadKey(p []byte) (key [16]byte) { copy(key[:], p[17:]); return key }
func payloadTime(p []byte) int64         { return int64(binary.LittleEndian.Uint64(p[33:])) }

// deliveryOf is a record that was handed out.
func deliveryOf(pos position, payload []byte, size int64) savedDelivery {
	return savedDelivery{At: pos, Debt: ledger.Debt{Size: size, Received: payloadTime(payload)}}
}

// payloadSinks calls fn for each sink the record is owed to.
func payloadSinks(p []byte, fn func(sinkID)) {
	d := decoder{B: p[payloadFixed:]}
	d.Varint()
	d.Varint()
	for n := d.Uvarint(); n > 0 && d.Err == nil; n-- {
		if id := d.Uvarint(); d.Err == nil {
			fn(sinkID(id))
		}
	}
}

func payloadOwed(p []byte, sink sinkID) (owed bool) {
	payloadSinks(p, func(id sinkID) { owed = owed || id == sink })
	return owed
}

// decodePayload returns a record that shares no memory with p.
func (n sinkNames) decodePayload(pos position, p []byte) (*journal.Record, error) {
	r, body, err := n.decodeHeader(pos, p)
	if err != nil {
		return nil, err
	}
	r.Body = append([]byte{}, body...)
	return r, nil
}

// decodeHeader returns a record without its body, which is a part of p.
func (n sinkNames) decodeHeader(pos position, p []byte) (*journal.Record, []byte, error) {
	if len(p) < payloadFixed {
		return nil, nil, fmt.Errorf("position %d: %w", pos, ledger.ErrMalformed)
	}
	if p[0] != payloadVersion {
		return nil, nil, fmt.Errorf("position %d: record version %d is not known: %w", pos, p[0], ledger.ErrMalformed)
	}
	r := &journal.Record{Position: at(pos), ID: payloadID(p), Key: payloadKey(p), Time: time.UnixMilli(payloadTime(p)), TraceFlags: p[49]}
	copy(r.SpanID[:], p[41:])
	d := decoder{B: p[payloadFixed:]}
	r.ProductID, r.EventType = int(d.Varint()), int(d.Varint())
	owed := d.Uvarint()
	if owed > uint64(len(d.B)) {
		return nil, nil, fmt.Errorf("position %d: %w", pos, ledger.ErrMalformed)
	}
	if owed > 0 {
		r.Sinks = make([]string, 0, owed)
	}
	for ; owed > 0; owed-- {
		id := d.Uvarint()
		if id > math.MaxUint32 {
			return nil, nil, fmt.Errorf("position %d: %w", pos, ledger.ErrMalformed)
		}
		r.Sinks = append(r.Sinks, n.of(sinkID(id)))
	}
	for _, s := range [...]*string{&r.Source, &r.Entity, &r.Quarantine, &r.ContentType, &r.SignatureV1, &r.SignatureV2} {
		*s = d.Text()
	}
	if d.Err != nil {
		return nil, nil, fmt.Errorf("position %d: %w", pos, d.Err)
	}
	return r, d.B, nil
}
