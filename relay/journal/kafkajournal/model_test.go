package kafkajournal

import (
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

var histories = flag.Int("kafkajournal.histories", 300, "how many histories TestAnyHistoryOfOwners tries")

// history is a run of one shard with any number of owners, who overlap, crash, leave requests under way that land late, remember
// little, and save what they know when they like. What they do is done by the code of the journal; only the order of what lands
// in the logs is the test's.
type history struct {
	*testing.T
	*rand.Rand
	inbox, events, state, dead []kafkalog.Record
	window                     int
	arrived                    int
	owners                     []*modelOwner
	late                       []func() // requests of owners that are gone
	delivered                  map[offset]bool
	lives, repeated            int
}

type modelOwner struct {
	*core
	ids    *ids
	row    []item   // under way to the events
	saving func()   // under way to the state
	grave  func()   // under way to the dead letters
	held   []offset // handed out
}

const (
	modelSink = "a"
	otherSink = "b" // nobody reads for it
)

func (h *history) land(log *[]kafkalog.Record, recs []kafkalog.Record) (base int64) {
	base = int64(len(*log))
	for i, r := range recs {
		r.Offset = base + int64(i)
		*log = append(*log, r)
	}
	return base
}

// arrive lets n records arrive at the inbox.
func (h *history) arrive(events []int, n int) {
	for ; n > 0 && h.arrived < len(events); n-- {
		r := &journal.Record{ID: [16]byte{1, byte(events[h.arrived])}, Time: time.UnixMilli(1_750_000_000_000), Body: []byte("x")}
		if events[h.arrived]%3 > 0 {
			r.Sinks = []string{modelSink}
		}
		if h.arrived%11 == 10 {
			r.Sinks = append(r.Sinks, otherSink)
		}
		h.land(&h.inbox, []kafkalog.Record{encodeRecord(r)})
		h.arrived++
	}
}

// takeOver begins an ownership. Others may go on between what it reads first and what it reads then.
func (h *history) takeOver(between func()) *modelOwner {
	h.lives++
	l := newLegacy()
	require.NoError(h, l.add(h.state))
	dead := slices.Clone(h.dead)
	between()
	o := &modelOwner{ids: newIDs(nil)}
	o.ids.max = h.window
	o.core = newCore(0, life{byte(h.lives), byte(h.lives >> 8)}, o.ids, l)
	for _, letter := range dead {
		if c := o.cursors[cursorName{kindSink, modelSink}]; c != nil {
			c.interred(offset(letter.Key[0]))
		}
	}
	var window []entry
	for i := range h.events[:o.next] {
		e, err := decodeEvent(0, &h.events[i])
		require.NoError(h, err)
		window = append(window, e)
	}
	for i := range window {
		o.ids.add(0, &window[i])
	}
	_, err := o.followed(h.events[o.next:])
	require.NoError(h, err)
	o.caughtUp()
	if c := o.cursors[cursorName{kindSink, modelSink}]; c != nil {
		for _, p := range c.unsettled.Pending(0) {
			o.held = append(o.held, offset(p.Position.Offset))
		}
	}
	recs, _ := o.records(true)
	h.land(&h.state, recs)
	return o
}

// judge lets an owner pick its next row.
func (h *history) judge(o *modelOwner) {
	if o.row != nil {
		return
	}
	from := min(int(o.picked), len(h.inbox))
	var err error
	o.row, err = o.pick(h.inbox[from:min(from+1+h.Intn(4), len(h.inbox))])
	require.NoError(h, err)
	if len(o.row) == 0 {
		o.row = nil
	}
}

// wrote lets an owner's row land, and the owner know of it.
func (h *history) wrote(o *modelOwner) {
	base := h.land(&h.events, rowRecords(o.row))
	if h.Intn(20) == 0 {
		h.land(&h.events, rowRecords(o.row)) // again, by a new producer after a lost answer
		base = -1
	}
	events, expected := o.core.wrote(o.row, base)
	o.account(events)
	o.row = nil
	if !expected {
		_, err := o.followed(h.events[o.next:])
		require.NoError(h, err)
		o.caughtUp()
	}
}

func (h *history) deliver(o *modelOwner) {
	c := o.cursors[cursorName{kindSink, modelSink}]
	if c == nil {
		return
	}
	rule := ruleE{c.read.top}
	for n := h.Intn(4); n > 0 && c.read.next < o.next; {
		e, err := decodeEvent(0, &h.events[c.read.next])
		require.NoError(h, err)
		if !rule.accepts(e.pos) {
			c.read.next++
			continue
		}
		c.take(&e, owedTo(e.rec, modelSink))
		if owedTo(e.rec, modelSink) {
			o.held = append(o.held, e.pos)
			n--
		}
	}
	for n := h.Intn(4); n > 0 && len(o.held) > 0; n-- {
		at := h.Intn(len(o.held))
		pos := o.held[at]
		o.held = slices.Delete(o.held, at, at+1)
		switch h.Intn(6) {
		case 0:
			c.bury(journal.DeadLetter{Position: journal.Position{Offset: uint64(pos)}})
			c.failed(pos, journal.Retry{Attempts: 1})
		case 1:
			c.failed(pos, journal.Retry{Attempts: 2})
			o.held = append(o.held, pos)
		default:
			if h.delivered[pos] {
				h.repeated++
			}
			h.delivered[pos] = true
			c.settle(pos, journal.Delivered)
		}
	}
}

// save begins to write what an owner knows; what it learns meanwhile is for the next time.
func (h *history) save(o *modelOwner) {
	c := o.cursors[cursorName{kindSink, modelSink}]
	if o.grave == nil && c != nil && len(c.buried) > 0 {
		pos := slices.Min(slices.Collect(maps.Keys(c.buried)))
		o.grave = func() {
			h.land(&h.dead, []kafkalog.Record{{Key: []byte{byte(pos)}}})
			c.interred(pos)
			o.grave = nil
		}
	}
	if o.saving == nil {
		recs, _ := o.records(h.Intn(3) == 0)
		first := h.Intn(len(recs) + 1) // they may be too many for one request
		o.saving = func() {
			h.land(&h.state, recs[:first])
			o.saving = func() {
				h.land(&h.state, recs[first:])
				o.saving = nil
			}
		}
	}
}

func (h *history) saved(o *modelOwner) {
	for _, request := range []func(){o.saving, o.grave} {
		if request != nil && h.Intn(2) == 0 {
			request()
		}
	}
}

// end ends an owner, whose requests may land at any time, or never.
func (h *history) end(o *modelOwner) {
	if o.row != nil && h.Intn(2) == 0 {
		h.late = append(h.late, func() { h.land(&h.events, rowRecords(o.row)) })
	}
	for _, request := range []func(){o.saving, o.grave} {
		if request != nil && h.Intn(2) == 0 {
			h.late = append(h.late, request)
		}
	}
}

func (h *history) step(events []int) {
	h.arrive(events, h.Intn(3))
	switch c := h.Float64(); {
	case c < 0.45:
		for _, o := range h.owners {
			if h.Intn(5) < 3 {
				h.judge(o)
				h.deliver(o)
			}
		}
	case c < 0.85:
		for _, o := range h.owners {
			if o.row != nil && h.Intn(3) > 0 {
				h.wrote(o)
			}
			h.save(o)
			h.saved(o)
		}
		if len(h.late) > 0 && h.Intn(2) == 0 {
			at := h.Intn(len(h.late))
			h.late[at]()
			h.late = slices.Delete(h.late, at, at+1)
		}
	case c < 0.93:
		h.owners = append(h.owners, h.takeOver(func() { // the former ones go on
			for _, o := range h.owners {
				h.judge(o)
				h.deliver(o)
				h.saved(o)
			}
		}))
	case len(h.owners) > 1:
		at := h.Intn(len(h.owners))
		h.end(h.owners[at])
		h.owners = slices.Delete(h.owners, at, at+1)
	}
}

// finish lets all that is under way land, and a last owner do all that is left.
func (h *history) finish(events []int) *modelOwner {
	h.arrive(events, len(events))
	for _, o := range h.owners {
		h.end(o)
	}
	last := h.takeOver(func() {})
	for len(h.late) > 0 {
		h.late[0]()
		h.late = h.late[1:]
	}
	for last.picked < offset(len(h.inbox)) || last.row != nil {
		h.judge(last)
		if last.row != nil {
			h.wrote(last)
		}
	}
	for c := last.cursors[cursorName{kindSink, modelSink}]; c != nil && (c.read.next < last.next || len(last.held) > 0); {
		h.deliver(last)
	}
	return last
}

// TestAnyHistoryOfOwners is the argument that nothing is lost, tried: every id of the inbox is an event, positions grow, and what
// the sink is owed was delivered or is a dead letter.
func TestAnyHistoryOfOwners(t *testing.T) {
	t.Parallel()
	var lives, copies, repeated int
	for seed := range *histories {
		r := rand.New(rand.NewSource(int64(seed)))
		h := &history{T: t, Rand: r, window: []int{1, 2, 5, 1000}[r.Intn(4)], delivered: make(map[offset]bool)}
		events := make([]int, 5+r.Intn(56))
		kinds := 1 + r.Intn(len(events))
		for i := range events {
			events[i] = r.Intn(kinds)
		}
		h.owners = []*modelOwner{h.takeOver(func() {})}
		for range 20 + r.Intn(380) {
			h.step(events)
		}
		last := h.finish(events)

		about := fmt.Sprintf("history %d", seed)
		rule, got := ruleE{}, make(map[int]bool)
		var accepted []entry
		for i := range h.events {
			e, err := decodeEvent(0, &h.events[i])
			require.NoError(t, err)
			if rule.accepts(e.pos) {
				accepted = append(accepted, e)
				got[int(e.rec.ID[1])] = true
			}
		}
		for _, id := range events {
			require.True(t, got[id], "%s: event %d is lost", about, id)
		}
		require.True(t, slices.IsSortedFunc(accepted, func(a, b entry) int { return int(a.pos) - int(b.pos) }), about)
		buried, owed, others := make(map[offset]bool), 0, 0
		for _, letter := range h.dead {
			buried[offset(letter.Key[0])] = true
		}
		c := last.cursors[cursorName{kindSink, modelSink}]
		for _, e := range accepted {
			if owedTo(e.rec, otherSink) {
				others++
			}
			if owedTo(e.rec, modelSink) {
				owed++
				require.True(t, h.delivered[e.pos] || buried[e.pos] || c.buried[e.pos] != nil, "%s: position %d is not delivered", about, e.pos)
			}
		}
		require.EqualValues(t, len(accepted), last.events, about)
		if c != nil {
			require.EqualValues(t, owed, c.tally.Owed, about)
			require.EqualValues(t, owed, c.tally.Settled(), about)
		}
		if c := last.cursors[cursorName{kindSink, otherSink}]; others > 0 {
			require.NotNil(t, c, about)
			require.EqualValues(t, others, c.unreadCount(), about)
		}
		lives, copies, repeated = lives+h.lives, copies+len(accepted)-len(got), repeated+h.repeated
	}
	t.Logf("%d histories, %d lives: no event is lost and no delivery, positions grow; %d copies passed, %d deliveries were repeated", *histories, lives, copies, repeated)
}
