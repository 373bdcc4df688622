package diskjournal

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// checkpointInterval is the least time between two transactions. What was settled in between is delivered again after
// a crash.
const checkpointInterval = 250 * time.Millisecond

// A checkpoint of a large state takes a fifth of the time at most, unless the disk hangs for so long that what is settled
// would stay unsaved for minutes after that.
const longestPause = 10 * time.Second

func (j *Journal) checkpointLoop(ctx context.Context) {
	pause, failing := checkpointInterval, false
	for {
		select {
		case <-j.changed:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		start := time.Now()
		switch err := j.Flush(); {
		case err != nil && !failing:
			j.logger.Error("what sinks have settled cannot be saved: a restart would deliver it again", "error", err)
			failing = true
		case err == nil && failing:
			j.logger.Info("what sinks have settled is saved again")
			failing = false
		}
		pause = min(max(checkpointInterval, 4*time.Since(start)), longestPause)
	}
}

// wantCheckpoint is called after each change that a checkpoint saves, so that an idle journal sleeps.
func (j *Journal) wantCheckpoint() {
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

func (j *Journal) touch() { // j.mu is held
	j.dirty = true
	j.wantCheckpoint()
}

// snapshot is what one transaction saves. All of it is about positions that are on disk.
type snapshot struct {
	known   durable
	keys    []knownKey
	cursors map[*Cursor]*savedCursor
	buried  map[*Cursor][]journal.DeadLetter

	accounts map[string]journal.Account
	replays  map[*Replay]*savedReplay
}

// Flush saves what changed. Run does so a few times a second.
func (j *Journal) Flush() error {
	j.saving.Lock()
	defer j.saving.Unlock()
	if j.state == nil {
		return nil
	}
	return j.save(nil)
}

// save runs one transaction with everything that changed, and more where given, which finds all cursors in the
// snapshot. When it fails everything counts as changed again. j.saving is held.
func (j *Journal) save(more func(*bbolt.Tx, *snapshot) error) error {
	snap := j.snapshot(more != nil)
	if len(snap.cursors) == 0 && len(snap.keys) == 0 && len(snap.accounts) == 0 && len(snap.replays) == 0 && more == nil {
		return nil
	}
	surplus := 0
	err := j.state.update(func(tx *bbolt.Tx) (err error) {
		if err := putKeys(tx, snap.keys); err != nil {
			return err
		}
		if surplus, err = j.trimKeys(tx, len(snap.keys)); err != nil {
			return err
		}
		if err := snap.putLetters(tx); err != nil {
			return err
		}
		if err := snap.putReplays(tx); err != nil {
			return err
		}
		if more != nil {
			if err := more(tx, snap); err != nil {
				return err
			}
		}
		if err := putAccounts(tx, snap.accounts); err != nil {
			return err
		}
		for c, s := range snap.cursors {
			if err := tableOf(tx, bucketCursors).Put(sinkKey(c.id), s.encode()); err != nil {
				return err
			}
		}
		return tableOf(tx, bucketMeta).Put(metaFrontier, snap.known.encode())
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.restore(snap)
		if j.state.suspect {
			err = errors.Join(err, j.recount())
		}
		return err
	}
	j.keysSaved += len(snap.keys) - surplus
	for source, n := range snap.accounts {
		j.accounts[source].saved = n
	}
	for r, s := range snap.replays {
		r.committed(s)
	}
	for c, s := range snap.cursors {
		c.mu.Lock()
		c.tally.Letters, c.tally.LetterBytes = s.tally.Letters, s.tally.LetterBytes
		c.buried = slices.Clone(c.buried[len(snap.buried[c]):])
		c.mu.Unlock()
	}
	return nil
}

func (j *Journal) snapshot(all bool) *snapshot {
	j.mu.Lock()
	defer j.mu.Unlock()
	snap := &snapshot{known: j.known, keys: j.keys, cursors: make(map[*Cursor]*savedCursor), buried: make(map[*Cursor][]journal.DeadLetter),
		accounts: j.changedAccounts(), replays: make(map[*Replay]*savedReplay)}
	for _, r := range j.replays { // before the cursors: a letter that a replay has delivered was buried earlier
		if s := r.snapshot(all); s != nil {
			snap.replays[r] = s
			all = all || len(s.changes) > 0
		}
	}
	for _, c := range j.byID {
		c.mu.Lock()
		if all || c.dirty || j.dirty {
			snap.cursors[c] = c.snapshot()
			snap.buried[c] = slices.Clone(c.buried)
		}
		c.dirty = false
		c.mu.Unlock()
	}
	j.keys, j.dirty = nil, false
	return snap
}

// restore makes what a failed transaction should have saved wait for the next. j.mu is held.
func (j *Journal) restore(snap *snapshot) {
	j.keys = append(snap.keys, j.keys...)
	j.touch()
	for r := range snap.replays {
		r.mu.Lock()
		r.dirty = true
		r.mu.Unlock()
	}
}

// recount makes what was counted agree with the state again: the transaction that failed may have taken effect. j.mu is held.
func (j *Journal) recount() error {
	return j.state.view(func(tx *bbolt.Tx) error {
		for id, c := range j.byID {
			b, err := tableOf(tx, bucketCursors).Get(sinkKey(id))
			if err != nil {
				return err
			}
			saved, _, err := decodeTally(b)
			if err != nil {
				return err
			}
			c.mu.Lock()
			c.tally.Letters, c.tally.LetterBytes = saved.tally.Letters, saved.tally.LetterBytes
			c.mu.Unlock()
		}
		return j.loadCounts(tx)
	})
}

func (s *snapshot) putLetters(tx *bbolt.Tx) error {
	dead := tableOf(tx, bucketDead)
	for c, buried := range s.buried {
		for i := range buried {
			l := &buried[i]
			k := deadKey(c.id, in(l.Position))
			if dead.Bucket.Get(k) == nil { // an attempt that seemed to fail may have put it
				s.cursors[c].tally.Letters++
				s.cursors[c].tally.LetterBytes += uint64(l.Size + ledger.LetterOverhead)
			}
			if err := dead.Put(k, ledger.EncodeLetter(l)); err != nil {
				return err
			}
		}
	}
	return nil
}

// trimKeys counts ages from the newest key, as whoever reads them at the next start does: neither a clock that is set forward
// nor a stand-still makes them old.
func (j *Journal) trimKeys(tx *bbolt.Tx, added int) (int, error) {
	j.mu.Lock()
	surplus, keepFor := j.keysSaved+added-j.opts.KeepKeys, j.opts.KeepKeysFor
	j.mu.Unlock()
	oldest := int64(math.MinInt64)
	if k, chunk := tx.Bucket(bucketKeys).Cursor().Last(); k != nil && keepFor > 0 {
		n := (len(chunk) - sumSize) / keySize
		oldest = chunkKey(keyPosition(k), chunk, n-1).time - keepFor.Milliseconds()
	}
	return trimKeys(tx, surplus, oldest)
}

// KeepKeys changes Options.KeepKeys and KeepKeysFor.
func (j *Journal) KeepKeys(n int, d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.opts.KeepKeys, j.opts.KeepKeysFor = n, d
}

// Keys calls fn with the newest keys known. It is meant for the start: nothing is saved while it runs.
func (j *Journal) Keys(_ *journal.Shard, n int, since time.Time, fn func(key, id [16]byte, t time.Time)) error {
	j.saving.Lock()
	defer j.saving.Unlock()
	j.mu.Lock()
	fresh, skip := slices.Clone(j.keys), j.keysSaved+len(j.keys)-n
	j.mu.Unlock()
	oldest := since.UnixMilli()
	emit := func(k knownKey) {
		if skip > 0 {
			skip--
		} else if k.time >= oldest {
			fn(k.key, k.id, time.UnixMilli(k.time))
		}
	}
	err := j.state.view(func(tx *bbolt.Tx) error {
		return tableOf(tx, bucketKeys).ForEach(func(k, chunk []byte) error {
			n := len(chunk) / keySize
			if skip >= n {
				skip -= n
				return nil
			}
			for i := range n {
				emit(chunkKey(keyPosition(k), chunk, i))
			}
			return nil
		})
	})
	for _, k := range fresh {
		emit(k)
	}
	return err
}

// DeadLetters lists a sink's dead letters after a position, at most n. Their records come by Load.
func (j *Journal) DeadLetters(sink string, after journal.Position, n int) ([]journal.DeadLetter, error) {
	if c := j.sink(sink); c != nil && after.Shard == 0 {
		return c.deadLetters(in(after), n)
	}
	return nil, nil
}

// DeadLetter returns one dead letter.
func (j *Journal) DeadLetter(sink string, pos journal.Position) (journal.DeadLetter, bool, error) {
	if c := j.sink(sink); c != nil && in(pos) > 0 {
		return c.deadLetter(in(pos))
	}
	return journal.DeadLetter{}, false, nil
}

func (c *Cursor) deadLetter(pos position) (journal.DeadLetter, bool, error) {
	letters, err := c.deadLetters(pos-1, 1)
	if err == nil && len(letters) == 1 && letters[0].Position == at(pos) {
		return letters[0], true, nil
	}
	return journal.DeadLetter{}, false, err
}

func (c *Cursor) deadLetters(after position, n int) ([]journal.DeadLetter, error) {
	byPos := make(map[position]journal.DeadLetter)
	c.mu.Lock()
	for _, l := range c.buried {
		if pos := in(l.Position); pos > after {
			byPos[pos] = l
		}
	}
	c.mu.Unlock()
	stored := 0
	err := c.j.state.view(func(tx *bbolt.Tx) error {
		return letters(tx, c.id, after, func(l journal.DeadLetter) bool {
			byPos[in(l.Position)] = l
			stored++
			return stored < n
		})
	})
	list := make([]journal.DeadLetter, 0, len(byPos))
	for _, l := range byPos {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b journal.DeadLetter) int { return a.Position.Compare(b.Position) })
	return list[:min(n, len(list))], err
}

// DropLetters removes dead letters, all or none. They stay counted in Totals.Dead.
func (j *Journal) DropLetters(sink string, letters ...journal.DeadLetter) error {
	c := j.sink(sink)
	if c == nil {
		return nil
	}
	j.saving.Lock()
	defer j.saving.Unlock()
	return j.save(func(tx *bbolt.Tx, snap *snapshot) error {
		for _, l := range letters {
			if err := snap.dropLetter(tx, c, in(l.Position)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *snapshot) dropLetter(tx *bbolt.Tx, c *Cursor, pos position) error {
	k := deadKey(c.id, pos)
	v, err := tableOf(tx, bucketDead).Get(k)
	if v == nil {
		return err
	}
	l, err := ledger.DecodeLetter(at(pos), v)
	if err != nil {
		return err
	}
	s.cursors[c].tally.Letters--
	s.cursors[c].tally.LetterBytes -= uint64(l.Size + ledger.LetterOverhead)
	return tableOf(tx, bucketDead).Delete(k)
}
