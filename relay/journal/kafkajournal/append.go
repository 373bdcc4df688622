package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

const (
	queueCount = 8192
	queueBytes = 64 << 20 // of all shards
)

// queued is one append on its way.
type queued struct {
	rec         kafkalog.Record
	size        int
	account     *ledger.SourceAccount
	quarantined bool
	until       time.Time // it is tried
	done        func(journal.Position, error)
}

// inbox writes to one partition of the inbox, many appends with one request.
type inbox struct {
	j         *Journal
	partition int32
	w         writer
	next      int64 // the offset after the last record written; -1: not known

	mu     sync.Mutex // guards what follows
	queue  []*queued
	bytes  int
	closed bool
	room   chan struct{} // closed when the queue was emptied
	wake   chan struct{}
}

func newInbox(j *Journal, partition int32) *inbox {
	return &inbox{j: j, partition: partition, w: j.logs.writer(j.topics.inbox, partition), next: -1, room: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// Append queues a copy of rec for the inbox of its shard.
func (j *Journal) Append(ctx context.Context, rec *journal.Record, done func(journal.Position, error)) error {
	if err := j.admit(rec); err != nil {
		return err
	}
	size := sizeOf(rec)
	if size > j.opts.MaxRecord {
		return fmt.Errorf("%w: %d bytes", journal.ErrTooLarge, size)
	}
	in := j.inbox[ShardOf(rec.Entity, rec.ID, len(j.inbox))]
	return in.put(ctx, &queued{rec: encodeRecord(rec), size: size, account: j.account(rec.Source), quarantined: rec.Quarantine != "",
		until: time.Now().Add(appendFor), done: done})
}

// admit refuses records that name sinks wrongly.
func (j *Journal) admit(rec *journal.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost != nil {
		return j.lost
	}
	for i, name := range rec.Sinks {
		if j.sinks[name] == nil {
			return fmt.Errorf("append: sink %q is not known", name)
		}
		if slices.Contains(rec.Sinks[:i], name) {
			return fmt.Errorf("append: sink %q is named twice", name)
		}
	}
	return nil
}

func (in *inbox) put(ctx context.Context, e *queued) error {
	for {
		in.mu.Lock()
		if in.closed {
			in.mu.Unlock()
			return journal.ErrClosed
		}
		if len(in.queue) == 0 || len(in.queue) < queueCount && in.bytes+e.size <= queueBytes/len(in.j.inbox) {
			in.queue = append(in.queue, e)
			in.bytes += e.size
			in.mu.Unlock()
			select {
			case in.wake <- struct{}{}:
			default:
			}
			return nil
		}
		room := in.room
		in.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take empties the queue, and closes it when there will be no more takers.
func (in *inbox) take(last bool) []*queued {
	in.mu.Lock()
	defer in.mu.Unlock()
	entries := in.queue
	in.queue, in.bytes = nil, 0
	in.closed = in.closed || last
	close(in.room)
	in.room = make(chan struct{})
	return entries
}

func (in *inbox) run(ctx context.Context) {
	for {
		select {
		case <-in.wake:
			runtime.Gosched() // calls that are ready to run append first, and share the request
			in.write(in.take(false))
		case <-ctx.Done():
			in.write(in.take(true))
			return
		}
	}
}

// write writes entries in order and calls each one's done.
func (in *inbox) write(entries []*queued) {
	for len(entries) > 0 {
		recs := make([]kafkalog.Record, len(entries))
		for i, e := range entries {
			recs[i] = e.rec
		}
		n := kafkalog.Fitting(recs, in.j.opts.MaxRecord)
		base, err := in.append(entries[0].until, recs[:n])
		in.j.report(in.partition, entries[0].until.Add(-appendFor), err)
		if err == nil {
			in.j.stored(in.partition, entries[:n], base+int64(n))
		}
		for i, e := range entries[:n] {
			if err != nil {
				e.done(journal.Position{}, err)
			} else {
				e.done(journal.Position{Shard: uint32(in.partition), Offset: uint64(base + int64(i) + 1)}, nil)
			}
		}
		entries = entries[n:]
	}
}

func (in *inbox) append(until time.Time, recs []kafkalog.Record) (base int64, err error) {
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	base, err = in.w.Append(ctx, recs)
	if err == nil && base < 0 {
		base, err = in.locate(ctx, recs)
	}
	var refused *kafkalog.Refused
	switch {
	case err == nil:
		if err = follows(in.j.topics.inbox, in.partition, base, in.next, errForeignInbox); err != nil { // positions would be given a second time
			in.j.lose(err)
			return 0, err
		}
		in.next = base + int64(len(recs))
	case errors.As(err, &refused):
		err = fmt.Errorf("topic %s refuses a record: %w", in.j.topics.inbox, err)
	default:
		err = fmt.Errorf("write to topic %s: %w", in.j.topics.inbox, err)
	}
	return base, err
}

// locateBack is how far from the end a batch is looked for that the broker has, it does not say where.
const locateBack = 10_000

func (in *inbox) locate(ctx context.Context, recs []kafkalog.Record) (base int64, err error) {
	topic := in.j.topics.inbox
	log, err := in.j.bounds(ctx, topic, in.partition)
	if err != nil {
		return 0, err
	}
	from := in.next
	if from < 0 {
		from = log.end - locateBack
	}
	base = -1
	err = readTo(ctx, in.j.logs, topic, in.partition, max(from, log.start), log.end, func(found []kafkalog.Record) error {
		for i := range found {
			if base < 0 && sameRecord(&found[i], &recs[0]) {
				base = found[i].Offset
			}
		}
		return nil
	})
	if err == nil && base < 0 {
		err = errors.New("the broker has the records already, and they are not found")
	}
	return base, err
}

func sameRecord(a, b *kafkalog.Record) bool {
	return string(a.Value) == string(b.Value) && slices.EqualFunc(a.Headers, b.Headers, func(a, b kafkalog.Header) bool {
		return a.Key == b.Key && string(a.Value) == string(b.Value)
	})
}

// stored counts records that are in the inbox up to an offset.
func (j *Journal) stored(partition int32, entries []*queued, end int64) {
	j.sawEnd(partition, end) // before it counts as accepted: see Snapshot
	for _, e := range entries {
		e.account.Stored(e.quarantined)
	}
	j.control.touch()
}

// sawEnd notes how far an inbox goes, as was found out one way or another.
func (j *Journal) sawEnd(partition int32, end int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.frontier[partition] = max(j.frontier[partition], end)
}

// Frontier are the ends of the inbox. Snapshot counts what is before them as unjudged from then on.
func (j *Journal) Frontier(ctx context.Context) (journal.Cut, error) {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	ends, err := j.logs.ends(ctx, j.topics.inbox, j.partitions()...)
	if err != nil {
		err = fmt.Errorf("the ends of topic %s: %w", j.topics.inbox, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	cut := make(journal.Cut, len(j.inbox))
	for i := range cut {
		n := int32(i)
		j.frontier[n] = max(j.frontier[n], ends[n])
		cut[i] = journal.Position{Shard: uint32(i), Offset: uint64(j.frontier[n])}
	}
	return cut, err
}

func (j *Journal) partitions() []int32 {
	all, _ := everOwned(len(j.inbox)).Owned()
	return all
}

// validSink reports whether a sink's name can stand in a record.
func validSink(name string) bool { return name != "" && !strings.ContainsAny(name, " /") }

// AppendsFor is how long an append is tried.
func (j *Journal) AppendsFor() time.Duration { return appendFor }
