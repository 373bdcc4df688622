package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// ReplayRequest asks for deliveries to be made again.
type ReplayRequest struct {
	relay.Filter
	To          string  `json:"to,omitempty"`           // another sink than those that were owed the events
	DeadLetters bool    `json:"dead_letters,omitempty"` // only dead letters; otherwise what was settled
	Pending     bool    `json:"pending,omitempty"`      // instead, what the sink is owed and To was not; with a journal that cannot move it
	Rate        float64 `json:"rate,omitempty"`         // events a second at most; 0 = as fast as they are taken
	DryRun      bool    `json:"dry_run,omitempty"`      // count only

	Elsewhere map[string]int `json:"-"` // events by sink in the shards that other replicas have, which the replay is about as well
}

// ReplayResult is what came of a request.
type ReplayResult struct {
	Matched map[string]int `json:"matched"`           // events by sink, counted now
	Routed  int            `json:"routed,omitempty"`  // quarantined bodies taken up again under today's rules
	Replays []ReplayStatus `json:"replays,omitempty"` // one for each sink
}

// ReplayStatus is how far a replay is.
type ReplayStatus struct {
	ID          uint32       `json:"replay"`
	Sink        string       `json:"sink"`
	Filter      relay.Filter `json:"filter"`
	DeadLetters bool         `json:"dead_letters"`
	OwedOnly    bool         `json:"owed_only,omitempty"` // what the sink of the filter was owed, for another
	Rate        float64      `json:"rate,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	Position    journal.Cut  `json:"position"` // read so far
	End         journal.Cut  `json:"end"`
	Matched     uint64       `json:"matched"`
	Delivered   uint64       `json:"delivered"`
	Failed      uint64       `json:"failed"`
	Skipped     uint64       `json:"skipped"`
	Pending     uint64       `json:"pending"`
	Finished    bool         `json:"finished"`
}

func statusOf(r journal.Replay) ReplayStatus {
	finished := r.Finished() // asked first: the totals of one that has ended are the last
	spec, t := r.Spec(), r.Totals()
	s := ReplayStatus{ID: r.ID(), Sink: spec.Sink, DeadLetters: spec.DeadLetters, OwedOnly: spec.Pending, Rate: spec.Rate, CreatedAt: spec.CreatedAt,
		Position: t.Read, End: spec.To, Matched: t.Matched, Delivered: t.Delivered, Failed: t.Failed, Skipped: t.Skipped,
		Pending: t.Pending, Finished: finished}
	_ = json.Unmarshal(spec.Filter, &s.Filter) // written by Replay below
	return s
}

// Replay makes deliveries again: one job for each sink, kept over restarts, marked as replay. Only settled deliveries
// are made again; what waits is not. Dead letters of the reserved sink Unroutable are parsed and routed under
// today's rules instead.
func (g *Gateway) Replay(ctx context.Context, req ReplayRequest) (ReplayResult, error) {
	match, err := req.Filter.Compile(g.Catalogue())
	if err != nil {
		return ReplayResult{}, err
	}
	if req.Rate < 0 {
		return ReplayResult{}, fmt.Errorf("rate %v is negative", req.Rate)
	}
	if req.Reason != "" && !req.DeadLetters {
		return ReplayResult{}, errors.New("only dead letters have a reason")
	}
	if _, moves := g.journal.(journal.Mover); moves && req.Pending {
		return ReplayResult{}, fmt.Errorf("%w: ncs-relay sinks move %s --to %s", ErrMoves, req.Filter.Sink, req.To)
	}
	if req.Pending && (req.Filter.Sink == "" || req.To == "" || req.DeadLetters || req.Filter.Sink == req.To) {
		return ReplayResult{}, errors.New("what a sink is owed and has not settled is for another sink, and no dead letter")
	}
	if req.Filter.Sink == relay.Unroutable {
		if req.To != "" || req.Rate > 0 {
			return ReplayResult{}, errors.New("quarantined bodies go where the rules say, at once: there is no to and no rate")
		}
		return g.routeAgain(ctx, req)
	}
	specs, err := g.replaySpecs(ctx, req)
	if err != nil {
		return ReplayResult{}, err
	}
	result := ReplayResult{Matched: make(map[string]int)}
	for _, spec := range specs {
		if result.Matched[spec.Sink], err = g.journal.CountReplay(ctx, spec, match); err != nil {
			return ReplayResult{}, err
		}
		result.Matched[spec.Sink] += req.Elsewhere[spec.Sink]
	}
	if req.DryRun {
		return result, nil
	}
	for _, spec := range specs {
		if result.Matched[spec.Sink] == 0 {
			continue
		}
		r, err := g.journal.AddReplay(spec)
		if err != nil {
			return result, err
		}
		if err := g.sinks.AddReplay(ctx, r); err != nil {
			return result, err
		}
		result.Replays = append(result.Replays, statusOf(r))
	}
	return result, nil
}

// replaySpecs makes the job of each sink that a request is about.
func (g *Gateway) replaySpecs(ctx context.Context, req ReplayRequest) ([]journal.ReplaySpec, error) {
	sinks := []string{req.To}
	if req.To == "" {
		names, err := g.sinkNames(req.Filter)
		if err != nil {
			return nil, err
		}
		sinks = slices.DeleteFunc(names, func(n string) bool { return n == relay.Unroutable || !g.sinks.Has(n) })
		if len(sinks) == 0 {
			return nil, fmt.Errorf("sink %q is not configured; name another with to", req.Filter.Sink)
		}
	} else if !g.sinks.Has(req.To) || req.To == relay.Unroutable {
		return nil, fmt.Errorf("%w: %q", ErrNoSink, req.To)
	}
	filter, err := json.Marshal(req.Filter)
	if err != nil {
		return nil, err
	}
	to, err := g.journal.Frontier(ctx)
	if err != nil {
		return nil, err
	}
	var specs []journal.ReplaySpec
	for _, sink := range sinks {
		specs = append(specs, journal.ReplaySpec{Sink: sink, Of: req.Filter.Sink, Anyway: req.To != "" && req.Filter.Sink == "", Filter: filter, To: to,
			DeadLetters: req.DeadLetters, Pending: req.Pending, Rate: req.Rate, CreatedAt: time.Now()})
	}
	return specs, nil
}

// routeAgain takes up quarantined bodies as if they had come now. Those that are still not understood stay.
func (g *Gateway) routeAgain(ctx context.Context, req ReplayRequest) (ReplayResult, error) {
	result := ReplayResult{Matched: map[string]int{relay.Unroutable: 0}}
	var letters []DeadLetter
	if err := g.eachDeadLetter(req.Filter, Page{}, func(d DeadLetter) bool {
		d.Body = nil // there may be gigabytes of them
		letters = append(letters, d)
		return ctx.Err() == nil
	}); err != nil {
		return result, err
	}
	result.Matched[relay.Unroutable] = len(letters) + req.Elsewhere[relay.Unroutable]
	if req.DryRun {
		return result, nil
	}
	for _, d := range letters {
		records, err := g.journal.Load([]journal.Position{d.Position})
		if err != nil {
			return result, err
		}
		if records[0] == nil {
			continue
		}
		understood, err := g.ingress.TakeAgain(ctx, records[0])
		if err != nil {
			return result, err
		}
		if !understood {
			continue
		}
		if err := g.journal.DropLetters(relay.Unroutable, journal.DeadLetter{Position: d.Position, Written: d.Written}); err != nil {
			return result, err
		}
		result.Routed++
	}
	return result, nil
}

// Replays lists the replays that run, and the newest that ended.
func (g *Gateway) Replays() []ReplayStatus {
	list := []ReplayStatus{}
	for _, r := range g.journal.Replays() {
		list = append(list, statusOf(r))
	}
	return list
}

// CancelReplay ends a replay. What is in flight of it ends; nothing more of it is sent.
func (g *Gateway) CancelReplay(ctx context.Context, id uint32) error {
	for _, r := range g.journal.Replays() {
		if r.ID() != id {
			continue
		}
		r.Cancel()
		var err error
		if g.sinks.Has(r.Spec().Sink) {
			err = g.sinks.DropReplay(ctx, r)
		}
		return g.saved(err)
	}
	return fmt.Errorf("replay %d: %w", id, ErrNotFound)
}
