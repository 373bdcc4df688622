package gateway

import (
	"context"
	"errors"
	"slices"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/trail"
)

// Life is what is known of an event: how its deliveries stand, why it went there, and what has happened to it.
type Life struct {
	EventInfo
	Deliveries []DeliveryLife `json:"deliveries"`
	Routing    *Routing       `json:"routing,omitempty"` // nil: quarantined
	Trail      []trail.Entry  `json:"trail"`             // copies and attempts, the oldest first
}

// Routing is what the rules of today say of an event. Where it went was decided by those of its arrival.
type Routing struct {
	Rules   []RuleLife `json:"rules"`
	Sinks   []string   `json:"sinks"`             // where they would send it
	Changed bool       `json:"changed,omitempty"` // that is not where it went
}

// RuleLife is what one rule says of an event.
type RuleLife struct {
	Rule    int      `json:"rule"` // index into routes
	To      []string `json:"to"`
	Applies bool     `json:"applies"`
	Why     string   `json:"why,omitempty"` // it does not
}

// DeliveryLife is how one of an event's deliveries stands.
type DeliveryLife struct {
	Sink   string `json:"sink"`
	State  string `json:"state"` // waiting (not read yet), pending, dead, settled (delivered, or skipped by an operator)
	Reason string `json:"reason,omitempty"`
	History
}

// Inspect gives the lives of the events with an id or of an entity, the oldest first, at most n. more says that there are others.
func (g *Gateway) Inspect(ctx context.Context, f relay.Filter, n int) (lives []Life, more bool, err error) {
	if f.ID == nil && f.Entity == "" {
		return nil, false, errors.New("an event id or an entity is needed")
	}
	match, err := f.Compile()
	if err != nil {
		return nil, false, err
	}
	var failed error
	err = g.selected(ctx, f, match, func(r *journal.Record) bool {
		if more = len(lives) == n; more {
			return false
		}
		lives = append(lives, Life{EventInfo: infoOf(r)})
		last := &lives[len(lives)-1]
		last.decode(r.Body, f.ID != nil)
		for _, sink := range r.Sinks {
			d, derr := g.deliveryLife(sink, r.Position)
			failed = errors.Join(failed, derr)
			last.Deliveries = append(last.Deliveries, d)
		}
		last.Routing = g.routing(r, last.Deliveries)
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, false, err
	}
	return lives, more, g.addTrails(ctx, lives)
}

// selected calls fn with the events that match, the oldest first, until it returns false.
func (g *Gateway) selected(ctx context.Context, f relay.Filter, match, fn func(*journal.Record) bool) error {
	if f.ID == nil {
		return g.journal.Scan(ctx, match, fn)
	}
	positions, err := g.journal.Find(*f.ID)
	if err != nil {
		return err
	}
	if len(positions) == 0 { // it never came, or its key is forgotten and all there is must be looked through
		return g.journal.Scan(ctx, match, fn)
	}
	slices.Reverse(positions)
	records, err := g.journal.Load(positions)
	for _, r := range records {
		if r != nil && match(r) && !fn(r) {
			break
		}
	}
	return err
}

func (g *Gateway) addTrails(ctx context.Context, lives []Life) error {
	ids := make([]trail.ID, len(lives))
	for i, l := range lives {
		ids[i] = trail.ID(l.ID)
	}
	found, err := g.trail.Of(ctx, ids)
	for i, id := range ids {
		lives[i].Trail = append([]trail.Entry{}, found[id]...)
	}
	return err
}

func (g *Gateway) routing(r *journal.Record, went []DeliveryLife) *Routing {
	n, err := ncs.Parse(r.Body)
	if r.Quarantine != "" || err != nil {
		return nil
	}
	router := g.ingress.Load().router
	routing := &Routing{Rules: []RuleLife{}, Sinks: router.Route(n, r.Source, r.Time).Sinks}
	for _, v := range router.Explain(n, r.Source, r.Time) {
		routing.Rules = append(routing.Rules, RuleLife{v.Rule, v.To, v.Applies, v.Why})
	}
	for _, d := range went {
		routing.Changed = routing.Changed || !slices.Contains(routing.Sinks, d.Sink)
	}
	routing.Changed = routing.Changed || len(routing.Sinks) != len(went)
	return routing
}

func (g *Gateway) deliveryLife(sink string, p journal.Position) (DeliveryLife, error) {
	s, err := g.journal.Standing(sink, p)
	return DeliveryLife{Sink: sink, State: s.State.String(), Reason: s.Reason, History: historyOf(s.Retry)}, err
}
