package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

const (
	sweepInterval = 30 * time.Second

	// lateAfter is how much older than what was stored last a record of another owner must be before it is removed. A living
	// owner writes each of its own every refreshInterval.
	lateAfter = 10 * time.Minute

	causeRetention = "retention"
	causeBacklog   = string(relay.ReasonBacklog)
)

// sweepLoop makes dead letters of what the topics will not keep for much longer, drops dead letters beyond their limits, and
// removes what former owners have left, until ctx ends.
func (s *shard) sweepLoop(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		within, cancel := context.WithTimeout(ctx, sweepInterval) // the next one goes on
		err := s.sweep(within)
		cancel()
		if err != nil && ctx.Err() == nil {
			s.j.logger.Error("old records cannot be seen to", "shard", s.n, "error", err)
		}
	}
}

func (s *shard) sweep(ctx context.Context) error {
	now, err := s.brokerTime(ctx)
	if err != nil || now.IsZero() {
		return err
	}
	errs := []error{s.buryOld(ctx, now.Add(-s.j.keptFor())), s.dropOldLetters(ctx, now)}
	if s.n == 0 && s.j.own.Lease() > 0 { // one sees to what all share
		errs = append(errs, s.j.control.forgetReplays(ctx, now.Add(-s.j.rememberedFor())))
	}
	return errors.Join(append(errs, s.forgetReplays(ctx), s.forgetLives(ctx, now))...)
}

// rememberedFor is how long what has ended is remembered: longer than the events that it was about are kept.
func (j *Journal) rememberedFor() time.Duration {
	return j.opts.Retention + max(time.Hour, j.opts.Retention/20)
}

// keptFor is how old what is owed may get: before the topics' retention ends it, by 5 % and at least an hour, it becomes a dead letter.
func (j *Journal) keptFor() time.Duration {
	r := j.opts.Retention
	return r - min(max(time.Hour, r/20), r/2)
}

// brokerTime is when the broker stored the newest record of this owner, at most refreshInterval ago. The clocks of replicas may
// be wrong, each by another hour.
func (s *shard) brokerTime(ctx context.Context) (time.Time, error) {
	if err := s.saving.take(ctx); err != nil {
		return time.Time{}, err
	}
	at := s.stateWrote - 1
	s.saving.giveBack()
	rec, err := s.recordAt(ctx, s.j.topics.state, at)
	if rec == nil || err != nil {
		return time.Time{}, err
	}
	return rec.Time, nil
}

// recordAt reads the first record at an offset or behind it; nil if there is none.
func (s *shard) recordAt(ctx context.Context, topic string, at int64) (*kafkalog.Record, error) {
	if at < 0 {
		return nil, nil
	}
	chunk, err := s.j.logs.read(ctx, topic, s.n, at, 1<<10, 0)
	if errors.As(err, new(*kafkalog.OutOfRange)) || err == nil && len(chunk.Records) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read topic %s, partition %d: %w", topic, s.n, err)
	}
	return &chunk.Records[0], nil
}

// buryOld makes dead letters of what is owed and was stored in the inbox before a time.
func (s *shard) buryOld(ctx context.Context, before time.Time) error {
	inbox, err := s.bounds(ctx, s.j.topics.inbox)
	if err != nil {
		return err
	}
	owed := s.oldestOwed()
	if owed == 0 {
		return nil
	}
	oldest, err := s.recordAt(ctx, s.j.topics.inbox, max(inbox.start, int64(owed)-1))
	if err != nil || oldest == nil || !oldest.Time.Before(before) {
		return err
	}
	young := sort.Search(int(inbox.end-oldest.Offset), func(i int) bool {
		rec, failed := s.recordAt(ctx, s.j.topics.inbox, oldest.Offset+int64(i))
		err = errors.Join(err, failed)
		return rec == nil || !rec.Time.Before(before)
	})
	if err != nil || young == 0 {
		return err
	}
	last := offset(oldest.Offset + int64(young)) // the position of the last that is old
	for _, c := range s.sinkCursors() {
		if err := s.buryUpTo(ctx, c, last); err != nil {
			return err
		}
	}
	return nil
}

// oldestOwed is the first position that a sink may be owed; 0: none is owed anything.
func (s *shard) oldestOwed() (first offset) {
	for _, c := range s.sinkCursors() {
		s.mu.Lock()
		owed := c.unsettled.First()
		if owed == 0 && c.unreadCount() > 0 {
			owed = c.read.top + 1
		}
		if owed > 0 && (first == 0 || owed < first) {
			first = owed
		}
		s.mu.Unlock()
	}
	return first
}

func (s *shard) sinkCursors() (list []*cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.core.cursors {
		if name.kind == kindSink {
			list = append(list, c)
		}
	}
	return list
}

// buryUpTo makes dead letters of what a sink is owed up to a position, what it has not read included.
func (s *shard) buryUpTo(ctx context.Context, c *cursor, last offset) error {
	buried, err := s.settleUpTo(ctx, c, last, func(p journal.Pending) {
		c.bury(journal.DeadLetter{Position: p.Position, Reason: "owed for as long as the topics keep it", Cause: causeRetention, At: time.Now(), Retry: p.Retry})
	})
	if buried > 0 {
		s.j.logger.Error("deliveries became dead letters before the topics drop their events", "shard", s.n, "sink", c.key.name, "deliveries", buried)
	}
	if ctx.Err() != nil {
		return nil // the next one goes on
	}
	return err
}

// settleUpTo settles what a sink is owed up to a position, what it has not read included, has that stored, and returns how many
// deliveries that were.
func (s *shard) settleUpTo(ctx context.Context, c *cursor, last offset, settle func(journal.Pending)) (settled int, err error) {
	for more := true; more; {
		if ctx.Err() != nil {
			return settled, ctx.Err()
		}
		s.mu.Lock()
		for _, p := range c.unsettled.Pending(uint32(s.n)) {
			if offset(p.Position.Offset) > last {
				break
			}
			settle(p)
			settled++
		}
		s.touch()
		from, end := c.read, s.core.next
		more = from.top < last && from.next < end && c.unreadCount() > 0
		s.mu.Unlock()
		err := s.save(false)
		if err == nil && more {
			within, cancel := context.WithTimeout(ctx, operationTimeout)
			err = s.readOn(within, c, from, end, last)
			cancel()
		}
		if err != nil {
			return settled, err
		}
	}
	return settled, nil
}

// readOn reads for a sink that nobody reads for, or that is far behind.
func (s *shard) readOn(ctx context.Context, c *cursor, from place, end int64, last offset) error {
	topic := s.j.topics.events
	chunk, err := s.j.logs.read(ctx, topic, s.n, from.next, fetchBytes, 0)
	if start, gone := startsAfter(err, from.next); gone {
		chunk, err = kafkalog.Chunk{Next: start}, nil
	}
	if err != nil {
		return fmt.Errorf("read topic %s, partition %d: %w", topic, s.n, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.read != from {
		return nil // somebody reads for it
	}
	for i := range chunk.Records {
		if chunk.Records[i].Offset >= end || c.read.top >= last {
			return nil
		}
		e, err := decodeEvent(uint32(s.n), &chunk.Records[i])
		if err != nil {
			return err
		}
		s.handOut(c, &e, owedTo(e.rec, c.key.name))
	}
	c.read.next = max(c.read.next, min(chunk.Next, end))
	return nil
}

// dropOldLetters removes the oldest dead letters beyond their limits, which the shards share evenly.
func (s *shard) dropOldLetters(ctx context.Context, now time.Time) error {
	limits := s.j.opts.Dead
	most, before := limits.MaxSize/int64(s.j.opts.Shards), now.Add(-limits.Retention)
	doomed := make(map[string][]journal.DeadLetter)
	s.mu.Lock()
	var bytes int64
	for _, kept := range s.letters {
		bytes += kept.bytes
	}
	next := make(map[string]int) // of each sink, the oldest that stays
	for {
		sink := s.oldestLetter(next)
		if sink == "" {
			break
		}
		l := &s.letters[sink].list[next[sink]]
		if !(limits.MaxSize > 0 && bytes > most || limits.Retention > 0 && l.At.Before(before)) {
			break
		}
		doomed[sink] = append(doomed[sink], l.DeadLetter)
		bytes -= l.room()
		next[sink]++
	}
	s.mu.Unlock()
	for sink, letters := range doomed {
		if err := s.dropLetters(ctx, sink, letters); err != nil {
			return err
		}
		s.mu.Lock()
		s.lettersLost[sink] += uint64(len(letters))
		s.mu.Unlock()
		s.j.logger.Error("dead letters were dropped: there are too many, or they are too old", "shard", s.n, "sink", sink, "letters", len(letters))
	}
	return nil
}

// oldestLetter is the sink that has the first letter of those behind the given ones; "" = there is none. s.mu is held.
func (s *shard) oldestLetter(next map[string]int) (sink string) {
	var first offset
	for name, kept := range s.letters {
		if at := next[name]; at < len(kept.list) && (sink == "" || kept.list[at].pos() < first) {
			sink, first = name, kept.list[at].pos()
		}
	}
	return sink
}

// forgetLives removes the records of former owners: those that were merged when this one began, that have not changed since, and
// that are much older than its own. A late record of one that still writes stays, for the next to merge.
func (s *shard) forgetLives(ctx context.Context, now time.Time) error {
	if err := s.saving.take(ctx); err != nil {
		return err
	}
	defer s.saving.giveBack()
	if s.merged == 0 {
		return nil
	}
	others, own, err := s.keysOfState(ctx)
	if err != nil {
		return err
	}
	var recs []kafkalog.Record
	left := 0
	for key, newest := range others {
		switch {
		case newest.removed:
		case own[newest.of] && newest.at < s.merged && now.Sub(newest.time) >= lateAfter:
			recs = append(recs, kafkalog.Record{Key: []byte(key)})
		default:
			left++
		}
	}
	if left == 0 {
		s.merged = 0 // there is nothing to look for any more
	}
	return s.writeState(ctx, recs)
}

// stateOf is the newest record of a key of ncs.state.
type stateOf struct {
	of      cursorName
	at      int64
	time    time.Time
	removed bool
}

// keysOfState are the keys of other owners, and what this one has written of, up to its own newest record. s.saving is held.
func (s *shard) keysOfState(ctx context.Context) (others map[string]stateOf, own map[cursorName]bool, err error) {
	others, own = make(map[string]stateOf), make(map[cursorName]bool)
	state, err := s.bounds(ctx, s.j.topics.state)
	if err != nil {
		return nil, nil, err
	}
	err = readTo(ctx, s.j.logs, s.j.topics.state, s.n, state.start, s.stateWrote, func(recs []kafkalog.Record) error {
		for _, rec := range recs {
			key, err := decodeStateKey(rec.Key)
			of := cursorName{key.kind, key.name}
			switch {
			case err != nil: // somebody else's
			case key.life == s.core.life:
				own[of] = true
			default:
				others[string(rec.Key)] = stateOf{of, rec.Offset, rec.Time, rec.Value == nil}
			}
		}
		return nil
	})
	return others, own, err
}

// largestState bounds a record of ncs.state.
const largestState = 512 << 10

// encodeState encodes a state within the bound: without the texts of errors, if need be. If it does not fit even so, the older half
// of what is pending has to go.
func (c *core) encodeState(cur *cursor) []byte {
	st := cur.state(c.end())
	c.clock.toBrokers(st.pending)
	b := st.encode()
	if len(b) <= c.largest {
		return b
	}
	for i := range st.pending {
		if r := st.pending[i].Retry; r != nil {
			bare := *r
			bare.FirstError, bare.LastError = "", ""
			st.pending[i].Retry = &bare
		}
	}
	if b = st.encode(); len(b) <= c.largest {
		return b
	}
	return nil
}

// relieve makes dead letters of the older half of what a sink was handed out, unless some are on their way.
func (c *core) relieve(cur *cursor) {
	if len(cur.buried) > 0 {
		return
	}
	pending := cur.unsettled.Pending(c.shard)
	for _, p := range pending[:(len(pending)+1)/2] {
		if cur.key.kind == kindSink {
			cur.bury(journal.DeadLetter{Position: p.Position, Reason: "backlog full: more is pending than the journal can keep for a sink in a shard", Cause: causeBacklog, At: time.Now(), Retry: p.Retry})
		} else {
			cur.settle(offset(p.Position.Offset), journal.Skipped)
		}
	}
}
