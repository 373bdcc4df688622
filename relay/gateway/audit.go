package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/trail"
)

// Action is what an operator did.
type Action string

// The actions of operators.
const (
	ActionPause             Action = "pause"
	ActionResume            Action = "resume"
	ActionSkip              Action = "skip"
	ActionMove              Action = "move"
	ActionDrop              Action = "drop"
	ActionDropDeadLetters   Action = "drop_dead_letters"
	ActionReplay            Action = "replay"
	ActionReplayDeadLetters Action = "replay_dead_letters"
	ActionCancelReplay      Action = "cancel_replay"
)

// Lever is what an operator did to a running relay.
type Lever struct {
	At     time.Time // when it was begun
	By     string    // who
	Action Action
	Sink   string       // "" = of all that Filter selects
	To     string       // of a move, or a replay to another sink than those that were owed the events
	Filter relay.Filter // without the sink
	Count  uint64       // deliveries, or dead letters, that this was done to
	Replay uint32
	Reason string // of a pause
	Err    error  // it broke off, or is not on disk so far
}

// counted reports whether l is done to a number of deliveries.
func (l *Lever) counted() bool {
	return l.Action != ActionPause && l.Action != ActionResume && l.Action != ActionCancelReplay
}

// Audit keeps what an operator did: a line of the log and, unless there was nothing to do it to, one of the trail, for Inspect.
func (g *Gateway) Audit(l Lever) {
	e := trail.Entry{What: trail.Lever, At: l.At, By: l.By, Action: string(l.Action), Sink: l.Sink, To: l.To, Count: l.Count, Replay: l.Replay, Reason: l.Reason}
	args := []any{"by", l.By, "action", l.Action}
	text := func(key, value string) {
		if value != "" {
			args = append(args, key, value)
		}
	}
	text("sink", l.Sink)
	text("to", l.To)
	text("reason", l.Reason)
	if l.Filter != (relay.Filter{}) {
		e.Filter, _ = json.Marshal(l.Filter)
		text("filter", l.Filter.String())
	}
	if l.counted() {
		args = append(args, "count", l.Count)
	}
	if l.Replay > 0 {
		args = append(args, "replay", l.Replay)
	}
	if l.Err != nil {
		e.Error = l.Err.Error()
		text("error", e.Error)
	}
	g.log.Info("an operator acted", args...)
	if l.Count > 0 || !l.counted() || l.Err != nil {
		g.trail.Keep(e)
	}
}

// leversOf decides which of some events, whose headers these are, a lever is about.
func leversOf(records []journal.Record, c *ncs.Catalogue) func(trail.Entry, map[trail.ID][]trail.Entry) []trail.ID {
	return func(e trail.Entry, known map[trail.ID][]trail.Entry) (about []trail.ID) {
		var filter relay.Filter
		if len(e.Filter) > 0 && json.Unmarshal(e.Filter, &filter) != nil {
			return nil // of a newer version
		}
		match, err := filter.Compile(c)
		if err != nil {
			return nil
		}
		for i := range records {
			r, id := &records[i], trail.ID(records[i].ID)
			if !r.Time.After(e.At) && match(r) && concerns(e, filter.Reason, r.Sinks, known[id]) && !slices.Contains(about, id) {
				about = append(about, id)
			}
		}
		return about
	}
}

// concerns reports whether a lever had to do with one of the deliveries of an event to sinks, of which so much is known. One that
// was made before is touched by replays only.
func concerns(e trail.Entry, reason string, sinks []string, known []trail.Entry) bool {
	switch action := Action(e.Action); {
	case action == ActionCancelReplay:
		return slices.ContainsFunc(known, func(k trail.Entry) bool { return k.Replay == e.Replay })
	case action == ActionReplay && e.Sink == "":
		return true
	}
	for _, k := range known {
		if k.What == trail.Lever && Action(k.Action) == ActionMove {
			sinks = append(slices.Clone(sinks), k.To)
		}
	}
	return slices.ContainsFunc(sinks, func(sink string) bool {
		if e.Sink != "" && e.Sink != sink {
			return false
		}
		delivered, said := false, reason == ""
		for _, k := range known {
			if k.Sink == sink && k.What != trail.Lever {
				delivered = delivered || k.Outcome == deliver.OutcomeDelivered && k.At.Before(e.At)
				said = said || strings.Contains(k.Error, reason)
			}
		}
		return said && (!delivered || Action(e.Action) == ActionReplay)
	})
}

// settle finds out how a delivery was settled, from what happened to its event, in the order in which it was noted. The journal knows only that it was. Where the
// trail does not go back to the event's arrival, it stays so unless what is there is enough.
func (d *DeliveryLife) settle(happened []trail.Entry, complete bool) {
	if d.State != journal.StateSettled.String() {
		return
	}
	open, dead, lettersDropped := complete, false, false
	for _, e := range happened {
		switch about := e.Sink == d.Sink; {
		case about && e.What == trail.Attempt && e.Outcome == deliver.OutcomeDelivered:
			d.State, d.Reason = "delivered", ""
			return
		case about && (e.What == trail.Dead || e.What == trail.Attempt && e.Replay == 0):
			open, dead, lettersDropped = true, e.What == trail.Dead || e.Outcome == deliver.OutcomeRefused, false
			d.State, d.Reason = journal.StateSettled.String(), ""
		case e.What == trail.Lever && e.Count > 0 && open && (about || e.Sink == ""):
			if Action(e.Action) == ActionDropDeadLetters && !dead {
				lettersDropped = true // its becoming one need not be known
			} else if state := stateAfter(Action(e.Action), dead); state != "" {
				d.State, open = state, false
				if state == "moved" {
					d.Reason = "to " + e.To
				}
			}
		}
	}
	switch {
	case open && dead:
		d.Reason = "it was a dead letter, which is not kept any more"
	case open && lettersDropped:
		d.State = "dropped"
	}
}

// stateAfter is how a delivery stands that was not made, or is a dead letter, after a lever; "" = as before.
func stateAfter(a Action, dead bool) string {
	switch {
	case a == ActionSkip && !dead:
		return "skipped"
	case a == ActionMove && !dead:
		return "moved"
	case a == ActionDrop && !dead, a == ActionDropDeadLetters && dead:
		return "dropped"
	}
	return ""
}
