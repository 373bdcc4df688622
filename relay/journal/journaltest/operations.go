package journaltest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

func every(*journal.Record) bool { return true }

func even(r *journal.Record) bool { return r.EventType%2 == 0 }

func filter(recs []*journal.Record, want func(*journal.Record) bool) []*journal.Record {
	return slices.DeleteFunc(slices.Clone(recs), func(r *journal.Record) bool { return !want(r) })
}

func settleAll(c journal.Deliveries, recs []*journal.Record) {
	for _, r := range recs {
		c.Settle(r.Position, journal.Delivered)
	}
}

// Replayed is a replay with its filter.
type Replayed struct {
	journal.Replay
	journal.Deliveries
}

// Resume goes on with a replay.
func Resume(j journal.Sharded, r journal.Replay, want func(*journal.Record) bool) Replayed {
	held, _ := j.Shards()
	return Replayed{r, r.In(held[0], want)}
}

// Begin begins a replay.
func Begin(t testing.TB, j journal.Journal, spec journal.ReplaySpec, want func(*journal.Record) bool) Replayed {
	t.Helper()
	r, err := j.AddReplay(spec)
	require.NoError(t, err)
	return Resume(j, r, want)
}

// DrainReplay reads until a replay finds nothing more.
func DrainReplay(t testing.TB, r Replayed) (all []*journal.Record) {
	t.Helper()
	for began := time.Now(); ; {
		recs, err := r.Next(1000)
		require.NoError(t, err)
		all = append(all, recs...)
		if len(recs) == 0 && slices.Equal(r.Totals().Read, r.Spec().To) {
			return all
		}
		if len(recs) == 0 { // it may be reading meanwhile
			require.Less(t, time.Since(began), patience, "the replay does not come to its end: %+v", r.Totals())
			time.Sleep(time.Millisecond)
		}
	}
}

func testReady(t *testing.T, open Opener) {
	j := open(t)
	require.NoError(t, j.Ready())
	Start(t, j)
	Fill(t, j, 0, 3)
	require.NoError(t, j.Ready())
}

func testPaused(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	Sink(t, j, "a").SetPaused("410 Gone")
	require.Equal(t, "410 Gone", j.Snapshot().Sinks[0].Paused)
	stop()
	j = open(t)
	stop = Start(t, j)
	require.Equal(t, "410 Gone", j.Snapshot().Sinks[0].Paused)
	a := Sink(t, j, "a")
	require.Equal(t, "410 Gone", a.Paused())
	a.SetPaused("")
	stop()
	j = open(t)
	Start(t, j)
	require.Empty(t, Sink(t, j, "a").Paused())
}

func testRelease(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	a := Sink(t, j, "a")
	recs := Fill(t, j, 0, 9, a.name)
	Drain(t, a, 1<<20)
	settleAll(a, recs[:4])
	retry := journal.Retry{Attempts: 2, LastError: "no"}
	a.Failed(recs[4].Position, retry)
	a.Release()
	require.False(t, j.Snapshot().Sinks[0].Open)
	more := Fill(t, j, 9, 3, a.name)
	again := Sink(t, j, "a")
	require.True(t, j.Snapshot().Sinks[0].Open)
	require.Equal(t, Positions(recs[4:]), Pending(again))
	require.Equal(t, again.Pending(), j.Pending("a"))
	require.Equal(t, retry, again.Pending()[0].Retry)
	require.Equal(t, Positions(more), Positions(Drain(t, again, 1)))
	require.Empty(t, j.Pending("unknown"))
	stop()
}

func testOldest(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	a := Sink(t, j, "a")
	oldest := func() time.Time { return j.Snapshot().Sinks[0].Oldest }
	require.Zero(t, oldest())
	Fill(t, j, 0, 5)
	recs := Fill(t, j, 5, 10, a.name)
	require.Equal(t, recs[0].Time, oldest(), "not read yet")
	recs = append(recs, Fill(t, j, 15, 10, a.name)...)
	next, err := a.Next(1)
	require.NoError(t, err)
	require.Len(t, next, 1)
	settleAll(a, next)
	require.Equal(t, recs[1].Time, oldest())
	stop()
	j = open(t)
	stop = Start(t, j)
	require.Equal(t, recs[1].Time, oldest(), "nor after a restart")
	a = Sink(t, j, "a")
	Drain(t, a, 1<<20)
	settleAll(a, recs[3:])
	require.Equal(t, recs[1].Time, oldest())
	settleAll(a, recs[:2])
	require.Equal(t, recs[2].Time, oldest())
	stop()
	j = open(t)
	Start(t, j)
	require.Equal(t, recs[2].Time, oldest())
	settleAll(Sink(t, j, "a"), recs)
	require.Zero(t, oldest())
	recs = Fill(t, j, 40, 1, a.name)
	require.Equal(t, recs[0].Time, oldest())
}

func testAccounts(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	account := j.Account("recording") // what Record says
	for range 15 {
		account.Received()
	}
	recs := Fill(t, j, 0, 6) // two of them quarantined
	require.Len(t, recs, 6)
	account.Rejected()
	account.Rejected()
	account.Unavailable()
	account.Test()
	account.Duplicate()
	account.Duplicate()
	j.Account("other").Received()
	want := journal.Account{Received: 15, Rejected: 2, Unavailable: 1, Tests: 1, Duplicates: 2, Quarantined: 2, Accepted: 4}
	got := j.Snapshot()
	require.Equal(t, want, got.Accounts["recording"])
	require.EqualValues(t, 3, got.Accounts["recording"].InFlight())
	require.EqualValues(t, 1, got.Accounts["other"].InFlight())
	stop()
	j = open(t)
	Start(t, j)
	want.Received = 12
	require.Equal(t, want, j.Snapshot().Accounts["recording"], "no call is in flight any more")
	Fill(t, j, 6, 1)
	want.Accepted++
	got = j.Snapshot()
	require.Equal(t, want, got.Accounts["recording"])
	account = j.Account("")
	account.Received()
	account.Rejected()
	require.NoError(t, j.Flush(), "a source may have no name")
}

func testBalance(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	c := Sink(t, j, "a")
	account := j.Account("recording")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for n := w; n < 1000; n += 4 {
				account.Received()
				if n%3 == 0 {
					account.Duplicate()
					continue
				}
				if _, err := Append(j, Record(n, c.name)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			recs, err := c.Next(1000)
			if err != nil {
				t.Error(err)
				return
			}
			settleAll(c, recs)
		}
	})
	for settled := uint64(0); settled < 666; {
		snap := j.Snapshot()
		a, n := snap.Accounts["recording"], snap.Sinks[0].Totals
		settled = n.Delivered
		require.LessOrEqual(t, a.InFlight(), uint64(4), "%+v", a)
		stored := a.Accepted + a.Quarantined
		if _, here := j.(journal.OnDisk); here {
			require.Equal(t, stored, n.Owed, "accepted and owed in one step")
		}
		require.LessOrEqual(t, stored, n.Owed+snap.Unjudged, "what was accepted is owed, or not yet judged")
		require.LessOrEqual(t, n.Owed, stored+a.InFlight(), "what is owed was stored, though its call may not know it yet")
		require.Equal(t, n.Owed, n.Delivered+n.Pending)
	}
	cancel()
	wg.Wait()
}

func testScan(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	recs := Fill(t, j, 0, 200, Sink(t, j, "a").name)
	scan := func(want func(*journal.Record) bool) (got []*journal.Record) {
		t.Helper()
		require.NoError(t, j.Scan(t.Context(), func(r *journal.Record) bool {
			require.Nil(t, r.Body)
			return want(r)
		}, func(r *journal.Record) bool { got = append(got, r); return true }))
		return got
	}
	require.Empty(t, diff(recs, scan(every)))
	require.Empty(t, diff(filter(recs, even), scan(even)))
	seen := 0
	require.NoError(t, j.Scan(t.Context(), every, func(*journal.Record) bool { seen++; return seen < 3 }))
	require.Equal(t, 3, seen)
	ctx, cancel := context.WithCancel(t.Context())
	seen = 0
	require.ErrorIs(t, j.Scan(ctx, every, func(*journal.Record) bool { seen++; cancel(); return true }), context.Canceled)
	require.Equal(t, 1, seen)
	stop()
}

func testFind(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	recs := Fill(t, j, 0, 20)
	require.NoError(t, j.Flush())
	recs = append(recs, Fill(t, j, 7, 3)...) // the same events again
	check := func() {
		t.Helper()
		want := []journal.Position{recs[21].Position, recs[8].Position}
		events := 0
		require.NoError(t, j.Scan(t.Context(), every, func(*journal.Record) bool { events++; return true }))
		if events == 20 { // a journal may leave out copies by itself
			want = want[1:]
		}
		found, err := j.Find(recs[8].ID)
		require.NoError(t, err)
		require.Equal(t, want, found)
		found, err = j.Find(recs[3].ID)
		require.NoError(t, err)
		require.Equal(t, Positions(recs[3:4]), found)
		found, err = j.Find(Record(77).ID)
		require.NoError(t, err)
		require.Empty(t, found)
	}
	check()
	stop()
	j = open(t)
	Start(t, j)
	check()
}

func testStanding(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	a := Sink(t, j, "a")
	recs := Fill(t, j, 0, 4, a.name)
	Drain(t, a, 1<<20)
	recs = append(recs, Fill(t, j, 4, 1, a.name)...)
	retry := journal.Retry{Attempts: 1, LastError: "time-out"}
	a.Settle(recs[0].Position, journal.Delivered)
	a.Bury(journal.DeadLetter{Position: recs[1].Position, Reason: "refused", Retry: retry})
	a.Failed(recs[2].Position, retry)
	for _, saved := range []bool{false, true} {
		for i, want := range []journal.State{journal.StateSettled, journal.StateDead, journal.StatePending, journal.StatePending, journal.StateWaiting} {
			s, err := j.Standing("a", recs[i].Position)
			require.NoError(t, err)
			require.Equal(t, want, s.State, "saved %t", saved)
			require.Equal(t, i == 1, s.Reason == "refused")
			if i == 1 || i == 2 {
				require.Equal(t, retry, s.Retry)
			}
		}
		require.NoError(t, j.Flush())
	}
}

func testMove(t *testing.T, open Opener) {
	j := open(t)
	mover, ok := j.(journal.Mover)
	if !ok {
		require.NoError(t, j.Close())
		t.Skip("this journal moves nothing")
	}
	stop := Start(t, j)
	a, b := Sink(t, j, "a"), Sink(t, j, "b")
	recs := Fill(t, j, 0, 20, a.name)
	both := Fill(t, j, 20, 5, a.name, b.name)
	for handed := 0; handed < 12; {
		next, err := a.Next(1)
		require.NoError(t, err)
		handed += len(next)
	}
	settleAll(a, recs[:4])
	a.Bury(journal.DeadLetter{Position: recs[4].Position, At: later})
	a.Failed(recs[6].Position, journal.Retry{Attempts: 4})
	recs = append(recs, Fill(t, j, 25, 100, a.name)...)

	_, _, err := mover.Move("a", "b")
	require.Error(t, err, "a is opened")
	a.Release()
	_, _, err = mover.Move("a", "nobody")
	require.Error(t, err)
	_, _, err = mover.Move("a", "a")
	require.Error(t, err)
	sweep(t, j) // b holds the log back still
	positions, skipped, err := mover.Move("a", "b")
	require.NoError(t, err)
	require.Equal(t, Positions(recs[5:]), positions)
	require.EqualValues(t, 5, skipped)
	check := func() {
		t.Helper()
		require.Equal(t, journal.Totals{Owed: 10, Delivered: 4, Dead: 1, Skipped: 5}, balanced(t, a))
		require.Zero(t, a.PendingBytes(Shard(t, j)))
		require.Equal(t, journal.Totals{Owed: uint64(len(positions) + 5), Pending: uint64(len(positions) + 5)}, balanced(t, b))
	}
	check()
	require.Equal(t, positions, Pending(b))
	require.Empty(t, diff(both, Drain(t, b, 1)), "it reads what it is owed itself")
	positions2, skipped, err := mover.Move("a", "b")
	require.NoError(t, err)
	require.Zero(t, skipped)
	require.Empty(t, positions2)
	stop()

	j = open(t)
	Start(t, j)
	b = Sink(t, j, "b")
	a = Sink(t, j, "a")
	check()
	all := slices.SortedFunc(slices.Values(append(Positions(both), positions...)), journal.Position.Compare)
	require.Equal(t, all, Pending(b))
	require.Empty(t, Pending(a))
	sweep(t, j)
	loaded, err := j.Load(all)
	require.NoError(t, err)
	require.Len(t, loaded, len(all))
	for _, p := range all {
		b.Settle(p, journal.Delivered)
	}
	require.EqualValues(t, len(all), balanced(t, b).Delivered)
}

func testDropPending(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	a := Sink(t, j, "a")
	recs := Fill(t, j, 0, 10, a.name)
	Drain(t, a, 1<<20)
	settleAll(a, recs[:3])
	Fill(t, j, 10, 50, a.name)
	_, err := j.DropPending("a")
	require.Error(t, err, "it is opened")
	_, err = j.DropPending("nobody")
	require.Error(t, err)
	a.Release()
	n, err := j.DropPending("a")
	require.NoError(t, err)
	require.EqualValues(t, 57, n)
	stop()
	j = open(t)
	Start(t, j)
	a = Sink(t, j, "a")
	require.Equal(t, journal.Totals{Owed: 60, Delivered: 3, Dropped: 57}, balanced(t, a))
	require.Zero(t, a.PendingBytes(Shard(t, j)))
	require.Empty(t, Pending(a))
	more := Fill(t, j, 60, 2, a.name)
	require.Empty(t, diff(more, Drain(t, a, 1)))
}

func testReplay(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	a, b := Sink(t, j, "a"), Sink(t, j, "b")
	recs := Fill(t, j, 0, 60, a.name)
	Fill(t, j, 60, 10, b.name)
	Drain(t, a, 1<<20)
	settleAll(a, recs[:50])
	before := balanced(t, a)
	unread := Fill(t, j, 70, 5, a.name)

	want := filter(recs[:50], even)
	spec := journal.ReplaySpec{Sink: "a", Filter: []byte("{}"), Rate: 2.5, CreatedAt: time.UnixMilli(7)}
	n, err := j.CountReplay(t.Context(), spec, even)
	require.NoError(t, err)
	require.Equal(t, len(want), n)
	r := Begin(t, j, spec, even)
	require.Positive(t, r.ID())
	first := r.ID()
	require.False(t, r.Finished())
	got, err := r.Next(1)
	require.NoError(t, err)
	require.Empty(t, diff(want[:1], got))
	got = append(got, DrainReplay(t, r)...)
	require.Empty(t, diff(want, got), "settled deliveries only")
	require.Empty(t, diff(Positions(want), Pending(r)))

	r.Settle(want[0].Position, journal.Delivered)
	r.Settle(want[0].Position, journal.Delivered)
	r.Settle(want[1].Position, journal.Skipped)
	r.Bury(journal.DeadLetter{Position: want[2].Position, Reason: "no"})
	retry := journal.Retry{Attempts: 1, LastError: "x"}
	r.Failed(want[3].Position, retry)
	totals := journal.ReplayTotals{Matched: uint64(len(want)), Delivered: 1, Failed: 1, Skipped: 1, Pending: uint64(len(want) - 3), Read: Frontier(t, j)}
	require.Equal(t, totals, r.Totals())
	letters, err := j.DeadLetters("a", journal.Position{}, 9)
	require.NoError(t, err)
	require.Empty(t, letters)
	before.Owed, before.Pending = before.Owed+5, before.Pending+5
	require.Equal(t, before, balanced(t, a), "the sink's own account is not touched")
	stop()

	j = open(t)
	stop = Start(t, j)
	require.Len(t, j.Replays(), 1)
	r = Resume(j, j.Replays()[0], even)
	spec.Of, spec.To, spec.Letters = "a", Frontier(t, j), r.Spec().Letters
	require.Empty(t, diff(spec, r.Spec()))
	require.Equal(t, totals, r.Totals())
	require.Equal(t, Positions(want[3:]), Pending(r))
	require.Equal(t, retry, r.Pending()[0].Retry)
	require.Empty(t, DrainReplay(t, r))
	require.False(t, r.Finished())
	for _, rec := range want[3:] {
		r.Settle(rec.Position, journal.Delivered)
	}
	require.True(t, r.Finished())
	second := Begin(t, j, journal.ReplaySpec{Sink: "b", Of: "a"}, every)
	require.Greater(t, second.ID(), first)
	require.Equal(t, Positions(recs[:50]), Positions(DrainReplay(t, second)))
	second.Cancel()
	require.True(t, second.Finished())
	require.EqualValues(t, 50, second.Totals().Skipped)
	empty, err := second.Next(1)
	require.NoError(t, err)
	require.Empty(t, empty)
	_, err = j.AddReplay(journal.ReplaySpec{Sink: "nobody"})
	require.Error(t, err)
	anyway := Begin(t, j, journal.ReplaySpec{Sink: "b", Anyway: true}, every)
	require.Equal(t, Positions(slices.Concat(recs, unread)), Positions(DrainReplay(t, anyway)), "not what b itself waits for")
	stop()

	j = open(t)
	Start(t, j)
	require.Len(t, j.Replays(), 3)
	require.True(t, j.Replays()[0].Finished())
	require.True(t, j.Replays()[1].Finished())
	require.False(t, j.Replays()[2].Finished())
	require.Len(t, Pending(Resume(j, j.Replays()[2], every)), 65)
}

func testReplayLetters(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	a, b := Sink(t, j, "a"), Sink(t, j, "b")
	recs := Fill(t, j, 0, 100, a.name)
	Drain(t, a, 1<<20)
	for i, r := range recs {
		if i%10 == 0 {
			a.Bury(journal.DeadLetter{Position: r.Position, Reason: fmt.Sprint("first ", i), At: later})
		} else {
			a.Settle(r.Position, journal.Delivered)
		}
	}
	_, err := b.Next(1) // catches up
	require.NoError(t, err)
	sweep(t, j)
	n, err := j.CountReplay(t.Context(), journal.ReplaySpec{Sink: "a", DeadLetters: true}, every)
	require.NoError(t, err)
	require.Equal(t, 10, n)
	r := Begin(t, j, journal.ReplaySpec{Sink: "b", Of: "a", DeadLetters: true, To: journal.Cut{recs[85].Position}},
		func(r *journal.Record) bool { return r.EventType != 30 })
	got := DrainReplay(t, r)
	require.Equal(t, []int{0, 10, 20, 40, 50, 60, 70, 80}, types(got))
	r.Settle(got[0].Position, journal.Delivered)
	r.Settle(got[1].Position, journal.Skipped)
	r.Bury(journal.DeadLetter{Position: got[2].Position, Reason: "second", At: later})
	stop()

	j = open(t)
	Start(t, j)
	letters, err := j.DeadLetters("a", journal.Position{}, 100)
	require.NoError(t, err)
	require.Len(t, letters, 9)
	require.Equal(t, "second", letters[1].Reason)
	require.EqualValues(t, len(recs[20].Body), letters[1].Size)
	require.EqualValues(t, 9, j.Snapshot().Sinks[0].Letters)
	require.EqualValues(t, 10, j.Snapshot().Sinks[0].Totals.Dead)
	require.Equal(t, journal.Totals{}, j.Snapshot().Sinks[1].Totals)
	r = Resume(j, j.Replays()[0], every)
	require.Equal(t, Positions(got[3:]), Pending(r))
	loaded, err := j.Load(Pending(r))
	require.NoError(t, err)
	require.Empty(t, diff(got[3:], loaded))

	again := Begin(t, j, journal.ReplaySpec{Sink: "a"}, every) // a letter is settled, too
	var late []*journal.Record
	for _, rec := range DrainReplay(t, again) {
		again.Settle(rec.Position, journal.Delivered)
		late = append(late, rec)
	}
	require.NotEmpty(t, late)
	require.NoError(t, j.Flush())
	letters, err = j.DeadLetters("a", journal.Position{}, 100)
	require.NoError(t, err)
	require.Empty(t, letters)
}

func types(recs []*journal.Record) (list []int) {
	for _, r := range recs {
		list = append(list, r.EventType)
	}
	return list
}
