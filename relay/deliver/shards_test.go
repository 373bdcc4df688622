package deliver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

// inShards runs test with the dispatcher of a sink, over a journal whose shards come and go.
func inShards(t *testing.T, spec SinkSpec, test func(a *relaytest.Assigned, sink *relaytest.FarSide)) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		metrics, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		a, sink := relaytest.NewAssigned(), relaytest.NewFarSide()
		spec.Name, spec.Concurrency = "sink", 4
		d := newDispatcher(spec, sink, a, a, log, newMetrics(metrics).forSink("sink"), tracing, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.run(ctx, ctx) })
		test(a, sink)
		cancel()
		wg.Wait()
		for shard := range a.Parts {
			require.Equal(t, 1, a.Parts[shard].Ended, "shard %d", shard.Number)
		}
		require.NoError(t, metrics.Shutdown(context.Background()))
	})
}

func TestDeliveriesComeAndGoWithTheirShard(t *testing.T) {
	retry := RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}
	inShards(t, SinkSpec{Retry: retry}, func(a *relaytest.Assigned, sink *relaytest.FarSide) {
		one, two := &journal.Shard{Number: 1, Of: 3}, &journal.Shard{Number: 2, Of: 3}
		for n := range 6 {
			a.Add(uint32(n%3), "e")
		}
		synctest.Wait()
		require.Empty(t, sink.Received(), "no shard is this process's")
		a.Assign(one, two)
		time.Sleep(time.Second)
		require.Len(t, sink.Received(), 4)
		require.Len(t, a.Look(one).Taken, 2)
		require.Len(t, a.Look(two).Taken, 2)

		// What fails in a shard that goes is not sent again, and the other goes on.
		sink.Set(func(relay.Attempt) error { return errors.New("no answer") })
		a.Add(1, "x")
		a.Add(2, "y")
		synctest.Wait()
		a.Assign(two)
		synctest.Wait()
		require.Equal(t, 1, a.Look(one).Ended)
		tried := len(sink.Received())
		sink.Set(nil)
		time.Sleep(time.Minute)
		require.Len(t, sink.Received(), tried+1)
		require.Len(t, a.Look(one).Taken, 2)
		require.Len(t, a.Look(two).Taken, 3)
		require.Zero(t, a.Look(two).Ended)
	})
}

func TestShardThatComesBackWaitsForWhatIsInFlight(t *testing.T) {
	inShards(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}}, func(a *relaytest.Assigned, sink *relaytest.FarSide) {
		before, after := &journal.Shard{Number: 1, Of: 2}, &journal.Shard{Number: 1, Of: 2}
		sink.Slow = func(relay.Attempt) time.Duration { return time.Minute }
		a.Assign(before)
		a.Add(1, "e")
		a.Add(1, "e")
		time.Sleep(time.Second)
		a.Assign(after)
		time.Sleep(time.Second)
		require.Zero(t, a.Look(before).Ended, "one is in flight")
		require.Zero(t, a.Look(after).Read, "and the shard is not taken again before it has ended")
		time.Sleep(time.Minute)
		require.Equal(t, []journal.Position{{Shard: 1, Offset: 1}}, a.Look(before).Taken)
		require.Equal(t, 1, a.Look(before).Ended)
		require.Equal(t, 2, a.Look(after).Read)
	})
}

// What the journal cannot keep for longer it makes dead letters of: they would be delivered twice when they are replayed.
func TestWhatTheJournalHasBuriedIsNotDelivered(t *testing.T) {
	retry := RetryConfig{Initial: time.Minute, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}
	inShards(t, SinkSpec{Retry: retry}, func(a *relaytest.Assigned, sink *relaytest.FarSide) {
		one := &journal.Shard{Number: 1, Of: 1}
		sink.Set(func(relay.Attempt) error { return errors.New("no answer") })
		a.Assign(one)
		for n := range 6 {
			a.Add(1, []string{"e", "f"}[n%2])
		}
		time.Sleep(time.Second)
		tried := len(sink.Received())
		part := a.Owed(one)
		for offset := range uint64(3) {
			part.Bury(journal.DeadLetter{Position: journal.Position{Shard: 1, Offset: offset + 1}})
		}
		part.Bury(journal.DeadLetter{Position: journal.Position{Shard: 1, Offset: 5}}) // all of e
		sink.Set(nil)
		time.Sleep(time.Hour)
		require.Len(t, sink.Received(), tried+2)
		require.Equal(t, []journal.Position{{Shard: 1, Offset: 4}, {Shard: 1, Offset: 6}}, a.Look(one).Taken)
	})
}

func TestEachShardHasItsShareOfTheBacklog(t *testing.T) {
	retry := RetryConfig{Initial: time.Hour, MaxInterval: time.Hour, MaxAge: 24 * time.Hour}
	inShards(t, SinkSpec{Retry: retry, Backlog: 40}, func(a *relaytest.Assigned, sink *relaytest.FarSide) {
		one, two := &journal.Shard{Number: 1, Of: 2}, &journal.Shard{Number: 2, Of: 2}
		sink.Set(func(relay.Attempt) error { return errors.New("no answer") })
		a.Assign(one, two)
		for range 15 {
			a.Add(1, "e")
		}
		for range 30 {
			a.Add(2, "e")
		}
		time.Sleep(time.Second)
		require.Empty(t, a.Look(one).Dead)
		require.GreaterOrEqual(t, len(a.Look(two).Dead), 10)
		require.Equal(t, uint64(16), a.Look(two).Dead[0].Offset, "the oldest first")
	})
}
