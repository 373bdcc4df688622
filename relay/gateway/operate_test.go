package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/route"
	"ncs-relay/relay/trail"
)

func idOf(t *testing.T, body []byte) *ncs.EventID {
	t.Helper()
	n, err := ncs.Builtin().Parse(body)
	require.NoError(t, err)
	id := n.Identify("main").ID
	return &id
}

func TestPendingIsListedAndSkipped(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Set(func(a relay.Attempt) error {
		if bytes.Contains(a.Body, []byte(`"sequence":0,`)) {
			return errors.New("connection refused")
		}
		return nil
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 5 {
		f.post(body("stuck", i))
		f.post(body("free", i+1))
	}
	sink.WaitFor(t, 5)
	var list []Delivery
	require.Eventually(t, func() bool {
		var err error
		list, _, err = f.gateway.Pending(relay.Filter{Sink: "all"}, Page{}, 10)
		require.NoError(t, err)
		return len(list) == 5 && list[0].Attempts > 1
	}, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, "stuck", list[0].Entity)
	require.Equal(t, "connection refused", list[0].LastError)
	require.False(t, list[0].Next.IsZero())
	require.Zero(t, list[1].Attempts, "waits behind the first")

	page, next, err := f.gateway.Pending(relay.Filter{}, Page{}, 2)
	require.NoError(t, err)
	require.Len(t, page, 2)
	rest, next, err := f.gateway.Pending(relay.Filter{}, *next, 10)
	require.NoError(t, err)
	require.Nil(t, next)
	require.Equal(t, list[2:], stripHistory(rest, list[2:]))

	require.Eventually(t, func() bool {
		n, err := f.gateway.SkipPending(t.Context(), relay.Filter{Sink: "all", ID: idOf(t, body("stuck", 0))}, &journal.Ends{})
		require.NoError(t, err)
		require.Zero(t, n, "nothing came before these ends")
		n, err = f.gateway.SkipPending(t.Context(), relay.Filter{Sink: "all", ID: idOf(t, body("stuck", 0))}, nil)
		require.NoError(t, err)
		return n == 1 // it may be in flight at the moment
	}, 10*time.Second, time.Millisecond)
	relaytest.RequireInOrder(t, sink.WaitFor(t, 9), 9)
	require.EqualValues(t, 1, f.sink("all").Skipped)
}

// stripHistory gives a list the histories of another, which change by the moment.
func stripHistory(list, from []Delivery) []Delivery {
	for i := range list {
		list[i].History = from[i].History
	}
	return list
}

func TestDeadLettersAreShownReplayedAndDropped(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	sink.Set(func(a relay.Attempt) error {
		if a.Number == 1 && bytes.Contains(a.Body, []byte(`"sequence":0,`)) {
			return errors.New("timeout") // so that one has waited for a retry
		}
		return relay.Permanent(errors.New("422: no such recording"))
	})
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 6 {
		f.post(body(fmt.Sprint("s", i%2), i))
	}
	require.Eventually(t, func() bool { return f.sink("all").DeadLetters == 6 }, 10*time.Second, 5*time.Millisecond)

	list, next, err := f.gateway.DeadLetters(relay.Filter{Entity: "s1", Reason: "no such"}, Page{}, 10)
	require.NoError(t, err)
	require.Nil(t, next)
	require.Len(t, list, 3)
	require.Equal(t, 1, list[0].Attempts)
	require.Equal(t, "422: no such recording", list[0].Reason)
	one, err := f.gateway.DeadLetter("all", list[0].Position)
	require.NoError(t, err)
	require.Equal(t, body("s1", 1), one.Body)
	_, err = f.gateway.DeadLetter("all", relaytest.At(12345))
	require.ErrorIs(t, err, ErrNotFound)
	none, _, err := f.gateway.DeadLetters(relay.Filter{Reason: "something else"}, Page{}, 10)
	require.NoError(t, err)
	require.Empty(t, none)

	sink.Set(nil)
	dry, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "all", Entity: "s1"}, DeadLetters: true, DryRun: true})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"all": 3}, dry.Matched)
	done, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "all", Entity: "s1"}, DeadLetters: true})
	require.NoError(t, err)
	require.Len(t, done.Replays, 1)
	got := sink.WaitFor(t, 3)
	relaytest.RequireInOrder(t, got, 3)
	require.EqualValues(t, done.Replays[0].ID, got[0].Replay)
	require.Eventually(t, func() bool { return f.sink("all").DeadLetters == 3 && f.gateway.Replays()[0].Finished }, 10*time.Second, 5*time.Millisecond)
	require.EqualValues(t, 6, f.sink("all").Dead, "replays do not change the accounts")

	// While it is replayed it stays, and is marked.
	sink.Set(func(relay.Attempt) error { return errors.New("later") })
	again, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "all"}, DeadLetters: true})
	require.NoError(t, err)
	list, _, err = f.gateway.DeadLetters(relay.Filter{}, Page{}, 10)
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, d := range list {
		require.Equal(t, again.Replays[0].ID, d.Replay)
		require.Zero(t, d.Next, "a dead letter is not tried by itself")
	}
	require.NoError(t, f.gateway.CancelReplay(t.Context(), again.Replays[0].ID))
	list, _, err = f.gateway.DeadLetters(relay.Filter{}, Page{}, 10)
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Zero(t, list[0].Replay)

	n, err := f.gateway.DropDeadLetters(relay.Filter{Sink: "all"}, &journal.Ends{})
	require.NoError(t, err)
	require.Zero(t, n, "none was written before these ends")
	n, err = f.gateway.DropDeadLetters(relay.Filter{Sink: "all"}, nil)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.Zero(t, f.sink("all").DeadLetters)
}

func TestReplayOfSettledDeliveries(t *testing.T) {
	t.Parallel()
	sink, other := relaytest.NewFarSide(), relaytest.NewFarSide()
	f := start(t, fixture{}, []route.RuleConfig{{To: []string{"all"}}}, sinkSpec("all", sink), sinkSpec("other", other))
	for i := range 20 {
		f.post(body(fmt.Sprint("s", i%4), i))
	}
	sink.WaitFor(t, 20)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)

	res, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Entity: "s2"}})
	require.NoError(t, err)
	require.Equal(t, 5, res.Matched["all"])
	require.Zero(t, res.Matched["other"])
	again := sink.WaitFor(t, 25)[20:]
	relaytest.RequireInOrder(t, again, 5)
	require.NotZero(t, again[0].Replay)

	_, err = f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Product: "cloud_recording"}, To: "other"})
	require.NoError(t, err)
	relaytest.RequireInOrder(t, other.WaitFor(t, 20), 20)
	require.Zero(t, f.sink("other").Owed, "replays are apart from the accounts")

	for _, bad := range []ReplayRequest{
		{Filter: relay.Filter{Product: "nonsense"}}, {Filter: relay.Filter{Event: "nonsense"}}, {Filter: relay.Filter{Sink: "nonsense"}}, {To: "nonsense"},
		{Rate: -1}, {Filter: relay.Filter{Reason: "x"}}, {Filter: relay.Filter{Sink: relay.Unroutable}, To: "other"}, {Filter: relay.Filter{Sink: relay.Unroutable}, Rate: 1}, {Filter: relay.Filter{Since: time.Now(), Until: time.Now().Add(-time.Hour)}},
	} {
		_, err := f.gateway.Replay(t.Context(), bad)
		require.Error(t, err, "%+v", bad)
	}
}

func TestReplayGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 30 {
		f.post(body("s", i))
	}
	sink.WaitFor(t, 30)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	down := errors.New("down")
	tries := 0
	sink.Set(func(relay.Attempt) error {
		if tries++; tries > 10 {
			return down
		}
		return nil
	})
	_, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "all"}})
	require.NoError(t, err)
	sink.WaitFor(t, 40)
	f.end()

	sink.Set(nil)
	g := start(t, fixture{dir: f.dir}, nil, sinkSpec("all", sink))
	got := sink.WaitFor(t, 60)[30:]
	relaytest.RequireInOrder(t, got, 30)
	require.Eventually(t, func() bool { return g.gateway.Replays()[0].Finished }, 10*time.Second, 5*time.Millisecond)
}

func TestCancelledReplaySendsNothingMore(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	for i := range 10 {
		f.post(body("s", i))
	}
	sink.WaitFor(t, 10)
	require.Eventually(t, func() bool { return f.sink("all").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	sink.Set(func(a relay.Attempt) error {
		if a.Replay > 0 {
			return errors.New("down")
		}
		return nil
	})
	res, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "all"}})
	require.NoError(t, err)
	require.NoError(t, f.gateway.CancelReplay(t.Context(), res.Replays[0].ID))
	require.ErrorIs(t, f.gateway.CancelReplay(t.Context(), 999), ErrNotFound)
	f.post(body("s", 11))
	sink.WaitFor(t, 11)
	require.Eventually(t, func() bool { return f.gateway.Replays()[0].Finished }, 10*time.Second, 5*time.Millisecond)
}

func TestPauseOutlivesARestart(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{}, nil, sinkSpec("all", sink))
	require.NoError(t, f.gateway.PauseSink(t.Context(), "all", "maintenance", time.Time{}))
	require.ErrorIs(t, f.gateway.PauseSink(t.Context(), "nonsense", "", time.Time{}), ErrNoSink)
	f.post(body("s", 1))
	require.Equal(t, "maintenance", f.sink("all").Paused)
	f.end()
	g := start(t, fixture{dir: f.dir}, nil, sinkSpec("all", sink))
	g.post(body("s", 2))
	require.Equal(t, "maintenance", g.sink("all").Paused)
	require.Empty(t, sink.Received())
	require.NoError(t, g.gateway.ResumeSink(t.Context(), "all"))
	relaytest.RequireInOrder(t, sink.WaitFor(t, 2), 2)
}

func TestRemovedSinkIsMovedOrDropped(t *testing.T) {
	t.Parallel()
	down, other := relaytest.NewFarSide(), relaytest.NewFarSide()
	down.Set(func(relay.Attempt) error { return errors.New("down") })
	f := start(t, fixture{}, []route.RuleConfig{{To: []string{"old"}}}, versioned("old", down, 1), versioned("older", down, 1), versioned("new", other, 1))
	for i := range 10 {
		f.post(body("s", i))
	}
	_, _, err := f.gateway.MoveSink(t.Context(), "old", "new")
	require.ErrorIs(t, err, ErrConfigured)
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("new", other, 1))))
	_, _, err = f.gateway.MoveSink(t.Context(), "nonsense", "new")
	require.ErrorIs(t, err, ErrNoSink)
	moved, skipped, err := f.gateway.MoveSink(t.Context(), "old", "new")
	require.NoError(t, err)
	require.EqualValues(t, 10, moved)
	require.Zero(t, skipped)
	relaytest.RequireInOrder(t, other.WaitFor(t, 10), 10)
	require.Zero(t, f.sink("old").Pending)

	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("new", other, 1), versioned("older", down, 1))))
	f.post(body("t", 1))
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("new", other, 1))))
	_, err = f.gateway.DropSink(t.Context(), "older", 7, nil)
	require.ErrorIs(t, err, ErrMoves)
	require.ErrorContains(t, err, "ncs-relay sinks move older --to SINK")
	_, err = f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: "older"}, To: "all", Pending: true})
	require.ErrorIs(t, err, ErrMoves)
	require.ErrorContains(t, err, "ncs-relay sinks move older --to all")
	n, err := f.gateway.DropSink(t.Context(), "older", 0, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.EqualValues(t, 1, f.sink("older").Dropped)
}

func TestQuarantinedBodyIsRoutedAgain(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Sources: []ingress.SourceConfig{{Name: "main", Path: "/ncs", MaxBody: 1 << 20,
		Secrets: []relay.Secret{relay.NewSecret(testSecret)}, Products: []string{"rtc"}}}}}}}, nil, versioned("all", sink, 1))
	require.Equal(t, "quarantined", f.post(body("s", 1)).Status)
	f.post([]byte("[]"))
	require.Eventually(t, func() bool { return f.sink(relay.Unroutable).DeadLetters == 2 }, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, nil, versioned("all", sink, 1))))
	res, err := f.gateway.Replay(t.Context(), ReplayRequest{Filter: relay.Filter{Sink: relay.Unroutable}, DeadLetters: true})
	require.NoError(t, err)
	require.Equal(t, 1, res.Routed)
	require.Equal(t, body("s", 1), sink.WaitFor(t, 1)[0].Body)
	require.EqualValues(t, 1, f.sink(relay.Unroutable).DeadLetters, "what is still not understood stays")
	require.Equal(t, "duplicate", f.post(body("s", 1)).Status)
}

func TestInspect(t *testing.T) {
	t.Parallel()
	good, bad := relaytest.NewFarSide(), relaytest.NewFarSide()
	bad.Set(func(relay.Attempt) error { return errors.New("503") })
	events := trail.New(t.TempDir(), func() bool { return true }, slog.New(slog.DiscardHandler))
	f := start(t, fixture{options: Options{Trail: events}}, []route.RuleConfig{
		{To: []string{"good", "bad"}}, {When: "payload.sequence > 5", To: []string{"bad"}}}, sinkSpec("good", good), sinkSpec("bad", bad))
	f.post(body("s", 1))
	good.WaitFor(t, 1)
	require.Equal(t, "duplicate", f.post(body("s", 1)).Status)
	require.Eventually(t, func() bool { return f.sink("good").Pending == 0 }, 10*time.Second, 5*time.Millisecond)
	for _, filter := range []relay.Filter{{ID: idOf(t, body("s", 1))}, {Entity: "s"}} {
		lives, more, err := f.gateway.Inspect(t.Context(), filter, 10)
		require.NoError(t, err)
		require.False(t, more)
		require.Len(t, lives, 1)
		states := map[string]string{}
		for _, d := range lives[0].Deliveries {
			states[d.Sink] = d.State
		}
		require.Equal(t, map[string]string{"good": "delivered", "bad": "pending"}, states)
		require.Equal(t, &Routing{Sinks: []string{"good", "bad"}, Rules: []RuleLife{
			{Rule: 0, To: []string{"good", "bad"}, Applies: true}, {Rule: 1, To: []string{"bad"}, Why: "when is false"}}}, lives[0].Routing)
		happened := map[string]int{}
		for _, e := range lives[0].Trail {
			happened[strings.TrimSpace(e.What+" "+e.Source+e.Sink+" "+e.Standing+e.Outcome+" "+e.Error)]++
		}
		require.Equal(t, 1, happened["copy main known"], happened)
		require.Equal(t, 1, happened["attempt good delivered"], happened)
		require.Positive(t, happened["attempt bad failed 503"], happened)
	}
	require.NoError(t, f.gateway.Reload(t.Context(), f.settings(t, []route.RuleConfig{{To: []string{"good"}}}, sinkSpec("good", good), sinkSpec("bad", bad))))
	lives, _, err := f.gateway.Inspect(t.Context(), relay.Filter{Entity: "s"}, 10)
	require.NoError(t, err)
	require.True(t, lives[0].Routing.Changed)
	_, _, err = f.gateway.Inspect(t.Context(), relay.Filter{}, 10)
	require.Error(t, err)
	lives, _, err = f.gateway.Inspect(t.Context(), relay.Filter{Entity: "nobody"}, 10)
	require.NoError(t, err)
	require.Empty(t, lives)
}

func TestInspectFindsAnEventWhoseKeyIsForgotten(t *testing.T) {
	t.Parallel()
	sink := relaytest.NewFarSide()
	f := start(t, fixture{options: Options{Settings: Settings{Settings: ingress.Settings{Dedup: ingress.DedupConfig{MaxKeys: 10, Window: time.Hour}}}}}, nil, sinkSpec("all", sink))
	f.post(body("s", 0))
	id := idOf(t, body("s", 0))
	n := 0
	require.Eventually(t, func() bool {
		for range 20 {
			n++
			f.post(body("s", n))
		}
		found, err := f.journal.Find(*id)
		return err == nil && len(found) == 0
	}, 20*time.Second, 50*time.Millisecond)
	lives, _, err := f.gateway.Inspect(t.Context(), relay.Filter{ID: id}, 10)
	require.NoError(t, err)
	require.Len(t, lives, 1)
	require.Equal(t, *id, lives[0].ID)
}
