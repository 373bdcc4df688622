package kafkajournal

import (
	"slices"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// cursor is what a sink has read and settled in a shard, or a replay. It does no I/O; the mutex of its shard guards it.
type cursor struct {
	key       stateKey // its record of ncs.state
	read      place    // what the sink is owed up to read.top is in unsettled or settled
	unsettled ledger.Unsettled
	tally     ledger.Tally // without the letters
	unread    int64        // when the oldest event owed and not read was received, ms; 0 = not known
	buried    map[offset]*burial

	dirty bool // it changed since its record was written
}

// burial is a dead letter on its way to ncs.dead. Until it is there, the delivery is pending for all others.
type burial struct {
	debt    ledger.Debt
	letter  journal.DeadLetter
	removes bool // of a replay: the letter that there is was delivered, and is to be removed
}

func newCursor(key stateKey, at place) *cursor {
	return &cursor{key: key, read: at, buried: make(map[offset]*burial), dirty: true}
}

// resume is the cursor of what former owners knew.
func resume(key stateKey, s *sinkState) *cursor {
	c := newCursor(key, s.read)
	c.unsettled, c.tally, c.unread = ledger.NewUnsettled(s.pending), s.tally, s.unread
	return c
}

// state is what others are to know.
func (c *cursor) state(counted place) *sinkState {
	s := &sinkState{read: c.read, counted: counted, tally: c.tally, unread: c.unread, pending: c.unsettled.Saved()}
	for pos, b := range c.buried {
		s.pending = append(s.pending, ledger.Delivery{At: pos, Debt: b.debt})
		if b.removes {
			s.tally.Delivered--
		} else {
			s.tally.Dead--
		}
		s.tally.SettledBytes -= uint64(b.debt.Size)
	}
	slices.SortFunc(s.pending, ledger.Compare)
	return s
}

// owe counts an event that nobody has read.
func (c *cursor) owe(e *entry) {
	if c.unreadCount() == 0 {
		c.unread = e.rec.Time.UnixMilli()
	}
	c.tally.Owed++
	c.tally.OwedBytes += uint64(len(e.rec.Body))
	c.dirty = true
}

func (c *cursor) unreadCount() uint64 {
	return c.tally.Owed - c.tally.Settled() - uint64(c.unsettled.Len())
}

// take hands an event out, if it is owed and was not read before, or passes it.
func (c *cursor) take(e *entry, owed bool) (taken bool) {
	c.read.next = e.at + 1
	rule := ruleE{c.read.top}
	taken = rule.accepts(e.pos) && owed
	c.read.top = rule.top
	if taken {
		c.unsettled.Add(ledger.Delivery{At: e.pos, Debt: ledger.Debt{Size: int64(len(e.rec.Body)), Received: e.rec.Time.UnixMilli()}})
		c.unread = 0
		c.dirty = true
	}
	return taken
}

func (c *cursor) remove(pos offset) (ledger.Debt, bool) {
	d, ok := c.unsettled.Remove(pos)
	if ok {
		c.tally.SettledBytes += uint64(d.Size)
		c.dirty = true
	}
	return d, ok
}

func (c *cursor) settle(pos offset, o journal.Outcome) {
	if _, ok := c.remove(pos); ok {
		c.tally.Settle(o)
	}
}

func (c *cursor) failed(pos offset, r journal.Retry) {
	if d := c.unsettled.Get(pos); d != nil {
		d.Retry = &r
		c.dirty = true
	}
}

// bury makes a delivery a dead letter, here at once, and for others when interred says so.
func (c *cursor) bury(l journal.DeadLetter) {
	pos := offset(l.Position.Offset)
	if d, ok := c.remove(pos); ok {
		l.Size = d.Size
		c.tally.Dead++
		c.buried[pos] = &burial{debt: d, letter: l}
	}
}

// interred says that the letter of a delivery is in ncs.dead, perhaps that of another owner.
func (c *cursor) interred(pos offset) {
	if _, ok := c.buried[pos]; ok {
		delete(c.buried, pos)
		c.dirty = true
		return
	}
	if _, ok := c.remove(pos); ok {
		c.tally.Dead++
	}
}

// writeOff drops what is owed and was not read.
func (c *cursor) writeOff() uint64 {
	lost := c.unreadCount()
	if lost > 0 {
		c.tally.Dropped += lost
		c.tally.SettledBytes = c.tally.OwedBytes - c.unsettled.Bytes()
		c.unread, c.dirty = 0, true
	}
	return lost
}

// standing knows of no dead letters: those are settled.
func (c *cursor) standing(pos offset) journal.Standing { return c.unsettled.Standing(pos, c.read.top) }

// settledAt reports whether a delivery that the sink is, or was, owed has an outcome.
func (c *cursor) settledAt(pos offset) bool { return c.standing(pos).State == journal.StateSettled }

// dropAll settles what is owed, up to the end of the events, without reading it.
func (c *cursor) dropAll(end place) uint64 {
	n := c.tally.Owed - c.tally.Settled()
	c.tally.Dropped += n
	c.tally.SettledBytes = c.tally.OwedBytes
	c.unsettled, c.unread, c.read, c.dirty = ledger.NewUnsettled(nil), 0, end, true
	return n
}
