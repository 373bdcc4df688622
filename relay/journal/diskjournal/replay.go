package diskjournal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// Replay is a job that delivers again what is settled, as far as the log reaches back, and dead letters. Like a Cursor it hands out, and is told what became of it, and it
// is kept with the cursors: after a crash at most what was settled since the last checkpoint is delivered once more.
// It does not count in the totals of sinks. What it has not read is kept while max_size allows. All methods
// may be called concurrently.
type Replay struct {
	j      *Journal
	id     uint32
	spec   journal.ReplaySpec // without To
	of, to *Cursor
	end    position // what comes behind it is not delivered

	nextMu sync.Mutex // one Next at a time

	mu        sync.Mutex // guards what follows; taken after Journal.mu and before a cursor's mutex
	reached   position   // what is up to here was looked at
	at        place      // of the record after it; a hint
	unsettled ledger.Unsettled
	totals    journal.ReplayTotals // without Pending and Read
	cancelled bool
	changes   []letterChange // to be saved
	dirty     bool
}

// letterChange is what a replay did to a dead letter: removed it, or gave it a new reason.
type letterChange struct {
	pos    position
	letter *journal.DeadLetter // nil: removed
}

// keptReplays bounds the finished replays that are listed.
const keptReplays = 100

// AddReplay begins a replay.
func (j *Journal) AddReplay(spec journal.ReplaySpec) (journal.Replay, error) {
	r, err := j.newReplay(spec)
	if err != nil {
		return nil, err
	}
	j.saving.Lock()
	defer j.saving.Unlock()
	surplus := j.surplusReplays()
	err = j.state.update(func(tx *bbolt.Tx) error {
		b := tableOf(tx, bucketReplays)
		n, err := b.NextSequence()
		if err != nil {
			return err
		}
		r.id = uint32(n)
		for _, old := range surplus {
			if err := b.Delete(replayKey(old.id)); err != nil {
				return err
			}
		}
		return b.Put(replayKey(r.id), r.snapshot(false).encode())
	})
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.replays = append(slices.DeleteFunc(j.replays, func(r *Replay) bool { return slices.Contains(surplus, r) }), r)
	return r, nil
}

// newReplay checks spec and fills what it leaves open.
func (j *Journal) newReplay(spec journal.ReplaySpec) (*Replay, error) {
	if spec.Of == "" {
		spec.Of = spec.Sink
	}
	end := j.log.front()
	if spec.To != nil {
		end = min(end, in(spec.To.In(0)))
	}
	spec.To = nil
	r := &Replay{j: j, spec: spec, end: end, unsettled: ledger.NewUnsettled(nil), dirty: true}
	return r, r.bind()
}

func (r *Replay) bind() error {
	r.to, r.of = r.j.sink(r.spec.Sink), r.j.sink(r.spec.Of)
	if r.to == nil || r.of == nil {
		return fmt.Errorf("replay of %q to %q: the journal does not know both sinks", r.spec.Of, r.spec.Sink)
	}
	return nil
}

func (j *Journal) surplusReplays() []*Replay {
	finished := slices.DeleteFunc(j.replayList(), func(r *Replay) bool { return !r.Finished() })
	return finished[:max(0, len(finished)-keptReplays)]
}

// Replays lists those not finished, and the newest finished, by number.
func (j *Journal) Replays() []journal.Replay {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]journal.Replay, len(j.replays))
	for i, r := range j.replays {
		list[i] = r
	}
	return list
}

func (j *Journal) replayList() []*Replay {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.replays)
}

// CountReplay counts what a replay would deliver now.
func (j *Journal) CountReplay(ctx context.Context, spec journal.ReplaySpec, want func(header *journal.Record) bool) (int, error) {
	r, err := j.newReplay(spec)
	if err != nil {
		return 0, err
	}
	n := 0
	for !r.Finished() && ctx.Err() == nil {
		b, err := r.read(1<<20, want)
		if err != nil {
			return 0, err
		}
		n += len(b.recs)
		r.reached, r.at = b.read, b.at
	}
	return n, ctx.Err()
}

// ID is the replay's number, from 1 on, never used again.
func (r *Replay) ID() uint32 { return r.id }

// Spec is what the replay is about, with what the caller left open filled in.
func (r *Replay) Spec() journal.ReplaySpec {
	spec := r.spec
	spec.To = cut(r.end)
	return spec
}

// replayBatch is what one Next looks at.
type replayBatch struct {
	recs []*journal.Record
	read position
	at   place
}

// End does nothing, as with a Cursor.
func (r *Replay) End() {}

// In are the deliveries that want selects.
func (r *Replay) In(_ *journal.Shard, want func(header *journal.Record) bool) journal.Deliveries {
	return wantedOf{r, want}
}

// wantedOf is a replay with its filter.
type wantedOf struct {
	*Replay
	want func(header *journal.Record) bool
}

// Next hands out the next records. When many were looked at in vain, a channel of the sink's Appended taken before is closed, so that
// the caller comes back when it has seen to its other work.
func (w wantedOf) Next(maxBytes int) ([]*journal.Record, error) { return w.next(maxBytes, w.want) }

func (r *Replay) next(maxBytes int, want func(header *journal.Record) bool) ([]*journal.Record, error) {
	r.nextMu.Lock()
	defer r.nextMu.Unlock()
	if r.done() {
		return nil, nil
	}
	b, err := r.read(maxBytes, want)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancelled {
		return nil, nil
	}
	for _, rec := range b.recs {
		r.unsettled.Add(savedDelivery{At: in(rec.Position), Debt: ledger.Debt{Size: int64(len(rec.Body)), Received: rec.Time.UnixMilli()}})
	}
	r.totals.Matched += uint64(len(b.recs))
	r.reached, r.at = b.read, b.at
	r.touch()
	if len(b.recs) == 0 && b.read < r.end {
		r.to.wake()
	}
	return b.recs, nil
}

// replayLook bounds the bytes that one Next looks at, some ten milliseconds' worth: it runs where live deliveries wait.
const replayLook = 16 << 20

func (r *Replay) read(maxBytes int, want func(header *journal.Record) bool) (replayBatch, error) {
	r.mu.Lock()
	b := replayBatch{read: r.reached, at: r.at}
	r.mu.Unlock()
	if r.spec.DeadLetters {
		return b, r.readLetters(&b, maxBytes, want)
	}
	size, looked, whole := 0, 0, true
	var failed error
	err := r.j.visit(b.read, r.end, b.at, func(rec *journal.Record, body []byte, end place) bool {
		b.read, b.at = in(rec.Position), end
		looked += recordHeader + payloadFixed + len(body)
		eligible := r.eligible(rec)
		if eligible && end == (place{}) { // others are kept only until the next sweep
			eligible, failed = r.of.isDead(in(rec.Position))
		}
		if eligible && want(rec) {
			rec.Body = append([]byte{}, body...)
			b.recs = append(b.recs, rec)
			size += len(body)
		}
		whole = size < maxBytes && looked < replayLook
		return whole && failed == nil
	})
	if err = errors.Join(err, failed); err == nil && whole {
		b.read = r.end
	}
	return b, err
}

func (c *Cursor) isDead(pos position) (bool, error) {
	if !c.settledAt(pos) {
		return false, nil
	}
	_, dead, err := c.deadLetter(pos)
	return dead, err
}

// eligible reports whether a record is one of those to be delivered again. What still waits for its sink is not: it will be
// delivered anyway.
func (r *Replay) eligible(rec *journal.Record) bool {
	ofOwed, toOwed := slices.Contains(rec.Sinks, r.of.name), slices.Contains(rec.Sinks, r.to.name)
	return (ofOwed || r.spec.Anyway) && (!ofOwed || r.of.settledAt(in(rec.Position))) && (!toOwed || r.to.settledAt(in(rec.Position)))
}

func (r *Replay) readLetters(b *replayBatch, maxBytes int, want func(header *journal.Record) bool) error {
	letters, err := r.of.deadLetters(b.read, 256)
	if err != nil {
		return err
	}
	letters = slices.DeleteFunc(letters, func(l journal.DeadLetter) bool { return in(l.Position) > r.end })
	if len(letters) == 0 {
		b.read = r.end
		return nil
	}
	size, n := int64(0), 0
	for n < len(letters) && (n == 0 || size < int64(maxBytes)) {
		size += letters[n].Size
		n++
	}
	positions := make([]position, n)
	for i, l := range letters[:n] {
		positions[i] = in(l.Position)
	}
	recs, err := r.j.load(positions)
	if err != nil {
		return err
	}
	b.recs = slices.DeleteFunc(recs, func(rec *journal.Record) bool { return rec == nil || !want(rec) })
	b.read = positions[n-1]
	return nil
}

// Pending returns what was handed out and is not settled, in order.
func (r *Replay) Pending() []journal.Pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unsettled.Pending(0)
}

// Owes reports whether a delivery was handed out and is not settled.
func (r *Replay) Owes(pos journal.Position) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unsettled.Get(in(pos)) != nil
}

// Settle ends a delivery, once.
func (r *Replay) Settle(p journal.Position, o journal.Outcome) {
	pos := in(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.take(pos)
	switch {
	case !ok:
	case o == journal.Delivered:
		r.totals.Delivered++
		r.change(letterChange{pos, nil})
	default:
		r.totals.Skipped++
	}
}

// Failed notes a failed attempt at a delivery that stays pending.
func (r *Replay) Failed(pos journal.Position, retry journal.Retry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.unsettled.Get(in(pos)); d != nil {
		d.Retry = &retry
		r.touch()
	}
}

// Bury ends a delivery that failed for good.
func (r *Replay) Bury(l journal.DeadLetter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.take(in(l.Position))
	if !ok {
		return
	}
	r.totals.Failed++
	l.Size = d.Size
	r.change(letterChange{in(l.Position), &l})
}

func (r *Replay) take(pos position) (ledger.Debt, bool) { // r.mu is held
	d, ok := r.unsettled.Remove(pos)
	if ok {
		r.touch()
	}
	return d, ok
}

func (r *Replay) touch() { // r.mu is held
	r.dirty = true
	r.j.wantCheckpoint()
}

func (r *Replay) change(ch letterChange) { // r.mu is held
	if (r.spec.DeadLetters || r.of == r.to) && r.of.hasLetters() {
		r.changes = append(r.changes, ch)
	}
}

func (c *Cursor) hasLetters() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally.Letters > 0 || len(c.buried) > 0
}

// Totals returns one snapshot.
func (r *Replay) Totals() journal.ReplayTotals {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.totals
	t.Pending, t.Read = uint64(r.unsettled.Len()), cut(r.reached)
	return t
}

// Finished reports whether nothing is left to do.
func (r *Replay) Finished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cancelled || (r.reached >= r.end && r.unsettled.Len() == 0)
}

// Raises reports whether the replay may still remove a dead letter.
func (r *Replay) Raises(sink string, p journal.Position) bool {
	pos := in(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.cancelled && r.of.name == sink && (r.spec.DeadLetters || r.of == r.to) &&
		(r.unsettled.Get(pos) != nil || r.reached < pos && pos <= r.end)
}

// done reports whether nothing is left to read.
func (r *Replay) done() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cancelled || r.reached >= r.end
}

// Cancel ends the replay; what is pending is skipped. It is on disk with the next checkpoint.
func (r *Replay) Cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.totals.Skipped += uint64(r.unsettled.Len())
	r.unsettled = ledger.NewUnsettled(nil)
	r.cancelled = true
	r.touch()
}

// Retention.

// wanted reports whether a replay has not read the positions from first to last.
func (j *Journal) wanted(first, last position) bool {
	return slices.ContainsFunc(j.replayList(), func(r *Replay) bool { return r.wants(first, last) })
}

func (r *Replay) wants(first, last position) bool {
	if r.spec.DeadLetters || r.done() { // letters are kept anyway
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reached < min(last, r.end) && r.end >= first
}

// forgo skips what a segment that is about to be deleted still holds for the replay.
func (r *Replay) forgo(st stretch) error {
	r.nextMu.Lock()
	defer r.nextMu.Unlock()
	if !r.wants(st.seg.first, st.last) {
		return nil
	}
	r.mu.Lock()
	read, n := r.reached, uint64(0)
	r.mu.Unlock()
	err := r.j.visit(max(read, st.seg.first-1), min(st.last, r.end), place{}, func(rec *journal.Record, _ []byte, _ place) bool {
		if r.eligible(rec) {
			n++ // the filter is the caller's: this may be more than would have matched
		}
		return true
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.totals.Matched += n
	r.totals.Skipped += n
	r.reached, r.at = min(st.last, r.end), place{}
	r.touch()
	if n > 0 {
		r.j.logger.Error("a replay misses events, because max_size leaves no room for them", "replay", r.id, "sink", r.to.name, "events", n)
	}
	return nil
}

// Persistence.

const replayVersion = 1

// savedReplay is a replay as it is kept.
type savedReplay struct {
	spec      journal.ReplaySpec
	cancelled bool
	end       position
	reached   position
	at        place
	totals    journal.ReplayTotals
	pending   []savedDelivery

	changes []letterChange // not a part of it: made in the same transaction
}

func replayKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (s *savedReplay) encode() []byte {
	b := []byte{replayVersion, flag(s.spec.Anyway) | flag(s.spec.DeadLetters)<<1 | flag(s.cancelled)<<2}
	for _, text := range [...]string{s.spec.Sink, s.spec.Of, string(s.spec.Filter)} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = binary.AppendUvarint(b, math.Float64bits(s.spec.Rate))
	b = ledger.AppendTime(b, s.spec.CreatedAt)
	for _, v := range [...]uint64{1, uint64(s.end), uint64(s.at.seg), uint64(s.at.off), uint64(s.reached),
		s.totals.Matched, s.totals.Delivered, s.totals.Failed, s.totals.Skipped} {
		b = binary.AppendUvarint(b, v)
	}
	return ledger.AppendPending(b, s.pending)
}

func decodeReplay(b []byte) (*savedReplay, error) {
	if len(b) < 2 || b[0] != replayVersion {
		return nil, errors.New("replay of unknown version")
	}
	s := &savedReplay{cancelled: b[1]&4 != 0}
	s.spec.Anyway, s.spec.DeadLetters = b[1]&1 != 0, b[1]&2 != 0
	d := decoder{B: b[2:]}
	s.spec.Sink, s.spec.Of, s.spec.Filter = d.Text(), d.Text(), []byte(d.Text())
	s.spec.Rate, s.spec.CreatedAt = math.Float64frombits(d.Uvarint()), d.Time()
	d.Uvarint() // where it began: a replay reads from the first record on
	s.end = position(d.Uvarint())
	s.at = place{position(d.Uvarint()), int64(d.Uvarint())}
	s.reached = position(d.Uvarint())
	s.totals = journal.ReplayTotals{Matched: d.Uvarint(), Delivered: d.Uvarint(), Failed: d.Uvarint(), Skipped: d.Uvarint()}
	s.pending = d.Pending()
	return s, d.Err
}

// loadReplays needs the cursors.
func (j *Journal) loadReplays(tx *bbolt.Tx) error {
	return tableOf(tx, bucketReplays).ForEach(func(k, v []byte) error {
		id := binary.BigEndian.Uint32(k)
		s, err := decodeReplay(v)
		if err != nil {
			return fmt.Errorf("replay %d: %w", id, err)
		}
		r := &Replay{j: j, id: id, spec: s.spec, end: s.end, reached: s.reached, at: s.at, unsettled: ledger.NewUnsettled(s.pending), totals: s.totals, cancelled: s.cancelled}
		j.replays = append(j.replays, r)
		return r.bind()
	})
}

// snapshot returns what a checkpoint saves, nil when that is saved. What is finished does not change any more.
func (r *Replay) snapshot(all bool) *savedReplay {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dirty && !(all && r.unsettled.Len() > 0) {
		return nil
	}
	r.dirty = false
	return &savedReplay{spec: r.spec, cancelled: r.cancelled, end: r.end, reached: r.reached, at: r.at, totals: r.totals, pending: r.unsettled.Saved(), changes: slices.Clone(r.changes)}
}

func (s *snapshot) putReplays(tx *bbolt.Tx) error {
	for r, saved := range s.replays {
		if err := tableOf(tx, bucketReplays).Put(replayKey(r.id), saved.encode()); err != nil {
			return err
		}
		for _, ch := range saved.changes {
			var err error
			if ch.letter == nil {
				err = s.dropLetter(tx, r.of, ch.pos)
			} else {
				err = rewriteLetter(tx, r.of.id, ch.letter)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func rewriteLetter(tx *bbolt.Tx, id sinkID, l *journal.DeadLetter) error {
	b, k := tableOf(tx, bucketDead), deadKey(id, in(l.Position))
	if v, err := b.Get(k); v == nil {
		return err
	}
	return b.Put(k, ledger.EncodeLetter(l))
}

// committed forgets what a transaction has made lasting.
func (r *Replay) committed(s *savedReplay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = slices.Clone(r.changes[len(s.changes):])
}
