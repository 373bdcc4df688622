package diskjournal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

const sweepInterval = 10 * time.Second

func (j *Journal) sweepLoop(ctx context.Context) {
	if err := errors.Join(j.auditLetters(), j.mendLetters()); err != nil { // not before the first answers: there may be many
		j.logger.Error("dead letters are lost to damage", "error", err)
	}
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	began := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-j.sweeps:
		case <-ctx.Done():
			return
		}
		// A clock that is set forward must not make dead letters old.
		now := began.Add(time.Since(began))
		if wall := time.Now(); wall.Round(0).Before(now.Round(0)) {
			now = wall
		}
		if err := j.Sweep(ctx, now); err != nil && ctx.Err() == nil {
			j.logger.Error("old records cannot be removed", "error", err)
		}
		select {
		case <-time.After(faultPause): // whoever finds no room asks at once, and again
		case <-ctx.Done():
			return
		}
	}
}

// Sweep makes room: it deletes segments that every opened sink has read and that are older than the retention, or the
// oldest of them whatever their age while max_size or min_free is not kept, or soon will not be; then dead letters beyond
// their limits, and, for max_size, the oldest of those that have outlived their segment; and kept records that nothing
// refers to any more. What is not settled, or a dead letter, in a segment is kept by copying it to state.db first. That file
// does not shrink, so that dropping dead letters would be of no use to min_free. Sinks not opened in this life of the
// process do not hold segments back; replays do while there is room.
func (j *Journal) Sweep(ctx context.Context, now time.Time) error {
	if err := j.dropLetters(now, 0); err != nil {
		return err
	}
	for done := false; !done; {
		var err error
		if done, err = j.sweepSegment(now); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := j.dropKept(); err != nil {
		return err
	}
	excess := j.space.excess()
	if excess <= 0 {
		return nil
	}
	if err := j.dropLetters(now, excess); err != nil {
		return err
	}
	return j.dropKept()
}

// sweepSegment deletes the oldest segment if it may be.
func (j *Journal) sweepSegment(now time.Time) (done bool, err error) {
	j.saving.Lock()
	defer j.saving.Unlock()
	j.log.mu.RLock()
	if len(j.log.list) < 2 { // the last is being written
		j.log.mu.RUnlock()
		return true, nil
	}
	s := j.log.list[0]
	end, last, newest := s.end, s.last, s.newest
	j.log.mu.RUnlock()

	old := newest < now.Add(-j.opts.Retention).UnixMilli()
	if !j.readBeyond(last) || !(j.space.short() || old && !j.wanted(s.first, last)) {
		return true, nil
	}
	st := stretch{seg: s, off: segmentHeader, end: end, behind: s.first - 1, last: last}
	if err := j.advanceClosed(st); err != nil {
		return false, err
	}
	for _, r := range j.replayList() {
		if err := r.forgo(st); err != nil {
			return false, err
		}
	}
	if err := j.save(func(tx *bbolt.Tx, snap *snapshot) error { return j.keep(tx, snap, st) }); err != nil {
		return false, err
	}
	return false, j.log.removeOldest(s)
}

// readBeyond reports whether every opened sink has read up to pos.
func (j *Journal) readBeyond(pos position) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.byID {
		c.mu.Lock()
		behind := c.opened && c.read < pos
		c.mu.Unlock()
		if behind {
			return false
		}
	}
	return true
}

// advanceClosed reads a segment on behalf of sinks that nobody reads for: what it owes them becomes unsettled. j.saving
// keeps Sink from opening one meanwhile.
func (j *Journal) advanceClosed(st stretch) error {
	j.mu.Lock()
	cursors := slices.Collect(maps.Values(j.byID))
	j.mu.Unlock()
	for _, c := range cursors {
		if err := c.advanceClosed(st); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cursor) advanceClosed(st stretch) error {
	c.nextMu.Lock() // a Next may still be running for a sink that was just released
	defer c.nextMu.Unlock()
	c.mu.Lock()
	read, behind := c.read, !c.opened && c.read < st.last
	c.mu.Unlock()
	if !behind {
		return nil
	}
	return c.takeAll(st, read, func(position, []byte) {})
}

// takeAll reads what a stretch owes to a sink that nobody reads for, and shows it to fn. c.nextMu is held.
func (c *Cursor) takeAll(st stretch, read position, fn func(pos position, payload []byte)) error {
	var owed []savedDelivery
	err := c.j.log.walk(st, func(off int64, f frame, payload []byte) bool {
		if f.pos <= read || !payloadOwed(payload, c.id) {
			return true
		}
		_, body, err := sinkNames(nil).decodeHeader(f.pos, payload)
		if err != nil {
			c.j.log.unreadable(st.seg, off, f, err)
			return true
		}
		owed = append(owed, deliveryOf(f.pos, payload, int64(len(body))))
		fn(f.pos, payload)
		return true
	})
	if err != nil {
		return err
	}
	c.took(owed, st.last, place{st.seg.first, st.end})
	return nil
}

// keep copies what is unsettled or a dead letter in a segment to the state.
func (j *Journal) keep(tx *bbolt.Tx, snap *snapshot, st stretch) error {
	referred, err := snap.referred(tx, st.seg.first, st.last)
	if err != nil {
		return err
	}
	kept := tableOf(tx, bucketKept)
	return j.changeKept(tx, func() (change int64, err error) {
		loadErr := j.log.load(referred, func(pos position, payload []byte) {
			if err == nil && kept.Bucket.Get(positionKey(pos)) == nil {
				err = kept.Put(positionKey(pos), payload)
				change += int64(len(payload))
			}
		})
		return change, errors.Join(err, loadErr)
	})
}

// referred lists the positions in [first, last] that the state, once tx is committed, names as unsettled or as a dead
// letter, ascending. What is settled since the snapshot is kept until the next sweep.
func (s *snapshot) referred(tx *bbolt.Tx, first, last position) ([]position, error) {
	var positions []position
	for c, saved := range s.cursors {
		for _, d := range saved.pending {
			if d.At >= first && d.At <= last {
				positions = append(positions, d.At)
			}
		}
		err := letters(tx, c.id, first-1, func(l journal.DeadLetter) bool {
			if in(l.Position) > last {
				return false
			}
			positions = append(positions, in(l.Position))
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	for _, saved := range s.replays {
		for _, d := range saved.pending {
			if d.At >= first && d.At <= last {
				positions = append(positions, d.At)
			}
		}
	}
	slices.Sort(positions)
	return slices.Compact(positions), nil
}

func (j *Journal) changeKept(tx *bbolt.Tx, fn func() (int64, error)) error {
	change, err := fn()
	if err != nil {
		return err
	}
	j.mu.Lock()
	kept := j.keptBytes + change
	j.mu.Unlock()
	tx.OnCommit(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.keptBytes = kept
	})
	return tableOf(tx, bucketMeta).Put(metaKept, binary.AppendUvarint(nil, uint64(kept)))
}

// dropKept removes kept records that nothing refers to.
func (j *Journal) dropKept() error {
	j.saving.Lock()
	defer j.saving.Unlock()
	ended := j.ended()
	if ended.kept == 0 || ended == j.keptFor { // nothing is kept, or nothing was settled or dropped since
		return nil
	}
	err := j.save(func(tx *bbolt.Tx, snap *snapshot) error {
		referred, err := snap.referred(tx, 1, ^position(0)-1)
		if err != nil {
			return err
		}
		return j.changeKept(tx, func() (change int64, err error) {
			var gone [][]byte
			err = tx.Bucket(bucketKept).ForEach(func(k, v []byte) error {
				if _, ok := slices.BinarySearch(referred, keyPosition(k)); !ok {
					gone = append(gone, slices.Clone(k))
					change -= int64(len(v) - sumSize)
				}
				return nil
			})
			for _, k := range gone {
				err = errors.Join(err, tx.Bucket(bucketKept).Delete(k))
			}
			return change, err
		})
	})
	if err == nil {
		j.keptFor = ended
	}
	return err
}

// endings is what makes kept records superfluous, counted.
type endings struct{ settled, letters, replayed, kept uint64 }

func (j *Journal) ended() (n endings) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n.kept = uint64(j.keptBytes)
	for _, c := range j.byID {
		c.mu.Lock()
		n.settled, n.letters = n.settled+c.tally.Settled(), n.letters+c.tally.Letters
		c.mu.Unlock()
	}
	for _, r := range j.replays {
		t := r.Totals()
		n.replayed += t.Delivered + t.Failed + t.Skipped
	}
	return n
}

// dropLetters removes the oldest dead letters beyond their limits, and of those whose records are kept apart from the
// log as many as take excess bytes.
func (j *Journal) dropLetters(now time.Time, excess int64) error {
	j.saving.Lock()
	defer j.saving.Unlock()
	d := letterDrop{dead: j.opts.Dead, now: now, excess: excess, kept: j.log.oldest()}
	j.mu.Lock()
	cursors := slices.Collect(maps.Values(j.byID))
	for _, c := range cursors {
		c.mu.Lock()
		d.total += int64(c.tally.LetterBytes)
		c.mu.Unlock()
	}
	j.mu.Unlock()
	due := false
	err := j.state.view(func(tx *bbolt.Tx) error {
		c, l, err := oldestLetter(tx, slices.Values(cursors))
		due = c != nil && d.due(l)
		return err
	})
	if err != nil || !due {
		return err
	}
	var dropped map[*Cursor]uint64
	err = j.save(func(tx *bbolt.Tx, snap *snapshot) error {
		dropped = make(map[*Cursor]uint64)
		for d := d; ; { // a transaction may be repeated
			c, l, err := oldestLetter(tx, maps.Keys(snap.cursors))
			if err != nil || c == nil || !d.due(l) {
				return err
			}
			if err := snap.dropLetter(tx, c, in(l.Position)); err != nil {
				return err
			}
			d.excess -= l.Size
			d.total -= l.Size + ledger.LetterOverhead
			dropped[c]++
		}
	})
	if err != nil {
		return err
	}
	for c, n := range dropped {
		c.mu.Lock()
		c.lettersLost += n
		c.mu.Unlock()
		j.logger.Error("dead letters beyond their limits were dropped", "sink", c.name, "letters", n)
	}
	return nil
}

// letterDrop decides which dead letters go.
type letterDrop struct {
	dead   journal.DeadConfig
	now    time.Time
	total  int64    // that all letters take
	excess int64    // to be gained from those before kept
	kept   position // the first that the log may still hold
}

func (d *letterDrop) due(l journal.DeadLetter) bool {
	expired := d.dead.Retention > 0 && l.At.Before(d.now.Add(-d.dead.Retention))
	over := d.dead.MaxSize > 0 && d.total > d.dead.MaxSize
	return expired || over || (d.excess > 0 && in(l.Position) < d.kept)
}

// auditLetters compares the dead letters there are with those that were counted.
func (j *Journal) auditLetters() error {
	j.saving.Lock()
	defer j.saving.Unlock()
	there := make(map[sinkID]uint64)
	err := j.state.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketDead).ForEach(func(k, _ []byte) error {
			if len(k) == 12 {
				there[sinkID(binary.BigEndian.Uint32(k))]++
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for id, c := range j.byID {
		c.mu.Lock()
		letters := c.tally.Letters
		c.mu.Unlock()
		if there[id] != letters {
			return fmt.Errorf("state: %d dead letters of sink %q where there should be %d: %w", there[id], c.name, letters, ErrDamaged)
		}
	}
	return nil
}

// mendLetters writes dead letters anew whose sum is wrong: the event is there, only why it was given up is not known any more.
// As they are nothing could be dropped, and no segment removed.
func (j *Journal) mendLetters() error {
	j.saving.Lock()
	defer j.saving.Unlock()
	var keys [][]byte
	var positions []position
	err := j.state.view(func(tx *bbolt.Tx) error {
		dead := tableOf(tx, bucketDead)
		return dead.Bucket.ForEach(func(k, v []byte) error {
			if _, err := dead.open(k, v); err != nil && len(k) == 12 {
				keys, positions = append(keys, slices.Clone(k)), append(positions, keyPosition(k[4:]))
			}
			return nil
		})
	})
	if err != nil || len(keys) == 0 {
		return err
	}
	recs, err := j.load(positions)
	if err != nil {
		return err
	}
	err = j.save(func(tx *bbolt.Tx, _ *snapshot) error {
		for i, k := range keys {
			l := journal.DeadLetter{Position: at(positions[i]), Reason: "not known: the dead letter was damaged on disk", At: time.Now()}
			if recs[i] != nil {
				l.Size = int64(len(recs[i].Body))
			}
			if err := tableOf(tx, bucketDead).Put(k, ledger.EncodeLetter(&l)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		j.logger.Error("dead letters were damaged on disk: their reasons are lost", "letters", len(keys), "position", positions[0])
	}
	return err
}

// oldestLetter finds the first of all sinks.
func oldestLetter(tx *bbolt.Tx, cursors iter.Seq[*Cursor]) (oldest *Cursor, letter journal.DeadLetter, err error) {
	for c := range cursors {
		err := letters(tx, c.id, 0, func(l journal.DeadLetter) bool {
			if oldest == nil || in(l.Position) < in(letter.Position) {
				oldest, letter = c, l
			}
			return false
		})
		if err != nil {
			return nil, letter, err
		}
	}
	return oldest, letter, nil
}

// oldest is the first position the log may still hold.
func (l *segments) oldest() position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.list) == 0 {
		return l.frontier + 1
	}
	return l.list[0].first
}

// removeOldest deletes the first segment of the log.
func (l *segments) removeOldest(s *segment) error {
	if err := l.fs.Remove(l.path(s.name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.mu.Lock()
	l.list = slices.Clone(l.list[1:])
	l.mu.Unlock()
	return l.fs.SyncDir(l.dir)
}
