package kafkajournal

import (
	"context"
	"fmt"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// sink is a journal.Sink.
type sink struct {
	j    *Journal
	name string
	open bool // guarded by Journal.mu, as appended

	appended chan struct{} // closed when Next may find more
}

func (k *sink) wake() { // Journal.mu is held
	close(k.appended)
	k.appended = make(chan struct{})
}

// Appended returns a channel that is closed when Next may find more.
func (k *sink) Appended() <-chan struct{} {
	k.j.mu.Lock()
	defer k.j.mu.Unlock()
	return k.appended
}

// Sink opens a sink. In the shards that this replica has it is stored before Sink returns; another owner gives it a state when an
// event names it, or when it opens it itself.
func (j *Journal) Sink(name string) (journal.Sink, error) {
	if !validSink(name) {
		return nil, fmt.Errorf("%q cannot be a sink's name", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	for _, s := range j.running() {
		if s.open(name) {
			if err := s.flush(ctx, false); err != nil {
				return nil, fmt.Errorf("sink %q: %w", name, err)
			}
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.sinks[name] == nil {
		j.sinks[name] = &sink{j: j, name: name, appended: make(chan struct{})}
	}
	j.sinks[name].open = true
	return j.sinks[name], nil
}

func (j *Journal) isOpen(name string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.sinks[name]
	return s != nil && s.open
}

// Owed are the deliveries in a shard; none if it is not this replica's any more.
func (k *sink) Owed(shard *journal.Shard) journal.Deliveries {
	return k.j.deliveries(shard, k.name)
}

// PendingBytes are the bodies in a shard that are not settled.
func (k *sink) PendingBytes(shard *journal.Shard) int64 {
	s := k.j.shard(shard.Number)
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.core.cursors[cursorName{kindSink, k.name}]; c != nil {
		return c.tally.PendingBytes()
	}
	return 0
}

// SetPaused keeps why nothing is sent to the sink, for all replicas.
func (k *sink) SetPaused(reason string) { k.j.control.setPaused(k.name, reason, k.j.control.known()) }

// Known is how far this replica has followed what all have decided.
func (j *Journal) Known() int64 { return j.control.known() }

// PauseAsOf is SetPaused, unless the sink was resumed since.
func (j *Journal) PauseAsOf(sink, reason string, known int64) bool {
	return j.control.setPaused(sink, reason, known)
}

// Paused returns what SetPaused kept.
func (k *sink) Paused() string { return k.j.control.paused(k.name) }

// Release says that nobody here reads for the sink any more.
func (k *sink) Release() {
	k.j.mu.Lock()
	defer k.j.mu.Unlock()
	k.open = false
}

func (j *Journal) deliveries(public *journal.Shard, to string) journal.Deliveries {
	s := j.enter(public)
	if s == nil {
		return nothing{}
	}
	defer s.mu.Unlock()
	name := cursorName{kindSink, to}
	c := s.core.cursors[name]
	if c == nil {
		c = s.core.begin(name, s.core.end())
		s.touch()
	}
	return &deliveries{s: s, c: c, to: to, owed: func(e *entry) bool { return owedTo(e.rec, to) }}
}

// nothing are the deliveries of a shard that went.
type nothing struct{}

func (nothing) Pending() []journal.Pending               { return nil }
func (nothing) Next(int) ([]*journal.Record, error)      { return nil, nil }
func (nothing) Owes(journal.Position) bool               { return false }
func (nothing) Settle(journal.Position, journal.Outcome) {}
func (nothing) Failed(journal.Position, journal.Retry)   {}
func (nothing) Bury(journal.DeadLetter)                  {}
func (nothing) End()                                     {}

// deliveries are those of a cursor.
type deliveries struct {
	s    *shard
	c    *cursor
	to   string // the sink
	owed func(*entry) bool

	// The mutex of the shard guards what follows.
	ended    bool
	ahead    []entry // events that the ring does not have, read from aheadOf on up to aheadTo
	aheadOf  int64
	aheadTo  int64
	fetching bool
	err      error // of the last fetch
}

// Pending returns what was handed out and is not settled.
func (d *deliveries) Pending() []journal.Pending {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return d.c.unsettled.Pending(uint32(d.s.n))
}

// Next hands out the next records from memory. When what it needs is not there, it is fetched meanwhile, and then the channel of
// Sink.Appended is closed.
func (d *deliveries) Next(maxBytes int) ([]*journal.Record, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if d.ended || !d.s.mayHandOut() {
		return nil, nil
	}
	var recs []*journal.Record
	for size := 0; size < maxBytes || len(recs) == 0; {
		events, ok := d.events()
		if ok && len(events) == 0 {
			d.writeOff()
		}
		if len(events) == 0 {
			break
		}
		for i := range events {
			e := &events[i]
			if !d.s.handOut(d.c, e, d.owed(e)) {
				continue
			}
			recs = append(recs, d.s.ours(e.rec))
			if size += len(e.rec.Body); size >= maxBytes {
				break
			}
		}
	}
	if len(recs) > 0 {
		d.s.touch()
		return recs, nil
	}
	err := d.err
	d.err = nil
	return nil, err
}

// handOut takes an event for a cursor, and reports whether it is to be delivered. Of a sink it may be a dead letter: a former owner
// could write that, and nothing more. s.mu is held.
func (s *shard) handOut(c *cursor, e *entry, owed bool) bool {
	if !c.take(e, owed) {
		return false
	}
	if s.letters[c.key.name].get(e.pos) != nil {
		c.interred(e.pos)
		return false
	}
	return true
}

// writeOff counts as dropped what the sink is owed and nobody will ever find: it has read everything else.
func (d *deliveries) writeOff() {
	if lost := d.c.writeOff(); lost > 0 {
		d.s.touch()
		d.s.j.logger.Error("deliveries are lost: the topic did not keep their events long enough", "topic", d.s.j.topics.events, "shard", d.s.n, "sink", d.c.key.name, "deliveries", lost)
	}
}

// events are the next ones in memory; false when they are being fetched.
func (d *deliveries) events() ([]entry, bool) {
	next := d.c.read.next
	if events, ok := d.s.ring.after(next); ok {
		d.ahead = nil
		return events, true
	}
	for len(d.ahead) > 0 && d.ahead[0].at < next {
		d.ahead = d.ahead[1:]
	}
	if len(d.ahead) > 0 && d.aheadOf <= next {
		return d.ahead, true
	}
	if d.aheadOf <= next && next < d.aheadTo { // nothing but repetitions is left of it
		d.c.read.next = d.aheadTo
		return d.events()
	}
	if !d.fetching {
		d.fetching = true
		from := d.c.read
		d.s.goes(func(ctx context.Context) { d.fetch(ctx, from) })
	}
	return nil, false
}

// fetchBytes is about how much is read ahead for a sink that is behind.
const fetchBytes = 256 << 10

// fetch reads events for a cursor that is behind.
func (d *deliveries) fetch(ctx context.Context, from place) {
	topic := d.s.j.topics.events
	chunk, err := d.s.j.logs.read(ctx, topic, d.s.n, from.next, fetchBytes, 0)
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	defer d.s.j.wake(d.to)
	d.fetching = false
	if start, gone := startsAfter(err, from.next); gone {
		if d.c.key.kind == kindSink { // a replay reaches as far back as the topic does
			d.s.j.logger.Error("events are gone from the topic before they were delivered", "topic", topic, "shard", d.s.n, "sink", d.c.key.name, "from", from.next, "to", start)
		}
		d.c.read.next = start // what was owed before is counted as dropped when all the rest was read
		return
	}
	if err != nil {
		d.err = fmt.Errorf("read topic %s, partition %d: %w", topic, d.s.n, err)
		return
	}
	rule := ruleE{from.top}
	d.ahead, d.aheadOf, d.aheadTo = nil, from.next, min(chunk.Next, d.s.core.next)
	for i := range chunk.Records {
		if chunk.Records[i].Offset >= d.s.core.next {
			break // not counted as owed
		}
		e, err := decodeEvent(uint32(d.s.n), &chunk.Records[i])
		if err != nil {
			d.err = fmt.Errorf("read topic %s, partition %d: %w", topic, d.s.n, err)
			d.aheadTo = chunk.Records[i].Offset
			return
		}
		if rule.accepts(e.pos) {
			d.ahead = append(d.ahead, e)
		}
	}
}

// Owes reports whether a delivery was handed out and is not settled.
func (d *deliveries) Owes(p journal.Position) bool {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	return p.Shard == uint32(d.s.n) && d.c.unsettled.Get(offset(p.Offset)) != nil
}

// Settle ends a delivery.
func (d *deliveries) Settle(p journal.Position, o journal.Outcome) {
	d.change(p, func(pos offset) { d.c.settle(pos, o) })
}

// Failed notes a failed attempt.
func (d *deliveries) Failed(p journal.Position, r journal.Retry) {
	d.change(p, func(pos offset) { d.c.failed(pos, r) })
}

// Bury makes a delivery a dead letter.
func (d *deliveries) Bury(l journal.DeadLetter) {
	d.change(l.Position, func(offset) { d.c.bury(l) })
}

func (d *deliveries) change(p journal.Position, fn func(offset)) {
	if p.Shard != uint32(d.s.n) {
		return
	}
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	fn(offset(p.Offset))
	d.s.touch()
}

// End says that nothing of these deliveries is in flight any more.
func (d *deliveries) End() {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if !d.ended {
		d.ended = true
		d.s.opened--
		if d.s.opened == 0 {
			close(d.s.idle)
			d.s.idle = make(chan struct{})
		}
	}
}

// oldestUnread is when the first event was received that the cursor is owed and has not read, as far as memory tells.
func (s *shard) oldestUnread(c *cursor) time.Time {
	if c.unread == 0 {
		events, _ := s.ring.after(c.read.next)
		for i := range events {
			if owedTo(events[i].rec, c.key.name) {
				c.unread = events[i].rec.Time.UnixMilli()
				break
			}
		}
	}
	return ledger.ReceivedAt(c.unread)
}
