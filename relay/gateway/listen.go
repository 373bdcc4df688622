package gateway

import (
	"fmt"
	"slices"

	"ncs-relay/relay"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
)

// ErrListeners says that there are as many listeners as may be.
var ErrListeners = ingress.ErrListeners

// Heard is a copy of an accepted event for somebody who listens.
type Heard struct {
	EventInfo
	ProductID   int      `json:"product_id"`
	EventType   int      `json:"event_type"`
	Category    string   `json:"category"`
	Sinks       []string `json:"sinks"` // that are owed it
	ContentType string   `json:"content_type,omitempty"`
	SignatureV1 string   `json:"agora_signature,omitempty"`
	SignatureV2 string   `json:"agora_signature_v2,omitempty"`
	Content
}

// Listen gives copies of the events that a filter selects from now on, those owed to its sink if it names one. What comes in at
// this process is heard, once, when it is accepted: no retries and no replays.
func (g *Gateway) Listen(f relay.Filter) (*ingress.Listener, error) {
	if f.Sink != "" && !g.sinks.Has(f.Sink) {
		return nil, fmt.Errorf("%w: %q", ErrNoSink, f.Sink)
	}
	match, err := f.Compile(g.Catalogue())
	if err != nil {
		return nil, err
	}
	return g.ingress.Listen(func(r *journal.Record) bool {
		return (f.Sink == "" || slices.Contains(r.Sinks, f.Sink)) && match(r)
	})
}

// Heard describes an event that a listener got.
func (g *Gateway) Heard(r *journal.Record) Heard {
	i := g.Catalogue().Lookup(r.ProductID, r.EventType)
	return Heard{EventInfo: g.infoOf(r), ProductID: i.ProductID, EventType: i.EventType, Category: i.Category, Sinks: r.Sinks,
		ContentType: r.ContentType, SignatureV1: r.SignatureV1, SignatureV2: r.SignatureV2, Content: ContentOf(r.Body)}
}
