package deliver

import (
	"container/heap"
	"slices"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// laneKey is a lane of a stream, or for unordered events the lane of that one event.
type laneKey struct {
	relay.Lane
	replay   uint32
	position journal.Position
}

// ordered reports whether the sink must not be sent two batches of this lane at the same time.
func (k laneKey) ordered() bool { return k.position.IsZero() }

// lane is a queue of deliveries that are made one batch after the other.
type lane struct {
	key     laneKey
	stream  *stream
	items   []item
	backoff *retryBackoff // nil until a Send failed
	batch   int           // items of the failed batch, which is sent again with the same events; 0 = free choice
	due     time.Time     // of the next try; meaningful while waiting
	loaded  int           // bytes of bodies it holds
	sending int           // items in flight, the first ones; 0 = none
	known   bool          // its failure is not the service's: see pace
	trying  bool          // what is in flight was sent during a pause
	lingers int           // it has just sent, and waits for so many items, not for long; 0 = it does not
}

// item is one delivery in a lane.
type item struct {
	position journal.Position
	event    *relay.Event   // nil: to be read again before it is sent
	retry    *journal.Retry // nil: not tried yet
}

func (it *item) attempts() int {
	if it.retry == nil {
		return 0
	}
	return it.retry.Attempts
}

// lanes hold what a dispatcher has read and not settled: in order per lane, and by when a lane can run. They bound the
// bodies in memory. The dispatcher's goroutine owns them.
type lanes struct {
	share     int // bytes of bodies that one lane may hold
	room      int // bytes that all may take besides
	all       map[laneKey]*lane
	fresh     laneQueue  // can run now
	again     laneQueue  // can run now, after a failure
	waiting   laneHeap   // wait for a retry, the next due first
	lingering []lingerer // wait for more to send, the next due first
	queued    int        // items in all lanes
	loaded    int        // bytes of bodies held
	failedRan bool       // the lane that was given last had failed before
}

func newLanes(slots int) lanes {
	return lanes{share: windowBytes / slots, room: queueBytes, all: make(map[laneKey]*lane)}
}

// What a delivery and a lane with the history of its failure take, the journal's part included (BenchmarkOwed).
const (
	itemBytes = 80
	laneBytes = 600
)

// full reports whether nothing more is to be read.
func (ls *lanes) full() bool { return ls.queued*itemBytes+len(ls.all)*laneBytes >= ls.room }

// failed is how many lanes failed and have not succeeded since: those that wait, and those of them that are running.
func (ls *lanes) failed(running int) int { return len(ls.waiting) + ls.again.len() + running }

// put appends a delivery to its lane.
func (ls *lanes) put(key laneKey, s *stream, it item) {
	l := ls.all[key]
	if l == nil {
		l = &lane{key: key, stream: s}
		ls.all[key] = l
		ls.ready(l)
	}
	if l.backoff == nil && l.loaded < ls.share && ls.loaded < windowBytes {
		ls.load(l, &it, it.event)
	} else {
		it.event = nil
	}
	l.items = append(l.items, it)
	ls.queued++
	if l.lingers > 0 && ls.filled(l, l.lingers) {
		ls.lingered(l)
	}
}

// linger is how long a lane that has just sent waits for more. What is on disk need not hurry, and a request for each event
// costs the relay and the far side several times what it does for some. A lane that has not sent for so long sends at once.
const linger = 10 * time.Millisecond

// linger lets a lane that has just sent run when it is due, or when it holds a batch, whichever comes first. It may hold nothing yet.
func (ls *lanes) linger(l *lane, batch int, due time.Time) {
	if batch <= 1 || !l.key.ordered() || ls.filled(l, batch) {
		ls.goOn(l)
		return
	}
	l.lingers, l.due = batch, due
	ls.lingering = append(ls.lingering, lingerer{l, due})
}

type lingerer struct {
	*lane
	until time.Time
}

// filled reports whether a lane that waits longer would hold no more.
func (ls *lanes) filled(l *lane, batch int) bool {
	return len(l.items) >= batch || l.loaded >= ls.share
}

func (ls *lanes) lingered(l *lane) {
	l.lingers = 0
	ls.goOn(l)
}

// goOn makes a lane ready for its next batch, or ends it.
func (ls *lanes) goOn(l *lane) {
	if !ls.end(l) {
		ls.ready(l)
	}
}

// load makes a lane hold the body of one of its items.
func (ls *lanes) load(l *lane, it *item, ev *relay.Event) {
	it.event = ev
	l.loaded += sizeOf(ev)
	ls.loaded += sizeOf(ev)
}

// unload drops the body of an item; it is read again when the lane runs.
func (ls *lanes) unload(l *lane, it *item) {
	if it.event != nil {
		l.loaded -= sizeOf(it.event)
		ls.loaded -= sizeOf(it.event)
		it.event = nil
	}
}

func (ls *lanes) unloadAll(l *lane) {
	for i := range l.items {
		ls.unload(l, &l.items[i])
	}
}

// ready lets a lane run when there is a slot.
func (ls *lanes) ready(l *lane) {
	if l.backoff == nil {
		ls.fresh.push(l)
	} else {
		ls.again.push(l)
	}
}

// wait lets a lane run when it is due.
func (ls *lanes) wait(l *lane, due time.Time) {
	l.due = due
	ls.unloadAll(l)
	heap.Push(&ls.waiting, l)
}

// wake makes ready what is due.
func (ls *lanes) wake(now time.Time) {
	for len(ls.waiting) > 0 && !ls.waiting[0].due.After(now) {
		ls.ready(heap.Pop(&ls.waiting).(*lane))
	}
	for len(ls.lingering) > 0 && !ls.lingering[0].until.After(now) {
		l := ls.lingering[0]
		ls.lingering[0] = lingerer{}
		ls.lingering = ls.lingering[1:]
		if l.lingers > 0 && l.due.Equal(l.until) && ls.all[l.key] == l.lane { // it did not fill meanwhile, nor end
			ls.lingered(l.lane)
		}
	}
}

// wakeIf makes ready those that wait and are selected.
func (ls *lanes) wakeIf(selected func(*lane) bool) {
	ls.waiting = slices.DeleteFunc(ls.waiting, func(l *lane) bool {
		if !selected(l) {
			return false
		}
		ls.ready(l)
		return true
	})
	heap.Init(&ls.waiting)
}

// next returns the lane whose turn it is, nil if there is none. Lanes that failed before take at most half of the slots, of a
// single one every other turn, so that dead entities or partitions leave room for the living. retrying is how many of
// them are running.
func (ls *lanes) next(retrying, slots int) *lane {
	if retrying < slots/2 || slots == 1 && !(ls.failedRan && ls.fresh.len() > 0) {
		if l := ls.again.pop(); l != nil {
			ls.failedRan = true
			return l
		}
	}
	ls.failedRan = false
	return ls.fresh.pop()
}

// pop takes out item i of a lane. It moves those before it, which are a batch at most: behind it there may be a million.
func (ls *lanes) pop(l *lane, i int) {
	ls.unload(l, &l.items[i])
	copy(l.items[1:], l.items[:i])
	l.items[0] = item{}
	l.items = l.items[1:]
	ls.queued--
}

// remove takes those items out of a lane that are not in flight and that gone selects, and says how many.
func (ls *lanes) remove(l *lane, gone func(item) bool) int {
	kept := slices.DeleteFunc(l.items[l.sending:], func(it item) bool {
		if !gone(it) {
			return false
		}
		ls.unload(l, &it)
		return true
	})
	n := len(l.items) - l.sending - len(kept)
	l.items = l.items[:len(l.items)-n]
	l.batch = min(l.batch, len(l.items))
	ls.queued -= n
	return n
}

// empty forgets what a lane holds, apart from what is in flight.
func (ls *lanes) empty(l *lane) {
	ls.remove(l, func(item) bool { return true })
	ls.end(l)
}

// end forgets a lane if it holds nothing, and reports whether it did. In a queue or in the heap it stays until its turn, and is passed over then.
func (ls *lanes) end(l *lane) bool {
	if len(l.items) > 0 {
		return false
	}
	if ls.all[l.key] == l {
		delete(ls.all, l.key)
	}
	return true
}

type queuedItem struct {
	lane     *lane
	position journal.Position
}

// oldest returns the n oldest items of a stream in a shard that are not in flight, in order.
func (ls *lanes) oldest(s *stream, shard uint32, n int) []queuedItem {
	var all []queuedItem
	for _, l := range ls.all {
		if l.stream != s {
			continue
		}
		for _, it := range l.items[l.sending:min(l.sending+n, len(l.items))] {
			if it.position.Shard == shard {
				all = append(all, queuedItem{l, it.position})
			}
		}
	}
	slices.SortFunc(all, func(a, b queuedItem) int { return a.position.Compare(b.position) })
	return all[:min(n, len(all))]
}

// sendingOf reports whether something of a stream in a shard is in flight.
func (ls *lanes) sendingOf(s *stream, shard uint32) bool {
	for _, l := range ls.all {
		if l.stream == s && slices.ContainsFunc(l.items[:l.sending], func(it item) bool { return it.position.Shard == shard }) {
			return true
		}
	}
	return false
}

// withdraw gives the items of a group back to their feeds, to be laned anew. Nothing of it is in flight.
func (ls *lanes) withdraw(group string) {
	for key, l := range ls.all {
		if key.Group != group {
			continue
		}
		ls.unloadAll(l)
		ls.queued -= len(l.items)
		for _, it := range l.items {
			f := l.stream.of(it.position)
			f.unlaned = append(f.unlaned, it)
		}
		l.items = nil
		ls.end(l)
	}
}

func byPosition(a, b item) int { return a.position.Compare(b.position) }

// laneQueue is a first-in-first-out queue of lanes.
type laneQueue struct{ lanes []*lane }

func (q *laneQueue) len() int     { return len(q.lanes) }
func (q *laneQueue) push(l *lane) { q.lanes = append(q.lanes, l) }

// pop returns nil when the queue is empty.
func (q *laneQueue) pop() *lane {
	if len(q.lanes) == 0 {
		return nil
	}
	l := q.lanes[0]
	q.lanes[0] = nil
	q.lanes = q.lanes[1:]
	return l
}

func (q *laneQueue) takeAll() []*lane {
	all := q.lanes
	q.lanes = nil
	return all
}

// laneHeap orders waiting lanes by when they are due.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h laneHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *laneHeap) Push(x any)        { *h = append(*h, x.(*lane)) }
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}
