package main

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/simulate"
)

// books are what the outside knows: every call that was made, the answer it got if any, and everything that arrived at
// a sink. They share nothing with the relay but the bytes on the wire, so they can contradict it.
type books struct {
	answered atomic.Int64 // calls that were answered 200

	mu    sync.Mutex
	clock int64                    // orders the begins and ends of calls
	calls map[[32]byte]*bookedCall // by the digest of the body, which is another one in each call
	kills []time.Time
	sinks map[string][]arrival
}

// eventRef names an event independently of the relay's ids.
type eventRef struct {
	entity string
	index  int
}

type bookedCall struct {
	event      eventRef
	genuine    bool // not a forged call
	begin, end int64
	status     int
	outcome    string
}

// arrival is one event at a sink. Within a topic arrivals stand in the order in which the sink got them.
type arrival struct {
	body  [32]byte
	topic string
	at    time.Time
}

func newBooks() *books {
	return &books{calls: make(map[[32]byte]*bookedCall), sinks: make(map[string][]arrival)}
}

// begin notes a call before it is made: its event may arrive before the answer does.
func (b *books) begin(body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock++
	b.calls[sha256.Sum256(body)] = &bookedCall{begin: b.clock}
}

// end notes what came of a call; status 0 = no answer.
func (b *books) end(s simulate.Sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock++
	c := b.calls[sha256.Sum256(s.Body)]
	c.event, c.genuine, c.end = eventRef{s.Entity, s.Index}, true, b.clock
	c.status, c.outcome = s.Status, s.Outcome
	if s.Status == 200 {
		b.answered.Add(1)
	}
}

func (b *books) arrived(sink, topic string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sinks[sink] = append(b.sinks[sink], arrival{sha256.Sum256(body), topic, time.Now()})
}

func (b *books) killed(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kills = append(b.kills, at)
}

// bookedEvent is what follows from the calls for one event.
type bookedEvent struct {
	begin        int64      // of its first call
	acknowledged int64      // end of the first call that was answered 200; 0 = none was
	accepted     [][32]byte // bodies that were answered "accepted"; one at most
}

func (b *books) events() map[eventRef]*bookedEvent {
	events := make(map[eventRef]*bookedEvent)
	for body, c := range b.calls {
		if !c.genuine {
			continue
		}
		e := events[c.event]
		if e == nil {
			e = &bookedEvent{begin: c.begin}
			events[c.event] = e
		}
		e.begin = min(e.begin, c.begin)
		if c.status == 200 && (e.acknowledged == 0 || c.end < e.acknowledged) {
			e.acknowledged = c.end
		}
		if c.outcome == simulate.Accepted {
			e.accepted = append(e.accepted, body)
		}
	}
	return events
}

// verdict is what the books say of one sink. All but Arrivals, Events, Repeated and OldestRepeat are faults.
type verdict struct {
	Arrivals, Events, Repeated int
	OldestRepeat               time.Duration // before the kill that made the relay forget that it had delivered it
	Acknowledged               int

	Missing      int // acknowledged, never arrived
	Foreign      int // bytes that nobody sent, or only forged
	OtherBytes   int // not the bytes that were accepted, or others the second time
	Inverted     int // first arrived after a later event of its entity and topic
	RepeatedLate int // repeated although delivered long before any kill, or without one
	Twice        int // accepted more than once
}

func (v verdict) faults() int {
	return v.Missing + v.Foreign + v.OtherBytes + v.Inverted + v.RepeatedLate + v.Twice
}

// judge compares what arrived at a sink with the calls. Before the kill that caused it, a repeated event was delivered at
// most window ago. lag is how late the books may have noticed an arrival.
func (b *books) judge(sink string, window, lag time.Duration) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := verdict{Arrivals: len(b.sinks[sink])}
	events := b.events()
	seen := make(map[eventRef]arrival)
	newest := make(map[[2]string]int64) // by entity and topic: latest begin of an event that has arrived
	for _, a := range b.sinks[sink] {
		call := b.calls[a.body]
		if call == nil || !call.genuine {
			v.Foreign++
			continue
		}
		e := events[call.event]
		if len(e.accepted) == 1 && e.accepted[0] != a.body {
			v.OtherBytes++
		}
		if before, again := seen[call.event]; again {
			v.Repeated++
			if before.body != a.body {
				v.OtherBytes++
			}
			age, ok := b.beforeKill(before.at, a.at, window, lag)
			v.OldestRepeat = max(v.OldestRepeat, age)
			if !ok {
				v.RepeatedLate++
			}
			seen[call.event] = a
			continue
		}
		seen[call.event] = a
		// An event that was acknowledged before another was first sent is the earlier one. All else is open.
		lane := [2]string{call.event.entity, a.topic}
		if e.acknowledged != 0 && e.acknowledged < newest[lane] {
			v.Inverted++
		}
		newest[lane] = max(newest[lane], e.begin)
	}
	v.Events = len(seen)
	for ref, e := range events {
		if e.acknowledged != 0 {
			v.Acknowledged++
			if _, ok := seen[ref]; !ok {
				v.Missing++
			}
		}
		if len(e.accepted) > 1 {
			v.Twice++
		}
	}
	return v
}

// beforeKill finds the kill that explains why what arrived at first came again at second: age is how long before that
// kill it had first arrived.
func (b *books) beforeKill(first, second time.Time, window, lag time.Duration) (age time.Duration, ok bool) {
	age = -1
	for _, k := range b.kills {
		since := k.Sub(first)
		if since < -lag || k.After(second) {
			continue
		}
		if since = max(0, since); age < 0 || since < age {
			age = since
		}
	}
	return max(age, 0), age >= 0 && age <= window
}

func (v verdict) String() string {
	return fmt.Sprintf("%d arrivals of %d events, %d repeated (first delivered up to %v before a kill); %d acknowledged, of which missing %d; "+
		"foreign %d, other bytes %d, out of order %d, repeated without cause %d, accepted twice %d",
		v.Arrivals, v.Events, v.Repeated, v.OldestRepeat.Round(time.Millisecond), v.Acknowledged,
		v.Missing, v.Foreign, v.OtherBytes, v.Inverted, v.RepeatedLate, v.Twice)
}

// The books decide whether the crash tests mean anything, so each fault they are meant to find is shown to them.
func TestBooksFindEachFault(t *testing.T) {
	t.Parallel()
	const window, lag = time.Second, 100 * time.Millisecond
	kill := time.Now()
	ago := func(d time.Duration) time.Time { return kill.Add(-d) }
	body := func(event, call int) []byte { return fmt.Appendf(nil, "event %d call %d", event, call) }
	// Two events, one after the other; the answer to the first call of each was lost.
	setup := func() *books {
		b := newBooks()
		b.kills = []time.Time{kill}
		for event := range 2 {
			for call := range 2 {
				b.begin(body(event, call))
				s := simulate.Sent{Entity: "e", Index: event, Body: body(event, call)}
				if call == 1 {
					s.Status, s.Outcome = 200, simulate.Duplicate
				}
				b.end(s)
			}
		}
		b.begin([]byte("forged"))
		return b
	}
	deliver := func(b *books, at time.Time, bodies ...[]byte) {
		for _, body := range bodies {
			b.sinks["s"] = append(b.sinks["s"], arrival{sha256.Sum256(body), "t", at})
		}
	}
	for name, c := range map[string]struct {
		happens func(b *books)
		fault   func(v verdict) int
	}{
		"missing":     {func(b *books) { deliver(b, kill, body(0, 0)) }, func(v verdict) int { return v.Missing }},
		"foreign":     {func(b *books) { deliver(b, kill, body(0, 0), body(1, 0), []byte("x")) }, func(v verdict) int { return v.Foreign }},
		"forged":      {func(b *books) { deliver(b, kill, body(0, 0), body(1, 0), []byte("forged")) }, func(v verdict) int { return v.Foreign }},
		"order":       {func(b *books) { deliver(b, kill, body(1, 0), body(0, 0)) }, func(v verdict) int { return v.Inverted }},
		"other bytes": {func(b *books) { deliver(b, kill, body(0, 0), body(1, 0), body(1, 1)) }, func(v verdict) int { return v.OtherBytes }},
		"not the accepted bytes": {func(b *books) {
			b.end(simulate.Sent{Entity: "e", Index: 1, Body: body(1, 1), Status: 200, Outcome: simulate.Accepted})
			deliver(b, kill, body(0, 0), body(1, 0))
		}, func(v verdict) int { return v.OtherBytes }},
		"repeated long after": {func(b *books) {
			deliver(b, ago(window+time.Millisecond), body(0, 0), body(1, 0))
			deliver(b, kill, body(1, 0))
		}, func(v verdict) int { return v.RepeatedLate }},
		"repeated without a kill": {func(b *books) {
			deliver(b, kill.Add(lag+1), body(0, 0), body(1, 0))
			deliver(b, kill.Add(time.Second), body(1, 0))
		}, func(v verdict) int { return v.RepeatedLate }},
		"accepted twice": {func(b *books) {
			for call := 2; call < 4; call++ {
				b.begin(body(0, call))
				b.end(simulate.Sent{Entity: "e", Body: body(0, call), Status: 200, Outcome: simulate.Accepted})
			}
			deliver(b, kill, body(1, 0))
			b.sinks["s"] = slices.Insert(b.sinks["s"], 0, arrival{sha256.Sum256(body(0, 2)), "t", kill})
		}, func(v verdict) int { return v.Twice }},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup()
			c.happens(b)
			v := b.judge("s", window, lag)
			require.Equal(t, 1, c.fault(v), v)
			require.Equal(t, 1, v.faults(), "%s and nothing else: %s", name, v)
		})
	}
	t.Run("repeated after a kill is no fault", func(t *testing.T) {
		b := setup()
		deliver(b, ago(window/2), body(0, 0), body(1, 0))
		deliver(b, kill.Add(1), body(0, 0), body(1, 0))
		v := b.judge("s", window, lag)
		require.Zero(t, v.faults(), v)
		require.Equal(t, 2, v.Repeated)
		require.Equal(t, window/2, v.OldestRepeat)
	})
}
