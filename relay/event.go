// Package relay holds the words that the parts of the relay share: events, sinks and their lanes, why an attempt failed, names
// and secrets. Whoever writes a sink needs this package and nothing of the others.
// Sinks know nothing of retries, order or duplicates.
package relay

import (
	"time"

	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// Event is a verified notification that was journaled: what sinks deliver. It is read only; sinks of several lanes
// share its Body.
type Event struct {
	Position   journal.Position
	ID         ncs.EventID
	Info       ncs.Info
	Source     string
	Entity     string // unit of order; "" = none
	ReceivedAt time.Time
	StoredAt   time.Time // the same by this process's clock; others may have received it

	ContentType string // as Agora sent them; "" = header absent
	SignatureV1 string
	SignatureV2 string
	Body        []byte // byte for byte what Agora sent

	Quarantine string            // why the body was not understood; "" for an ordinary event
	Trace      trace.SpanContext // of the call that was accepted; its trace id is ID
}

// Attempt is one try to deliver one event to one sink.
type Attempt struct {
	*Event
	Number      int    // from 1
	Replay      uint32 // number of the replay; 0 = ordinary delivery
	Traceparent string // W3C traceparent to send along; "" = send none
	Test        bool   // a sample that an operator sends to try the sink out; receivers are told
}
