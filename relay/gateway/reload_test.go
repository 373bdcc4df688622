package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/route"
)

// reloadable gives settings of a fixture with these sinks.
func (f *fixture) settings(t *testing.T, routes []route.RuleConfig, specs ...deliver.SinkSpec) Settings {
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if routes == nil {
		routes = []route.RuleConfig{{To: names}}
	}
	s := Settings{
		Settings: ingress.Settings{
			Router:  compileRoutes(t, routes, names),
			Sources: []ingress.SourceConfig{{Name: "main", Path: "/ncs", Secrets: []relay.Secret{relay.NewSecret(testSecret)}, MaxBody: 1 << 20}},
		},
		Sinks: specs,
	}
	s.Dedup.SetDefaults()
	s.Limits.SetDefaults()
	return s
}

// versioned is a sink spec whose definition differs from that of other versions.
func versioned(name string, s relay.Sink, version int) deliver.SinkSpec {
	spec := sinkSpec(name, s)
	spec.Config = version
	return spec
}

func TestReloadsUnderLoadLoseNothing(t *testing.T) {
	t.Parallel()
	reloads := 1000
	if testing.Short() {
		reloads = 50
	}
	all, extra := relaytest.NewFarSide(), relaytest.NewFarSide()
	all.Batch = 10
	n := 0
	all.Set(func(relay.Attempt) error {
		if n++; n%7 == 0 {
			return errors.New("now and then it fails")
		}
		return nil
	})
	f := start(t, fixture{}, nil, versioned("all", all, 0))

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	sent := map[string]int{}
	for client := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				sid := fmt.Sprintf("client%d-%d", client, i%5)
				r := f.post(body(sid, i))
				if r.Code != 200 || r.Status != "accepted" {
					t.Errorf("answered %d %q during a reload", r.Code, r.Status)
					return
				}
				mu.Lock()
				sent[sid]++
				mu.Unlock()
			}
		})
	}
	for i := range reloads {
		s := f.settings(t, nil, versioned("all", all, i/3))
		switch i % 4 {
		case 1: // a sink comes
			s = f.settings(t, nil, versioned("all", all, i/3), versioned("extra", extra, 0))
		case 2: // the secret rotates
			s.Sources[0].Secrets = []relay.Secret{relay.NewSecret("new"), relay.NewSecret(testSecret)}
		case 3: // a sink that cannot be built: nothing changes
			bad := versioned("all", all, -i)
			bad.Build = func() (relay.Sink, error) { return nil, errors.New("no such file") }
			require.ErrorContains(t, f.gateway.Reload(ctx, f.settings(t, nil, versioned("extra", extra, i), bad)), "no such file")
			continue
		}
		require.NoError(t, f.gateway.Reload(ctx, s))
	}
	cancel()
	wg.Wait()
	total := 0
	for _, n := range sent {
		total += n
	}
	require.Positive(t, total)
	all.WaitFor(t, total)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 20*time.Second, 5*time.Millisecond)
	got := all.Received()
	require.Len(t, got, total, "nothing was cut off here, so nothing comes twice")
	relaytest.RequireInOrder(t, got, total)
}

func TestReloadChangesRulesSourcesAndSinks(t *testing.T) {
	t.Parallel()
	old, moved, fresh := relaytest.NewFarSide(), relaytest.NewFarSide(), relaytest.NewFarSide()
	old.Set(func(relay.Attempt) error { return errors.New("wrong address") })
	f := start(t, fixture{}, nil, versioned("billing", old, 1))
	f.post(body("s", 1))

	s := f.settings(t, nil, versioned("billing", moved, 2), versioned("fresh", fresh, 1))
	s.Sources = append(s.Sources, ingress.SourceConfig{Name: "second", Path: "/second", Secrets: []relay.Secret{relay.NewSecret("two")}, MaxBody: 1 << 20})
	require.NoError(t, f.gateway.Reload(t.Context(), s))
	require.Len(t, moved.WaitFor(t, 1), 1, "what was pending follows the sink to its new address")
	f.post(body("s", 2))
	require.Len(t, fresh.WaitFor(t, 1), 1, "a new sink begins with the events that come")

	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("fresh", fresh, 1))))
	f.post(body("s", 3))
	fresh.WaitFor(t, 2)
	require.Len(t, moved.WaitFor(t, 2), 2, "a removed sink gets nothing more")
	require.False(t, f.sink("billing").Configured)
}

func TestANewSinkThatCannotBeBuiltLeavesNoTrace(t *testing.T) {
	t.Parallel()
	f := start(t, fixture{}, nil, sinkSpec("all", relaytest.NewFarSide()))
	before := f.gateway.Status().Sinks
	bad := sinkSpec("bad", nil)
	bad.Build = func() (relay.Sink, error) { return nil, errors.New("no such file") }
	require.ErrorContains(t, f.gateway.Reload(t.Context(), f.settings(t, nil, sinkSpec("all", relaytest.NewFarSide()), bad)), "no such file")
	require.Equal(t, before, f.gateway.Status().Sinks)
}

func TestASinkThatCannotBeBuiltAgainIsLeftToOperators(t *testing.T) {
	t.Parallel()
	spec := sinkSpec("all", relaytest.NewFarSide())
	built, build := 0, spec.Build
	spec.Build = func() (relay.Sink, error) {
		if built++; built > 1 {
			return nil, errors.New("no such file")
		}
		return build()
	}
	f := start(t, fixture{}, nil, spec)
	bad := versioned("all", nil, 1)
	bad.Build = spec.Build
	require.ErrorContains(t, f.gateway.Reload(t.Context(), f.settings(t, nil, bad)), "cannot be built again")
	require.False(t, f.sink("all").Configured)
	require.Equal(t, 200, f.post(body("s", 1)).Code)
	n, err := f.gateway.DropSink(t.Context(), "all", 0, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func TestChangedSinkIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	old, moved := relaytest.NewFarSide(), relaytest.NewFarSide()
	old.Set(func(relay.Attempt) error {
		return &relay.RetryAfterError{Err: errors.New("wrong address"), After: time.Hour}
	})
	patient := func(s relay.Sink, version int) deliver.SinkSpec {
		spec := versioned("billing", s, version)
		spec.Retry.MaxInterval = 2 * time.Hour
		return spec
	}
	f := start(t, fixture{}, nil, patient(old, 1))
	f.post(body("s", 1))
	require.Eventually(t, func() bool {
		list, _, err := f.gateway.Pending(relay.Filter{}, Page{}, 1)
		return err == nil && len(list) == 1 && list[0].Attempts == 1
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, patient(moved, 2))))
	require.Equal(t, 2, moved.WaitFor(t, 1)[0].Number)
}

func TestOperatorsAreAnsweredWhileASinkIsReplaced(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{}, nil, versioned("all", sink, 0))
	for i := range 20 {
		f.post(body("s", i))
	}
	sink.WaitFor(t, 20)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			if err := f.gateway.Reload(ctx, f.settings(t, nil, versioned("all", sink, i))); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	const replays = 20
	for range replays {
		require.NoError(t, f.gateway.ResumeSink(t.Context(), "all"))
		_, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "all"}})
		require.NoError(t, err)
	}
	cancel()
	wg.Wait()
	sink.WaitFor(t, 20+20*replays)
	for _, r := range f.gateway.Replays() {
		require.Eventually(t, func() bool { return f.gateway.Replays()[r.ID-1].Finished }, 10*time.Second, time.Millisecond)
	}
	require.Len(t, sink.Received(), 20+20*replays, "each replay ran once")
}

func TestRemovedSinkKeepsWhatItIsOwedAndResumes(t *testing.T) {
	t.Parallel()
	down, up, other := relaytest.NewFarSide(), relaytest.NewFarSide(), relaytest.NewFarSide()
	down.Set(func(relay.Attempt) error { return errors.New("down") })
	f := start(t, fixture{}, nil, versioned("billing", down, 1), versioned("other", other, 1))
	for i := range 10 {
		f.post(body("s", i))
	}
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("other", other, 1))))
	require.EqualValues(t, 10, f.sink("billing").Pending)
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("billing", up, 2), versioned("other", other, 1))))
	relaytest.RequireInOrder(t, up.WaitFor(t, 10), 10)
}

// What a reload lets the relay remember longer is remembered over the next restart, too.
func TestRaisedDedupLimitsHoldOverARestart(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	for name, small := range map[string]ingress.DedupConfig{
		"max_keys": {MaxKeys: 10, Window: 24 * time.Hour},
		"window":   {MaxKeys: 1_000_000, Window: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Dedup: small}}}}, nil, versioned("all", sink, 1))
			require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("all", sink, 1))))
			for i := range 30 {
				require.Equal(t, "accepted", f.post(body("s", i)).Status)
			}
			require.NoError(t, f.journal.Flush())
			require.Equal(t, "accepted", f.post(body("s", 30)).Status)
			f.end()
			g := start(t, fixture{dir: f.dir}, nil, versioned("all", sink, 1))
			require.Equal(t, "duplicate", g.post(body("s", 0)).Status)
		})
	}
}

// keeping is a sink that keeps connections.
type keeping struct {
	*relaytest.FarSide
	reconnected atomic.Int64
}

func (k *keeping) Reconnect() { k.reconnected.Add(1) }

// TestResumeAndReloadMakeNewConnections: who mends a receiver and resumes its sink, or loads the configuration again, does not
// meet connections to what was there before.
func TestResumeAndReloadMakeNewConnections(t *testing.T) {
	t.Parallel()
	sink := &keeping{FarSide: relaytest.NewFarSide()}
	f := start(t, fixture{}, nil, versioned("a", sink, 1))
	require.NoError(t, f.gateway.PauseSink(t.Context(), "a", "maintenance", time.Time{}))
	require.Zero(t, sink.reconnected.Load())
	require.NoError(t, f.gateway.ResumeSink(t.Context(), "a"))
	require.EqualValues(t, 1, sink.reconnected.Load())
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("a", sink, 1))))
	require.EqualValues(t, 2, sink.reconnected.Load(), "an unchanged sink")

	broken := versioned("b", nil, 1)
	broken.Build = func() (relay.Sink, error) { return nil, errors.New("cannot") }
	require.Error(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("a", sink, 1), broken)))
	require.EqualValues(t, 2, sink.reconnected.Load(), "a reload that fails changes nothing")
}
