package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/telemetry"
)

// assigned is a journal, in memory, whose shards come and go: as far as one sink, its dispatcher and the deduplication ask for one.
type assigned struct {
	journal.Journal

	mu      sync.Mutex // guards what follows
	held    []*journal.Shard
	changed chan struct{}
	parts   map[*journal.Shard]*part
	records []*journal.Record
}

// part is what the sink is owed in one shard while that is assigned.
type part struct {
	*assigned
	shard *journal.Shard

	next  int // into records
	open  []journal.Pending
	taken []journal.Position
	dead  []journal.Position
	ended int
}

func newAssigned() *assigned {
	return &assigned{changed: make(chan struct{}), parts: make(map[*journal.Shard]*part)}
}

func (a *assigned) assign(held ...*journal.Shard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = held
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *assigned) Shards() ([]*journal.Shard, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held, a.changed
}

// append is an event of an entity in a shard.
func (a *assigned) append(shard uint32, entity string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.records) + 1
	id := identity(n, 1)
	a.records = append(a.records, &journal.Record{Position: journal.Position{Shard: shard, Offset: uint64(n)}, ID: id.ID, Key: id.Key,
		Time: time.Now(), Entity: entity, Body: []byte("{}")})
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *assigned) Appended() <-chan struct{} { _, changed := a.Shards(); return changed }

func (a *assigned) Load(positions []journal.Position) ([]*journal.Record, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found := make([]*journal.Record, len(positions))
	for i, p := range positions {
		found[i] = a.records[p.Offset-1]
	}
	return found, nil
}

func (a *assigned) Paused() string   { return "" }
func (a *assigned) Release()         {}
func (a *assigned) SetPaused(string) {}
func (a *assigned) part(s *journal.Shard) *part {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts[s] == nil {
		a.parts[s] = &part{assigned: a, shard: s}
	}
	return a.parts[s]
}

// look is a part as it is now.
func (a *assigned) look(s *journal.Shard) part {
	p := a.part(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	return *p
}

func (a *assigned) Owed(s *journal.Shard) journal.Deliveries { return a.part(s) }

// PendingBytes counts a byte for each event.
func (a *assigned) PendingBytes(s *journal.Shard) int64 {
	p := a.part(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(len(p.open))
}

func (a *assigned) Keys(s *journal.Shard, n int, _ time.Time, fn func(key, id [16]byte, t time.Time)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Position.Shard == s.Number {
			fn(r.Key, r.ID, r.Time)
		}
	}
	return nil
}

func (p *part) Pending() []journal.Pending { return nil }
func (p *part) End()                       { p.mu.Lock(); defer p.mu.Unlock(); p.ended++ }
func (p *part) Next(int) ([]*journal.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.next < len(p.records) {
		r := p.records[p.next]
		p.next++
		if r.Position.Shard == p.shard.Number {
			p.open = append(p.open, journal.Pending{Position: r.Position})
			return []*journal.Record{r}, nil
		}
	}
	return nil, nil
}

func (p *part) settle(pos journal.Position, to *[]journal.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(d journal.Pending) bool { return d.Position == pos })
	*to = append(*to, pos)
}
func (p *part) Settle(pos journal.Position, _ journal.Outcome) { p.settle(pos, &p.taken) }
func (p *part) Bury(l journal.DeadLetter)                      { p.settle(l.Position, &p.dead) }
func (p *part) Failed(journal.Position, journal.Retry)         {}

// inShards runs test with the dispatcher of a sink, over a journal whose shards come and go.
func inShards(t *testing.T, spec SinkSpec, test func(a *assigned, sink *farSide)) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		metrics, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		a, sink := newAssigned(), newFarSide()
		spec.Name, spec.Concurrency = "sink", 4
		d := newDispatcher(spec, sink, a, a, log, newMetrics(metrics).forSink("sink"), tracing, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.run(ctx, ctx) })
		test(a, sink)
		cancel()
		wg.Wait()
		for shard := range a.parts {
			require.Equal(t, 1, a.parts[shard].ended, "shard %d", shard.Number)
		}
		require.NoError(t, metrics.Shutdown(context.Background()))
	})
}

func TestDeliveriesComeAndGoWithTheirShard(t *testing.T) {
	retry := RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}
	inShards(t, SinkSpec{Retry: retry}, func(a *assigned, sink *farSide) {
		one, two := &journal.Shard{Number: 1, Of: 3}, &journal.Shard{Number: 2, Of: 3}
		for n := range 6 {
			a.append(uint32(n%3), "e")
		}
		synctest.Wait()
		require.Empty(t, sink.received(), "no shard is this process's")
		a.assign(one, two)
		time.Sleep(time.Second)
		require.Len(t, sink.received(), 4)
		require.Len(t, a.look(one).taken, 2)
		require.Len(t, a.look(two).taken, 2)

		// What fails in a shard that goes is not sent again, and the other goes on.
		sink.set(func(relay.Attempt) error { return errors.New("no answer") })
		a.append(1, "x")
		a.append(2, "y")
		synctest.Wait()
		a.assign(two)
		synctest.Wait()
		require.Equal(t, 1, a.look(one).ended)
		tried := len(sink.received())
		sink.set(nil)
		time.Sleep(time.Minute)
		require.Len(t, sink.received(), tried+1)
		require.Len(t, a.look(one).taken, 2)
		require.Len(t, a.look(two).taken, 3)
		require.Zero(t, a.look(two).ended)
	})
}

func TestShardThatComesBackWaitsForWhatIsInFlight(t *testing.T) {
	inShards(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}}, func(a *assigned, sink *farSide) {
		before, after := &journal.Shard{Number: 1, Of: 2}, &journal.Shard{Number: 1, Of: 2}
		sink.slow = func(relay.Attempt) time.Duration { return time.Minute }
		a.assign(before)
		a.append(1, "e")
		a.append(1, "e")
		time.Sleep(time.Second)
		a.assign(after)
		time.Sleep(time.Second)
		require.Zero(t, a.look(before).ended, "one is in flight")
		require.Zero(t, a.look(after).next, "and the shard is not taken again before it has ended")
		time.Sleep(time.Minute)
		require.Equal(t, []journal.Position{{Shard: 1, Offset: 1}}, a.look(before).taken)
		require.Equal(t, 1, a.look(before).ended)
		require.Equal(t, 2, a.look(after).next)
	})
}

func TestEachShardHasItsShareOfTheBacklog(t *testing.T) {
	retry := RetryConfig{Initial: time.Hour, MaxInterval: time.Hour, MaxAge: 24 * time.Hour}
	inShards(t, SinkSpec{Retry: retry, Backlog: 40}, func(a *assigned, sink *farSide) {
		one, two := &journal.Shard{Number: 1, Of: 2}, &journal.Shard{Number: 2, Of: 2}
		sink.set(func(relay.Attempt) error { return errors.New("no answer") })
		a.assign(one, two)
		for range 15 {
			a.append(1, "e")
		}
		for range 30 {
			a.append(2, "e")
		}
		time.Sleep(time.Second)
		require.Empty(t, a.look(one).dead)
		require.GreaterOrEqual(t, len(a.look(two).dead), 10)
		require.Equal(t, uint64(16), a.look(two).dead[0].Offset, "the oldest first")
	})
}

func TestKeysComeAndGoWithTheirShard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAssigned()
		a.append(1, "e")
		a.append(2, "e")
		d, err := newDedup(DedupConfig{MaxKeys: 100, Window: time.Hour}, time.Now)
		require.NoError(t, err)
		g := &Gateway{journal: a, dedup: d, log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { g.followShards(ctx, nil) })
		known := func() (keys []int) {
			synctest.Wait()
			for n := 1; n <= 2; n++ {
				if c, standing := d.claim(identity(n, 1)); standing == isKnown {
					keys = append(keys, n)
				} else {
					d.settle(c, errors.New("not stored"))
				}
			}
			return keys
		}
		require.Empty(t, known())
		one := &journal.Shard{Number: 1, Of: 2}
		a.assign(one)
		require.Equal(t, []int{1}, known())
		a.assign(one, &journal.Shard{Number: 2, Of: 2})
		require.Equal(t, []int{1, 2}, known())
		a.assign(one)
		require.Equal(t, []int{1}, known())
		cancel()
		wg.Wait()
	})
}
