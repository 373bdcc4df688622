package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

func anything(*journal.Record) bool { return true }

// drain reads until nothing more comes, also of what is fetched meanwhile.
func drain(t *testing.T, d journal.Deliveries) (all []*journal.Record) {
	t.Helper()
	for quiet := 0; quiet < 5; quiet++ {
		recs, err := d.Next(1 << 20)
		require.NoError(t, err)
		if all = append(all, recs...); len(recs) > 0 {
			quiet = 0
		}
		time.Sleep(100 * time.Millisecond)
	}
	return all
}

// drainReplay delivers what a replay has to deliver in the shards of some replicas, and returns its events.
func drainReplay(t *testing.T, id uint32, replicas ...*Journal) (ids []string) {
	t.Helper()
	for _, j := range replicas {
		r := j.control.replay(id)
		require.NotNil(t, r)
		held, _ := j.Shards()
		for _, shard := range held {
			d := r.In(shard, anything)
			for _, rec := range append(pendingIn(t, j, d), drain(t, d)...) {
				ids = append(ids, fmt.Sprintf("%x", rec.ID))
				d.Settle(rec.Position, journal.Delivered)
			}
			d.End()
		}
	}
	slices.Sort(ids)
	return ids
}

// pendingIn are the events that were handed out and are not settled.
func pendingIn(t *testing.T, j *Journal, d journal.Deliveries) []*journal.Record {
	t.Helper()
	var positions []journal.Position
	for _, p := range d.Pending() {
		positions = append(positions, p.Position)
	}
	recs, err := j.Load(positions)
	require.NoError(t, err)
	return recs
}

func idsOf(recs []*journal.Record) (ids []string) {
	for _, r := range recs {
		ids = append(ids, fmt.Sprintf("%x", r.ID))
	}
	slices.Sort(ids)
	return ids
}

func pendingOf(sink string, replicas ...*Journal) (n uint64) {
	for _, j := range replicas {
		n += journaltest.StatusOf(j, sink).Totals.Pending
	}
	return n
}

// What a sink that is down is owed in all shards another gets once, and it itself never again, whoever carries that out and how often;
// what came later stays its own.
func TestWhatASinkIsOwedIsBroughtToAnother(t *testing.T) {
	pairIn(t, func(t *testing.T, one, two *Journal, second *tenure) {
		down, other := openAll(t, "down", one, two), openAll(t, "other", one, two)
		taken := journaltest.Fill(t, one, 0, 10, "down")
		time.Sleep(time.Second)
		for _, d := range down {
			for _, r := range drain(t, d) {
				d.Settle(r.Position, journal.Delivered)
			}
		}
		owed := journaltest.Fill(t, two, 10, 30, "down")
		time.Sleep(time.Second)
		failing, err := down[0].Next(1) // one is pending, in one shard, the others are not read
		require.NoError(t, err)
		down[0].Failed(failing[0].Position, journal.Retry{Attempts: 3})
		owed = append(owed, journaltest.Fill(t, one, 40, 10, "down")...)
		journaltest.Fill(t, one, 50, 5, "down", "other") // which other gets anyway
		for _, j := range []*Journal{one, two} {
			k, _ := j.Sink("down")
			k.Release()
		}
		for _, d := range append(down, other...) {
			d.End()
		}
		spec := journal.ReplaySpec{Sink: "other", Of: "down", Pending: true}
		count := 0
		for _, j := range []*Journal{one, two} {
			n, err := j.CountReplay(t.Context(), spec, anything)
			require.NoError(t, err)
			count += n
		}
		require.Equal(t, len(owed), count)
		r, err := two.AddReplay(spec)
		require.NoError(t, err)
		later := journaltest.Fill(t, one, 60, 12, "down")
		time.Sleep(time.Second)

		_, ended := one.Ended(r.ID())
		require.False(t, ended)
		require.Equal(t, idsOf(owed), drainReplay(t, r.ID(), one, two), "each once, and none that it had taken: %d", len(taken))
		require.Empty(t, drainReplay(t, r.ID(), one, two))
		time.Sleep(time.Second)
		totals, ended := one.Ended(r.ID())
		require.True(t, ended)
		require.Equal(t, journal.ReplayTotals{Matched: 40, Delivered: 40}, totals)

		require.EqualValues(t, 57, pendingOf("down", one, two))
		dropped, err := one.DropUpTo(t.Context(), "down", r.Spec().To)
		require.NoError(t, err)
		again, err := one.DropUpTo(t.Context(), "down", r.Spec().To)
		require.NoError(t, err)
		require.Zero(t, again)
		// The other replica ends before it is told, and whoever has its shards then carries it out.
		second.set(true)
		for range 2 {
			<-second.released
		}
		first := one.own.(*tenure)
		first.set(true, 0, 1, 2, 3)
		time.Sleep(5 * time.Second)
		rest, err := one.DropUpTo(t.Context(), "down", r.Spec().To)
		require.NoError(t, err)
		require.EqualValues(t, 45, dropped+rest)
		require.EqualValues(t, len(later), pendingOf("down", one))

		var left []*journal.Record
		for _, d := range openAll(t, "down", one) {
			left = append(append(left, pendingIn(t, one, d)...), drain(t, d)...)
			d.End()
		}
		require.Equal(t, idsOf(later), idsOf(left))
	})
}

// command is what three commands of an operator do to the shards of a replica: give up what gone is owed, skip what waits for a, and
// drop the dead letters of a.
func command(ctx context.Context, j *Journal, feeds map[uint32]journal.Deliveries, ends journal.Ends) error {
	_, errGone := j.DropUpTo(ctx, "gone", ends.Events)
	for _, p := range j.Pending("a") {
		if d := feeds[p.Position.Shard]; d != nil && p.Position.Offset <= ends.Events.In(p.Position.Shard).Offset {
			d.Settle(p.Position, journal.Skipped)
		}
	}
	errSkip := j.Flush()
	kept, err := j.DeadLetters("a", journal.Position{}, 1000)
	var doomed []journal.DeadLetter
	for _, l := range kept {
		if !l.Written.IsZero() && l.Written.Offset <= ends.Letters.In(l.Written.Shard).Offset {
			doomed = append(doomed, l)
		}
	}
	return errors.Join(errGone, errSkip, err, j.DropLetters("a", doomed...))
}

// feedsOf are the deliveries of a in the shards of a replica, read to their end.
func feedsOf(t *testing.T, j *Journal) map[uint32]journal.Deliveries {
	k, err := j.Sink("a")
	require.NoError(t, err)
	feeds := make(map[uint32]journal.Deliveries)
	held, _ := j.Shards()
	for _, shard := range held {
		feeds[shard.Number] = k.Owed(shard)
		drain(t, feeds[shard.Number])
	}
	return feeds
}

// openAs opens a journal of two shards for a replica, and runs it. How it ended does not matter: it may have been cut off.
func openAs(t *testing.T, name string, logs logs, own Ownership) (j *Journal, stop func()) {
	opts := testOptions(t, logs, 2)
	opts.Replica, opts.Ownership = name, own
	j = mustOpen(t, opts)
	end := run(t, j)
	return j, func() { _ = end(); _ = j.Close() }
}

// Commands touch nothing that came after the ends that they carry, whoever carries them out and how often: also when their first owner is
// killed, or cut off for a while, between the effect and its being stored.
func TestCommandsAreBoundByTheirEnds(t *testing.T) {
	t.Parallel()
	for seed := range int64(24) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewSource(seed))
			m, l := newMemLogs(), new(link)
			l.logs = m
			first, second := newTenure(0, 1), newTenure()
			one, stopOne := openAs(t, "one", l, first)
			two, stopTwo := openAs(t, "two", m, second)
			time.Sleep(time.Second)
			for _, j := range []*Journal{one, two} {
				_, err := j.Sink("a")
				require.NoError(t, err)
				gone, err := j.Sink("gone")
				require.NoError(t, err)
				gone.Release()
			}
			bury := func(feeds map[uint32]journal.Deliveries, j *Journal) (n int) {
				for _, p := range j.Pending("a") {
					if r.Intn(3) == 0 {
						feeds[p.Position.Shard].Bury(journal.DeadLetter{Position: p.Position, Reason: "no", At: time.Now()})
						n++
					}
				}
				require.NoError(t, j.Flush())
				return n
			}
			owed := 1 + r.Intn(60)
			journaltest.Fill(t, one, 0, owed, "a", "gone")
			feeds := feedsOf(t, one)
			before := bury(feeds, one)
			ends, err := two.Ends(t.Context())
			require.NoError(t, err)
			later := r.Intn(60)
			if later > 0 {
				journaltest.Fill(t, one, owed, later, "a", "gone")
			}
			for _, d := range feeds {
				drain(t, d)
			}
			after := bury(feeds, one) // perhaps of events that came before the ends
			waiting := 0
			for _, p := range one.Pending("a") {
				if p.Position.Offset > ends.Events.In(p.Position.Shard).Offset {
					waiting++
				}
			}

			// The first owner is killed, held up, or well.
			held := make(chan struct{})
			l.mu.Lock()
			switch seed % 3 {
			case 0:
				l.cut = errors.New("killed")
			case 1:
				l.held = held
			}
			l.mu.Unlock()
			err = command(t.Context(), one, feeds, ends)
			require.Equal(t, seed%3 == 2, err == nil, "%v", err)
			first.set(false)
			for _, d := range feeds {
				d.End()
			}
			second.set(true, 0, 1)
			time.Sleep(2 * time.Second)
			l.mu.Lock()
			l.held = nil
			l.mu.Unlock()
			close(held) // what was under way lands late
			feeds = feedsOf(t, two)
			for range 2 {
				require.NoError(t, command(t.Context(), two, feeds, ends))
			}
			for _, d := range feeds {
				d.End()
			}
			stopOne()
			l.late.Wait()
			stopTwo()

			three, stop := openAs(t, "three", m, newTenure(0, 1))
			time.Sleep(2 * time.Second)
			total := uint64(owed + later)
			require.Equal(t, journal.Totals{Owed: total, Dropped: uint64(owed), Pending: uint64(later)}, journaltest.StatusOf(three, "gone").Totals, "seed %d", seed)
			a := journaltest.StatusOf(three, "a")
			require.Equal(t, journal.Totals{Owed: total, Dead: uint64(before + after), Skipped: total - uint64(before+after+waiting), Pending: uint64(waiting)}, a.Totals, "seed %d", seed)
			require.EqualValues(t, after, a.Letters, "seed %d: letters written later stay", seed)
			stop()
		})
	}
}

// What replays leave is removed when they have ended for longer than events are kept; others, and those that run, stay.
func TestReplaysThatEndedLongAgoAreForgotten(t *testing.T) {
	pairIn(t, func(t *testing.T, one, two *Journal, _ *tenure) {
		openAll(t, "a", one, two)
		begin := func() uint32 {
			r, err := one.AddReplay(journal.ReplaySpec{Sink: "a"})
			require.NoError(t, err)
			time.Sleep(time.Second)
			return r.ID()
		}
		over, cancelled, running := begin(), begin(), begin()
		drainReplay(t, over, one, two)
		two.control.replay(cancelled).Cancel()
		require.NoError(t, two.Flush())
		time.Sleep(time.Hour)
		late := begin()
		drainReplay(t, late, one, two)
		time.Sleep(70 * time.Minute)

		m := one.logs.(*memLogs)
		left := func(topic string, of uint32) (n int) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for p := range int32(4) {
				values := make(map[string]bool)
				for _, rec := range m.log(topic, p).recs {
					values[string(rec.Key)] = rec.Value != nil
				}
				for key, there := range values {
					parts := strings.Split(key, "/")
					if there && strings.HasPrefix(key, "replay") && parts[1] == fmt.Sprint(of) {
						n++
					}
				}
			}
			return n
		}
		for _, j := range []*Journal{one, two} {
			var ids []uint32
			for _, r := range j.Replays() {
				ids = append(ids, r.ID())
			}
			require.Equal(t, []uint32{running, late}, ids)
		}
		for _, id := range []uint32{over, cancelled} {
			require.Zero(t, left("ncs.control", id))
			require.Zero(t, left("ncs.state", id))
		}
		require.Equal(t, 4, left("ncs.control", late))
		require.Equal(t, 4, left("ncs.state", late))
		three := mustOpen(t, testOptions(t, m, 4))
		require.Len(t, three.Replays(), 2, "for one that starts, too")
		require.NoError(t, three.Close())
	})
}

// A replay, of events or of dead letters, that its owner has begun and lost goes on at the next one: all that it is about comes, nothing of
// what came after it was given, and twice only what the first owner could not store.
func TestAReplayGoesOnAtTheNextOwner(t *testing.T) {
	t.Parallel()
	for seed := range int64(18) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewSource(seed))
			m, l := newMemLogs(), new(link)
			l.logs = m
			first, second := newTenure(0, 1), newTenure()
			one, stopOne := openAs(t, "one", l, first)
			two, stopTwo := openAs(t, "two", m, second)
			time.Sleep(time.Second)
			_, err := two.Sink("a")
			require.NoError(t, err)
			_, err = one.Sink("a")
			require.NoError(t, err)
			dead := seed%2 == 1
			give := func(from, n int) (ids []string) {
				recs := journaltest.Fill(t, one, from, n, "a")
				for _, d := range feedsOf(t, one) {
					for _, p := range d.Pending() {
						if dead {
							d.Bury(journal.DeadLetter{Position: p.Position, Reason: "no", At: time.Now()})
						} else {
							d.Settle(p.Position, journal.Delivered)
						}
					}
					d.End()
				}
				require.NoError(t, one.Flush())
				return idsOf(recs)
			}
			wanted := give(0, 40)
			given, err := two.AddReplay(journal.ReplaySpec{Sink: "a", DeadLetters: dead})
			require.NoError(t, err)
			later := give(40, 20)
			time.Sleep(time.Second)

			var had []string
			var feeds []journal.Deliveries
			held, _ := one.Shards()
			for _, shard := range held {
				d := one.control.replay(given.ID()).In(shard, anything)
				feeds = append(feeds, d)
				for _, rec := range drain(t, d) {
					if r.Intn(2) == 0 {
						had = append(had, fmt.Sprintf("%x", rec.ID))
						d.Settle(rec.Position, journal.Delivered)
					}
				}
			}
			landing := make(chan struct{})
			l.mu.Lock()
			switch seed / 2 % 3 {
			case 0:
				l.cut = errors.New("killed")
			case 1:
				l.held = landing
			}
			l.mu.Unlock()
			stored := one.Flush() == nil
			first.set(false)
			for _, d := range feeds {
				d.End()
			}
			second.set(true, 0, 1)
			time.Sleep(2 * time.Second)
			l.mu.Lock()
			l.held = nil
			l.mu.Unlock()
			close(landing)
			rest := drainReplay(t, given.ID(), two)
			if stored {
				require.Len(t, rest, len(wanted)-len(had))
			}
			all := append(had, rest...)
			slices.Sort(all)
			require.Equal(t, wanted, slices.Compact(all), "seed %d", seed)
			require.Empty(t, drainReplay(t, given.ID(), two))
			time.Sleep(2 * time.Second)
			totals, ended := two.Ended(given.ID())
			require.True(t, ended)
			require.Equal(t, journal.ReplayTotals{Matched: 40, Delivered: 40}, totals, "seed %d", seed)
			if dead {
				require.EqualValues(t, len(later), journaltest.StatusOf(two, "a").Letters, "seed %d: what was given up later stays", seed)
			}
			stopOne()
			l.late.Wait()
			stopTwo()
		})
	}
}
