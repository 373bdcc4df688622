package main

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal/kafkajournal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/simulate"
)

// fleetShards is how many shards the tests' journal has.
const fleetShards = 12

// fleetBooks are what is known outside of replicas that share a journal: every call, its answer, every arrival, and what was
// done to replicas and brokers. Unlike one relay, several may answer "accepted" for copies of an event.
type fleetBooks struct {
	mu       sync.Mutex
	calls    map[[32]byte]*fleetCall // by the digest of the body, which is another one in each call
	events   map[eventRef]*fleetEvent
	answers  []fleetAnswer
	arrivals map[string][]fleetArrival // by sink, in the order in which it got them
	troubles []*trouble
}

type fleetCall struct {
	begin   time.Time
	event   eventRef
	genuine bool
	replica string // that was called
}

type fleetEvent struct {
	begin    time.Time // of its first call
	answered time.Time // when the first call was answered 200; zero: none was
	accepted int       // answers "accepted"
	id       string    // in the answers
	otherID  bool      // two answers named different ids
	notAt    string    // a sink that cannot take it
	by       string    // the replica that answered 200; "several" of them
}

type fleetAnswer struct {
	at      time.Time
	replica string // "" = none said that it is ready
	status  int    // 0 = no answer
	took    time.Duration
}

type fleetArrival struct {
	body [32]byte
	id   string
	lane string // within it, order counts, besides the entity
	at   time.Time
}

// trouble is something that was done. It explains that what an owner of the shards had delivered is delivered again.
type trouble struct {
	what     string
	from, to time.Time // to is zero while it lasts
	shards   []uint32  // nil: any
	afresh   bool      // all that was delivered before may come again
	frozen   string    // a replica that answers nothing meanwhile
}

func newFleetBooks() *fleetBooks {
	return &fleetBooks{calls: map[[32]byte]*fleetCall{}, events: map[eventRef]*fleetEvent{}, arrivals: map[string][]fleetArrival{}}
}

// begin notes a call before it is made.
func (b *fleetBooks) begin(body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls[sha256.Sum256(body)] = &fleetCall{begin: time.Now()}
}

// goesTo notes which replica a call is made to.
func (b *fleetBooks) goesTo(body []byte, replica string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls[sha256.Sum256(body)].replica = replica
}

func (b *fleetBooks) answered(a fleetAnswer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers = append(b.answers, a)
}

// end notes what came of a call that was rightly signed.
func (b *fleetBooks) end(s simulate.Sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.calls[sha256.Sum256(s.Body)]
	c.event, c.genuine = eventRef{s.Entity, s.Index}, true
	e := b.events[c.event]
	if e == nil {
		e = &fleetEvent{begin: c.begin}
		b.events[c.event] = e
	}
	if c.begin.Before(e.begin) {
		e.begin = c.begin
	}
	if s.Status != 200 {
		return
	}
	if e.answered.IsZero() {
		e.answered, e.by = time.Now(), c.replica
	}
	if e.by != c.replica {
		e.by = "several"
	}
	if s.Outcome == simulate.Accepted {
		e.accepted++
	}
	e.otherID = e.otherID || e.id != "" && e.id != s.EventID
	e.id = s.EventID
}

func (b *fleetBooks) arrived(sink, lane, id string, body []byte, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrivals[sink] = append(b.arrivals[sink], fleetArrival{sha256.Sum256(body), id, lane, at})
}

// except notes that a sink cannot take an event.
func (b *fleetBooks) except(event eventRef, sink string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events[event].notAt = sink
}

// trouble begins one, which lasts until the function that is returned is called.
func (b *fleetBooks) trouble(what string, shards []uint32) (over func()) {
	return b.begins(&trouble{what: what, from: time.Now(), shards: shards})
}

// frozen is trouble of a replica, which answers when it is over.
func (b *fleetBooks) frozen(replica string, shards []uint32) (over func()) {
	return b.begins(&trouble{what: "replica frozen", from: time.Now(), shards: shards, frozen: replica})
}

func (b *fleetBooks) begins(t *trouble) (over func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.troubles = append(b.troubles, t)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		t.to = time.Now()
	}
}

// afresh is trouble after which the journal begins again somewhere.
func (b *fleetBooks) afresh(what string) {
	b.begins(&trouble{what: what, from: time.Now(), afresh: true})
}

const (
	// settleLag is how long before a trouble something may have been delivered whose settlement was not stored yet: the
	// journal's 200 ms between two checkpoints, and what a loaded machine adds.
	settleLag = 2500 * time.Millisecond
	// aftermath is for how long after a trouble its effects on who has which shard last: a session, and a take-over.
	aftermath = 20 * time.Second
)

// explains reports whether the trouble can be why what arrived at first arrived again later.
func (t *trouble) explains(shard uint32, first, again time.Time) bool {
	if t.afresh {
		return again.After(t.from)
	}
	if t.shards != nil && !slices.Contains(t.shards, shard) || again.Before(t.from) || first.Before(t.from.Add(-settleLag)) {
		return false
	}
	return t.to.IsZero() || first.Before(t.to.Add(aftermath))
}

// cause returns why something came again, "" if nothing was done that explains it. The last of several is named.
func (b *fleetBooks) cause(shard uint32, first, again time.Time) string {
	for _, t := range slices.Backward(b.troubles) {
		if t.explains(shard, first, again) {
			return t.what
		}
	}
	return ""
}

// held reports whether the replica that gave the answer was frozen meanwhile.
func (b *fleetBooks) held(a fleetAnswer) bool {
	return slices.ContainsFunc(b.troubles, func(t *trouble) bool {
		return t.frozen != "" && t.frozen == a.replica && t.from.Before(a.at) && (t.to.IsZero() || t.to.After(a.at.Add(-a.took)))
	})
}

// fleetVerdict is what the books say of one sink. What comes after Repeated are faults.
type fleetVerdict struct {
	Arrivals, Events, Answered, Unanswered int
	Copies                                 int            // accepted at more than one replica
	Repeated                               map[string]int // by cause

	Lost        []string
	OutOfOrder  []string
	Foreign     int      // bytes that nobody sent, or only forged
	OtherID     int      // not the id of the answer, or another one the second time
	OtherBytes  int      // the second time
	Unexplained []string // came again without a cause
}

func (v fleetVerdict) faults() int {
	return len(v.Lost) + len(v.OutOfOrder) + v.Foreign + v.OtherID + v.OtherBytes + len(v.Unexplained)
}

func (v fleetVerdict) String() string {
	repeated := 0
	var causes []string
	for _, what := range slices.Sorted(maps.Keys(v.Repeated)) {
		repeated += v.Repeated[what]
		causes = append(causes, fmt.Sprintf("%d %s", v.Repeated[what], what))
	}
	s := fmt.Sprintf("answered %d, lost %d, first arrivals out of order %d, repeated %d; %d events arrived %d times, of which nobody was told %d; %d accepted by two replicas; foreign %d, other id %d, other bytes %d, repeated without a cause %d",
		v.Answered, len(v.Lost), len(v.OutOfOrder), repeated, v.Events, v.Arrivals, v.Unanswered, v.Copies, v.Foreign, v.OtherID, v.OtherBytes, len(v.Unexplained))
	if len(causes) > 0 {
		s += "\nrepeated, by cause: " + strings.Join(causes, ", ")
	}
	for _, more := range [][]string{v.Lost, v.OutOfOrder, v.Unexplained} {
		for _, m := range more[:min(len(more), 10)] {
			s += "\n" + m
		}
	}
	return s
}

func (b *fleetBooks) judge(sink string) fleetVerdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := fleetVerdict{Arrivals: len(b.arrivals[sink]), Repeated: map[string]int{}}
	seen := map[eventRef]fleetArrival{}
	type lane struct{ entity, lane string }
	type newest struct {
		begin time.Time // latest begin of an event that has arrived
		event eventRef
	}
	last := map[lane]newest{}
	for _, a := range b.arrivals[sink] {
		call := b.calls[a.body]
		if call == nil || !call.genuine {
			v.Foreign++
			continue
		}
		e := b.events[call.event]
		if e.otherID || e.id != "" && e.id != a.id {
			v.OtherID++
		}
		if before, again := seen[call.event]; again {
			b.again(&v, call.event, before, a)
			continue
		}
		seen[call.event] = a
		// An event that was answered 200 before another was first sent is the earlier one. All else is open.
		l := lane{call.event.entity, a.lane}
		if n := last[l]; !e.answered.IsZero() && e.answered.Before(n.begin) {
			v.OutOfOrder = append(v.OutOfOrder, fmt.Sprintf("out of order: %v (%s, answered %s) arrived %s after %v, sent %s", call.event, a.id, clock(e.answered), clock(a.at), n.event, clock(n.begin)))
		}
		if e.begin.After(last[l].begin) {
			last[l] = newest{e.begin, call.event}
		}
		if e.answered.IsZero() {
			v.Unanswered++
		}
	}
	v.Events = len(seen)
	for ref, e := range b.events {
		if e.accepted > 1 {
			v.Copies++
		}
		if e.answered.IsZero() {
			continue
		}
		v.Answered++
		if _, ok := seen[ref]; !ok && e.notAt != sink {
			v.Lost = append(v.Lost, fmt.Sprintf("lost: %v (%s, shard %d), answered %s", ref, e.id, shardOfID(ref.entity, e.id), clock(e.answered)))
		}
	}
	return v
}

// again books an event that had arrived.
func (b *fleetBooks) again(v *fleetVerdict, ref eventRef, before, a fleetArrival) {
	if before.body != a.body {
		v.OtherBytes++
	}
	if before.id != a.id {
		v.OtherID++
	}
	shard := shardOfID(ref.entity, a.id)
	if cause := b.cause(shard, before.at, a.at); cause != "" {
		v.Repeated[cause]++
		return
	}
	v.Unexplained = append(v.Unexplained, fmt.Sprintf("without a cause: %v (%s, shard %d) arrived %s and %s", ref, a.id, shard, clock(before.at), clock(a.at)))
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

func shardOfID(entity, id string) uint32 {
	event, _ := ncs.ParseEventID(id)
	return kafkajournal.ShardOf(entity, event, fleetShards)
}

// missing counts the events that were answered 200 before the instant and have not arrived.
func (b *fleetBooks) missing(sink string, before time.Time) (count int) {
	b.eachMissing(sink, func(e *fleetEvent) {
		if e.answered.Before(before) {
			count++
		}
	})
	return count
}

// missingOf counts those that one replica alone has answered 200, since an instant.
func (b *fleetBooks) missingOf(sink, replica string, since time.Time) (count int) {
	b.eachMissing(sink, func(e *fleetEvent) {
		if e.by == replica && e.answered.After(since) {
			count++
		}
	})
	return count
}

// exceptMissing notes that a sink does not get those that were answered 200 before the instant.
func (b *fleetBooks) exceptMissing(sink string, before time.Time) {
	b.eachMissing(sink, func(e *fleetEvent) {
		if e.answered.Before(before) {
			e.notAt = sink
		}
	})
}

func (b *fleetBooks) eachMissing(sink string, do func(e *fleetEvent)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	arrived := map[string]bool{}
	for _, a := range b.arrivals[sink] {
		arrived[a.id] = true
	}
	for _, e := range b.events {
		if !e.answered.IsZero() && e.notAt != sink && !arrived[e.id] {
			do(e)
		}
	}
}

// figures are what a phase cost.
type figures struct {
	answered, refused, broken int           // answered 200; refused (503) by a replica that said it was ready; calls that got no answer
	slowest                   time.Duration // answer 200
	soonest, latest           time.Duration // answer 503
	held                      time.Duration // the slowest answer of a replica that was frozen meanwhile, which is none of these
	late                      []string      // answers after more than P2 allows
	gap                       time.Duration // longest time without an answer 200
	there, elsewhere          time.Duration // the longest from the answer (or the begin of the phase, if later) to the first arrival, in the shards that were struck and in the others
	last                      string        // the one of elsewhere
}

func (f figures) String() string {
	d := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	return strings.Join(append([]string{fmt.Sprintf("answered %d, refused %d (after %v to %v), without an answer %d, slowest answer %v (%v of a replica that was frozen meanwhile), longest time without one %v; answer to arrival at most %v in the shards struck, %v elsewhere: %s",
		f.answered, f.refused, d(f.soonest), d(f.latest), f.broken, d(f.slowest), d(f.held), d(f.gap), d(f.there), d(f.elsewhere), f.last)}, f.late...), "\n")
}

// figures measures a phase by the arrivals at a sink.
func (b *fleetBooks) figures(sink string, from, to time.Time, struck []uint32) (f figures) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := from
	for _, a := range b.answers {
		if a.at.Before(from) || a.at.After(to) {
			continue
		}
		switch a.status {
		case http.StatusOK:
			f.answered++
			f.gap, last = max(f.gap, a.at.Sub(last)), a.at
		case http.StatusServiceUnavailable:
			f.refused++
		case 0:
			f.broken++
			continue
		default:
			continue
		}
		switch {
		case b.held(a):
			f.held = max(f.held, a.took)
			continue
		case a.status == http.StatusOK:
			f.slowest = max(f.slowest, a.took)
		default:
			f.latest = max(f.latest, a.took)
			if f.soonest == 0 || a.took < f.soonest {
				f.soonest = a.took
			}
		}
		if a.took > 8*time.Second {
			f.late = append(f.late, fmt.Sprintf("late: %d of %s at %s after %v", a.status, a.replica, clock(a.at), a.took))
		}
	}
	first := map[string]time.Time{}
	for _, a := range b.arrivals[sink] {
		if _, ok := first[a.id]; !ok {
			first[a.id] = a.at
		}
	}
	for ref, e := range b.events {
		at, ok := first[e.id]
		if !ok || e.answered.IsZero() || e.answered.Before(from.Add(-time.Second)) || e.answered.After(to) {
			continue
		}
		if e.answered.Before(from) {
			at = at.Add(e.answered.Sub(from))
		}
		late := at.Sub(e.answered)
		if slices.Contains(struck, shardOfID(ref.entity, e.id)) {
			f.there = max(f.there, late)
		} else if late > f.elsewhere {
			f.elsewhere, f.last = late, fmt.Sprintf("%v (shard %d), answered %s", ref, shardOfID(ref.entity, e.id), clock(e.answered))
		}
	}
	return f
}

// The books decide whether the tests of faults mean anything, so each fault they are meant to find is shown to them.
func TestFleetBooksFindEachFault(t *testing.T) {
	t.Parallel()
	const id0, id1 = "5f0c0000000000000000000000000000", "5f0c0000000000000000000000000001"
	ids := []string{id0, id1}
	body := func(event int) []byte { return fmt.Appendf(nil, "event %d", event) }
	setup := func() *fleetBooks {
		b := newFleetBooks()
		for event := range 2 {
			b.begin(body(event))
			time.Sleep(time.Microsecond) // two instants differ
			b.end(simulate.Sent{Entity: "e", Index: event, Body: body(event), Status: 200, Outcome: simulate.Accepted, EventID: ids[event]})
		}
		b.begin([]byte("forged"))
		return b
	}
	deliver := func(b *fleetBooks, events ...int) {
		for _, event := range events {
			b.arrived("s", "", ids[event], body(event), time.Now())
		}
	}
	for name, c := range map[string]struct {
		happens func(b *fleetBooks)
		fault   func(v fleetVerdict) int
	}{
		"lost":     {func(b *fleetBooks) { deliver(b, 0) }, func(v fleetVerdict) int { return len(v.Lost) }},
		"order":    {func(b *fleetBooks) { deliver(b, 1, 0) }, func(v fleetVerdict) int { return len(v.OutOfOrder) }},
		"repeated": {func(b *fleetBooks) { deliver(b, 0, 1, 1) }, func(v fleetVerdict) int { return len(v.Unexplained) }},
		"repeated in another shard than the trouble's": {func(b *fleetBooks) {
			b.trouble("", []uint32{(shardOfID("e", id1) + 1) % fleetShards})
			deliver(b, 0, 1, 1)
		}, func(v fleetVerdict) int { return len(v.Unexplained) }},
		"foreign": {func(b *fleetBooks) { deliver(b, 0, 1); b.arrived("s", "", "", []byte("forged"), time.Now()) }, func(v fleetVerdict) int { return v.Foreign }},
		"other id": {func(b *fleetBooks) {
			b.arrived("s", "", id1, body(0), time.Now())
			deliver(b, 1)
		}, func(v fleetVerdict) int { return v.OtherID }},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup()
			c.happens(b)
			v := b.judge("s")
			require.Equal(t, 1, c.fault(v), v)
			require.Equal(t, 1, v.faults(), v)
		})
	}
	t.Run("late, but for a replica that was frozen", func(t *testing.T) {
		b, began := setup(), time.Now()
		b.frozen("a", nil)()
		for _, replica := range []string{"a", "b"} {
			b.answered(fleetAnswer{time.Now(), replica, http.StatusOK, 9 * time.Second})
			b.answered(fleetAnswer{time.Now(), replica, http.StatusServiceUnavailable, 10 * time.Second})
		}
		f := b.figures("s", began, time.Now(), nil)
		require.Len(t, f.late, 2, f)
		require.Equal(t, 9*time.Second, f.slowest)
		require.Equal(t, 10*time.Second, f.latest)
		require.Equal(t, 10*time.Second, f.held)
	})
	t.Run("repeated for a cause", func(t *testing.T) {
		b := setup()
		deliver(b, 0, 1)
		b.trouble("it was killed", []uint32{shardOfID("e", id1)})
		deliver(b, 1)
		v := b.judge("s")
		require.Zero(t, v.faults(), v)
		require.Equal(t, map[string]int{"it was killed": 1}, v.Repeated)
	})
}
