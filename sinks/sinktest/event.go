package sinktest

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// NCSSecret is what the bodies of Event are signed with.
const NCSSecret = "sinktest-ncs-secret"

// Event is recording event n about entity: signed as Agora signs, with an id of its own for every (n, entity). All
// fields may be changed before use; after a change of the body call Sign.
func Event(n int, entity string) *relay.Event {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%s", n, entity))
	e := &relay.Event{
		Position:    journal.Position{Offset: uint64(n + 1)},
		ID:          ncs.EventID(sum[:16]),
		Info:        ncs.Info{ProductID: 3, Product: "cloud_recording", EventType: 42, Event: "recorder_slice_start", Category: "recorder", Known: true},
		Source:      "recording",
		Entity:      entity,
		ReceivedAt:  time.Date(2026, 11, 23, 12, 0, 0, 7_000_000, time.UTC).Add(time.Duration(n) * time.Second),
		ContentType: "application/json",
		Body: fmt.Appendf(nil, `{"noticeId":"2000001428:4330:%d","productId":3,"eventType":42,"notifyMs":1795435200007,"payload":`+
			`{"cname":"room","uid":"527841","sid":%q,"sequence":%d,"sendts":1795435200,"serviceType":1,`+
			`"details":{"msgName":"recorder_slice_start","startUtcMs":1795435199000,"discontinueUtcMs":1795435199000}}}`, n, entity, n),
	}
	Sign(e)
	return e
}

// Sign sets both signatures of e to those of its body.
func Sign(e *relay.Event) {
	e.SignatureV1 = Signature(sha1.New, e.Body)
	e.SignatureV2 = Signature(sha256.New, e.Body)
}

// Signature is what Agora computes over body with NCSSecret; sha1.New for Agora-Signature, sha256.New for
// Agora-Signature-V2.
func Signature(h func() hash.Hash, body []byte) string {
	mac := hmac.New(h, []byte(NCSSecret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Batch makes first attempts of events.
func Batch(events ...*relay.Event) []relay.Attempt {
	batch := make([]relay.Attempt, 0, len(events))
	for _, e := range events {
		batch = append(batch, relay.Attempt{Event: e, Number: 1})
	}
	return batch
}

// Received is one event as the far side got it. The zero value of a field means that it was absent.
type Received struct {
	ID         string
	Product    string
	Event      string
	EventType  string
	Category   string
	Entity     string // decoded, where the sink encodes it
	Source     string
	ReceivedAt string
	Replay     string
	Test       string // "true" or absent
	Body       []byte

	ContentType string
	SignatureV1 string
	SignatureV2 string

	Attempt        string // only sinks with Harness.CarriesAttempt
	IdempotencyKey string // only sinks with Harness.CarriesIdempotencyKey
	Traceparent    string // only sinks with Harness.CarriesTraceparent
}
