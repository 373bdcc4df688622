package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// openSinks are the sinks that this replica has open.
func (j *Journal) openSinks() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var names []string
	for _, k := range j.sinks {
		if k.open {
			names = append(names, k.name)
		}
	}
	return names
}

// keysWait is how long Keys and Find wait for what a take-over reads back. Without it a copy is stored once more, and the judge leaves it out.
const keysWait = 5 * time.Second

// Keys calls fn with the newest events known in a shard; none if it is not this replica's any more.
func (j *Journal) Keys(shard *journal.Shard, n int, since time.Time, fn func(key, id [16]byte, t time.Time)) error {
	s := j.shard(shard.Number)
	if s == nil || s.public != shard {
		return nil
	}
	s.awaitRecall()
	for _, k := range j.ids.newest(shard.Number, n, since) {
		fn(k.key, k.id, time.UnixMilli(k.ms))
	}
	return nil
}

// awaitRecall waits until the ids of the events before the shard was taken over are known, but not for long.
func (s *shard) awaitRecall() {
	select {
	case <-s.recalled:
	case <-s.ctx.Done():
	case <-time.After(keysWait):
	}
}

// KeepKeys bounds how many events are known, in all shards of this replica together, and for how long.
func (j *Journal) KeepKeys(n int, d time.Duration) { j.ids.keep(n, d) }

// Find returns the position of the event with an id in the shards that this replica has, as far as it is still known.
func (j *Journal) Find(id [16]byte) ([]journal.Position, error) {
	var found []journal.Position
	for _, s := range j.running() {
		s.awaitRecall()
		if pos, ok := j.ids.find(uint32(s.n), id); ok {
			found = append(found, journal.Position{Shard: uint32(s.n), Offset: uint64(pos)})
		}
	}
	return found, nil
}

// Snapshot returns the accounts of sources, of all replicas, and of the sinks in the shards that this replica has, at one instant.
func (j *Journal) Snapshot() journal.Snapshot {
	shards := j.running()
	for _, s := range shards {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	snap := journal.Snapshot{Accounts: j.sumAccounts()}
	j.mu.Lock()
	ends := maps.Clone(j.frontier) // after the accounts: of whatever they count it is known
	j.mu.Unlock()
	sinks := make(map[string]*journal.SinkStatus)
	for _, name := range j.openSinks() {
		sinks[name] = &journal.SinkStatus{Name: name}
	}
	for _, s := range shards {
		snap.Unjudged += uint64(max(0, ends[s.n]-int64(s.core.judged)))
		s.addStatus(sinks)
	}
	for _, name := range slices.Sorted(maps.Keys(sinks)) {
		k := sinks[name]
		k.Open, k.Paused = j.isOpen(name), j.control.paused(name)
		snap.Sinks = append(snap.Sinks, *k)
	}
	return snap
}

// addStatus adds what the sinks have in a shard. s.mu is held.
func (s *shard) addStatus(sinks map[string]*journal.SinkStatus) {
	for name, c := range s.core.cursors {
		if name.kind != kindSink {
			continue
		}
		k := sinks[name.name]
		if k == nil {
			k = &journal.SinkStatus{Name: name.name}
			sinks[name.name] = k
		}
		t := c.tally.Totals()
		k.Totals.Owed += t.Owed
		k.Totals.Delivered += t.Delivered
		k.Totals.Dead += t.Dead
		k.Totals.Skipped += t.Skipped
		k.Totals.Dropped += t.Dropped
		k.Totals.Pending += t.Pending
		k.PendingBytes += c.tally.PendingBytes()
		k.Letters += uint64(len(c.buried))
		if kept := s.letters[name.name]; kept != nil {
			k.Letters += uint64(len(kept.list))
		}
		k.LettersLost += s.lettersLost[name.name]
		if oldest := s.oldest(c); !oldest.IsZero() && (k.Oldest.IsZero() || oldest.Before(k.Oldest)) {
			k.Oldest = oldest
		}
	}
}

// oldest is when the oldest event was received that a sink has not settled. s.mu is held.
func (s *shard) oldest(c *cursor) time.Time {
	oldest := c.unsettled.Oldest()
	if c.unreadCount() > 0 {
		if unread := s.oldestUnread(c); oldest.IsZero() || !unread.IsZero() && unread.Before(oldest) {
			oldest = unread
		}
	}
	return oldest
}

// Load reads records by position, from memory, from the inbox, or from dead letters.
func (j *Journal) Load(positions []journal.Position) ([]*journal.Record, error) {
	recs, err := j.load(positions)
	if err == nil && j.own.Lease() <= 0 {
		err = errors.New("this replica may not act on its shards at the moment") // what is loaded is about to be sent
	}
	return recs, err
}

func (j *Journal) load(positions []journal.Position) ([]*journal.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	byShard := make(map[uint32][]journal.Position)
	for _, p := range positions {
		byShard[p.Shard] = append(byShard[p.Shard], p)
	}
	found := make(map[journal.Position]*journal.Record, len(positions))
	for n, wanted := range byShard {
		slices.SortFunc(wanted, journal.Position.Compare)
		if err := j.loadFrom(ctx, n, slices.Compact(wanted), found); err != nil {
			return nil, err
		}
	}
	recs := make([]*journal.Record, len(positions))
	for i, p := range positions {
		if r := found[p]; r != nil {
			recs[i] = j.shard(p.Shard).ours(r)
		}
	}
	return recs, nil
}

// loadFrom reads records of a shard, by position, ascending.
func (j *Journal) loadFrom(ctx context.Context, n uint32, wanted []journal.Position, found map[journal.Position]*journal.Record) error {
	s := j.shard(n)
	if s != nil {
		s.mu.Lock()
		for _, p := range wanted {
			if e := s.ring.find(offset(p.Offset)); e != nil {
				found[p] = e.rec
			}
		}
		s.mu.Unlock()
	}
	var near []kafkalog.Record
	for _, p := range wanted {
		at := int64(p.Offset) - 1
		if found[p] != nil || at < 0 || int(n) >= len(j.inbox) {
			continue
		}
		if !holds(near, at) {
			var err error
			if near, err = readThere(ctx, j.logs, j.topics.inbox, int32(n), at, readBytes/4); err != nil {
				return err
			}
		}
		for i := range near {
			if rec := &near[i]; rec.Offset == at {
				e, err := decodeInbox(n, rec)
				if err != nil {
					return err
				}
				found[p] = e.rec
			}
		}
		if found[p] == nil && s != nil {
			r, err := s.letterRecord(ctx, offset(p.Offset))
			if err != nil {
				return err
			}
			found[p] = r
		}
	}
	return nil
}

func holds(recs []kafkalog.Record, at int64) bool {
	return len(recs) > 0 && recs[0].Offset <= at && at <= recs[len(recs)-1].Offset
}

// Scan calls fn with the events of the shards that this replica has, each shard's in order, and before them those of dead letters whose
// events are gone.
func (j *Journal) Scan(ctx context.Context, want func(header *journal.Record) bool, fn func(*journal.Record) bool) error {
	for _, s := range j.running() {
		on, err := s.scanLetters(ctx, want, fn)
		if err == nil && on {
			on, err = j.scanShard(ctx, s.n, want, fn)
		}
		if err != nil || !on {
			return errors.Join(err, ctx.Err())
		}
	}
	return ctx.Err()
}

// scanLetters is Scan for the dead letters whose events are gone.
func (s *shard) scanLetters(ctx context.Context, want func(header *journal.Record) bool, fn func(*journal.Record) bool) (on bool, err error) {
	first, err := s.firstEvent(ctx)
	if err != nil {
		return false, err
	}
	for chunk := range slices.Chunk(s.letterPositions(first), 64) {
		recs, err := s.j.load(chunk)
		if err != nil {
			return false, err
		}
		for _, r := range recs {
			if r == nil {
				continue
			}
			if wants(want, r) && !fn(r) || ctx.Err() != nil {
				return false, ctx.Err()
			}
		}
	}
	return true, nil
}

// firstEvent is the position of the oldest event that the topic has; larger than any if it has none.
func (s *shard) firstEvent(ctx context.Context) (offset, error) {
	events, err := s.bounds(ctx, s.j.topics.events)
	if err != nil || events.start == events.end {
		return math.MaxUint64, err
	}
	rec, err := s.recordAt(ctx, s.j.topics.events, events.start)
	if rec == nil || err != nil {
		return math.MaxUint64, err
	}
	e, err := decodeEvent(uint32(s.n), rec)
	return e.pos, err
}

// letterPositions are those of all dead letters before a position, each once, ascending.
func (s *shard) letterPositions(before offset) (positions []journal.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kept := range s.letters {
		end, _ := kept.index(before)
		for _, l := range kept.list[:end] {
			positions = append(positions, l.Position)
		}
	}
	slices.SortFunc(positions, journal.Position.Compare)
	return slices.Compact(positions)
}

var errEnough = errors.New("enough")

func (j *Journal) scanShard(ctx context.Context, n int32, want func(header *journal.Record) bool, fn func(*journal.Record) bool) (on bool, err error) {
	topic := j.topics.events
	log, err := j.bounds(ctx, topic, n)
	if err != nil {
		return false, err
	}
	var rule ruleE
	err = readTo(ctx, j.logs, topic, n, log.start, log.end, func(recs []kafkalog.Record) error {
		for i := range recs {
			e, err := decodeEvent(uint32(n), &recs[i])
			if err != nil {
				return err
			}
			if !rule.accepts(e.pos) {
				continue
			}
			if wants(want, e.rec) && !fn(e.rec) || ctx.Err() != nil {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return false, ctx.Err()
	}
	if err != nil {
		return false, fmt.Errorf("read topic %s, partition %d: %w", topic, n, err)
	}
	return true, nil
}

// Standing returns how a delivery stands in a shard that this replica has.
func (j *Journal) Standing(sink string, pos journal.Position) (journal.Standing, error) {
	s := j.shard(pos.Shard)
	if s == nil {
		return journal.Standing{}, fmt.Errorf("shard %d is not this replica's", pos.Shard)
	}
	s.mu.Lock()
	c := s.core.cursors[cursorName{kindSink, sink}]
	var standing journal.Standing
	if c != nil {
		standing = c.standing(offset(pos.Offset))
	}
	s.mu.Unlock()
	if standing.State != journal.StateSettled {
		return standing, nil
	}
	if l, dead, err := j.DeadLetter(sink, pos); dead || err != nil {
		return journal.Standing{State: journal.StateDead, Retry: l.Retry, Reason: l.Reason}, err
	}
	return standing, nil
}

// Pending returns what a sink was handed out and has not settled in the shards that this replica has.
func (j *Journal) Pending(sink string) []journal.Pending {
	var list []journal.Pending
	for _, s := range j.running() {
		s.mu.Lock()
		if c := s.core.cursors[cursorName{kindSink, sink}]; c != nil {
			list = append(list, c.unsettled.Pending(uint32(s.n))...)
		}
		s.mu.Unlock()
	}
	return list
}

// DropPending settles everything a sink that is not open is owed in the shards that this replica has.
func (j *Journal) DropPending(sink string) (uint64, error) {
	if j.isOpen(sink) {
		return 0, fmt.Errorf("sink %q is in use", sink)
	}
	var dropped uint64
	known := false
	for _, s := range j.running() {
		s.mu.Lock()
		if c := s.core.cursors[cursorName{kindSink, sink}]; c != nil {
			known = true
			dropped += c.dropAll(s.core.end())
			s.touch()
		}
		s.mu.Unlock()
	}
	if !known {
		return 0, fmt.Errorf("sink %q is not known", sink)
	}
	return dropped, j.Flush()
}

// DropUpTo settles what a sink that is not open is owed up to a cut, in the shards that this replica has.
func (j *Journal) DropUpTo(ctx context.Context, sink string, to journal.Cut) (dropped uint64, err error) {
	if j.isOpen(sink) {
		return 0, fmt.Errorf("sink %q is in use", sink)
	}
	for _, s := range j.running() {
		n, failed := s.dropUpTo(ctx, sink, offset(to.In(uint32(s.n)).Offset))
		dropped, err = dropped+uint64(n), errors.Join(err, failed)
	}
	return dropped, err
}

func (s *shard) dropUpTo(ctx context.Context, sink string, last offset) (dropped int, err error) {
	within, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	for judged := false; !judged; {
		s.mu.Lock()
		judged = s.core.judged >= last
		s.mu.Unlock()
		if !judged && !kafkaconn.Pause(within, checkpointInterval) {
			return 0, fmt.Errorf("shard %d: what was accepted is not judged so far: %w", s.n, within.Err())
		}
	}
	s.mu.Lock()
	c := s.core.cursors[cursorName{kindSink, sink}]
	if c != nil && s.core.rule.top <= last {
		dropped = int(c.dropAll(s.core.end()))
		s.touch()
	}
	s.mu.Unlock()
	if c == nil {
		return 0, nil
	}
	if dropped > 0 {
		return dropped, s.flush(within, false)
	}
	return s.settleUpTo(ctx, c, last, func(p journal.Pending) { c.settle(offset(p.Position.Offset), journal.Dropped) })
}

// Judged returns the offset in the inbox up to which a shard that this replica has was judged; false: it has it not.
func (j *Journal) Judged(shard int32) (offset int64, known bool) {
	s := j.shard(uint32(shard))
	if s == nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(s.core.judged), true
}

// Backlog is what a sink is owed in a shard.
type Backlog struct {
	Sink    string
	Shard   int32
	End     int64  // of the events
	Pending uint64 // deliveries
}

// Backlogs are those of all sinks in the shards that this replica has.
func (j *Journal) Backlogs() (list []Backlog) {
	for _, s := range j.running() {
		s.mu.Lock()
		for name, c := range s.core.cursors {
			if name.kind == kindSink {
				list = append(list, Backlog{name.name, s.n, s.core.next, c.tally.Owed - c.tally.Settled()})
			}
		}
		s.mu.Unlock()
	}
	return list
}
