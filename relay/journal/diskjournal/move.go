package diskjournal

import (
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// Move makes sink to owe what sink from, not opened now, owes.
func (j *Journal) Move(from, to string) (positions []journal.Position, skipped uint64, err error) {
	j.saving.Lock()
	defer j.saving.Unlock()
	src, err := j.abandoned(from)
	if err != nil {
		return nil, 0, err
	}
	dst := j.sink(to)
	if dst == nil || dst == src {
		return nil, 0, fmt.Errorf("sink %q cannot take over from %q", to, from)
	}
	src.nextMu.Lock()
	defer src.nextMu.Unlock()
	m := &move{src: src, dst: dst, both: make(map[position]bool)}
	if err := m.survey(); err != nil {
		return nil, 0, err
	}
	if err := j.save(func(tx *bbolt.Tx, snap *snapshot) error { m.plan(snap.cursors[src], snap.cursors[dst]); return nil }); err != nil {
		return nil, 0, err
	}
	positions, skipped = m.apply()
	return positions, skipped, nil
}

// abandoned returns the cursor of a sink that nobody has opened. j.saving keeps it from being opened.
func (j *Journal) abandoned(name string) (*Cursor, error) {
	c := j.sink(name)
	if c == nil {
		return nil, fmt.Errorf("sink %q is not known", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		return nil, fmt.Errorf("sink %q is in use", name)
	}
	return c, nil
}

// move makes one sink owe what another is owed. What it does is first done in what is saved, then in memory.
type move struct {
	src, dst *Cursor
	both     map[position]bool // dst is, or was, owed it anyway
	moved    []savedDelivery
}

// survey reads all that src is owed, and finds out what dst is owed as well.
func (m *move) survey() error {
	j := m.src.j
	for chunk := range slices.Chunk(m.src.Pending(), 256) {
		positions := make([]journal.Position, len(chunk))
		for i, p := range chunk {
			positions[i] = p.Position
		}
		recs, err := j.Load(positions)
		if err != nil {
			return err
		}
		for _, r := range recs { // what is lost is moved, too: dst will find out
			if r != nil && slices.Contains(r.Sinks, m.dst.name) {
				m.both[in(r.Position)] = true
			}
		}
	}
	for {
		st, ok, err := j.log.after(m.src.read, m.src.at)
		if err != nil {
			return err
		}
		if !ok {
			m.src.writeOff()
			return nil
		}
		err = m.src.takeAll(st, m.src.read, func(pos position, payload []byte) {
			if payloadOwed(payload, m.dst.id) {
				m.both[pos] = true
			}
		})
		if err != nil {
			return err
		}
	}
}

// plan moves in what is saved.
func (m *move) plan(src, dst *savedCursor) {
	m.moved = nil
	held := make(map[position]bool, len(dst.pending))
	for _, d := range dst.pending {
		held[d.At] = true
	}
	for _, d := range src.pending {
		if m.both[d.At] || held[d.At] {
			m.both[d.At] = true
			src.tally.Skipped++
			src.tally.SettledBytes += uint64(d.Size)
			continue
		}
		d.Retry = nil
		m.moved = append(m.moved, d)
		disown(&src.tally, &dst.tally, d.Size)
	}
	src.pending = nil
	dst.pending = append(dst.pending, m.moved...)
	slices.SortFunc(dst.pending, ledger.Compare)
}

// disown makes another tally owe a delivery.
func disown(t, to *ledger.Tally, size int64) {
	t.Owed--
	t.OwedBytes -= uint64(size)
	to.Owed++
	to.OwedBytes += uint64(size)
}

// apply moves in memory. What was settled since it was planned stays where it is.
func (m *move) apply() (positions []journal.Position, skipped uint64) {
	m.src.j.mu.Lock()
	defer m.src.j.mu.Unlock()
	m.src.mu.Lock()
	defer m.src.mu.Unlock()
	for pos := range m.both {
		if _, ok := m.src.remove(pos); ok {
			skipped++
		}
	}
	m.src.tally.Skipped += skipped
	m.dst.mu.Lock()
	defer m.dst.mu.Unlock()
	var taken []savedDelivery
	for _, d := range m.moved {
		if _, ok := m.src.unsettled.Remove(d.At); ok {
			disown(&m.src.tally, &m.dst.tally, d.Size)
			taken = append(taken, d)
			positions = append(positions, at(d.At))
		}
	}
	m.dst.unsettled.Add(taken...)
	m.src.touch()
	m.dst.touch()
	return positions, skipped
}

// DropPending settles everything a sink that is not opened is owed.
func (j *Journal) DropPending(sink string) (uint64, error) {
	j.saving.Lock()
	defer j.saving.Unlock()
	c, err := j.abandoned(sink)
	if err != nil {
		return 0, err
	}
	n := c.dropAll()
	return n, j.save(nil)
}

// dropAll settles what is owed without reading it.
func (c *Cursor) dropAll() uint64 {
	c.nextMu.Lock() // a Next may still be running for a sink that was just released
	defer c.nextMu.Unlock()
	c.j.mu.Lock()
	defer c.j.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.tally.Owed - c.tally.Settled()
	c.tally.Dropped += n
	c.tally.SettledBytes = c.tally.OwedBytes
	c.unsettled = ledger.NewUnsettled(nil)
	c.read, c.at = c.j.known.pos, place{c.j.known.seg, c.j.known.off}
	c.touch()
	return n
}
