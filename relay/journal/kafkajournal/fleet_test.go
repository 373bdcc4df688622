package kafkajournal

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn/kafkalog"
	"ncs-relay/relay/kafkaconn/kafkatest"
)

// tenure is an Ownership that the test decides on.
type tenure struct {
	mu       sync.Mutex
	shards   []int32
	changed  chan struct{}
	leased   bool
	released chan int32
}

func newTenure(shards ...int32) *tenure {
	return &tenure{shards: shards, changed: make(chan struct{}), leased: true, released: make(chan int32, 1000)}
}

func (o *tenure) Owned() ([]int32, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.shards), o.changed
}

func (o *tenure) Lease() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.leased {
		return 0
	}
	return 10 * time.Second
}

func (o *tenure) Released(shard int32) { o.released <- shard }

// Refuse takes a shard away, as a member does.
func (o *tenure) Refuse(shard int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shards = slices.DeleteFunc(o.shards, func(n int32) bool { return n == shard })
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *tenure) set(leased bool, shards ...int32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.leased, o.shards = leased, slices.Clone(shards)
	close(o.changed)
	o.changed = make(chan struct{})
}

// link are the logs as one replica reaches them: it can be cut, or held, so that what is under way lands when it is let go.
type link struct {
	logs
	mu   sync.Mutex
	cut  error
	held chan struct{}  // not nil: until it is closed nothing is written
	deaf bool           // nor read
	late sync.WaitGroup // requests under way

	brokenOff atomic.Int32 // of these, those that nobody waits for any more

	mishaps *rand.Rand // of requests: answers are lost, leaders show less than they have
	shaky   bool       // there are some; both are guarded by mu
}

func (l *link) shake(shaky bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shaky = shaky && l.mishaps != nil
}

// chance reports whether one of so many requests has a mishap.
func (l *link) chance(of int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shaky && l.mishaps.Intn(of) == 0
}

func (l *link) pass(ctx context.Context) error {
	for {
		l.mu.Lock()
		cut, held, deaf := l.cut, l.held, l.deaf
		l.mu.Unlock()
		if !deaf || cut != nil {
			return cut
		}
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *link) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error) {
	if err := l.pass(ctx); err != nil {
		return kafkalog.Chunk{}, err
	}
	switch {
	case l.chance(30):
		return kafkalog.Chunk{}, errors.New("no answer")
	case l.chance(30):
		time.Sleep(wait)
		return kafkalog.Chunk{Next: offset, End: offset}, nil
	}
	chunk, err := l.logs.read(ctx, topic, partition, offset, maxBytes, wait)
	return chunk, errors.Join(err, l.pass(ctx))
}

func (l *link) ends(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	return l.logs.ends(ctx, topic, partitions...)
}

func (l *link) starts(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	if err := l.pass(ctx); err != nil {
		return nil, err
	}
	return l.logs.starts(ctx, topic, partitions...)
}

func (l *link) since(ctx context.Context, topic string, partition int32, t time.Time) (int64, error) {
	if err := l.pass(ctx); err != nil {
		return 0, err
	}
	return l.logs.since(ctx, topic, partition, t)
}

func (l *link) writer(topic string, partition int32) writer {
	return linkWriter{l, l.logs.writer(topic, partition)}
}

type linkWriter struct {
	l *link
	w writer
}

// Append lands when the link is let go, also if nobody waits for it any more: the request was sent.
func (w linkWriter) Append(ctx context.Context, recs []kafkalog.Record) (int64, error) {
	w.l.mu.Lock()
	held, cut := w.l.held, w.l.cut
	w.l.mu.Unlock()
	if cut != nil {
		return 0, cut
	}
	if held != nil {
		sent := slices.Clone(recs)
		landed := make(chan int64, 1)
		w.l.late.Go(func() {
			<-held
			base, _ := w.w.Append(context.Background(), sent)
			landed <- base
		})
		select {
		case base := <-landed:
			return base, nil
		case <-ctx.Done():
			w.l.brokenOff.Add(1)
			return 0, ctx.Err()
		}
	}
	if w.l.chance(30) {
		return 0, errors.New("no leader")
	}
	base, err := w.w.Append(ctx, recs)
	switch {
	case err != nil:
	case w.l.chance(30):
		return 0, errors.New("no answer")
	case w.l.chance(30):
		return -1, nil // it has them already, and does not say where
	}
	return base, err
}

// fleet are replicas with one journal, and books about them.
type fleet struct {
	*testing.T
	open     func(testing.TB, *link, int) Options
	session  time.Duration // a lease
	shards   int
	replicas []*replica

	mu       sync.Mutex // guards the books
	next     int
	order    map[string][]uint64         // by entity: ids in the order of their answers
	accepted map[uint64]bool             // answered
	arrived  map[string]map[uint64]int   // by sink: how often
	last     map[string]journal.Position // by sink and entity: of the first arrivals
	disorder []string
}

type replica struct {
	f      *fleet
	name   string
	j      *Journal
	own    *tenure
	link   *link
	cancel context.CancelFunc
	work   sync.WaitGroup
	ended  chan error
	dead   bool
}

var fleetSeed = flag.Int64("kafkajournal.seed", 1, "what happens when in the tests of replicas in memory")

var fleetSinks = []string{"a", "b"}

func newFleet(t *testing.T, open func(testing.TB, *link, int) Options, session time.Duration, shards, replicas int) *fleet {
	f := &fleet{T: t, open: open, session: session, shards: shards, order: make(map[string][]uint64), accepted: make(map[uint64]bool),
		arrived: map[string]map[uint64]int{"a": {}, "b": {}}, last: make(map[string]journal.Position)}
	for n := range replicas {
		var mine []int32
		for s := range shards {
			if s%replicas == n {
				mine = append(mine, int32(s))
			}
		}
		f.start(mine...)
	}
	return f
}

// start starts a replica that owns some shards.
func (f *fleet) start(shards ...int32) *replica {
	r := &replica{f: f, name: fmt.Sprintf("r%d", len(f.replicas)), own: newTenure(shards...), link: new(link), ended: make(chan error, 1)}
	opts := f.open(f, r.link, f.shards)
	opts.Replica, opts.Ownership, opts.Logger = r.name, r.own, slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	r.j, err = Open(f.Context(), opts)
	require.NoError(f, err)
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() { r.ended <- r.j.Run(ctx) }()
	for _, name := range fleetSinks {
		sink, err := r.j.Sink(name)
		require.NoError(f, err)
		r.work.Go(func() { r.deliver(ctx, name, sink) })
	}
	r.link.shake(true)
	f.mu.Lock()
	f.replicas = append(f.replicas, r)
	f.mu.Unlock()
	return r
}

// deliver does what a dispatcher does, one delivery at a time.
func (r *replica) deliver(ctx context.Context, name string, sink journal.Sink) {
	feeds := make(map[*journal.Shard]journal.Deliveries)
	defer func() {
		for _, d := range feeds {
			d.End()
		}
	}()
	for ctx.Err() == nil {
		held, changed := r.j.Shards()
		appended := sink.Appended()
		for shard, d := range feeds {
			if !slices.Contains(held, shard) {
				d.End()
				delete(feeds, shard)
			}
		}
		for _, shard := range held {
			if feeds[shard] != nil {
				continue
			}
			d := sink.Owed(shard)
			var positions []journal.Position
			for _, p := range d.Pending() {
				positions = append(positions, p.Position)
			}
			recs, err := r.j.Load(positions)
			if err != nil {
				d.End()
				break
			}
			feeds[shard] = d
			for _, rec := range recs {
				r.send(name, d, rec)
			}
		}
		busy := false
		for shard, d := range feeds {
			if now, _ := r.j.Shards(); !slices.Contains(now, shard) {
				continue
			}
			recs, err := d.Next(500)
			if err != nil {
				continue
			}
			for _, rec := range recs {
				r.send(name, d, rec)
				busy = true
			}
		}
		if busy {
			continue
		}
		select {
		case <-changed:
		case <-appended:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (r *replica) send(sink string, d journal.Deliveries, rec *journal.Record) {
	f := r.f
	f.mu.Lock()
	id := binary.BigEndian.Uint64(rec.ID[:])
	if f.arrived[sink][id]++; f.arrived[sink][id] == 1 {
		at := sink + "/" + rec.Entity
		if last := f.last[at]; !last.IsZero() && rec.Position.Compare(last) < 0 {
			f.disorder = append(f.disorder, fmt.Sprintf("%s: %s after %s", at, rec.Position, last))
		}
		f.last[at] = rec.Position
	}
	f.mu.Unlock()
	if id%50 == 17 {
		d.Bury(journal.DeadLetter{Position: rec.Position, Reason: "no", At: time.Now()})
	} else {
		d.Settle(rec.Position, journal.Delivered)
	}
}

// take lets an event arrive at a replica, and a copy of it at another now and then.
func (f *fleet) take(r *rand.Rand) {
	f.mu.Lock()
	f.next++
	n := f.next
	alive := slices.DeleteFunc(slices.Clone(f.replicas), func(r *replica) bool { return r.dead })
	f.mu.Unlock()
	f.append(alive[r.Intn(len(alive))], n)
	if r.Intn(4) == 0 {
		f.append(alive[r.Intn(len(alive))], n)
	}
}

func (f *fleet) append(r *replica, n int) {
	rec := &journal.Record{Time: time.UnixMilli(1_750_000_000_000 + int64(n)), Source: "s", Entity: fmt.Sprint("e", n%13), Sinks: fleetSinks[:1+n%2], Body: fmt.Appendf(nil, "%d", n)}
	binary.BigEndian.PutUint64(rec.ID[:], uint64(n))
	rec.Key = rec.ID
	err := r.j.Append(context.Background(), rec, func(_ journal.Position, err error) {
		if err == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.accepted[uint64(n)] = true
		}
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && !r.dead { // it may have been killed since it was chosen
		f.Errorf("append: %v", err)
	}
}

// move moves a shard from one replica to another, as ownership does.
func (f *fleet) move(shard int32, from, to *replica) {
	mine, _ := from.own.Owned()
	from.own.set(true, slices.DeleteFunc(mine, func(n int32) bool { return n == shard })...)
	for n := range from.own.released {
		if n == shard {
			break
		}
	}
	theirs, _ := to.own.Owned()
	to.own.set(true, append(theirs, shard)...)
}

func (f *fleet) dead(r *replica, dead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.dead = dead
}

// kill ends a replica at once. Its shards go to others when its lease is over.
func (f *fleet) kill(r *replica) {
	r.link.mu.Lock()
	r.link.cut = errors.New("killed")
	r.link.mu.Unlock()
	orphans, _ := r.own.Owned()
	r.own.set(false)
	f.dead(r, true)
	r.cancel()
	time.Sleep(f.session)
	f.share(orphans)
}

// share gives shards to those who live.
func (f *fleet) share(shards []int32) {
	for i, shard := range shards {
		var alive []*replica
		for _, r := range f.replicas {
			if !r.dead {
				alive = append(alive, r)
			}
		}
		to := alive[i%len(alive)]
		mine, _ := to.own.Owned()
		to.own.set(true, append(mine, shard)...)
	}
}

// freeze holds a replica up for half a minute, while others have its shards. What it had sent lands when it goes on.
func (f *fleet) freeze(r *replica) {
	held := make(chan struct{})
	r.link.mu.Lock()
	r.link.held = held
	r.link.mu.Unlock()
	time.Sleep(300 * time.Millisecond) // what it judges meanwhile is under way
	r.link.mu.Lock()
	r.link.deaf = true
	r.link.mu.Unlock()
	f.dead(r, true)
	time.Sleep(f.session)
	orphans, _ := r.own.Owned()
	r.own.set(false)
	f.share(orphans)
	time.Sleep(2 * f.session)
	r.link.mu.Lock()
	r.link.held, r.link.deaf = nil, false
	r.link.mu.Unlock()
	close(held)
	f.dead(r, false)
	time.Sleep(time.Second)
	r.own.set(true)
}

// finish waits until all is delivered, ends the replicas and looks at the books. It returns how many arrivals were repeated.
func (f *fleet) finish() (repeated int) {
	for deadline := time.Now().Add(time.Minute + 10*f.session); f.missing() > 0; time.Sleep(time.Second) {
		require.True(f, time.Now().Before(deadline), "%d deliveries of what was accepted are missing", f.missing())
	}
	time.Sleep(time.Second)
	for _, r := range f.replicas {
		r.link.shake(false)
		r.cancel()
		r.work.Wait()
		err := <-r.ended
		err = errors.Join(err, r.j.Close())
		if r.link.cut == nil {
			require.NoError(f, err)
		}
		r.link.late.Wait()
	}
	require.Empty(f, f.disorder)
	for _, arrived := range f.arrived {
		for _, n := range arrived {
			repeated += n - 1
		}
	}
	return repeated
}

func (f *fleet) missing() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.accepted {
		for i, sink := range fleetSinks {
			if i <= int(id)%2 && f.arrived[sink][id] == 0 {
				n++
			}
		}
	}
	return n
}

// load lets events arrive until stop is closed.
func (f *fleet) load(seed int64, each time.Duration) (stop func()) {
	r := rand.New(rand.NewSource(seed))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(each):
				f.take(r)
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// inMemory are the options of replicas on logs in memory.
func inMemory() func(testing.TB, *link, int) Options {
	m := newMemLogs()
	return func(t testing.TB, l *link, shards int) Options {
		l.logs = m
		return testOptions(t, l, shards)
	}
}

func TestShardsMoveWithoutLossOrRepetition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, inMemory(), 10*time.Second, 6, 2)
		r := rand.New(rand.NewSource(*fleetSeed))
		stop := f.load(*fleetSeed, 5*time.Millisecond)
		for range 30 {
			time.Sleep(300 * time.Millisecond)
			from := f.replicas[r.Intn(len(f.replicas))]
			mine, _ := from.own.Owned()
			if len(mine) == 0 {
				continue
			}
			f.move(mine[r.Intn(len(mine))], from, f.replicas[r.Intn(len(f.replicas))])
			if len(f.replicas) < 4 && r.Intn(5) == 0 {
				f.start()
			}
		}
		stop()
		require.Zero(t, f.finish(), "a shard that is handed on repeats nothing")
		require.Greater(t, len(f.accepted), 1000)
		f.balanced()
	})
}

// balanced opens the journal once more and looks at its accounts.
func (f *fleet) balanced() {
	var all []int32
	for n := range f.shards {
		all = append(all, int32(n))
	}
	last := f.start(all...)
	for {
		if held, _ := last.j.Shards(); len(held) == f.shards {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	time.Sleep(time.Second)
	snap := last.j.Snapshot()
	require.Zero(f, snap.Unjudged)
	for _, k := range snap.Sinks {
		require.EqualValues(f, len(f.arrived[k.Name]), k.Totals.Owed, k.Name)
		require.Zero(f, k.Totals.Pending, k.Name)
		dead := 0
		for id := range maps.Keys(f.arrived[k.Name]) {
			if id%50 == 17 {
				dead++
			}
		}
		require.EqualValues(f, dead, k.Letters, k.Name)
		require.EqualValues(f, dead, k.Totals.Dead, k.Name)
	}
	last.cancel()
	last.work.Wait()
	require.NoError(f, <-last.ended)
	require.NoError(f, last.j.Close())
}

// TestReplicasOnRealKafka is a short form of the two on a real cluster.
func TestReplicasOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	createTopics(t, cluster, "ncs", 4)
	open := func(t testing.TB, l *link, shards int) Options {
		opts := onCluster(t, cluster.Addresses(), "ncs", shards)
		l.logs = newClusterLogs(opts.Cluster)
		opts.logs = l
		return opts
	}
	f := newFleet(t, open, time.Second, 4, 2)
	stop := f.load(3, 2*time.Millisecond)
	for n := range 4 {
		time.Sleep(500 * time.Millisecond)
		from := f.replicas[n%2]
		if mine, _ := from.own.Owned(); len(mine) > 0 {
			f.move(mine[0], from, f.replicas[(n+1)%2])
		}
	}
	f.mu.Lock()
	for sink, arrived := range f.arrived {
		for id, n := range arrived {
			require.Equal(t, 1, n, "%d at %s: a shard that is handed on repeats nothing", id, sink)
		}
	}
	f.mu.Unlock()
	f.kill(f.replicas[0])
	f.start()
	time.Sleep(time.Second)
	f.freeze(f.replicas[1])
	stop()
	repeated := f.finish()
	t.Logf("%d accepted, %d repeated", len(f.accepted), repeated)
	require.Less(t, repeated, len(f.accepted)/4)
	f.balanced()
}

func TestKilledAndFrozenReplicasLoseNothing(t *testing.T) {
	t.Parallel()
	killedAndFrozen(t, inMemory())
}

// TestReplicasOfAShakyClusterLoseNothing is the same where answers are lost, leaders show less than they have, and topics are
// compacted all the time.
func TestReplicasOfAShakyClusterLoseNothing(t *testing.T) {
	t.Parallel()
	m := newMemLogs()
	killedAndFrozen(t, func(t testing.TB, l *link, shards int) Options {
		l.logs, l.mishaps = compacted{m}, rand.New(rand.NewSource(*fleetSeed))
		return testOptions(t, l, shards)
	})
}

// compacted are logs whose compacted topics keep nothing but the newest record of each key.
type compacted struct{ *memLogs }

func (c compacted) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error) {
	if topic != "ncs.inbox" && topic != "ncs.events" {
		c.compact(topic, partition)
		maxBytes = min(maxBytes, 1000) // so that some are removed between two reads
	}
	return c.memLogs.read(ctx, topic, partition, offset, maxBytes, wait)
}

func killedAndFrozen(t *testing.T, open func(testing.TB, *link, int) Options) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, open, 10*time.Second, 4, 3)
		r := rand.New(rand.NewSource(*fleetSeed))
		stop := f.load(*fleetSeed, 20*time.Millisecond)
		for round := range 6 {
			time.Sleep(2 * time.Second)
			at := r.Intn(len(f.replicas))
			for f.replicas[at].dead {
				at = r.Intn(len(f.replicas))
			}
			if round%2 == 0 {
				f.kill(f.replicas[at])
				f.start()
			} else {
				f.freeze(f.replicas[at])
			}
		}
		stop()
		repeated := f.finish()
		t.Logf("%d accepted, %d repeated", len(f.accepted), repeated)
		require.Less(t, repeated, len(f.accepted)/10)
		f.balanced()
	})
}

// TestCopiesOlderThanATakeOverAreLeftOut lets copies come after a take-over that are older than what the former owner had not
// counted.
func TestCopiesOlderThanATakeOverAreLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		for range 3 {
			j := mustOpen(t, testOptions(t, m, 1))
			stop := journaltest.Start(t, j)
			a := journaltest.Sink(t, j, "a")
			journaltest.Fill(t, j, 0, 300, "a")
			require.NoError(t, j.Flush())
			time.Sleep(5 * time.Minute) // all is counted
			journaltest.Fill(t, j, 0, 10, "a")
			require.EqualValues(t, 300, a.Totals().Owed)
			keys := 0
			held, _ := j.Shards()
			require.NoError(t, j.Keys(held[0], 1000, time.Time{}, func(_, _ [16]byte, _ time.Time) { keys++ }))
			require.Equal(t, 300, keys)
			stop()
		}
	})
}
