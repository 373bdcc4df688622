package kafkajournal

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// Replays are records of ncs.control:
//
//	replay/<random>               what it is about; its number is the offset of the record plus one
//	replay-cancelled/<number>     it was cancelled
//	replay-done/<number>/<shard>  a shard has nothing left to do for it, with its totals there
//
// What a replay has read and settled in a shard is in ncs.state, as for a sink. All of it is removed when the replay has ended for
// longer than events are kept (see forgetReplays).
const (
	controlReplay    = "replay/"
	controlCancelled = "replay-cancelled/"
	controlDone      = "replay-done/"
)

// keptReplays bounds the finished replays that are listed.
const keptReplays = 100

// replay is a journal.Replay.
type replay struct {
	j    *Journal
	id   uint32
	spec journal.ReplaySpec

	key []byte // of its record

	// The mutex of control guards what follows.
	changed   time.Time // when its newest record was stored
	cancelled bool
	done      map[uint32]journal.ReplayTotals // by shard
}

func (r *replay) name() cursorName {
	return cursorName{kindReplay, strconv.FormatUint(uint64(r.id), 10)}
}

func encodeReplay(s *journal.ReplaySpec) []byte {
	flags := byte(0)
	if s.Anyway {
		flags |= 1
	}
	if s.DeadLetters {
		flags |= 2
	}
	if s.Pending {
		flags |= 4
	}
	b := []byte{stateVersion, flags}
	for _, text := range [...]string{s.Sink, s.Of, string(s.Filter)} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = binary.AppendUvarint(b, math.Float64bits(s.Rate))
	b = ledger.AppendTime(b, s.CreatedAt)
	return appendCut(appendCut(b, s.To), s.Letters)
}

func appendCut(b []byte, c journal.Cut) []byte {
	b = binary.AppendUvarint(b, uint64(len(c)))
	for _, p := range c {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(p.Shard)), p.Offset)
	}
	return b
}

func takeCut(d *ledger.Decoder) (c journal.Cut) {
	for n := d.Uvarint(); n > 0 && d.Err == nil; n-- {
		c = append(c, journal.Position{Shard: uint32(d.Uvarint()), Offset: d.Uvarint()})
	}
	return c
}

func decodeReplay(b []byte) (s journal.ReplaySpec, err error) {
	d, err := decoderOf(b)
	if err != nil {
		return s, err
	}
	if len(d.B) == 0 {
		return s, ledger.ErrMalformed
	}
	s.Anyway, s.DeadLetters, s.Pending = d.B[0]&1 != 0, d.B[0]&2 != 0, d.B[0]&4 != 0
	d.B = d.B[1:]
	s.Sink, s.Of = d.Text(), d.Text()
	if filter := d.Text(); filter != "" {
		s.Filter = []byte(filter)
	}
	s.Rate, s.CreatedAt = math.Float64frombits(d.Uvarint()), d.Time()
	s.To = takeCut(d)
	if len(d.B) > 0 { // else an earlier version wrote it
		s.Letters = takeCut(d)
	}
	return s, d.Err
}

// AddReplay begins a replay, in all replicas.
func (j *Journal) AddReplay(spec journal.ReplaySpec) (journal.Replay, error) {
	if err := j.complete(&spec); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	at, err := j.control.write(ctx, kafkalog.Record{Key: fmt.Appendf(nil, "%s%x", controlReplay, random), Value: encodeReplay(&spec)})
	if err == nil && at < 0 {
		err = errors.New("it is not known where the record is")
	}
	if err == nil {
		err = j.control.catchUp(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("topic %s: %w", j.topics.control, err)
	}
	return j.control.replay(uint32(at + 1)), nil
}

// complete checks spec and fills what it leaves open. A replay reaches no farther than the logs do when it is given.
func (j *Journal) complete(spec *journal.ReplaySpec) error {
	if spec.Of == "" {
		spec.Of = spec.Sink
	}
	if spec.Pending && (spec.DeadLetters || spec.Anyway || spec.Of == spec.Sink) {
		return fmt.Errorf("replay of %q to %q: what one sink is owed is for another, and no dead letter", spec.Of, spec.Sink)
	}
	if !j.knows(spec.Sink) || !j.knows(spec.Of) {
		return fmt.Errorf("replay of %q to %q: the journal does not know both sinks", spec.Of, spec.Sink)
	}
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	if err := j.flushShards(ctx); err != nil { // what was given up here is a dead letter for all
		return err
	}
	ends, err := j.Ends(ctx)
	if err != nil {
		return err
	}
	for i, p := range ends.Events {
		if spec.To != nil {
			ends.Events[i].Offset = min(p.Offset, spec.To.In(p.Shard).Offset)
		}
	}
	spec.To, spec.Letters = ends.Events, ends.Letters
	return nil
}

// Ends are where the inboxes and the dead letters end: positions in the events are those of the inbox.
func (j *Journal) Ends(ctx context.Context) (ends journal.Ends, err error) {
	if ends.Events, err = j.Frontier(ctx); err != nil {
		return ends, err
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	dead, err := j.logs.ends(ctx, j.topics.dead, j.partitions()...)
	if err != nil {
		return ends, fmt.Errorf("the ends of topic %s: %w", j.topics.dead, err)
	}
	for n := range ends.Events {
		ends.Letters = append(ends.Letters, journal.Position{Shard: uint32(n), Offset: uint64(dead[int32(n)])})
	}
	return ends, nil
}

// Ended returns the totals of a replay once every shard has said that nothing is left to do there.
func (j *Journal) Ended(id uint32) (sum journal.ReplayTotals, ended bool) {
	j.control.mu.Lock()
	defer j.control.mu.Unlock()
	r := j.control.replays[id]
	if r == nil {
		return sum, false
	}
	for n := range j.inbox {
		t, done := r.done[uint32(n)]
		if !done {
			return sum, false
		}
		sum.Add(t)
	}
	return sum, true
}

// knows reports whether a sink may exist: it is open, or has a state in a shard of this replica. One without a shard cannot tell.
func (j *Journal) knows(sink string) bool {
	shards := j.running()
	if j.isOpen(sink) || len(shards) == 0 {
		return true
	}
	for _, s := range shards {
		s.mu.Lock()
		known := s.core.cursors[cursorName{kindSink, sink}] != nil
		s.mu.Unlock()
		if known {
			return true
		}
	}
	return false
}

// Replays lists those not finished, and the newest finished, by number.
func (j *Journal) Replays() []journal.Replay {
	all := j.control.allReplays()
	finished := 0
	for _, r := range all {
		if r.Finished() {
			finished++
		}
	}
	var list []journal.Replay
	for _, r := range all {
		if finished > keptReplays && r.Finished() {
			finished--
			continue
		}
		list = append(list, r)
	}
	return list
}

func (c *control) replay(id uint32) *replay {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.replays[id]
}

func (c *control) allReplays() []*replay {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*replay
	for _, r := range c.replays {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *replay) int { return int(a.id) - int(b.id) })
	return list
}

// applyReplay takes a record about replays. c.mu is held.
func (c *control) applyReplay(key string, rec *kafkalog.Record) error {
	switch {
	case rec.Value == nil && strings.HasPrefix(key, controlReplay):
		maps.DeleteFunc(c.replays, func(_ uint32, r *replay) bool { return string(r.key) == key })
	case rec.Value == nil:
	case strings.HasPrefix(key, controlReplay):
		spec, err := decodeReplay(rec.Value)
		if err != nil {
			return err
		}
		id := uint32(rec.Offset + 1)
		c.replays[id] = &replay{j: c.j, id: id, spec: spec, key: slices.Clone(rec.Key), changed: rec.Time, done: make(map[uint32]journal.ReplayTotals)}
	case strings.HasPrefix(key, controlCancelled):
		if r := c.numbered(strings.TrimPrefix(key, controlCancelled)); r != nil {
			r.cancelled, r.changed = true, rec.Time
		}
	case strings.HasPrefix(key, controlDone):
		number, shard, _ := strings.Cut(strings.TrimPrefix(key, controlDone), "/")
		n, err := strconv.ParseUint(shard, 10, 32)
		if err != nil {
			return err
		}
		d, err := decoderOf(rec.Value)
		if err != nil {
			return err
		}
		if r := c.numbered(number); r != nil {
			r.changed = rec.Time
			r.done[uint32(n)] = journal.ReplayTotals{Matched: d.Uvarint(), Delivered: d.Uvarint(), Failed: d.Uvarint(), Skipped: d.Uvarint()}
		}
		return d.Err
	}
	return nil
}

func (c *control) numbered(text string) *replay {
	n, _ := strconv.ParseUint(text, 10, 32)
	return c.replays[uint32(n)]
}

// forgetReplays removes the records of replays that have ended, in every shard, before a time. The first of them goes first: without the
// others the replay would begin again.
func (c *control) forgetReplays(ctx context.Context, before time.Time) error {
	var recs []kafkalog.Record
	remove := func(format string, args ...any) {
		recs = append(recs, kafkalog.Record{Key: fmt.Appendf(nil, format, args...)})
	}
	c.mu.Lock()
	for _, r := range c.replays {
		if len(r.done) < len(c.j.inbox) && !r.cancelled || !r.changed.Before(before) {
			continue
		}
		remove("%s", r.key)
		if r.cancelled {
			remove("%s%d", controlCancelled, r.id)
		}
		for n := range r.done {
			remove("%s%d/%d", controlDone, r.id, n)
		}
	}
	c.mu.Unlock()
	if len(recs) == 0 {
		return nil
	}
	_, err := c.write(ctx, recs...)
	return err
}

// forgetReplays removes the state of replays that are not known any more.
func (s *shard) forgetReplays(ctx context.Context) error {
	if len(s.unknownReplays()) == 0 {
		return nil
	}
	if err := s.j.control.catchUp(ctx); err != nil { // whoever wrote a state knew of the replay
		return err
	}
	if err := s.saving.take(ctx); err != nil {
		return err
	}
	defer s.saving.giveBack()
	unknown := s.unknownReplays()
	var recs []kafkalog.Record
	s.mu.Lock()
	for _, c := range unknown {
		delete(s.core.cursors, cursorName{c.key.kind, c.key.name})
		recs = append(recs, kafkalog.Record{Key: c.key.encode()})
	}
	s.mu.Unlock()
	return s.writeState(ctx, recs)
}

func (s *shard) unknownReplays() (unknown []*cursor) {
	known := make(map[cursorName]bool)
	for _, r := range s.j.control.allReplays() {
		known[r.name()] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, c := range s.core.cursors {
		if name.kind == kindReplay && !known[name] {
			unknown = append(unknown, c)
		}
	}
	return unknown
}

// ID is the replay's number.
func (r *replay) ID() uint32 { return r.id }

// Spec is what the replay is about.
func (r *replay) Spec() journal.ReplaySpec { return r.spec }

func (r *replay) isCancelled() bool {
	r.j.control.mu.Lock()
	defer r.j.control.mu.Unlock()
	return r.cancelled
}

func (r *replay) end(shard uint32) offset { return offset(r.spec.To.In(shard).Offset) }

// cursor is what the replay has in a shard. s.mu is held.
func (r *replay) cursor(s *shard) *cursor {
	c := s.core.cursors[r.name()]
	if c == nil {
		c = s.core.begin(r.name(), place{})
		s.touch()
	}
	if r.isCancelled() && c.cancel() {
		s.touch()
	}
	return c
}

// cancel skips what is pending.
func (c *cursor) cancel() (changed bool) {
	n := c.unsettled.Len()
	c.tally.Skipped += uint64(n)
	c.unsettled = ledger.NewUnsettled(nil)
	c.tally.SettledBytes = c.tally.OwedBytes
	c.dirty = c.dirty || n > 0
	return n > 0
}

// totals are those in a shard. s.mu is held.
func (r *replay) totals(s *shard) journal.ReplayTotals {
	c := r.cursor(s)
	t := &c.tally
	return journal.ReplayTotals{Matched: t.Owed, Delivered: t.Delivered, Failed: t.Dead, Skipped: t.Skipped + t.Dropped, Pending: uint64(c.unsettled.Len()),
		Read: journal.Cut{{Shard: uint32(s.n), Offset: uint64(c.read.top)}}}
}

// Totals are those of the shards that this replica has: whoever asks all replicas adds them.
func (r *replay) Totals() journal.ReplayTotals {
	var sum journal.ReplayTotals
	for _, s := range r.j.running() {
		sum.Add(r.totalsIn(s))
	}
	return sum
}

func (r *replay) totalsIn(s *shard) journal.ReplayTotals {
	if t, done := r.doneIn(uint32(s.n)); done {
		t.Read = journal.Cut{r.spec.To.In(uint32(s.n))}
		return t
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.totals(s)
}

// Finished reports whether nothing is left to do in any shard.
func (r *replay) Finished() bool {
	if r.isCancelled() {
		return true
	}
	for n := range r.j.inbox {
		if !r.finishedIn(uint32(n)) {
			return false
		}
	}
	return true
}

func (r *replay) finishedIn(n uint32) bool {
	if _, done := r.doneIn(n); done {
		return true
	}
	if s := r.j.shard(n); s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := r.cursor(s)
		return c.read.top >= r.end(n) && c.unsettled.Len() == 0
	}
	return false
}

// Cancel ends the replay; what is pending is skipped. Flush stores it.
func (r *replay) Cancel() {
	r.j.control.mu.Lock()
	r.cancelled = true
	r.j.control.cancelled[r.id] = true
	r.j.control.mu.Unlock()
	r.j.control.touch()
	for _, s := range r.j.running() {
		s.mu.Lock()
		r.cursor(s)
		s.mu.Unlock()
	}
}

// Raises reports whether the replay may still remove a dead letter in a shard of this replica.
func (r *replay) Raises(sink string, p journal.Position) bool {
	s := r.j.shard(p.Shard)
	if s == nil || r.isCancelled() || r.spec.Of != sink || !r.changesLetters() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, pos := r.cursor(s), offset(p.Offset)
	return c.unsettled.Get(pos) != nil || c.read.top < pos && pos <= r.end(p.Shard)
}

// changesLetters reports whether delivering a dead letter removes it.
func (r *replay) changesLetters() bool { return r.spec.DeadLetters || r.spec.Of == r.spec.Sink }

// In are the deliveries in a shard that want selects.
func (r *replay) In(public *journal.Shard, want func(header *journal.Record) bool) journal.Deliveries {
	s := r.j.enter(public)
	if s == nil {
		return nothing{}
	}
	defer s.mu.Unlock()
	w := &replayed{r: r, deliveries: &deliveries{s: s, c: r.cursor(s), to: r.spec.Sink}}
	w.wants = func(e *entry) bool { return wants(want, e.rec) }
	return w
}

// replayed are the deliveries of a replay in a shard.
type replayed struct {
	*deliveries
	r      *replay
	wants  func(*entry) bool
	raised []entry // dead letters that were loaded, ascending
}

// Next hands out the next records.
func (w *replayed) Next(maxBytes int) ([]*journal.Record, error) {
	s := w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.ended || !s.mayHandOut() || w.r.isCancelled() || w.c.read.top >= w.end() {
		return nil, nil
	}
	var recs []*journal.Record
	size, looked := 0, 0
	for (size < maxBytes || len(recs) == 0) && looked < replayLook {
		e, next := w.next()
		if e == nil {
			break
		}
		looked += sizeOf(e.rec)
		w.c.read = next
		w.c.dirty = true
		if !w.eligible(e) || !w.wants(e) {
			continue
		}
		w.c.unsettled.Add(ledger.Delivery{At: e.pos, Debt: ledger.Debt{Size: int64(len(e.rec.Body)), Received: e.rec.Time.UnixMilli()}})
		w.c.tally.Owed++
		w.c.tally.OwedBytes += uint64(len(e.rec.Body))
		r := *e.rec
		recs = append(recs, &r)
		size += len(r.Body)
	}
	s.touch()
	if len(recs) == 0 && looked >= replayLook {
		s.j.wake(w.to) // the caller comes back when it has seen to its other work
	}
	err := w.err
	w.err = nil
	return recs, err
}

// replayLook bounds the bytes that one Next looks at: it runs where live deliveries wait.
const replayLook = 16 << 20

func (w *replayed) end() offset { return w.r.end(uint32(w.s.n)) }

// next is the next event or dead letter to look at, and where the replay is when that was done; nil if none is in memory, or there is none.
// s.mu is held.
func (w *replayed) next() (e *entry, then place) {
	if w.c.read.top >= w.end() {
		return nil, then
	}
	if w.r.spec.DeadLetters {
		return w.letter(w.end() + 1)
	}
	events, ok := w.events()
	for ok && len(events) > 0 && events[0].pos <= w.c.read.top {
		events = events[1:]
	}
	switch {
	case !ok: // it is fetched
		return nil, then
	case len(events) == 0 && w.s.core.judged < w.end():
		w.s.awaited = true
		return nil, then
	case len(events) == 0:
		return w.letter(w.end() + 1)
	}
	// Between two events stand dead letters whose events are gone.
	if e, then = w.letter(min(events[0].pos, w.end()+1)); e != nil || w.c.read.top >= w.end() || w.fetching {
		return e, then
	}
	if events[0].pos > w.end() {
		w.c.read.top = w.end()
		return nil, then
	}
	return &events[0], place{events[0].at + 1, events[0].pos}
}

// letter is the next dead letter before a position. If there is none, and the position is behind the end, the replay is there.
func (w *replayed) letter(before offset) (*entry, place) {
	for len(w.raised) > 0 && w.raised[0].pos <= w.c.read.top {
		w.raised = w.raised[1:]
	}
	if len(w.raised) > 0 && w.raised[0].pos < before {
		return &w.raised[0], place{w.c.read.next, w.raised[0].pos}
	}
	if w.fetching {
		return nil, place{}
	}
	var positions []journal.Position
	for _, l := range w.s.lettersAfter(w.r.spec.Of, w.c.read.top, 64) {
		if offset(l.Position.Offset) < before {
			positions = append(positions, l.Position)
		}
	}
	if len(positions) == 0 {
		if before > w.end() {
			w.c.read.top = w.end()
		}
		return nil, place{}
	}
	w.fetching = true
	w.s.goes(func(context.Context) { w.raise(positions) })
	return nil, place{}
}

// raise loads dead letters.
func (w *replayed) raise(positions []journal.Position) {
	recs, err := w.s.j.load(positions)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	defer w.s.j.wake(w.to)
	w.fetching, w.err = false, err
	for i, r := range recs {
		if r == nil {
			r = &journal.Record{Position: positions[i]} // nothing is left of it but the letter
		}
		w.raised = append(w.raised, entry{pos: offset(positions[i].Offset), rec: r})
	}
}

// eligible reports whether an event is one of those to be delivered again. What still waits for its sink is not.
func (w *replayed) eligible(e *entry) bool {
	if l := w.s.letters[w.r.spec.Of].get(e.pos); l != nil && bodyless(l.Size, e.rec) {
		w.s.j.logger.Error("a dead letter that is kept without its body cannot be delivered", "sink", w.r.spec.Of, "position", l.Position)
		return false
	}
	if w.r.spec.DeadLetters {
		return w.r.written(w.s, e.pos)
	}
	return w.r.eligible(w.s, e)
}

// bodyless reports whether nothing is left of the event of a letter, whose body had a size, but its headers, or not even those.
func bodyless(size int64, r *journal.Record) bool { return size > 0 && len(r.Body) == 0 }

// written reports whether there is the dead letter at a position, and it was written before the replay was given. s.mu is held.
func (r *replay) written(s *shard, pos offset) bool {
	l := s.letters[r.spec.Of].get(pos)
	return r.spec.Letters == nil || l != nil && uint64(l.at) < r.spec.Letters.In(uint32(s.n)).Offset
}

func (r *replay) eligible(s *shard, e *entry) bool {
	settled := func(sink string) bool {
		c := s.core.cursors[cursorName{kindSink, sink}]
		return c == nil || c.settledAt(e.pos)
	}
	ofOwed, toOwed := owedTo(e.rec, r.spec.Of), owedTo(e.rec, r.spec.Sink)
	if r.spec.Pending {
		return ofOwed && !toOwed && !settled(r.spec.Of)
	}
	return (ofOwed || r.spec.Anyway) && (!ofOwed || settled(r.spec.Of)) && (!toOwed || settled(r.spec.Sink))
}

// Settle ends a delivery, once. Delivering a dead letter removes it.
func (w *replayed) Settle(p journal.Position, o journal.Outcome) {
	w.change(p, func(pos offset) {
		if d, ok := w.c.remove(pos); ok {
			w.c.tally.Settle(o)
			if o == journal.Delivered && w.hasLetter(pos) {
				w.c.buried[pos] = &burial{debt: d, removes: true}
			}
		}
	})
}

// Bury ends a delivery that failed for good. A dead letter gets the new reason.
func (w *replayed) Bury(l journal.DeadLetter) {
	w.change(l.Position, func(pos offset) {
		if d, ok := w.c.remove(pos); ok {
			l.Size = d.Size
			w.c.tally.Dead++
			if w.hasLetter(pos) {
				w.c.buried[pos] = &burial{debt: d, letter: l}
			}
		}
	})
}

func (w *replayed) hasLetter(pos offset) bool {
	if !w.r.changesLetters() {
		return false
	}
	if w.s.letters[w.r.spec.Of].get(pos) != nil {
		return true
	}
	c := w.s.core.cursors[cursorName{kindSink, w.r.spec.Of}]
	return c != nil && c.buried[pos] != nil
}

// letterChanges are what replays have done to dead letters, to be written. s.mu is held.
func (s *shard) letterChanges() []grave {
	var graves []grave
	for _, r := range s.j.control.allReplays() {
		c := s.core.cursors[r.name()]
		if c == nil {
			continue
		}
		for pos, b := range c.buried {
			g := grave{sink: r.spec.Of, pos: pos, done: func() { c.interred(pos) }}
			kept := s.letters[r.spec.Of].get(pos)
			switch {
			case kept == nil: // somebody else has removed it
				c.interred(pos)
				continue
			case b.removes:
				g.rec = kafkalog.Record{Key: kept.key}
			default:
				l := b.letter
				g.letter = &l
			}
			graves = append(graves, g)
		}
	}
	return graves
}

// doneRecords are what ncs.control is to be told of replays that have nothing left to do in a shard. s.mu is held.
func (s *shard) doneRecords() (recs []kafkalog.Record) {
	for _, r := range s.j.control.allReplays() {
		c := s.core.cursors[r.name()]
		if _, done := r.doneIn(uint32(s.n)); done || c == nil || !r.isCancelled() && (c.read.top < r.end(uint32(s.n)) || c.unsettled.Len() > 0) || len(c.buried) > 0 {
			continue
		}
		t := r.totals(s)
		b := []byte{stateVersion}
		for _, v := range [...]uint64{t.Matched, t.Delivered, t.Failed, t.Skipped} {
			b = binary.AppendUvarint(b, v)
		}
		recs = append(recs, kafkalog.Record{Key: fmt.Appendf(nil, "%s%d/%d", controlDone, r.id, s.n), Value: b})
	}
	return recs
}

// doneIn are the totals of a shard that has nothing left to do.
func (r *replay) doneIn(shard uint32) (t journal.ReplayTotals, done bool) {
	r.j.control.mu.Lock()
	defer r.j.control.mu.Unlock()
	t, done = r.done[shard]
	return t, done
}

// CountReplay counts what a replay would deliver now in the shards that this replica has.
func (j *Journal) CountReplay(ctx context.Context, spec journal.ReplaySpec, want func(header *journal.Record) bool) (int, error) {
	if err := j.complete(&spec); err != nil {
		return 0, err
	}
	r := &replay{j: j, spec: spec}
	n := 0
	wanted := func(rec *journal.Record) {
		if wants(want, rec) {
			n++
		}
	}
	for _, s := range j.running() {
		if err := r.count(ctx, s, wanted); err != nil {
			return n, err
		}
	}
	return n, ctx.Err()
}

func (r *replay) count(ctx context.Context, s *shard, wanted func(*journal.Record)) error {
	end := r.end(uint32(s.n))
	first := end + 1 // of the events that are in the topic
	if !r.spec.DeadLetters {
		_, err := r.j.scanShard(ctx, s.n, func(*journal.Record) bool { return true }, func(rec *journal.Record) bool {
			e := entry{pos: offset(rec.Position.Offset), rec: rec}
			first = min(first, e.pos)
			s.mu.Lock()
			eligible := e.pos <= end && r.eligible(s, &e)
			s.mu.Unlock()
			if eligible {
				wanted(rec)
			}
			return e.pos <= end
		})
		if err != nil {
			return err
		}
	}
	if r.spec.Pending { // of which no dead letter is one
		return nil
	}
	for after := offset(0); ; {
		s.mu.Lock()
		kept := s.lettersAfter(r.spec.Of, after, 64)
		var positions []journal.Position
		var sizes []int64
		for _, l := range kept {
			if after = offset(l.Position.Offset); after < first && (!r.spec.DeadLetters || r.written(s, after)) {
				positions, sizes = append(positions, l.Position), append(sizes, l.Size)
			}
		}
		s.mu.Unlock()
		if len(kept) == 0 || after >= first {
			return nil
		}
		recs, err := r.j.load(positions)
		if err != nil {
			return err
		}
		for i, rec := range recs {
			if rec != nil && !bodyless(sizes[i], rec) {
				wanted(rec)
			}
		}
	}
}
