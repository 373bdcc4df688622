package diskjournal

import (
	"sync"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// Cursor is what one sink has read and settled. In memory it is always up to date; on disk up to a checkpoint ago, so
// after a crash some deliveries are handed out again. All methods may be called concurrently; none but Next and Load
// touches the disk.
type Cursor struct {
	j    *Journal
	id   sinkID
	name string

	nextMu sync.Mutex // one Next at a time

	mu        sync.Mutex // guards what follows; taken after Journal.mu where both are needed
	opened    bool       // in this life of the process
	read      position   // what is owed up to here is in open or settled
	at        place      // of the record after read
	unsettled ledger.Unsettled
	tally     ledger.Tally // Owed and OwedBytes are guarded by Journal.mu instead
	unread    int64        // when the oldest record owed and not read was received, ms; 0 = not known
	buried    []journal.DeadLetter
	paused    string
	dirty     bool
	news      bool          // owed since the last wake-up
	appended  chan struct{} // closed when it has news

	lettersLost uint64 // dropped by the limits of dead letters, by this process
}

func newCursor(j *Journal, name string, id sinkID, saved *savedCursor) *Cursor {
	return &Cursor{j: j, id: id, name: name, read: saved.read, at: saved.at, tally: saved.tally, paused: saved.paused,
		appended: make(chan struct{}), unsettled: ledger.NewUnsettled(saved.pending)}
}

// Pending returns the deliveries handed out and not settled, in order.
func (c *Cursor) Pending() []journal.Pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsettled.Pending(0)
}

// Next hands out the next records owed to the sink.
func (c *Cursor) Next(maxBytes int) ([]*journal.Record, error) {
	c.nextMu.Lock()
	defer c.nextMu.Unlock()
	read, at, more := c.unreadFrom()
	if !more {
		return nil, nil
	}
	names := c.j.sinkNames()

	var recs []*journal.Record
	var took []savedDelivery
	for size := 0; len(recs) == 0; {
		st, ok, err := c.j.log.after(read, at)
		if err != nil {
			return nil, err
		}
		if !ok {
			c.writeOff()
			return nil, nil
		}
		full := false
		st.block = min(max(2*maxBytes, 4<<10), readBlock)
		err = c.j.log.walk(st, func(off int64, f frame, payload []byte) bool {
			read, at = f.pos, place{st.seg.first, off + f.size()}
			if !payloadOwed(payload, c.id) {
				return true
			}
			r, err := names.decodePayload(f.pos, payload)
			if err != nil {
				c.j.log.unreadable(st.seg, off, f, err)
				return true
			}
			recs = append(recs, r)
			took = append(took, deliveryOf(f.pos, payload, int64(len(r.Body))))
			size += len(r.Body)
			full = size >= maxBytes
			return !full
		})
		if err == nil && !full {
			read, at = st.last, place{st.seg.first, st.end}
		}
		c.took(took, read, at)
		if err != nil && len(recs) == 0 {
			return nil, err
		}
	}
	return recs, nil
}

// Appended returns a channel that is closed when Next, or that of a replay to the sink, may find more. Take it before calling them.
func (c *Cursor) Appended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.appended
}

// wakeIfOwed wakes who waits for what is owed.
func (c *Cursor) wakeIfOwed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.news {
		c.signal()
	}
}

func (c *Cursor) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signal()
}

func (c *Cursor) signal() { // c.mu is held
	c.news = false
	close(c.appended)
	c.appended = make(chan struct{})
}

// unreadFrom is where to go on reading, if something is owed there.
func (c *Cursor) unreadFrom() (read position, at place, more bool) {
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passOver()
	return c.read, c.at, c.unreadCount() > 0
}

// passOver counts as read what is not owed, without looking at it. Journal.mu and c.mu are held.
func (c *Cursor) passOver() {
	if known := c.j.known; c.unreadCount() == 0 && known.pos > c.read {
		c.read, c.at = known.pos, place{known.seg, known.off}
	}
}

// writeOff counts as dropped what the sink is owed and nobody will ever find: records damaged on disk. How many these
// are is known only when everything else was read.
func (c *Cursor) writeOff() {
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.j.known.pos > c.j.log.front() || c.j.log.reach() > c.read {
		return // more was appended meanwhile
	}
	lost := c.unreadCount()
	if lost == 0 {
		return
	}
	c.tally.Dropped += lost
	c.tally.SettledBytes = c.tally.OwedBytes - c.unsettled.Bytes()
	c.touch()
	c.j.logger.Error("deliveries are lost to damage on disk", "sink", c.name, "deliveries", lost)
}

func (c *Cursor) took(list []savedDelivery, read position, at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(list) > 0 {
		c.unsettled.Add(list...)
		c.unread = 0
	}
	c.read, c.at = read, at
	c.touch()
}

// unreadCount is how many deliveries are owed and were not read. Journal.mu and c.mu are held.
func (c *Cursor) unreadCount() uint64 {
	return c.tally.Owed - c.tally.Settled() - uint64(c.unsettled.Len())
}

// Owes reports whether a delivery was handed out and is not settled.
func (c *Cursor) Owes(pos journal.Position) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsettled.Get(in(pos)) != nil
}

// Settle ends a delivery.
func (c *Cursor) Settle(pos journal.Position, o journal.Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.remove(in(pos)); !ok {
		return
	}
	c.tally.Settle(o)
}

// Failed notes a failed attempt at a delivery that stays pending.
func (c *Cursor) Failed(pos journal.Position, r journal.Retry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.unsettled.Get(in(pos)); d != nil {
		d.Retry = &r
		c.touch()
	}
}

// Bury settles a delivery by making it a dead letter. Until the next checkpoint a crash makes it pending again.
func (c *Cursor) Bury(l journal.DeadLetter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d, ok := c.remove(in(l.Position))
	if !ok {
		return
	}
	l.Size = d.Size
	c.buried = append(c.buried, l)
	c.tally.Dead++
}

func (c *Cursor) remove(pos position) (ledger.Debt, bool) { // c.mu is held
	d, ok := c.unsettled.Remove(pos)
	if ok {
		c.tally.SettledBytes += uint64(d.Size)
		c.touch()
	}
	return d, ok
}

func (c *Cursor) touch() { // c.mu is held
	c.dirty = true
	c.j.wantCheckpoint()
}

// Totals returns one snapshot.
func (c *Cursor) Totals() journal.Totals {
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally.Totals()
}

// Owed are the deliveries of the one shard there is.
func (c *Cursor) Owed(*journal.Shard) journal.Deliveries { return c }

// End does nothing: nobody else takes the deliveries over.
func (c *Cursor) End() {}

// PendingBytes are the bodies not settled, read or not.
func (c *Cursor) PendingBytes(*journal.Shard) int64 {
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally.PendingBytes()
}

// SetPaused keeps why nothing is sent to the sink; on disk with the next checkpoint.
func (c *Cursor) SetPaused(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = reason
	c.touch()
}

// Paused returns what SetPaused kept, also in an earlier life of the process.
func (c *Cursor) Paused() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused
}

// snapshot returns what a checkpoint saves. Journal.mu and c.mu are held.
func (c *Cursor) snapshot() *savedCursor {
	c.passOver()
	return &savedCursor{read: c.read, at: c.at, tally: c.tally, paused: c.paused, pending: c.unsettled.Saved()}
}

// Release says that nobody reads for the sink any more. What it is owed no longer keeps segments from being deleted: it is copied,
// see Sweep.
func (c *Cursor) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = false
}

// Pending returns what a sink was handed out and has not settled, in order, whether it is opened or not.
func (j *Journal) Pending(sink string) []journal.Pending {
	c := j.sink(sink)
	if c == nil {
		return nil
	}
	return c.Pending()
}
