package deliver

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

func TestReplicasTogetherKeepWhatOnePromises(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n, shards := rapid.IntRange(1, 100).Draw(t, "n"), rapid.IntRange(1, 100).Draw(t, "shards")
		require.Equal(t, n, share(n, shards, shards), "a single replica has all")
		replicas, total, left := 0, 0, shards
		for left > 0 {
			owned := rapid.IntRange(1, left).Draw(t, "owned")
			s := share(n, owned, shards)
			require.Positive(t, s)
			if s > 1 {
				total += s
			} else {
				replicas++
			}
			left -= owned
		}
		require.LessOrEqual(t, total, n, "besides those that have the one call which each has")
	})
}

// many are shards of four.
func many(numbers ...uint32) (shards []*journal.Shard) {
	for _, n := range numbers {
		shards = append(shards, &journal.Shard{Number: n, Of: 4})
	}
	return shards
}

func TestConcurrencyGoesWithTheShards(t *testing.T) {
	inShards(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}}, func(a *relaytest.Assigned, sink *relaytest.FarSide) {
		sink.Slow = func(relay.Attempt) time.Duration { return time.Minute }
		for i := range 40 {
			a.Add(uint32(i%4), string(rune('a'+i)))
		}
		shards := many(0, 1, 2, 3)
		begun := func() int { // so far
			synctest.Wait()
			sink.Mu.Lock()
			defer sink.Mu.Unlock()
			return len(sink.At)
		}
		a.Assign(shards[0])
		require.Equal(t, 1, begun())
		a.Assign(shards[0], shards[1])
		require.Equal(t, 2, begun())
		a.Assign(shards...)
		require.Equal(t, 4, begun())
		time.Sleep(time.Minute)
		require.Equal(t, 8, begun())
		a.Assign(shards[3])
		time.Sleep(time.Minute)
		require.Equal(t, 9, begun())
		time.Sleep(time.Minute)
		require.Equal(t, 10, begun())
	})
}

// A service that is down is probed by one call, whatever comes and goes.
func TestSharesDoNotEndAPause(t *testing.T) {
	t.Parallel()
	p := newPace(1, true, RetryConfig{Initial: time.Second, MaxInterval: time.Minute})
	p.resize(8)
	require.Equal(t, 8, p.limit)
	p.pause(time.Now())
	p.resize(16)
	require.Equal(t, 1, p.limit)
	p.succeeded(eventType{})
	require.Equal(t, 2, p.limit)
	p.resize(12)
	require.Equal(t, 2, p.limit)
	p.succeeded(eventType{})
	p.resize(3)
	require.Equal(t, 3, p.limit)
	p.resize(6)
	require.Equal(t, 6, p.limit)
}

// sharer notes which part it may use.
type sharer struct {
	*relaytest.FarSide
	parts [][2]int
}

func (s *sharer) Share(owned, shards int) { s.parts = append(s.parts, [2]int{owned, shards}) }

func TestSinksAreToldTheirPartAndOperatorsWhenItIsTooSmall(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))
	metrics, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: log})
	require.NoError(t, err)
	defer func() { require.NoError(t, metrics.Shutdown(t.Context())) }()
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{Log: log})
	require.NoError(t, err)
	a, sink := relaytest.NewAssigned(), &sharer{FarSide: relaytest.NewFarSide()}
	shards := many(0, 1, 2, 3)
	a.Assign(shards...)
	d := newDispatcher(SinkSpec{Name: "sink", Concurrency: 2}, sink, a, a, log, newMetrics(metrics).forSink("sink"), tracing, nil)
	for _, held := range [][]*journal.Shard{shards[:2], shards[:1], shards[1:2], shards[:3]} {
		a.Assign(held...)
		d.follow()
	}
	require.Equal(t, [][2]int{{4, 4}, {2, 4}, {1, 4}, {1, 4}, {3, 4}}, sink.parts)
	require.Equal(t, 1, d.pace.full)
	require.Equal(t, 1, strings.Count(lines.String(), "concurrency is below the number of replicas"), lines.String())
	require.Equal(t, 8*time.Second, d.shared(6*time.Second))
}
