package kafkajournal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// offset is the Offset of a journal.Position: the offset in the inbox plus one, so that 0 is before everything.
type offset = ledger.Offset

// ShardOf is the shard of an event: FNV-1a, 64 bits, of the entity, or of the event id where there is no entity, modulo the
// number of shards. It is a part of the format.
func ShardOf(entity string, id [16]byte, shards int) uint32 {
	h := fnv.New64a()
	if entity != "" {
		h.Write([]byte(entity))
	} else {
		h.Write(id[:])
	}
	return uint32(h.Sum64() % uint64(shards))
}

// A record of the inbox, and of the events, has the exact body as its value, and the rest in headers, as text. Headers that a
// version does not know are kept. A header that is empty is left out.
const (
	headerFormat      = "ncs-format"
	headerID          = "ncs-event-id"    // hex
	headerKey         = "ncs-key"         // hex; what copies are recognised by
	headerTime        = "ncs-received-at" // ms since 1970
	headerSource      = "ncs-source"
	headerProduct     = "ncs-product-id"
	headerType        = "ncs-event-type"
	headerEntity      = "ncs-entity"
	headerSinks       = "ncs-sinks" // names with spaces between them
	headerQuarantine  = "ncs-quarantine"
	headerContentType = "content-type"
	headerSignature1  = "agora-signature"
	headerSignature2  = "agora-signature-v2"
	headerTrace       = "ncs-span"  // span id and flags, hex; the trace id is the event id
	headerInbox       = "ncs-inbox" // in events: the offset in the inbox

	format = "1"
)

// errNewer is the error of a record that a newer version has written.
var errNewer = errors.New("written by a newer version of ncs-relay, whose format this version does not know: install the version that the other replicas have")

// encodeRecord makes the record of the inbox.
func encodeRecord(r *journal.Record) kafkalog.Record {
	rec := kafkalog.Record{Value: append([]byte{}, r.Body...), Headers: make([]kafkalog.Header, 0, 14)}
	add := func(key, value string) {
		if value != "" {
			rec.Headers = append(rec.Headers, kafkalog.Header{Key: key, Value: []byte(value)})
		}
	}
	add(headerFormat, format)
	add(headerID, hex.EncodeToString(r.ID[:]))
	add(headerKey, hex.EncodeToString(r.Key[:]))
	add(headerTime, strconv.FormatInt(r.Time.UnixMilli(), 10))
	add(headerSource, r.Source)
	add(headerProduct, strconv.Itoa(r.ProductID))
	add(headerType, strconv.Itoa(r.EventType))
	add(headerEntity, r.Entity)
	add(headerSinks, strings.Join(r.Sinks, " "))
	add(headerQuarantine, r.Quarantine)
	add(headerContentType, r.ContentType)
	add(headerSignature1, r.SignatureV1)
	add(headerSignature2, r.SignatureV2)
	if r.SpanID != [8]byte{} || r.TraceFlags != 0 {
		add(headerTrace, hex.EncodeToString(append(r.SpanID[:len(r.SpanID):len(r.SpanID)], r.TraceFlags)))
	}
	return rec
}

// entry is a record of the inbox or of the events that was understood. Its Record must not be changed.
type entry struct {
	at  int64           // its offset in the topic that it was read from
	pos offset          // in the journal
	rec *journal.Record // Stored is the broker's
}

// wants asks about a record without its body.
func wants(want func(header *journal.Record) bool, r *journal.Record) bool {
	header := *r
	header.Body = nil
	return want(&header)
}

// decodeInbox reads a record of the inbox of a shard. What cannot be read is quarantined.
func decodeInbox(shard uint32, rec *kafkalog.Record) (entry, error) {
	r, _, err := decodeRecord(rec)
	if errors.Is(err, errNewer) {
		return entry{}, err
	}
	if err != nil {
		r = unreadable(shard, rec, err)
	}
	return newEntry(shard, rec, r, offset(rec.Offset+1)), nil
}

// decodeEvent reads a record of the events of a shard. One that no owner has written has the position 0, which rule E never accepts.
func decodeEvent(shard uint32, rec *kafkalog.Record) (entry, error) {
	r, inbox, err := decodeRecord(rec)
	if errors.Is(err, errNewer) {
		return entry{}, err
	}
	if err != nil {
		r = unreadable(shard, rec, err)
	}
	return newEntry(shard, rec, r, offset(inbox+1)), nil
}

func newEntry(shard uint32, rec *kafkalog.Record, r *journal.Record, pos offset) entry {
	r.Position = journal.Position{Shard: shard, Offset: uint64(pos)}
	return entry{at: rec.Offset, pos: pos, rec: r}
}

// unreadable is the event of a record that is not ours, or damaged.
func unreadable(shard uint32, rec *kafkalog.Record, err error) *journal.Record {
	sum := sha256.Sum256(fmt.Appendf(nil, "unreadable %d %s", shard, rec.Value))
	r := &journal.Record{Time: rec.Time, Stored: rec.Time, Sinks: []string{relay.Unroutable}, Quarantine: "the record in the inbox cannot be read: " + err.Error(), Body: rec.Value}
	copy(r.ID[:], sum[:])
	copy(r.Key[:], sum[16:])
	return r
}

// decodeRecord returns a record without its position, and the offset in the inbox that a record of the events names, or -1.
func decodeRecord(rec *kafkalog.Record) (r *journal.Record, inbox int64, err error) {
	inbox = -1
	r = &journal.Record{Body: append([]byte{}, rec.Value...), Stored: rec.Time} // it outlives what was read with it
	known := false
	for _, h := range rec.Headers {
		var bad error
		text := string(h.Value)
		switch h.Key {
		case headerFormat:
			if known = text == format; !known {
				return nil, inbox, errNewer
			}
		case headerID:
			bad = decodeHex(r.ID[:], text)
		case headerKey:
			bad = decodeHex(r.Key[:], text)
		case headerTime:
			var ms int64
			ms, bad = strconv.ParseInt(text, 10, 64)
			r.Time = time.UnixMilli(ms)
		case headerSource:
			r.Source = text
		case headerProduct:
			r.ProductID, bad = strconv.Atoi(text)
		case headerType:
			r.EventType, bad = strconv.Atoi(text)
		case headerEntity:
			r.Entity = text
		case headerSinks:
			r.Sinks = strings.Split(text, " ")
		case headerQuarantine:
			r.Quarantine = text
		case headerContentType:
			r.ContentType = text
		case headerSignature1:
			r.SignatureV1 = text
		case headerSignature2:
			r.SignatureV2 = text
		case headerTrace:
			var span [9]byte
			bad = decodeHex(span[:], text)
			copy(r.SpanID[:], span[:])
			r.TraceFlags = span[8]
		case headerInbox:
			if inbox, bad = strconv.ParseInt(text, 10, 64); bad != nil || inbox < 0 {
				inbox = -1
			}
		}
		if bad != nil && err == nil {
			err = fmt.Errorf("header %s: %w", h.Key, bad)
		}
	}
	if err == nil && !known {
		err = fmt.Errorf("no header %s", headerFormat)
	}
	return r, inbox, err
}

func decodeHex(dst []byte, text string) error {
	if hex.DecodedLen(len(text)) != len(dst) || len(text)%2 == 1 {
		return fmt.Errorf("%d characters where there should be %d", len(text), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, []byte(text))
	return err
}

// eventOf is the record of the events for one of the inbox. Its headers are kept, those that are not known, too.
func eventOf(rec *kafkalog.Record, e entry) kafkalog.Record {
	event := kafkalog.Record{Value: rec.Value, Headers: slices.Concat(rec.Headers, []kafkalog.Header{{Key: headerInbox, Value: strconv.AppendInt(nil, int64(e.pos)-1, 10)}})}
	if event.Value == nil {
		event.Value = []byte{}
	}
	if e.rec.Entity != "" {
		event.Key = []byte(e.rec.Entity)
	}
	return event
}

// recordOverhead is more than what the headers' names and numbers take of a batch with one record of the inbox.
const recordOverhead = 1024

// sizeOf bounds what a record takes before compression.
func sizeOf(r *journal.Record) int {
	n := recordOverhead + len(r.Body) + 2*len(r.Entity) + len(r.Source) + len(r.Quarantine) + len(r.ContentType) + len(r.SignatureV1) + len(r.SignatureV2)
	for _, name := range r.Sinks {
		n += len(name) + 1
	}
	return n
}

func owedTo(r *journal.Record, sink string) bool { return slices.Contains(r.Sinks, sink) }
