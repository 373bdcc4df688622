package deliver

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
)

// The states of a sink, the same words in status, API, metrics and alerts.
const (
	StateDelivering = "delivering" // what it was sent last was taken, or there is nothing to send
	StateRetrying   = "retrying"   // some deliveries fail and are tried again, others are taken
	StateFailing    = "failing"    // nothing is taken
	StatePaused     = "paused"     // nothing is sent until an operator resumes it
	StateRemoved    = "removed"    // not configured any more
	StateQuarantine = "quarantine" // of Unroutable, which keeps what it is given and sends nothing
)

// sinkStates are those of configured sinks, the worst last.
func sinkStates() []string {
	return []string{StateDelivering, StateRetrying, StateFailing, StatePaused}
}

// Worse reports whether a state is worse than another one of the same sink, such as that at another replica.
func Worse(state, than string) bool {
	return slices.Index(sinkStates(), state) > slices.Index(sinkStates(), than)
}

// refusedInARow is how many deliveries in a row make a sink failing that were given up and wait for nothing: one event may
// be bad, and two.
const refusedInARow = 3

// Trouble is what goes wrong at a sink that is retrying or failing.
type Trouble struct {
	Since     time.Time    `json:"since"`
	Reason    relay.Reason `json:"reason,omitempty"` // "" = of an earlier process, which kept the text only
	Error     string       `json:"error"`            // of the newest failure
	At        time.Time    `json:"at"`               // when that was
	Lanes     int          `json:"lanes"`            // that wait for a retry, or are being tried again
	HeldUntil time.Time    `json:"held_until,omitzero"`
}

// State is how a sink is doing.
type State struct {
	Owner   string       // whom operators turn to
	Name    string       // one of the States
	Trouble *Trouble     // nil: none
	Errors  []ErrorGroup // of the last minutes
}

// State returns how a sink is doing, and whether it is configured.
func (s *Sinks) State(name string, now time.Time) (state State, configured bool) {
	r := s.sink(name)
	if r == nil {
		return State{}, false
	}
	state = State{Owner: r.Owner, Errors: r.health.errorGroups(now)}
	state.Name, state.Trouble = r.health.state(now)
	return state, true
}

// ErrorGroup are failed attempts of one kind of event for one reason.
type ErrorGroup struct {
	Product string       `json:"product"`
	Event   string       `json:"event"`
	Reason  relay.Reason `json:"reason"`
	Failed  uint64       `json:"failed"` // attempts since First
	First   time.Time    `json:"first"`
	Last    time.Time    `json:"last"`
	Error   string       `json:"error"` // of the last
}

// maxErrorGroups bounds the groups of a sink; the one that failed the longest ago goes.
const maxErrorGroups = 64

type errorKind struct {
	event  ncs.Info
	reason relay.Reason
}

// health is how a sink is doing. Its dispatcher writes it, and whoever asks for the state reads it: it is derived here for
// every kind of sink and for nobody twice.
type health struct {
	mu       sync.Mutex // guards what follows
	taken    time.Time  // when something was taken the last time
	failing  time.Time  // the first failure since; zero = none
	retrying time.Time  // since when there are lanes that failed and have not succeeded
	refused  int        // deliveries given up since something was taken
	last     Trouble    // the newest failure
	unread   bool       // the journal cannot be read
	lanes    int        // that failed and have not succeeded
	held     time.Time  // nothing is sent before
	paused   bool
	groups   map[errorKind]*ErrorGroup
	groupFor time.Duration // after its last failure
}

func newHealth(c RetryConfig) *health {
	return &health{groups: make(map[errorKind]*ErrorGroup), groupFor: 2*c.MaxInterval + time.Minute}
}

// took notes that something was taken.
func (h *health) took(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken, h.failing, h.refused = now, time.Time{}, 0
}

// failed notes a Send, or an attempt of an earlier process, that failed for the first time at first; refused deliveries
// were given up because of it. A lane that failed already when something else was taken says nothing new of the sink.
func (h *health) failed(t Trouble, first time.Time, refused int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !t.At.Before(h.last.At) {
		h.last = t
	}
	h.refused += refused
	if !first.Before(h.taken) && (h.failing.IsZero() || first.Before(h.failing)) {
		h.failing = first
	}
	if h.retrying.IsZero() || first.Before(h.retrying) {
		h.retrying = first
	}
}

// cannotRead notes that owed events cannot be read from the journal; fine that they can.
func (h *health) cannotRead(err error, now time.Time) {
	h.failed(Trouble{Reason: relay.ReasonDisk, Error: "owed events cannot be read from the journal: " + err.Error(), At: now}, now, 0)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unread = true
}

// group counts the failed attempts of a Send by kind of event and reason.
func (h *health) group(r sendResult, now time.Time) {
	if r.cut || r.taken == len(r.batch) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, a := range r.batch[r.taken:] {
		outcome, reason := r.outcome(r.taken + i)
		if outcome == "" {
			return
		}
		kind := errorKind{a.Info, reason}
		g := h.groups[kind]
		if g == nil {
			h.makeRoom()
			g = &ErrorGroup{Product: a.Info.Product, Event: a.Info.Event, Reason: reason, First: now}
			h.groups[kind] = g
		}
		g.Failed++
		g.Last = now
		if r.err != nil {
			g.Error = trimError(r.err)
		}
	}
}

// makeRoom forgets the group that failed the longest ago when there are too many.
func (h *health) makeRoom() {
	if len(h.groups) < maxErrorGroups {
		return
	}
	var oldest errorKind
	for kind, g := range h.groups {
		if o := h.groups[oldest]; o == nil || g.Last.Before(o.Last) {
			oldest = kind
		}
	}
	delete(h.groups, oldest)
}

// observe notes what the dispatcher has in hand: how many lanes failed and have not succeeded, and what holds it up.
func (h *health) observe(lanes int, held time.Time, paused, unread bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lanes, h.held, h.paused = lanes, held, paused
	h.unread = h.unread && unread
	if lanes == 0 {
		h.retrying = time.Time{}
	}
}

// state is how the sink is doing, with what goes wrong if something does.
func (h *health) state(now time.Time) (string, *Trouble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.last
	t.Lanes = h.lanes
	if h.held.After(now) {
		t.HeldUntil = h.held
	}
	state := StateDelivering
	switch {
	case !h.failing.IsZero() && (h.lanes > 0 || h.refused >= refusedInARow || h.unread):
		state, t.Since = StateFailing, h.failing
	case h.lanes > 0 && !h.retrying.IsZero():
		state, t.Since = StateRetrying, h.retrying
	}
	switch {
	case state == StateDelivering && h.paused:
		return StatePaused, nil
	case state == StateDelivering:
		return state, nil
	case h.paused:
		return StatePaused, &t
	}
	return state, &t
}

// errorGroups are the failures of late, the most frequent first.
func (h *health) errorGroups(now time.Time) []ErrorGroup {
	h.mu.Lock()
	defer h.mu.Unlock()
	var groups []ErrorGroup
	for kind, g := range h.groups {
		if now.Sub(g.Last) > h.groupFor {
			delete(h.groups, kind)
			continue
		}
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, compareErrors)
	return groups
}

// compareErrors puts the most frequent first.
func compareErrors(a, b ErrorGroup) int {
	return cmp.Or(cmp.Compare(b.Failed, a.Failed), cmp.Compare(a.Event, b.Event), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Product, b.Product))
}

// JoinErrors adds the failures that another process met at the same sink.
func JoinErrors(all, more []ErrorGroup) []ErrorGroup {
	for _, m := range more {
		at := slices.IndexFunc(all, func(g ErrorGroup) bool {
			return g.Product == m.Product && g.Event == m.Event && g.Reason == m.Reason
		})
		if at < 0 {
			all = append(all, m)
			continue
		}
		g := &all[at]
		g.Failed += m.Failed
		if m.First.Before(g.First) {
			g.First = m.First
		}
		if m.Last.After(g.Last) {
			g.Last, g.Error = m.Last, m.Error
		}
	}
	slices.SortFunc(all, compareErrors)
	return all
}

func troubleOf(err error, now time.Time) Trouble {
	return Trouble{Reason: known(relay.ReasonOf(err)), Error: trimError(err), At: now}
}

// trimError bounds a text that is kept once for a sink.
func trimError(err error) string {
	text := err.Error()
	return text[:min(len(text), 1024)]
}
