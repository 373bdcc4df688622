package kafkajournal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// shard is one ownership of one shard. Nothing of it survives: what comes back is another.
type shard struct {
	j      *Journal
	n      int32
	public *journal.Shard
	ctx    context.Context // ends when the shard is to be let go
	leave  context.CancelFunc
	given  time.Time
	clock  skew
	work   sync.WaitGroup // what reads and writes for it in the background

	taken    atomic.Bool     // core is there
	storable context.Context // ends when the shard is let go even if its state cannot be stored, or the journal ends
	abandon  context.CancelFunc
	recalled chan struct{} // closed when the ids of the events before it are known
	window   bounds        // of ncs.events: those that are not; for the judge only
	doubted  bool          // the inbox seemed to end before what was judged; for the judge only

	saving     turn // one flush at a time; taken before mu; guards what follows
	stateLog   writer
	deadLog    writer
	stateWrote int64 // the offset after the last record written
	merged     int64 // records of other owners before this offset were merged; 0: there are none any more

	mu          sync.Mutex // guards what follows
	core        *core      // nil until it was taken over
	ring        ring
	opened      int // deliveries that have not ended
	idle        chan struct{}
	letters     map[string]*letters
	lettersLost map[string]uint64 // dropped by their limits
	late        map[string]grave  // letters, by key, of deliveries that are settled otherwise
	deadNext    int64             // what is in ncs.dead before it is in letters
	since       time.Time         // since when something waits to be stored; zero: nothing does
	storing     time.Time         // since when what is being stored has waited
	read        time.Time         // when the inbox was read last
	changed     chan struct{}
	trouble     error // why it is not judged
	lostLog     error // why nothing may be written or handed out any more: a log is not the one that it was
	awaited     bool  // a replay waits for what is to be judged
}

func newShard(j *Journal, n int32) *shard {
	ctx, leave := context.WithCancel(context.Background())
	storable, abandon := context.WithCancel(j.closing)
	return &shard{j: j, n: n, public: &journal.Shard{Number: uint32(n), Of: j.opts.Shards}, ctx: ctx, leave: leave, given: time.Now(),
		storable: storable, abandon: abandon, recalled: make(chan struct{}),
		saving: newTurn(), stateLog: j.logs.writer(j.topics.state, n), deadLog: j.logs.writer(j.topics.dead, n),
		ring: ring{max: max(1<<20, ringBytes/j.opts.Shards)}, idle: make(chan struct{}), letters: make(map[string]*letters),
		lettersLost: make(map[string]uint64), late: make(map[string]grave), read: time.Now(), changed: make(chan struct{}, 1)}
}

// overlap is how many records rule E has skipped.
func (s *shard) overlap() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core == nil {
		return 0
	}
	return s.core.overlaps
}

// ready reports whether the shard was taken over.
func (s *shard) ready() bool { return s.taken.Load() }

// goes runs fn in the background until the shard is let go.
func (s *shard) goes(fn func(context.Context)) { s.work.Go(func() { fn(s.ctx) }) }

// mayHandOut reports whether what is handed out would be settled by us alone, as far as we know. s.mu is held.
func (s *shard) mayHandOut() bool {
	if s.j.own.Lease() <= 0 {
		s.leave() // whoever gets nothing for that is called again when the shard comes back
	}
	return s.ctx.Err() == nil && !s.stalled() && s.lostLog == nil
}

// stalled reports whether nothing could be stored for so long that it would be delivered again. s.mu is held.
func (s *shard) stalled() bool { return s.unstoredFor() > stallAfter }

// unstoredFor is how long something has waited to be stored. s.mu is held.
func (s *shard) unstoredFor() time.Duration {
	since := s.storing
	if since.IsZero() {
		since = s.since
	}
	if since.IsZero() {
		return 0
	}
	return time.Since(since)
}

// enter returns the shard, with its mutex, for deliveries that End; nil: it is being let go.
func (j *Journal) enter(public *journal.Shard) *shard {
	s := j.shard(public.Number)
	if s == nil || s.public != public {
		return nil
	}
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return nil
	}
	s.opened++
	return s
}

// touch says that something waits to be stored. s.mu is held.
func (s *shard) touch() {
	if s.since.IsZero() {
		s.since = time.Now()
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// open makes a cursor for a sink, if there is none, and reports whether it did.
func (s *shard) open(sink string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := cursorName{kindSink, sink}
	if s.core.cursors[name] != nil {
		return false
	}
	s.core.begin(name, s.core.end())
	s.touch()
	return true
}

// ownLoop takes the shards that this replica is given, and lets go those that it is not given any more, or may not act on.
func (j *Journal) ownLoop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	gone := make(chan *shard)
	seen := make(map[int32]bool) // what was owned and is not released
	for {
		owned, changed := j.own.Owned()
		lease := j.own.Lease()
		want := make(map[int32]bool)
		for _, n := range owned {
			want[n] = lease > 0
		}
		for _, s := range j.all() {
			if !want[s.n] || ctx.Err() != nil {
				s.leave()
			}
		}
		j.release(seen, owned)
		if ctx.Err() != nil {
			return // what has left is stored by Close
		}
		for n, taken := range want {
			if s := j.take(n, taken); s != nil {
				wg.Go(func() {
					s.run()
					if ctx.Err() != nil {
						return
					}
					select {
					case gone <- s:
					case <-ctx.Done():
					}
				})
			}
		}
		select {
		case <-changed:
		case s := <-gone:
			j.drop(s)
		case <-time.After(min(max(lease, 50*time.Millisecond), time.Second)):
		case <-ctx.Done():
		}
	}
}

// release releases what is not owned any more and was let go, whichever came first: a lease can end long before its shards are
// given to others.
func (j *Journal) release(seen map[int32]bool, owned []int32) {
	for _, n := range owned {
		seen[n] = true
	}
	for n := range seen {
		if !slices.Contains(owned, n) && j.given(n) == nil {
			delete(seen, n)
			j.own.Released(n)
		}
	}
}

// take begins an ownership, unless a former one has not ended.
func (j *Journal) take(n int32, wanted bool) *shard {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !wanted || j.shards[n] != nil {
		return nil
	}
	s := newShard(j, n)
	j.shards[n] = s
	return s
}

func (j *Journal) drop(s *shard) {
	s.leave()
	s.work.Wait()
	s.abandon()
	overlap := s.overlap()
	j.mu.Lock()
	j.stats.Overlap += overlap
	delete(j.shards, s.n)
	j.mu.Unlock()
	j.ids.forget(uint32(s.n))
}

// run takes the shard over, judges and keeps it until it is to be let go, and then waits for what is in flight, unless the
// journal is closed.
func (s *shard) run() {
	for !s.ready() {
		err := s.takeOver(s.ctx)
		if s.ctx.Err() != nil {
			return
		}
		s.note(err)
		if err != nil {
			kafkaconn.Pause(s.ctx, pause)
		}
	}
	s.j.setHeld(func(held []*journal.Shard) []*journal.Shard {
		s.j.stats.TakeOvers++
		s.j.stats.TakeOverTime += time.Since(s.given)
		return append(held, s.public)
	})
	s.j.wake()
	s.goes(s.judgeLoop)
	s.goes(s.keepLoop)
	s.goes(s.sweepLoop)
	<-s.ctx.Done()
	s.mu.Lock()
	//lint:ignore SA2001 who had it before has begun its work, and nobody begins any later
	s.mu.Unlock()
	s.work.Wait()
	if s.j.closing.Err() != nil {
		return // whoever delivers goes on settling until Close
	}
	s.j.setHeld(func(held []*journal.Shard) []*journal.Shard {
		return slices.DeleteFunc(held, func(h *journal.Shard) bool { return h == s.public })
	})
	s.letGo()
}

// letGo waits until nothing is in flight, and stores what was settled.
func (s *shard) letGo() {
	for {
		s.mu.Lock()
		opened, idle := s.opened, s.idle
		s.mu.Unlock()
		if opened == 0 {
			break
		}
		select {
		case <-idle:
		case <-s.j.closing.Done():
			return
		}
	}
	for s.j.closing.Err() == nil {
		err := s.save(false)
		if err == nil || s.storable.Err() != nil || errors.Is(err, errForeignLog) {
			return // what was not stored is delivered again
		}
		s.j.logger.Error("what sinks have settled cannot be stored, and the shard cannot be let go", "shard", s.n, "error", err)
		kafkaconn.Pause(s.j.closing, pause)
	}
}

// judgeLoop judges the inbox until ctx ends.
func (s *shard) judgeLoop(ctx context.Context) {
	events := s.j.logs.writer(s.j.topics.events, s.n)
	for ctx.Err() == nil {
		err := s.recall(ctx)
		if err == nil {
			err = s.judgeSome(ctx, events)
		}
		if ctx.Err() != nil {
			return
		}
		s.note(err)
		if errors.Is(s.why(), errForeignLog) && !s.doubted {
			return // until an operator has decided
		}
		if err != nil {
			kafkaconn.Pause(ctx, pause)
		}
	}
}

// why returns why the shard is not taken over, or not judged.
func (s *shard) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.lostLog, s.trouble)
}

// follows returns foreign, explained, if what was written to a topic stands before what is known to be in it.
func follows(topic string, partition int32, base, known int64, foreign error) error {
	if base < 0 || base >= known {
		return nil
	}
	return fmt.Errorf("topic %s, partition %d, takes records at %d, and has had %d: %w", topic, partition, base, known, foreign)
}

// keeps is follows for a topic in which the shard keeps what it knows. It stores nothing more there.
func (s *shard) keeps(topic string, base, known int64) error {
	err := follows(topic, s.n, base, known, errToBeConfirmed)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lostLog = err
	}
	return err
}

// note keeps why the shard is not taken over, or not judged.
func (s *shard) note(err error) {
	s.mu.Lock()
	before := s.trouble
	s.trouble = err
	s.mu.Unlock()
	switch {
	case errors.Is(err, errNewer):
		s.j.logger.Error("a shard is given up: a newer version has written to it", "shard", s.n, "error", err)
		s.j.own.Refuse(s.n)
	case err != nil && before == nil:
		s.j.logger.Error("a shard cannot be taken over, or not be judged", "shard", s.n, "error", err)
	case err == nil && before != nil:
		s.j.logger.Info("a shard is judged again", "shard", s.n)
	}
}

// readInbox reads what is to be judged next.
func (s *shard) readInbox(ctx context.Context) ([]kafkalog.Record, error) {
	topic := s.j.topics.inbox
	s.mu.Lock()
	from := int64(s.core.picked)
	s.mu.Unlock()
	if s.doubted {
		if err := s.sameInbox(ctx, from); err != nil {
			return nil, err
		}
		s.doubted = false
	}
	chunk, err := s.j.logs.read(ctx, topic, s.n, from, readBytes, time.Second)
	if start, gone := startsAfter(err, from); gone {
		s.j.logger.Error("accepted records are gone from the topic before they were judged", "topic", topic, "shard", s.n, "from", from, "to", start)
		s.mu.Lock()
		s.core.passTo(offset(start))
		s.touch()
		s.mu.Unlock()
		s.judgedMore()
		return nil, nil
	}
	if out := new(kafkalog.OutOfRange); errors.As(err, &out) {
		s.doubted = true
		return nil, fmt.Errorf("topic %s, partition %d, ends at %d, and %d were judged: %w", topic, s.n, out.End, from, errForeignInbox)
	}
	if err != nil {
		return nil, fmt.Errorf("read topic %s: %w", topic, err)
	}
	s.j.sawEnd(s.n, chunk.End)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = time.Now()
	return chunk.Records, nil
}

// judgeSome reads some of the inbox, and writes its events.
func (s *shard) judgeSome(ctx context.Context, events writer) error {
	recs, err := s.readInbox(ctx)
	if err != nil {
		return err
	}
	for len(recs) > 0 {
		n := kafkalog.Fitting(recs, s.j.opts.MaxRecord/2) // what an event has besides fits in the other half
		s.mu.Lock()
		row, err := s.core.pick(recs[:n])
		s.touch()
		s.mu.Unlock()
		if len(row) > 0 {
			if err := s.writeRow(ctx, events, row); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		recs = recs[n:]
		s.judgedMore()
	}
	return nil
}

// sameInbox returns an error unless the inbox has at its place what was looked at last: one that has lost its end has something else
// there, or soon will, and all that is new before from would never be judged.
func (s *shard) sameInbox(ctx context.Context, from int64) error {
	rec, err := s.recordAt(ctx, s.j.topics.inbox, from-1)
	if err != nil {
		return err
	}
	if rec != nil && rec.Offset == from-1 {
		if e, err := decodeInbox(uint32(s.n), rec); err != nil || e.rec.ID == s.core.looked || s.core.looked == [16]byte{} {
			return err
		}
	}
	return fmt.Errorf("topic %s, partition %d, has lost its end: %w", s.j.topics.inbox, s.n, errForeignInbox)
}

// writeRow has a row in ncs.events when it returns, or ctx has ended: nothing behind it may be written before.
func (s *shard) writeRow(ctx context.Context, events writer, row []item) error {
	for {
		base, err := events.Append(ctx, rowRecords(row))
		if err == nil {
			return s.wrote(ctx, row, base)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.note(fmt.Errorf("write to topic %s: %w", s.j.topics.events, err))
		kafkaconn.Pause(ctx, pause)
	}
}

// wrote takes the offset of a row, and reads what others have written before it.
func (s *shard) wrote(ctx context.Context, row []item, base int64) error {
	s.mu.Lock()
	known := s.core.next
	accepted, expected := s.core.wrote(row, base)
	if expected {
		s.accepted(accepted)
	}
	s.mu.Unlock()
	if err := follows(s.j.topics.events, s.n, base, known, errToBeConfirmed); err != nil {
		return err
	}
	for !expected {
		err := s.catchUp(ctx)
		if err == nil && !s.knows(base+int64(len(row))) {
			err = fmt.Errorf("topic %s does not show yet what was written to it", s.j.topics.events)
		}
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		s.note(err)
		kafkaconn.Pause(ctx, pause)
	}
	return nil
}

// knows reports whether the events before an offset are known.
func (s *shard) knows(end int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.next >= end
}

// catchUp follows ncs.events to its end.
func (s *shard) catchUp(ctx context.Context) error {
	topic := s.j.topics.events
	s.mu.Lock()
	from := s.core.next
	s.mu.Unlock()
	_, err := readToEnd(ctx, s.j.logs, topic, s.n, from, func(recs []kafkalog.Record) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		accepted, err := s.core.follow(recs)
		s.accepted(accepted)
		return err
	})
	if err != nil {
		return fmt.Errorf("read topic %s: %w", topic, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnOfForeign(topic, s.core.foreign)
	s.core.foreign = 0
	s.core.caughtUp()
	return nil
}

// warnOfForeign says that there are records in a topic that no owner has written. They are passed.
func (s *shard) warnOfForeign(topic string, records int) {
	if records > 0 {
		s.j.logger.Error("somebody else writes to the topic: these records are passed", "topic", topic, "shard", s.n, "records", records)
	}
}

// accepted takes events that are in ncs.events. s.mu is held.
func (s *shard) accepted(events []entry) {
	s.core.account(events)
	s.ring.push(events)
	s.touch()
	owed := make(map[string]bool)
	for i := range events {
		for _, sink := range events[i].rec.Sinks {
			owed[sink] = true
		}
	}
	if len(owed) > 0 {
		s.j.wake(slices.Collect(maps.Keys(owed))...)
	}
}

// judgedMore wakes replays that wait for what was judged.
func (s *shard) judgedMore() {
	s.mu.Lock()
	awaited := s.awaited
	s.awaited = false
	s.mu.Unlock()
	if awaited {
		s.j.wake()
	}
}

// keepLoop stores what changed until ctx ends.
func (s *shard) keepLoop(ctx context.Context) {
	failing := false
	refresh := time.NewTicker(refreshInterval / 2)
	defer refresh.Stop()
	for {
		all := false
		select {
		case <-s.changed:
			if !kafkaconn.Pause(ctx, checkpointInterval) {
				return
			}
		case <-refresh.C:
			all = true
		case <-ctx.Done():
			return
		}
		err := s.save(all)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && !failing:
			s.j.logger.Error("what sinks have settled cannot be stored", "shard", s.n, "error", err)
		case err == nil && failing:
			s.j.logger.Info("what sinks have settled is stored again", "shard", s.n)
		}
		if failing = err != nil; failing {
			kafkaconn.Pause(ctx, pause)
		}
	}
}

func (s *shard) retouch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touch()
}

// save is flush, which is not broken off when the shard is let go: it might land after what letGo writes, and hide it from the next
// owner. It is when the shard is abandoned, since the next owner waits for that.
func (s *shard) save(all bool) error {
	within, storable := operationTimeout, s.storable
	if storable.Err() != nil {
		within, storable = reachWithin, s.j.closing
	}
	ctx, cancel := context.WithTimeout(storable, within)
	defer cancel()
	return s.flush(ctx, all)
}

// flush stores what was settled before it was called: first the letters, then the states; all of them if all is true.
func (s *shard) flush(ctx context.Context, all bool) (err error) {
	if err := s.saving.take(ctx); err != nil {
		return err
	}
	defer s.saving.giveBack()
	defer func() {
		if err != nil {
			s.retouch()
		}
	}()
	s.mu.Lock()
	since, lost := s.since, s.lostLog
	s.mu.Unlock()
	if lost != nil {
		return lost
	}
	if since.IsZero() && !all {
		return nil
	}
	// Without a lease nothing is given up: what was buried stays pending for the next owner. So it does when its letter fails.
	leased := s.j.own.Lease() > 0
	if leased {
		_, err = s.inter(ctx, s.burials)
	}
	if err := errors.Join(err, s.flushState(ctx, since, all)); err != nil {
		return err
	}
	if leased { // a letter may be removed only when the state of its delivery is stored
		if _, err := s.inter(ctx, s.lateLetters); err != nil {
			return err
		}
		changed, err := s.inter(ctx, s.letterChanges)
		if err == nil && changed {
			err = s.flushState(ctx, since, false)
		}
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	done := s.doneRecords()
	s.mu.Unlock()
	if len(done) > 0 {
		if _, err := s.j.control.write(ctx, done...); err != nil {
			return fmt.Errorf("topic %s: %w", s.j.topics.control, err)
		}
	}
	return nil
}

// flushState writes the records of ncs.state. s.saving is held.
func (s *shard) flushState(ctx context.Context, since time.Time, all bool) error {
	s.mu.Lock()
	for name, c := range s.core.cursors {
		if name.kind == kindSink && (all || c.dirty) && c.unreadCount() > 0 {
			s.oldestUnread(c) // while it is in memory
		}
	}
	recs, of := s.core.records(all)
	s.storing, s.since = since, time.Time{}
	for _, c := range s.core.cursors {
		if c.dirty { // its record was too large: it comes with the next, when it has been relieved
			s.touch()
		}
	}
	s.mu.Unlock()
	err := s.writeState(ctx, recs)
	s.mu.Lock()
	defer s.mu.Unlock()
	stalled := s.stalled()
	s.storing = time.Time{}
	if err == nil {
		if stalled { // those go on who got nothing
			s.j.wake()
		}
		return nil
	}
	s.core.notWritten(of)
	s.since = since
	if since.IsZero() {
		s.since = time.Now()
	}
	return fmt.Errorf("topic %s: %w", s.j.topics.state, err)
}

// mostOfState bounds a batch of states: what a topic takes that has Kafka's own max.message.bytes.
const mostOfState = 1_000_000

func (s *shard) writeState(ctx context.Context, recs []kafkalog.Record) error {
	for len(recs) > 0 {
		n := kafkalog.Fitting(recs, mostOfState)
		base, err := s.stateLog.Append(ctx, recs[:n])
		if err == nil {
			err = s.keeps(s.j.topics.state, base, s.stateWrote)
		}
		if err != nil {
			return err
		}
		s.stateWrote = max(s.stateWrote, base+int64(n))
		recs = recs[n:]
	}
	return nil
}
