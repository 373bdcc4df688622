package deliver

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// eventOf makes the event of a journal record. Product, event and category come from the catalogue of today.
func eventOf(r *journal.Record) *relay.Event {
	return &relay.Event{
		Position:    r.Position,
		ID:          r.ID,
		Info:        ncs.Lookup(r.ProductID, r.EventType),
		Source:      r.Source,
		Entity:      r.Entity,
		ReceivedAt:  r.Time,
		ContentType: r.ContentType,
		SignatureV1: r.SignatureV1,
		SignatureV2: r.SignatureV2,
		Body:        r.Body,
		Quarantine:  r.Quarantine,
		Trace: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: r.ID, SpanID: r.SpanID, TraceFlags: trace.TraceFlags(r.TraceFlags), Remote: true}),
	}
}

// sizeOf is what an event costs a dispatcher's window.
func sizeOf(ev *relay.Event) int { return len(ev.Body) + 512 }

// refuser is the sink of quarantined bodies: each becomes a dead letter with the reason of its quarantine.
type refuser struct{}

func (refuser) Lane(*relay.Event) relay.Lane { return relay.Lane{Key: relay.Unroutable} }
func (refuser) MaxBatch() (int, int)         { return 1, 0 }
func (refuser) Close() error                 { return nil }
func (refuser) Send(_ context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	return 0, relay.Permanent(relay.Because(relay.ReasonQuarantine, errors.New(batch[0].Quarantine)))
}
