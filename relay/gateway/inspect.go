package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/trail"
)

// Life is what is known of an event: how its deliveries stand, why it went there, and what has happened to it.
type Life struct {
	EventInfo
	Deliveries []DeliveryLife `json:"deliveries"`
	Routing    *Routing       `json:"routing,omitempty"` // nil: quarantined
	Trail      []trail.Entry  `json:"trail"`             // copies, attempts, dead letters and levers, the oldest first
	Content                   // where one event is asked for
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
	State  string `json:"state"` // waiting (not read yet), pending, dead, delivered, skipped, dropped, moved; settled = one of these four, and the trail does not say which
	Reason string `json:"reason,omitempty"`
	History
}

// Inspect returns the lives of the events with an id or of an entity, the oldest first, at most n. more says that there are others.
func (g *Gateway) Inspect(ctx context.Context, f relay.Filter, n int) (lives []Life, more bool, err error) {
	if f.ID == nil && f.Entity == "" {
		return nil, false, errors.New("an event id or an entity is needed")
	}
	match, err := f.Compile(g.Catalogue())
	if err != nil {
		return nil, false, err
	}
	var failed error
	var headers []journal.Record
	err = g.selected(ctx, f, match, func(r *journal.Record) bool {
		if more = len(lives) == n; more {
			return false
		}
		lives = append(lives, Life{EventInfo: g.infoOf(r)})
		last := &lives[len(lives)-1]
		last.decode(g.Catalogue(), r.Body, f.ID != nil)
		if f.ID != nil {
			last.Content = ContentOf(r.Body)
		}
		for _, sink := range r.Sinks {
			d, derr := g.deliveryLife(sink, r.Position)
			failed = errors.Join(failed, derr)
			last.Deliveries = append(last.Deliveries, d)
		}
		last.Routing = g.routing(r, last.Deliveries)
		header := *r
		header.Body = nil
		headers = append(headers, header)
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, false, err
	}
	return lives, more, g.addTrails(ctx, lives, headers)
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

// addTrails adds what happened, and what follows from that for deliveries of which the journal knows only that they are settled.
func (g *Gateway) addTrails(ctx context.Context, lives []Life, headers []journal.Record) error {
	ids := make([]trail.ID, len(lives))
	for i, l := range lives {
		ids[i] = trail.ID(l.ID)
	}
	found, since, err := g.trail.Of(ctx, ids, leversOf(headers, g.Catalogue()))
	for i, id := range ids {
		l := &lives[i]
		l.Trail = append([]trail.Entry{}, found[id]...)
		for j := range l.Trail {
			l.Trail[j].Event = trail.ID{} // said above them
		}
		_, shared := g.journal.(journal.Shared) // then other replicas have parts of the trail
		complete := !shared && since.Before(l.ReceivedAt) && g.trail.Lost() == 0
		for j := 0; j < len(l.Deliveries); j++ { // those that were moved come behind the others
			d := &l.Deliveries[j]
			d.settle(l.Trail, complete)
			err = errors.Join(err, g.addMoved(l, *d))
		}
		slices.SortStableFunc(l.Trail, func(a, b trail.Entry) int { return a.At.Compare(b.At) }) // levers are noted when they are done
	}
	return err
}

// addMoved adds the delivery that came of one that was moved.
func (g *Gateway) addMoved(l *Life, from DeliveryLife) error {
	to, moved := strings.CutPrefix(from.Reason, "to ")
	if from.State != "moved" || !moved || slices.ContainsFunc(l.Deliveries, func(d DeliveryLife) bool { return d.Sink == to }) {
		return nil
	}
	d, err := g.deliveryLife(to, l.Position)
	l.Deliveries = append(l.Deliveries, d)
	return err
}

func (g *Gateway) routing(r *journal.Record, went []DeliveryLife) *Routing {
	n, err := g.Catalogue().Parse(r.Body)
	if r.Quarantine != "" || err != nil {
		return nil
	}
	router := g.ingress.Router()
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
