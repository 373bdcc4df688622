package kafkasink

import (
	"net/url"
	"strconv"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
)

const receivedAtFormat = "2006-01-02T15:04:05.000Z07:00"

// records makes the records of a batch, anew for each request: kafka-go reads keys and values as streams, which are empty
// the second time.
func records(batch []relay.Attempt, cloudEvents bool) []kafka.Record {
	made := make([]kafka.Record, len(batch))
	for i := range batch {
		made[i] = record(&batch[i], cloudEvents)
	}
	return made
}

func record(a *relay.Attempt, cloudEvents bool) kafka.Record {
	body := a.Body
	if body == nil {
		body = []byte{} // a record without a value deletes its key from a compacted topic
	}
	made := kafka.Record{
		Time:    a.ReceivedAt,
		Value:   kafka.NewBytes(body),
		Headers: headers(a, cloudEvents),
	}
	if a.Entity != "" { // an empty key would be a key
		made.Key = kafka.NewBytes([]byte(a.Entity))
	}
	return made
}

func headers(a *relay.Attempt, cloudEvents bool) []kafka.Header {
	made := make([]kafka.Header, 0, 18)
	add := func(key, value string) {
		if value != "" {
			made = append(made, kafka.Header{Key: key, Value: []byte(value)})
		}
	}
	id, receivedAt := a.ID.String(), a.ReceivedAt.UTC().Format(receivedAtFormat)
	add("agora-signature", a.SignatureV1)
	add("agora-signature-v2", a.SignatureV2)
	add("content-type", a.ContentType)
	add("ncs-event-id", id)
	add("ncs-product", a.Info.Product)
	add("ncs-event", a.Info.Event)
	add("ncs-event-type", strconv.Itoa(a.Info.EventType))
	add("ncs-category", a.Info.Category)
	add("ncs-source", a.Source)
	add("ncs-received-at", receivedAt)
	if a.Replay != 0 {
		add("ncs-replay", strconv.FormatUint(uint64(a.Replay), 10))
	}
	if a.Test {
		add("ncs-test", "true")
	}
	add("traceparent", a.Traceparent)
	if cloudEvents {
		// Binary mode of the CloudEvents Kafka binding; its datacontenttype is the header content-type. The time is that
		// of the relay, because not every product's body has one.
		add("ce_specversion", "1.0")
		add("ce_id", id)
		add("ce_source", "/ncs/"+url.PathEscape(a.Source)) // a URI reference
		add("ce_type", "agora.ncs."+a.Info.Product+"."+a.Info.Event)
		add("ce_time", receivedAt)
		add("ce_subject", a.Entity)
	}
	return made
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
