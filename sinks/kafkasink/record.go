package kafkasink

import (
	"encoding/binary"
	"net/url"
	"strconv"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn/batch"
)

const receivedAtFormat = "2006-01-02T15:04:05.000Z07:00"

// Key, value and headers of an event's record.

func key(a *relay.Attempt) []byte {
	if a.Entity == "" { // an empty key would be a key
		return nil
	}
	return []byte(a.Entity)
}

// value is never nil: a record without a value deletes its key from a compacted topic.
func value(a *relay.Attempt) []byte {
	if a.Body == nil {
		return []byte{}
	}
	return a.Body
}

// headers calls add for each header in turn.
func headers(a *relay.Attempt, cloudEvents bool, add func(key, value string)) {
	some := func(key, value string) {
		if value != "" {
			add(key, value)
		}
	}
	id, receivedAt := a.ID.String(), a.ReceivedAt.UTC().Format(receivedAtFormat)
	some("agora-signature", a.SignatureV1)
	some("agora-signature-v2", a.SignatureV2)
	some("content-type", a.ContentType)
	some("ncs-event-id", id)
	some("ncs-product", a.Info.Product)
	some("ncs-event", a.Info.Event)
	some("ncs-event-type", strconv.Itoa(a.Info.EventType))
	some("ncs-category", a.Info.Category)
	some("ncs-source", a.Source)
	some("ncs-received-at", receivedAt)
	if a.Replay != 0 {
		some("ncs-replay", strconv.FormatUint(uint64(a.Replay), 10))
	}
	if a.Test {
		some("ncs-test", "true")
	}
	some("traceparent", a.Traceparent)
	if cloudEvents {
		// Binary mode of the CloudEvents Kafka binding; its datacontenttype is the header content-type. The time is that
		// of the relay, because not every product's body has one.
		some("ce_specversion", "1.0")
		some("ce_id", id)
		some("ce_source", "/ncs/"+url.PathEscape(a.Source)) // a URI reference
		some("ce_type", "agora.ncs."+a.Info.Product+"."+a.Info.Event)
		some("ce_time", receivedAt)
		some("ce_subject", a.Entity)
	}
}

// appendRecord appends the record of an event to dst, in Kafka's format 2 and without the length that stands before it. Its
// time and offset are told from those of the first record of the batch.
func appendRecord(dst []byte, a *relay.Attempt, cloudEvents bool, later int64, offset int) []byte {
	dst = append(dst, 0) // attributes
	dst = binary.AppendVarint(dst, later)
	dst = binary.AppendVarint(dst, int64(offset))
	dst = batch.AppendBytes(dst, key(a))
	dst = batch.AppendBytes(dst, value(a))
	countAt, count := len(dst), 0
	dst = append(dst, 0)
	headers(a, cloudEvents, func(key, value string) {
		count++
		dst = binary.AppendVarint(dst, int64(len(key)))
		dst = append(dst, key...)
		dst = binary.AppendVarint(dst, int64(len(value)))
		dst = append(dst, value...)
	})
	binary.PutVarint(dst[countAt:], int64(count)) // one byte: there are less than 64
	return dst
}

// fitting tells how many events at the head of batch go into a request of limit bytes; at least one, all if limit is 0.
func fitting(batch []relay.Attempt, limit int, cloudEvents bool) int {
	if limit == 0 {
		return len(batch)
	}
	size := batchOverhead
	for i := range batch {
		size += maxRecordSize(&batch[i], cloudEvents)
		if i > 0 && size > limit {
			return i
		}
	}
	return len(batch)
}

// maxRecordSize bounds the bytes of an event's record before compression. What it adds for the names of headers, short
// values and lengths is a little more than they have.
func maxRecordSize(a *relay.Attempt, cloudEvents bool) int {
	names := len(a.Info.Product) + len(a.Info.Event)
	size := len(a.Body) + len(a.Entity) + len(a.ContentType) + len(a.SignatureV1) + len(a.SignatureV2) + len(a.Traceparent) +
		names + len(a.Info.Category) + len(a.Source) + 400
	if cloudEvents {
		size += len(a.Entity) + names + 3*len(a.Source) + 250
	}
	return size
}
