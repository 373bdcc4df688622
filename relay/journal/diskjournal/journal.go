// Package diskjournal keeps accepted events on disk until every sink they are owed to has settled them.
//
// It is a journal.Journal of one shard. Nothing that is on disk but damaged is taken for the end of the log: it is reported,
// skipped and counted. A full or failing disk makes appends fail, and nothing else; they work again when it does.
//
// The directory holds
//
//	FORMAT   names the format and its version
//	LOCK     held by the process that has the journal open
//	log/     the records, in segments named by first position and salt
//	state.db what the sinks have settled, known keys, dead letters, replays, accounts of sources; bbolt
//
// A record is written once, to the log, and read from there, out of the page cache as a rule. What sinks have settled
// is in memory and written to state.db a few times a second.
//
// A directory that nobody has open can be read by Verify and Export, also when much of it is lost.
package diskjournal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
)

// Why a directory cannot be opened, for good.
var (
	// ErrLocked means that another process has the directory open.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrForeign means that the directory holds something else.
	ErrForeign = errors.New("data directory is not empty and not a journal")
	// ErrDamaged means that what the sinks have settled cannot be read, so that nothing can be delivered without losing or
	// repeating events. Verify says more, and Export salvages the events.
	ErrDamaged = errors.New("the journal is damaged")
	// ErrNewer means that a newer version of the program wrote the directory.
	ErrNewer = errors.New("data directory was written by a newer version")
)

// Options say how a journal is kept.
type Options struct {
	journal.Config
	Dead        journal.DeadConfig
	Logger      *slog.Logger  // nil: none
	SegmentSize int64         // 0: 64 MiB; a record must fit in one
	KeepKeys    int           // known keys kept, 0: 1,000,000
	KeepKeysFor time.Duration // 0: no limit
	FS          FS            // nil: DiskFS; the state file is on the real disk in any case
}

const defaultSegmentSize = 64 << 20

// Journal is an open journal. Its methods may be called concurrently.
type Journal struct {
	dir     string
	opts    Options // KeepKeys and KeepKeysFor are guarded by mu
	fs      FS
	logger  *slog.Logger
	lock    io.Closer
	log     *segments
	state   *state
	queue   *queue
	writer  *committer
	space   *space
	shards  []*journal.Shard
	sweeps  chan struct{} // asks for room
	changed chan struct{} // asks for a checkpoint

	together gathering

	saving  sync.Mutex // serializes what writes to state.db: checkpoints, new sinks, sweeps; guards what follows
	keptFor endings    // when kept records were last looked through

	mu        sync.Mutex // guards what follows, and the owed totals of cursors
	known     durable    // what totals and keys account for
	sinks     map[string]*Cursor
	byID      map[sinkID]*Cursor
	names     atomic.Pointer[sinkNames] // of byID; read without mu
	keys      []knownKey                // accepted since the last checkpoint
	keysSaved int                       // in state.db
	keptBytes int64                     // in state.db
	dirty     bool
	faults    uint64
	fault     error     // of the last append or probe; nil: it went well
	writing   time.Time // since when the disk is being waited for; zero: it is not
	accounts  map[string]*sourceAccount
	replays   []*Replay // ascending
}

// Open opens the journal in dir, creating it if there is none. It starts nothing: call Run, then Close.
// ErrLocked, ErrForeign, ErrNewer and ErrDamaged are final; other errors come from the disk and may pass.
func Open(dir string, opts Options) (_ *Journal, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.SegmentSize == 0 {
		opts.SegmentSize = defaultSegmentSize
	}
	if opts.KeepKeys == 0 {
		opts.KeepKeys = 1_000_000
	}
	if opts.FS == nil {
		opts.FS = DiskFS{}
	}
	j := &Journal{dir: dir, opts: opts, fs: opts.FS, logger: opts.Logger, queue: newQueue(), shards: []*journal.Shard{{Of: 1}}, sweeps: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		sinks: make(map[string]*Cursor), byID: make(map[sinkID]*Cursor), accounts: make(map[string]*sourceAccount)}
	defer func() {
		if err != nil {
			_ = j.release()
		}
	}()
	if j.lock, err = claimDirectory(j.fs, dir); err != nil {
		return nil, err
	}
	logDir := filepath.Join(dir, "log")
	if err := j.fs.MkdirAll(logDir); err != nil {
		return nil, err
	}
	segments, err := j.fs.List(logDir)
	if err != nil {
		return nil, err
	}
	if j.state, err = openState(filepath.Join(dir, "state.db"), j.fs, len(segments) == 0); err != nil {
		return nil, err
	}
	if err := j.loadState(); err != nil {
		return nil, err
	}
	if j.log, err = openSegments(j.fs, logDir, j.logger, j.known); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := j.foldTail(); err != nil {
		return nil, err
	}
	j.space = &space{fs: j.fs, dir: dir, minFree: opts.MinFree, maxSize: opts.MaxSize, segment: opts.SegmentSize, used: j.used, sweep: j.sweeps}
	j.writer = &committer{log: j.log, space: j.space, size: opts.SegmentSize, pause: faultPause, next: max(j.log.frontier, j.log.floor) + 1,
		report: j.report, account: j.account, readable: j.wakeOwed}
	return j, nil
}

// Run writes what is appended, saves what is settled, and makes room, until ctx ends. It then writes what was queued,
// and returns when everything it started has ended. Appends that come later fail with ErrClosed.
func (j *Journal) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { j.commitLoop(ctx) })
	wg.Go(func() { j.checkpointLoop(ctx) })
	wg.Go(func() { j.sweepLoop(ctx) })
	wg.Wait()
	return j.Flush()
}

// Close saves what is settled and releases the directory. Run, if it was called, must have returned.
func (j *Journal) Close() error {
	for _, e := range j.queue.take(true) {
		e.done(journal.Position{}, journal.ErrClosed)
	}
	return errors.Join(j.Flush(), j.release())
}

func (j *Journal) release() error {
	var errs []error
	if j.writer != nil && j.writer.active != nil {
		j.writer.seal()
	}
	if j.state != nil {
		errs = append(errs, j.state.close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}

// loadState reads the frontier and the cursors.
func (j *Journal) loadState() error {
	return j.state.view(func(tx *bbolt.Tx) (err error) {
		meta := tableOf(tx, bucketMeta)
		b, err := meta.Get(metaFrontier)
		if err != nil {
			return err
		}
		if j.known, err = decodeDurable(b); err != nil {
			return fmt.Errorf("frontier: %w", err)
		}
		if err := j.loadCounts(tx); err != nil {
			return err
		}
		if err := j.loadAccounts(tx); err != nil {
			return err
		}
		if err := j.loadCursors(tx); err != nil {
			return err
		}
		return j.loadReplays(tx)
	})
}

// loadCounts reads how much is kept, and counts the known keys, which are checked when they are read: they are many.
func (j *Journal) loadCounts(tx *bbolt.Tx) error {
	b, err := tableOf(tx, bucketMeta).Get(metaKept)
	if err != nil {
		return err
	}
	d := decoder{B: b}
	j.keptBytes, j.keysSaved = 0, 0
	if b != nil {
		j.keptBytes = int64(d.Uvarint())
	}
	return tx.Bucket(bucketKeys).ForEach(func(_, chunk []byte) error {
		j.keysSaved += (len(chunk) - sumSize) / keySize
		return nil
	})
}

func (j *Journal) loadCursors(tx *bbolt.Tx) error {
	sinks, cursors := tableOf(tx, bucketSinks), tableOf(tx, bucketCursors)
	err := sinks.ForEach(func(name, v []byte) error {
		d := decoder{B: v}
		id := sinkID(d.Uvarint())
		b, err := cursors.Get(sinkKey(id))
		if err != nil {
			return err
		}
		saved, err := decodeCursor(b)
		if err != nil || d.Err != nil {
			return fmt.Errorf("sink %q: %w", name, errors.Join(err, d.Err))
		}
		j.addCursor(newCursor(j, string(name), id, saved))
		return nil
	})
	if err != nil {
		return err
	}
	if n := sinks.Sequence(); uint64(len(j.sinks)) != n { // none is ever removed
		return fmt.Errorf("%d sinks where there should be %d: %w", len(j.sinks), n, ErrDamaged)
	}
	return nil
}

func (j *Journal) addCursor(c *Cursor) {
	j.sinks[c.name], j.byID[c.id] = c, c
	names := slices.Clone(j.sinkNames())
	for len(names) < int(c.id) {
		names = append(names, "")
	}
	names[c.id-1] = c.name
	j.names.Store(&names)
}

// sinkNames are those there are now.
func (j *Journal) sinkNames() sinkNames {
	if n := j.names.Load(); n != nil {
		return *n
	}
	return nil
}

// foldTail counts what was appended after the last checkpoint.
func (j *Journal) foldTail() error {
	for {
		st, ok, err := j.log.after(j.known.pos, place{j.known.seg, j.known.off})
		if err != nil || !ok {
			return err
		}
		var unknown error
		err = j.log.walk(st, func(off int64, f frame, payload []byte) bool {
			if f.pos > j.known.pos {
				unknown = j.accountPayload(f.pos, payload)
			}
			return unknown == nil
		})
		if err = errors.Join(err, unknown); err != nil {
			return err
		}
		j.known = durable{mark{st.last, st.end}, st.seg.first}
		j.touch()
	}
}

// accountPayload fails when the record is owed to a sink that the state does not know. A sink is saved before it is owed
// anything, so the state is then not the one of this log, and the number may come to mean another sink.
func (j *Journal) accountPayload(pos position, payload []byte) error {
	r, body, err := sinkNames(nil).decodeHeader(pos, payload)
	if err != nil {
		return nil // reported by whoever reads it
	}
	var sinks []sinkID
	payloadSinks(payload, func(id sinkID) { sinks = append(sinks, id) })
	for _, id := range sinks {
		if j.byID[id] == nil {
			return fmt.Errorf("position %d is owed to sink number %d, which state.db does not know, as if it were older than the log: %w", pos, id, ErrDamaged)
		}
	}
	j.countOwed(sinks, int64(len(body)), payloadTime(payload))
	a := j.accountOf(r.Source)
	a.Received() // by a process that did not live to save it
	a.Stored(r.Quarantine != "")
	j.noteKey(pos, payload)
	return nil
}

func (j *Journal) countOwed(sinks []sinkID, size, received int64) { // j.mu is held
	for _, id := range sinks {
		if c := j.byID[id]; c != nil {
			c.owe(size, received)
		}
	}
}

func (j *Journal) noteKey(pos position, payload []byte) { // j.mu is held
	j.keys = append(j.keys, knownKey{pos, payloadKey(payload), payloadID(payload), payloadTime(payload)})
	if len(j.keys) > 2*j.opts.KeepKeys { // state.db cannot be written, or there are very many
		j.keys = slices.Delete(j.keys, 0, len(j.keys)-j.opts.KeepKeys)
	}
}

// Append queues a copy of rec.
func (j *Journal) Append(ctx context.Context, rec *journal.Record, done func(journal.Position, error)) error {
	account, sinks, err := j.admit(rec)
	if err != nil {
		return err
	}
	buf := make([]byte, recordHeader, frameSize(payloadFixed+128+len(rec.Source)+len(rec.Entity)+len(rec.Quarantine)+
		len(rec.ContentType)+len(rec.SignatureV1)+len(rec.SignatureV2)+5*len(rec.Sinks)+len(rec.Body)))
	buf = appendPayload(buf, rec, sinks)
	if frameSize(len(buf)-recordHeader) > j.opts.SegmentSize-segmentHeader {
		return fmt.Errorf("%w: %d bytes", journal.ErrTooLarge, len(buf))
	}
	return j.queue.put(ctx, &entry{buf: buf, sinks: sinks, account: account, quarantined: rec.Quarantine != "",
		size: int64(len(rec.Body)), crc: crc32.Checksum(buf[recordHeader:], castagnoli), done: done})
}

// admit refuses records that name sinks wrongly, and finds the account and the sinks' numbers of the others.
func (j *Journal) admit(rec *journal.Record) (*sourceAccount, []sinkID, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	sinks := make([]sinkID, len(rec.Sinks))
	for i, name := range rec.Sinks {
		c := j.sinks[name]
		if c == nil {
			return nil, nil, fmt.Errorf("append: sink %q is not known", name)
		}
		if slices.Contains(sinks[:i], c.id) {
			return nil, nil, fmt.Errorf("append: sink %q is named twice", name)
		}
		sinks[i] = c.id
	}
	return j.accountOf(rec.Source), sinks, nil
}

func (j *Journal) commitLoop(ctx context.Context) {
	j.progress(time.Now())
	j.writer.probe() // so that Ready tells the truth before the first append
	j.progress(time.Time{})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var probe <-chan time.Time
		if j.lastFault() != nil {
			timer.Reset(probeInterval)
			probe = timer.C
		}
		select {
		case <-j.queue.wake:
			j.together.wait(j.queue)
			j.progress(time.Now())
			j.writer.commit(j.queue.take(false))
			j.progress(time.Time{})
		case <-probe:
			j.progress(time.Now())
			j.writer.probe()
			j.progress(time.Time{})
		case <-ctx.Done():
			j.writer.commit(j.queue.take(true))
			return
		}
	}
}

// gathering makes appends share a sync, which costs as much as five calls, however few it is for. It belongs to the committer's goroutine.
type gathering struct {
	began time.Time // of the last group
	most  int       // appends that were on their way at the same time lately
}

// gatherTime is how long after the last group the next begins at the latest.
const gatherTime = 2 * time.Millisecond

// wait lets others append, if there were others lately. Callers who come again as soon as they are answered wait until all are
// there, and who calls alone does not wait.
func (g *gathering) wait(q *queue) {
	runtime.Gosched() // calls that are ready to run
	if left := gatherTime - time.Since(g.began); left > 0 && q.want(g.most) {
		select {
		case <-q.wake:
		case <-time.After(left):
		}
	}
	g.began = time.Now()
}

// note is called with the appends that were on their way at the end of a sync, before any is told of it.
func (g *gathering) note(n int) { g.most = max(n, g.most*7/8) }

// progress notes that the disk has answered, and whether it is being waited for again.
func (j *Journal) progress(since time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.writing = since
}

// account is called by the committer before anybody can read the records, so that nothing is settled before it is owed.
func (j *Journal) account(entries []*entry, frames []frame, seg position, end int64) {
	j.together.note(len(entries) + j.queue.len())
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, e := range entries {
		j.countOwed(e.sinks, e.size, payloadTime(e.payload()))
		e.account.Stored(e.quarantined)
		j.noteKey(frames[i].pos, e.payload())
	}
	j.known = durable{mark{frames[len(frames)-1].pos, end}, seg}
	j.touch()
	j.recovered()
	j.writing = time.Now() // for the next group
}

// wakeOwed is called when what account was told of can be read.
func (j *Journal) wakeOwed() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.byID {
		c.wakeIfOwed()
	}
}

// report takes the outcome of an append or probe that did not get as far as account.
func (j *Journal) report(fault error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if fault == nil {
		j.recovered()
		return
	}
	j.faults++
	if j.fault == nil {
		j.logger.Error("the journal cannot take events", "error", fault)
	}
	j.fault = fault
}

func (j *Journal) recovered() { // j.mu is held
	if j.fault != nil {
		j.fault = nil
		j.logger.Info("the journal takes events again", "position", j.known.pos)
	}
}

// Shards is the one there is.
func (j *Journal) Shards() ([]*journal.Shard, <-chan struct{}) { return j.shards, nil }

// Frontier is the position of the last record on disk.
func (j *Journal) Frontier(context.Context) (journal.Cut, error) { return cut(j.log.front()), nil }

func cut(p position) journal.Cut { return journal.Cut{at(p)} }

// Sink opens the cursor of a sink.
func (j *Journal) Sink(name string) (journal.Sink, error) {
	j.saving.Lock()
	defer j.saving.Unlock()
	j.mu.Lock()
	c, known := j.sinks[name], j.known.pos
	j.mu.Unlock()
	if c == nil {
		var err error
		if c, err = j.createSink(name, known); err != nil {
			return nil, fmt.Errorf("sink %q: %w", name, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = true
	return c, nil
}

func (j *Journal) sink(name string) *Cursor {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sinks[name]
}

func (j *Journal) createSink(name string, start position) (*Cursor, error) {
	saved := &savedCursor{read: start}
	var id sinkID
	err := j.state.update(func(tx *bbolt.Tx) error {
		sinks := tableOf(tx, bucketSinks)
		v, err := sinks.Get([]byte(name))
		if err != nil {
			return err
		}
		var n uint64
		if v != nil { // an attempt that seemed to fail
			d := decoder{B: v}
			n = d.Uvarint()
		} else if n, err = sinks.NextSequence(); err != nil {
			return err
		}
		id = sinkID(n)
		if err := sinks.Put([]byte(name), binary.AppendUvarint(nil, n)); err != nil {
			return err
		}
		return tableOf(tx, bucketCursors).Put(sinkKey(id), saved.encode())
	})
	if err != nil {
		return nil, err
	}
	c := newCursor(j, name, id, saved)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addCursor(c)
	return c, nil
}

// Load reads records by position, in the order asked, from the log or from what was kept of it; nil stands for what is lost for
// good, damaged on disk. An error may pass.
func (j *Journal) Load(positions []journal.Position) ([]*journal.Record, error) {
	inner := make([]position, len(positions))
	for i, p := range positions {
		inner[i] = in(p)
	}
	return j.load(inner)
}

func (j *Journal) load(positions []position) ([]*journal.Record, error) {
	wanted := slices.Clone(positions)
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	found := make(map[position]*journal.Record, len(wanted))
	names := j.sinkNames()
	var errs []error
	take := func(pos position, payload []byte) {
		r, err := names.decodePayload(pos, payload)
		if err != nil {
			errs = append(errs, err)
			return
		}
		found[pos] = r
	}
	// The log first: a sweep copies before it deletes.
	if err := j.log.load(wanted, take); err != nil {
		return nil, err
	}
	if len(found) < len(wanted) {
		err := j.state.view(func(tx *bbolt.Tx) error {
			kept := tableOf(tx, bucketKept)
			for _, pos := range wanted {
				if found[pos] != nil {
					continue
				}
				p, err := kept.Get(positionKey(pos))
				if err != nil {
					j.log.unreadableKept(pos, err)
				} else if p != nil {
					take(pos, p)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	recs := make([]*journal.Record, len(positions))
	for i, pos := range positions {
		recs[i] = found[pos]
	}
	return recs, errors.Join(errs...)
}
