package diskjournal

import (
	"maps"
	"slices"
	"strings"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// DiskStats describe the log.
func (j *Journal) DiskStats() journal.DiskStats {
	s := journal.DiskStats{Bytes: j.used(), MaxBytes: j.opts.MaxSize, Syncs: j.writer.syncs.Load()}
	s.Free, _, _ = j.space.volume(spaceInterval) // 0 when it is not known
	j.log.mu.RLock()
	s.Segments, s.TornBytes, s.Damaged, s.LostRecords = len(j.log.list), j.log.torn, j.log.damaged, j.log.lost
	j.log.mu.RUnlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	s.Faults = j.faults
	return s
}

func (j *Journal) used() int64 {
	j.mu.Lock()
	kept := j.keptBytes
	j.mu.Unlock()
	return kept + j.log.bytes()
}

// Snapshot reads all accounts at once.
func (j *Journal) Snapshot() journal.Snapshot {
	j.mu.Lock()
	cursors := slices.SortedFunc(maps.Values(j.byID), func(a, b *Cursor) int { return strings.Compare(a.name, b.name) })
	snap := journal.Snapshot{Accounts: make(map[string]journal.Account, len(j.accounts)), Sinks: make([]journal.SinkStatus, len(cursors))}
	for name, a := range j.accounts {
		snap.Accounts[name] = a.Read()
	}
	for i, c := range cursors {
		snap.Sinks[i] = c.status()
	}
	j.mu.Unlock()
	for i, c := range cursors {
		if s := &snap.Sinks[i]; s.Totals.Pending > 0 && s.Oldest.IsZero() {
			s.Oldest = c.oldestUnread() // may look for it on disk
		}
	}
	return snap
}

// Sinks lists every sink the journal knows, by name.
func (j *Journal) Sinks() []journal.SinkStatus { return j.Snapshot().Sinks }

func (c *Cursor) status() journal.SinkStatus { // Journal.mu is held
	c.mu.Lock()
	defer c.mu.Unlock()
	s := journal.SinkStatus{Name: c.name, Open: c.opened, Totals: c.tally.Totals(), PendingBytes: c.tally.PendingBytes(),
		Letters: c.tally.Letters + uint64(len(c.buried)), LettersLost: c.lettersLost, Paused: c.paused, Oldest: c.unsettled.Oldest()}
	if unread := ledger.ReceivedAt(c.unread); c.unreadCount() > 0 && !unread.IsZero() && (c.unsettled.Len() == 0 || unread.Before(s.Oldest)) {
		s.Oldest = unread
	}
	return s
}

// owe counts a record that is on disk and that nobody has read. Journal.mu is held.
func (c *Cursor) owe(size, received int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unreadCount() == 0 {
		c.unread = received
	}
	c.tally.Owed++
	c.tally.OwedBytes += uint64(size)
	c.news = true
}

// oldestUnread looks for the first record that the sink is owed and has not read. It is remembered until it is read.
func (c *Cursor) oldestUnread() time.Time {
	c.mu.Lock()
	read, at, received := c.read, c.at, c.unread
	c.mu.Unlock()
	pos := read
	for received == 0 {
		st, ok, err := c.j.log.after(pos, at)
		if err != nil || !ok {
			return time.Time{}
		}
		st.block = 16 << 10 // it is near as a rule
		err = c.j.log.walk(st, func(_ int64, f frame, payload []byte) bool {
			if f.pos > read && payloadOwed(payload, c.id) {
				received = payloadTime(payload)
			}
			return received == 0
		})
		if err != nil {
			return time.Time{}
		}
		pos, at = st.last, place{st.seg.first, st.end}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read == read {
		c.unread = received
	}
	return time.UnixMilli(received)
}
