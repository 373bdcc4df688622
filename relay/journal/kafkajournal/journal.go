// Package kafkajournal keeps accepted events in Apache Kafka until every sink they are owed to has settled them. Any number of
// processes, the replicas of one relay, may have the journal open.
//
// It is a journal.Journal of as many shards as its topics have partitions:
//
//	<prefix>.inbox   every record that was appended, copies too, in the order of its shard
//	<prefix>.events  each event once, in the order of the inbox, with its offset there
//	<prefix>.state   what each sink and replay has settled; compacted
//	<prefix>.dead    dead letters with their records; compacted
//	<prefix>.control one partition: pauses, replays, accounts of sources; compacted
//
// Any replica appends to any inbox. A shard has an owner (Ownership), who judges its inbox and delivers. When a shard changes its
// owner, both may believe to have it for a while: nothing is lost by that, in whatever order their records land (see ruleE and
// merge), and only what both deliver is delivered twice.
//
// The position of an event is its offset in the inbox plus one.
package kafkajournal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// Ownership says which shards this replica has.
type Ownership interface {
	// Owned returns the shards assigned now, and a channel that is closed when that changes; nil = it never does.
	Owned() (shards []int32, changed <-chan struct{})

	// Lease is how much longer what is owned may be acted on.
	Lease() time.Duration

	// Released says that nothing of a shard that is not in Owned any more is in flight, and its state is stored: another replica
	// may have it.
	Released(shard int32)

	// Refuse gives up a shard because this process can do nothing with it. It must be Released like any
	// other.
	Refuse(shard int32)
}

// Options say where and how a journal is kept.
type Options struct {
	Cluster   *kafkaconn.Cluster
	Prefix    string // of the topics' names
	Shards    int    // the partitions of each topic but control
	Replica   string // the name of this process among all that have the journal open
	Retention time.Duration
	Dead      journal.DeadConfig
	MaxRecord int       // bytes that a record of the inbox may take; 0: 1,000,000
	Ownership Ownership // nil: this replica has all shards, for ever
	Logger    *slog.Logger

	// Same returns why the topics are not those that the replicas share. It is asked before a shard is taken over; nil: it is not.
	Same func(context.Context) error

	logs logs
}

const (
	// appendFor is how long an append is tried. A broker that died holds up those with acks=all until it is out of the
	// in-sync replicas.
	appendFor = 7 * time.Second

	// checkpointInterval is the least time between two checkpoints of a shard, and stallAfter how long one may fail before nothing
	// more is handed out there: it would all be delivered again.
	checkpointInterval = 200 * time.Millisecond
	stallAfter         = 10 * time.Second

	// refreshInterval is how often each record of ncs.state is written at least.
	refreshInterval = 2 * time.Minute

	// pause is how long whatever failed waits before it is tried again.
	pause = 500 * time.Millisecond

	probeInterval = time.Second

	// operationTimeout bounds what callers wait for who give no context, or one that ends when they give up.
	operationTimeout = 10 * time.Second
)

// Journal is an open journal. Its methods may be called concurrently.
type Journal struct {
	opts    Options
	logs    logs
	own     Ownership
	logger  *slog.Logger
	topics  names
	ids     *ids
	inbox   []*inbox
	refused sync.Map    // shards out of reach
	doubt   atomic.Bool // an append has failed: perhaps its shard is out of reach
	control *control
	closing context.Context // ends when the journal does not run any more
	close   context.CancelFunc

	mu       sync.Mutex // guards what follows; taken after a shard's mutex
	shards   map[int32]*shard
	held     []*journal.Shard // of shards, what was taken over
	changed  chan struct{}    // closed when held changes
	sinks    map[string]*sink // all that were opened in this life of the process
	accounts map[string]*ledger.SourceAccount
	fault    error               // why no event is taken; nil: some are
	failing  map[int32]bool      // by shard: the last append failed
	taken    time.Time           // when an event was taken last, or would have been
	newer    error               // why this version can read nothing any more
	lost     error               // why nothing is appended any more: the inbox is not the one that it was
	frontier map[int32]int64     // where the inboxes end, as far as it is known
	stats    journal.SharedStats // without what the shards know that this replica has
}

type names struct{ inbox, events, state, dead, control string }

// everOwned is the Ownership of a single replica.
type everOwned int

func (n everOwned) Owned() ([]int32, <-chan struct{}) {
	shards := make([]int32, n)
	for i := range shards {
		shards[i] = int32(i)
	}
	return shards, nil
}

func (everOwned) Lease() time.Duration { return time.Hour }

func (everOwned) Released(int32) {}
func (everOwned) Refuse(int32)   {}

// Open opens the journal, whose topics must exist. It reads what the replicas share, and takes no shard: Run does. Then call
// Close.
func Open(ctx context.Context, opts Options) (*Journal, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Ownership == nil {
		opts.Ownership = everOwned(opts.Shards)
	}
	if opts.MaxRecord == 0 {
		opts.MaxRecord = 1_000_000
	}
	if opts.logs == nil {
		opts.logs = newClusterLogs(opts.Cluster)
	}
	name := func(topic string) string { return opts.Prefix + "." + topic }
	j := &Journal{opts: opts, logs: opts.logs, own: opts.Ownership, logger: opts.Logger,
		topics: names{name("inbox"), name("events"), name("state"), name("dead"), name("control")},
		shards: make(map[int32]*shard), changed: make(chan struct{}), sinks: make(map[string]*sink),
		accounts: make(map[string]*ledger.SourceAccount), frontier: make(map[int32]int64), failing: make(map[int32]bool)}
	j.closing, j.close = context.WithCancel(context.Background())
	for n := range opts.Shards {
		j.inbox = append(j.inbox, newInbox(j, int32(n)))
	}
	j.control = newControl(j)
	j.ids = newIDs(j.control.copiesByKey)
	if err := j.control.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("topic %s: %w", j.topics.control, err)
	}
	j.loadAccounts()
	return j, nil
}

// Run stores what is appended, and judges and keeps the shards that this replica has, until ctx ends. It then stores what was
// queued.
func (j *Journal) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, in := range j.inbox {
		wg.Go(func() { in.run(ctx) })
	}
	wg.Go(func() { j.control.run(ctx) })
	wg.Go(func() { j.ownLoop(ctx) })
	wg.Go(func() { j.probeLoop(ctx) })
	wg.Go(func() { j.watchLoop(ctx) })
	wg.Go(func() { <-ctx.Done(); j.close() })
	wg.Wait()
	return j.Flush()
}

// Close stores what is settled, and lets the shards go.
func (j *Journal) Close() error {
	for _, in := range j.inbox {
		for _, e := range in.take(true) {
			e.done(journal.Position{}, journal.ErrClosed)
		}
	}
	j.close()
	err := j.Flush()
	for _, s := range j.all() {
		j.drop(s)
		j.own.Released(s.n)
	}
	return err
}

// Flush stores what was settled, paused or cancelled before it was called.
func (j *Journal) Flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	return errors.Join(j.control.flush(ctx), j.flushShards(ctx))
}

func (j *Journal) flushShards(ctx context.Context) error {
	var errs []error
	for _, s := range j.running() {
		errs = append(errs, s.flush(ctx, false))
	}
	return errors.Join(errs...)
}

// CatchUp returns when this replica knows of every pause, resume and replay that was stored before.
func (j *Journal) CatchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	return j.control.catchUp(ctx)
}

// all are the shards that this replica has, or is about to take or to let go, by number.
func (j *Journal) all() []*shard {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.SortedFunc(maps.Values(j.shards), func(a, b *shard) int { return int(a.n) - int(b.n) })
}

// running are those that it has.
func (j *Journal) running() []*shard {
	return slices.DeleteFunc(j.all(), func(s *shard) bool { return !s.ready() })
}

// shard returns one that it has, or nil.
func (j *Journal) shard(n uint32) *shard {
	if s := j.given(int32(n)); s != nil && s.ready() {
		return s
	}
	return nil
}

// given returns a shard that this replica has, or is about to take or to let go; or nil.
func (j *Journal) given(n int32) *shard {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.shards[n]
}

// wake says that Next may find more: to those who read for some sinks, or to all.
func (j *Journal) wake(sinks ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(sinks) == 0 {
		for _, k := range j.sinks {
			k.wake()
		}
	}
	for _, name := range sinks {
		if k := j.sinks[name]; k != nil {
			k.wake()
		}
	}
}

// Levers is how often pauses and replays have changed.
func (j *Journal) Levers() uint64 { return j.control.levers.Load() }

// SharedStats are those of this replica.
func (j *Journal) SharedStats() journal.SharedStats {
	var overlap uint64
	var unread time.Duration
	for _, s := range j.all() {
		overlap += s.overlap()
		unread = max(unread, s.unreadFor())
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	stats := j.stats
	stats.Overlap += overlap
	stats.Unread = unread
	return stats
}

// Shards are those that were taken over and may be acted on.
func (j *Journal) Shards() ([]*journal.Shard, <-chan struct{}) {
	leased := j.own.Lease() > 0
	j.mu.Lock()
	defer j.mu.Unlock()
	if !leased {
		for _, s := range j.shards { // whoever is told so hears of it when they come back
			s.leave()
		}
		return nil, j.changed
	}
	return j.held, j.changed
}

func (j *Journal) setHeld(change func([]*journal.Shard) []*journal.Shard) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.held = change(slices.Clone(j.held))
	close(j.changed)
	j.changed = make(chan struct{})
}

// Ready returns why an append would probably fail now, or why a shard of this replica stands still that an operator has to see to.
func (j *Journal) Ready() error {
	for _, s := range j.all() {
		if err := s.why(); errors.Is(err, errForeignLog) {
			return fmt.Errorf("shard %d: %w", s.n, err)
		}
	}
	away := j.outOfReach()
	j.mu.Lock()
	defer j.mu.Unlock()
	return cmp.Or(j.newer, j.lost, away, j.fault)
}

// outdated gives up all shards: what the replicas share is of a newer version.
func (j *Journal) outdated(err error) {
	j.mu.Lock()
	known := j.newer != nil
	j.newer = err
	j.mu.Unlock()
	if known {
		return
	}
	j.logger.Error("this replica gives up its shards: others have a newer version", "error", err)
	for _, n := range j.partitions() {
		j.own.Refuse(n)
	}
}

func (j *Journal) isOutdated() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.newer != nil
}

// lose stops all appends.
func (j *Journal) lose(err error) {
	j.logger.Error("nothing is taken any more", "error", err)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lost = err
}

// probeLoop finds out whether appends would work when none says so: while they fail, perhaps because Ready says so and no call comes;
// and while the group does not answer, perhaps because nothing does.
func (j *Journal) probeLoop(ctx context.Context) {
	for kafkaconn.Pause(ctx, probeInterval) {
		faulty := j.faulty()
		if !faulty && j.own.Lease() > 0 {
			continue
		}
		began := time.Now()
		within, cancel := context.WithTimeout(ctx, appendFor)
		err := j.reachInbox(within)
		switch {
		case err == nil && faulty:
			j.control.touch()
			if j.control.flush(within) == nil { // acks=all, as for the inbox
				j.takes()
			}
		case err != nil && !faulty && ctx.Err() == nil:
			j.mu.Lock()
			j.fails(began, err)
			j.mu.Unlock()
		}
		cancel()
	}
}

// reachInbox returns why no shard can be appended to, as far as asking for ends tells.
func (j *Journal) reachInbox(ctx context.Context) (err error) {
	for _, n := range j.partitions() {
		within, cancel := context.WithTimeout(ctx, probeInterval)
		_, err = j.logs.ends(within, j.topics.inbox, n)
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		err = fmt.Errorf("topic %s: no leader answers: %w", j.topics.inbox, err)
	}
	return err
}

func (j *Journal) faulty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.fault != nil
}

// report takes the outcome of an append that began at some time. A shard that takes nothing while others do makes no replica not
// ready: all have it, and if all were taken out of the balancer, nobody would take the others' events. The same holds for a
// record that is refused.
func (j *Journal) report(shard int32, began time.Time, err error) {
	if errors.As(err, new(*kafkalog.Refused)) {
		return
	}
	if err == nil {
		j.takes()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch failed := j.failing[shard]; {
	case err == nil && failed:
		j.logger.Info("a shard takes events again", "shard", shard)
	case err != nil && !failed:
		j.logger.Error("a shard takes no events", "shard", shard, "error", err)
	}
	j.failing[shard] = err != nil
	if err == nil {
		return
	}
	j.doubt.Store(true)
	j.fails(began, err)
}

// fails notes that an event is not, or would not be, taken, unless one was since it was tried. j.mu is held.
func (j *Journal) fails(began time.Time, err error) {
	if !j.taken.Before(began) {
		return
	}
	if j.fault == nil {
		j.logger.Error("the journal cannot take events", "error", err)
	}
	j.fault = err
}

// takes notes that an event was, or would be, taken.
func (j *Journal) takes() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fault != nil {
		j.logger.Info("the journal takes events again")
	}
	j.fault, j.taken = nil, time.Now()
}
