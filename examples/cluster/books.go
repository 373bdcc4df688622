package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"ncs-relay/relay/journal/kafkajournal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/simulate"
)

const shards = 12 // as in relay.yaml

// books are the demo's own accounts: of what was answered 200, and of what arrived.
type books struct {
	forged atomic.Int64 // calls that the receiver refused

	mu         sync.Mutex
	accepted   map[string]accepted // by event id
	seen       map[string]int      // events accepted, by recording
	arrivals   []string            // event ids
	duplicates int                 // answers "duplicate"
	copies     int                 // answers "accepted" for an event that had one
	why        map[uint32]string   // what happened to the owners of shards
	longest    time.Duration       // that a relay took to answer
}

type accepted struct {
	recording string
	number    int // of its recording, in the order of the first answers
}

func newBooks() *books {
	return &books{accepted: map[string]accepted{}, seen: map[string]int{}, why: map[uint32]string{}}
}

// relayTook notes how long a relay took to answer.
func (b *books) relayTook(after time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.longest = max(b.longest, after)
}

// answered takes the answer to a rightly signed call.
func (b *books) answered(s simulate.Sent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, known := b.accepted[s.EventID]
	switch {
	case s.EventID == "":
		return
	case s.Outcome == simulate.Duplicate:
		b.duplicates++
	case known:
		b.copies++
	}
	if !known {
		b.seen[s.Entity]++
		b.accepted[s.EventID] = accepted{s.Entity, b.seen[s.Entity]}
	}
}

func (b *books) arrived(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrivals = append(b.arrivals, id)
}

// trouble notes that something happened to the owner of shards. What is delivered twice there has this reason.
func (b *books) trouble(shards []uint32, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range shards {
		if before := b.why[s]; before != "" {
			b.why[s] = before + ", then " + why
		} else {
			b.why[s] = why
		}
	}
}

// result is what came of it.
type result struct {
	delivered  int            // events, each counted once
	unanswered int            // of these, events that no answer spoke of: their first call broke off
	repeated   map[string]int // deliveries of an event that had arrived, by why
	longest    time.Duration  // that a relay took to answer
	faults     []string
}

func (b *books) check() (r result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.repeated, r.longest = map[string]int{}, b.longest
	arrived := map[string]bool{}
	last := map[string]int{}
	for _, id := range b.arrivals {
		e, known := b.accepted[id]
		switch {
		case arrived[id]:
			why := b.why[shardOf(e.recording, id)]
			if why == "" {
				why = "?"
				r.faults = append(r.faults, fmt.Sprintf("event %s of recording %s came twice, and nothing had happened to its owner", id, e.recording))
			}
			r.repeated[why]++
			continue
		case !known:
			r.unanswered++
		case e.number < last[e.recording]:
			r.faults = append(r.faults, fmt.Sprintf("event %d of recording %s first arrived after event %d", e.number, e.recording, last[e.recording]))
		default:
			last[e.recording] = e.number
		}
		arrived[id] = true
		r.delivered++
	}
	for id, e := range b.accepted {
		if !arrived[id] {
			r.faults = append(r.faults, fmt.Sprintf("event %s, number %d of recording %s, was answered 200 and is lost", id, e.number, e.recording))
		}
	}
	return r
}

func shardOf(entity, id string) uint32 {
	event, _ := ncs.ParseEventID(id)
	return kafkajournal.ShardOf(entity, event, shards)
}

// print says what came of it. It is an error if something was lost or out of order.
func (b *books) print(out io.Writer, t simulate.Tally) error {
	r := b.check()
	var buf bytes.Buffer
	w := tabwriter.NewWriter(&buf, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(name string, n int, what string) { fmt.Fprintf(w, "%s\t%d\t  %s\n", name, n, what) }
	row("sent", t.Calls, fmt.Sprintf("%d events of %d recordings; %d copies, %d resends, %d retries after a call that broke off, %d bad signatures", t.Events, t.Entities, t.Copies, t.Resends, t.Retries, t.Forged))
	row("accepted", len(b.accepted), "events answered 200")
	row("copies", b.duplicates+b.copies, fmt.Sprintf("%d answered duplicate, and %d accepted, at another replica", b.duplicates, b.copies))
	row("delivered", r.delivered, "to billing, each event counted once")
	if r.unanswered > 0 {
		row("of these", r.unanswered, "whose sender got no answer")
	}
	for _, why := range slices.Sorted(maps.Keys(r.repeated)) {
		row("repeated", r.repeated[why], "because "+why)
	}
	lost := 0
	for _, f := range r.faults {
		if strings.HasSuffix(f, "is lost") {
			lost++
		}
	}
	row("lost", lost, "")
	row("out of order", len(r.faults)-lost, "first arrivals, by recording")
	_ = w.Flush() // to memory
	fmt.Fprintf(&buf, "\nthe longest answer of a relay took %s; from a frozen one the balancer waits %s for an answer\n", r.longest.Round(time.Millisecond), balancerPatience)
	if _, err := out.Write(buf.Bytes()); err != nil {
		return err
	}
	for _, f := range r.faults {
		fmt.Fprintln(out, "FAULT:", f)
	}
	if n := b.forged.Load(); n > 0 {
		r.faults = append(r.faults, "forged")
		fmt.Fprintf(out, "FAULT: the receiver found %d bad signatures\n", n)
	}
	if len(r.faults) > 0 {
		return fmt.Errorf("%d faults", len(r.faults))
	}
	fmt.Fprintln(out, "Nothing was lost, and every event first arrived in the order of its recording.")
	return nil
}
