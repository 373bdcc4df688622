package kafkajournal

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// pair runs test with two replicas that have two shards each.
func pair(t *testing.T, test func(one, two *Journal, second *tenure)) {
	pairIn(t, func(_ *testing.T, one, two *Journal, second *tenure) { test(one, two, second) })
}

func pairIn(t *testing.T, test func(t *testing.T, one, two *Journal, second *tenure)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		first, second := newTenure(0, 1), newTenure(2, 3)
		open := func(name string, own Ownership) *Journal {
			opts := testOptions(t, m, 4)
			opts.Replica, opts.Ownership = name, own
			return mustOpen(t, opts)
		}
		one, two := open("one", first), open("two", second)
		stop1, stop2 := journaltest.Start(t, one), journaltest.Start(t, two)
		time.Sleep(time.Second)
		test(t, one, two, second)
		stop1()
		stop2()
	})
}

// openAll opens a sink at both, and returns its deliveries in all shards.
func openAll(t *testing.T, sink string, replicas ...*Journal) (all []journal.Deliveries) {
	for _, j := range replicas {
		k, err := j.Sink(sink)
		require.NoError(t, err)
		held, _ := j.Shards()
		for _, shard := range held {
			all = append(all, k.Owed(shard))
		}
	}
	return all
}

func TestReplaysRunInAllShards(t *testing.T) {
	pair(t, func(one, two *Journal, second *tenure) {
		all := openAll(t, "a", one, two)
		recs := journaltest.Fill(t, one, 0, 40, "a")
		time.Sleep(time.Second)
		for _, d := range all {
			next, err := d.Next(1 << 20)
			require.NoError(t, err)
			for _, r := range next {
				d.Settle(r.Position, journal.Delivered)
			}
		}
		given, err := one.AddReplay(journal.ReplaySpec{Sink: "a"})
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		require.Len(t, two.Replays(), 1)
		again := 0
		for _, j := range []*Journal{one, two} {
			require.False(t, j.Replays()[0].Finished())
			held, _ := j.Shards()
			for _, shard := range held {
				d := j.Replays()[0].In(shard, func(*journal.Record) bool { return true })
				for {
					next, err := d.Next(1 << 20)
					require.NoError(t, err)
					if len(next) == 0 {
						break
					}
					for _, r := range next {
						d.Settle(r.Position, journal.Delivered)
						again++
					}
				}
			}
		}
		require.Equal(t, len(recs), again)
		time.Sleep(2 * time.Second)
		var delivered uint64
		var read journal.Cut
		for _, j := range []*Journal{one, two} {
			r := j.Replays()[0]
			require.True(t, r.Finished())
			delivered += r.Totals().Delivered
			read = append(read, r.Totals().Read...)
		}
		require.EqualValues(t, 40, delivered, "each counts its own shards, also when all is done")
		require.Equal(t, given.Spec().To, read)

		cancelled, err := two.AddReplay(journal.ReplaySpec{Sink: "a"})
		require.NoError(t, err)
		require.Greater(t, cancelled.ID(), given.ID())
		cancelled.Cancel()
		require.NoError(t, two.Flush())
		time.Sleep(2 * time.Second)
		require.True(t, one.Replays()[1].Finished())
	})
}

func TestPausesAndAccountsAreThoseOfAllReplicas(t *testing.T) {
	pair(t, func(one, two *Journal, second *tenure) {
		openAll(t, "a", one, two)
		k, err := one.Sink("a")
		require.NoError(t, err)
		k.SetPaused("410 Gone")
		one.Account("s").Received()
		one.Account("s").Rejected()
		two.Account("s").Received()
		two.Account("s").Duplicate()
		require.NoError(t, one.Flush())
		require.NoError(t, two.Flush())
		time.Sleep(2 * time.Second)
		other, err := two.Sink("a")
		require.NoError(t, err)
		require.Equal(t, "410 Gone", other.Paused())
		require.Equal(t, journal.Account{Received: 2, Rejected: 1, Duplicates: 1}, one.Snapshot().Accounts["s"])
		require.Equal(t, one.Snapshot().Accounts["s"], two.Snapshot().Accounts["s"])
		other.SetPaused("")
		require.NoError(t, two.Flush())
		time.Sleep(2 * time.Second)
		require.Empty(t, k.Paused(), "a resume is a value")
	})
}

func beforeAppends(j *Journal, fn func(topic string, recs []kafkalog.Record) error) {
	j.logs.(*memLogs).setBefore(fn)
}

// A pause that was made by who did not know of a resume is not made again: the resume came later.
func TestALaterResumeWins(t *testing.T) {
	pair(t, func(one, two *Journal, _ *tenure) {
		openAll(t, "a", one, two)
		k, err := one.Sink("a")
		require.NoError(t, err)
		other, err := two.Sink("a")
		require.NoError(t, err)
		k.SetPaused("410 Gone")
		require.NoError(t, one.Flush())
		time.Sleep(time.Second)
		require.Equal(t, "410 Gone", other.Paused())

		beforeAppends(two, func(topic string, recs []kafkalog.Record) error { // two cannot write for a while
			if topic == two.topics.control && string(recs[0].Key) == "account/two" {
				return errors.New("no leader")
			}
			return nil
		})
		looked := two.Levers()
		other.SetPaused("410 Gone again")
		require.Equal(t, "410 Gone again", other.Paused(), "it acts at once where it was given")
		require.Error(t, two.Flush())
		k.SetPaused("")
		require.NoError(t, one.Flush())
		time.Sleep(time.Second)
		beforeAppends(two, nil)
		time.Sleep(2 * time.Second)
		require.NoError(t, two.Flush())
		require.Empty(t, other.Paused())
		require.Greater(t, two.Levers(), looked, "dispatchers look again")
		time.Sleep(time.Second)
		require.Empty(t, k.Paused())
	})
}

// What was paused is stored when Flush returns, also if it was being written when Flush was called.
func TestFlushWaitsForWhatIsBeingWritten(t *testing.T) {
	pair(t, func(one, _ *Journal, _ *tenure) {
		openAll(t, "a", one)
		k, err := one.Sink("a")
		require.NoError(t, err)
		time.Sleep(time.Second)
		var written atomic.Bool
		beforeAppends(one, func(topic string, _ []kafkalog.Record) error {
			if topic == one.topics.control {
				time.Sleep(5 * time.Second)
				written.Store(true)
			}
			return nil
		})
		k.SetPaused("410 Gone")
		time.Sleep(time.Second)
		require.NoError(t, one.Flush())
		require.True(t, written.Load())
	})
}

// A resume wins over a pause whose giver did not know of it, also if the pause is written behind it, and when compaction has left
// nothing but the pause of the sink's other records.
func TestALaterResumeWinsWhereverTheTwoStand(t *testing.T) {
	pairIn(t, func(t *testing.T, one, two *Journal, _ *tenure) {
		openAll(t, "a", one, two)
		a, _ := one.Sink("a")
		known := one.Known() // when an attempt is sent
		time.Sleep(time.Second)
		other, _ := two.Sink("a")
		other.SetPaused("by hand")
		require.NoError(t, two.Flush())
		other.SetPaused("")
		require.NoError(t, two.Flush())
		time.Sleep(time.Second)
		require.False(t, one.PauseAsOf("a", "410 Gone", known), "the attempt was sent before")
		require.Empty(t, a.Paused())

		late := given{"410 Gone", known}.records("a")
		m := one.logs.(*memLogs)
		m.append(one.topics.control, 0, late) // it looked before the resume, and wrote after it
		time.Sleep(time.Second)
		for _, j := range []*Journal{one, two} {
			k, _ := j.Sink("a")
			require.Empty(t, k.Paused())
		}
		compacted := newMemLogs()
		newest := make(map[string]kafkalog.Record)
		m.mu.Lock()
		for _, rec := range m.log(one.topics.control, 0).recs {
			newest[string(rec.Key)] = rec
		}
		for _, rec := range m.log(one.topics.control, 0).recs {
			if newest[string(rec.Key)].Offset != rec.Offset {
				rec.Key = []byte("gone")
			}
			compacted.append("ncs.control", 0, []kafkalog.Record{rec})
		}
		m.mu.Unlock()
		three := mustOpen(t, testOptions(t, compacted, 4))
		k, err := three.Sink("a")
		require.NoError(t, err)
		require.Empty(t, k.Paused())
		require.NoError(t, three.CatchUp(t.Context()))
		require.True(t, three.PauseAsOf("a", "410 Gone", three.Known()), "one that knows of it counts")
		require.Equal(t, "410 Gone", k.Paused())
		require.NoError(t, three.Close())
	})
}

// A pause that cannot be stored acts where it was given, and is stored when that is possible, by itself.
func TestAPauseIsStoredLater(t *testing.T) {
	pairIn(t, func(t *testing.T, one, two *Journal, _ *tenure) {
		openAll(t, "a", one, two)
		a, _ := one.Sink("a")
		other, _ := two.Sink("a")
		beforeAppends(one, func(topic string, _ []kafkalog.Record) error {
			if topic == one.topics.control {
				return errors.New("no leader")
			}
			return nil
		})
		a.SetPaused("410 Gone")
		require.Equal(t, "410 Gone", a.Paused())
		require.ErrorContains(t, one.Flush(), "no leader")
		time.Sleep(time.Minute)
		require.Equal(t, []string{"410 Gone", ""}, []string{a.Paused(), other.Paused()})
		beforeAppends(one, nil)
		time.Sleep(2 * time.Second)
		require.Equal(t, "410 Gone", other.Paused())
	})
}

// Who was cut off from what the replicas share for long may miss what was removed meanwhile, of which nothing is left to be seen.
func TestWhoWasCutOffForAnHourReadsAllAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for away, relearnt := range map[time.Duration]bool{10 * time.Minute: false, 2 * time.Hour: true} {
			m, l := newMemLogs(), new(link)
			l.logs = m
			opts := testOptions(t, l, 1)
			j := mustOpen(t, opts)
			stop := journaltest.Start(t, j)
			a := journaltest.Sink(t, j, "a")
			kept, err := j.AddReplay(journal.ReplaySpec{Sink: "a"})
			require.NoError(t, err)
			m.append(j.topics.control, 0, []kafkalog.Record{{Key: []byte("pause/b"), Value: []byte("by hand")}})
			time.Sleep(time.Second)
			require.Equal(t, "by hand", j.control.paused("b"))
			l.mu.Lock()
			l.cut = errors.New("cut off")
			l.mu.Unlock()
			time.Sleep(away)
			m.mu.Lock()
			recs := m.log(j.topics.control, 0).recs
			for i := range recs {
				if string(recs[i].Key) == "pause/b" {
					recs[i].Key = []byte("gone") // with its tombstone
				}
			}
			m.mu.Unlock()
			m.append(j.topics.control, 0, []kafkalog.Record{{Key: []byte("pause/a"), Value: []byte("410 Gone")}})
			l.mu.Lock()
			l.cut = nil
			l.mu.Unlock()
			time.Sleep(5 * time.Second)
			require.Equal(t, "410 Gone", a.Paused())
			require.Equal(t, relearnt, j.control.paused("b") == "", "after %v", away)
			require.Len(t, j.Replays(), 1)
			require.Same(t, kept, j.Replays()[0], "those who deliver have it")
			stop()
		}
	})
}

// A dead letter that a former owner writes late, of a delivery that this one has settled otherwise, is removed.
func TestALateLetterOfWhatIsSettledIsRemoved(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 4, "a")
		require.Len(t, journaltest.Drain(t, a, 1<<20), 4)
		a.Settle(recs[0].Position, journal.Delivered)
		a.Bury(journal.DeadLetter{Position: recs[1].Position, Reason: "no", At: time.Now()})
		require.NoError(t, j.Flush())
		for _, r := range recs[:3] { // of one that was delivered, one that is dead, and one that is pending
			m.append(j.topics.dead, 0, []kafkalog.Record{encodeLetter("a", &journal.DeadLetter{Position: r.Position, Reason: "late", At: time.Now()}, r)})
		}
		a.Bury(journal.DeadLetter{Position: recs[3].Position, Reason: "no", At: time.Now()})
		require.NoError(t, j.Flush())
		require.NoError(t, j.Flush())
		list, err := j.DeadLetters("a", journal.Position{}, 9)
		require.NoError(t, err)
		var kept []journal.Position
		for _, l := range list {
			kept = append(kept, l.Position)
		}
		require.Equal(t, journaltest.Positions(recs[1:]), kept)
		require.Equal(t, journal.Totals{Owed: 4, Delivered: 1, Dead: 3}, a.Totals())
		require.EqualValues(t, 1, j.SharedStats().Overlap)
	})
}

// Where there are more replicas than shards, one without a shard begins replays of sinks that only others know.
func TestAReplicaWithoutShardsBeginsReplays(t *testing.T) {
	pairIn(t, func(t *testing.T, one, two *Journal, second *tenure) {
		gone, err := one.Sink("gone")
		require.NoError(t, err)
		gone.Release()
		for _, j := range []*Journal{one, two} {
			_, err := j.Sink("a")
			require.NoError(t, err)
		}
		second.set(true)
		for range 2 {
			<-second.released
		}
		one.own.(*tenure).set(true, 0, 1, 2, 3)
		time.Sleep(2 * time.Second)
		_, err = two.AddReplay(journal.ReplaySpec{Sink: "a", Of: "gone", Pending: true})
		require.NoError(t, err)
		_, err = one.AddReplay(journal.ReplaySpec{Sink: "a", Of: "nobody", Pending: true})
		require.ErrorContains(t, err, "does not know both sinks")
	})
}

// A dead letter that is written again, by a replay that failed, while it is about to be dropped is another, and stays.
func TestALetterThatIsWrittenAgainIsNotDropped(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 2, "a")
		for _, r := range journaltest.Drain(t, a, 1<<20) {
			a.Bury(journal.DeadLetter{Position: r.Position, Reason: "no", At: time.Now()})
		}
		require.NoError(t, j.Flush())
		listed, err := j.DeadLetters("a", journal.Position{}, 9)
		require.NoError(t, err)
		r, err := j.AddReplay(journal.ReplaySpec{Sink: "a", DeadLetters: true})
		require.NoError(t, err)
		held, _ := j.Shards()
		d := r.In(held[0], anything)
		for len(d.Pending()) < 2 {
			_, err := d.Next(1)
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		d.Bury(journal.DeadLetter{Position: listed[0].Position, Reason: "still no", At: time.Now()})
		require.NoError(t, j.Flush())
		require.NoError(t, j.DropLetters("a", listed...))
		left, err := j.DeadLetters("a", journal.Position{}, 9)
		require.NoError(t, err)
		require.Len(t, left, 1)
		require.Equal(t, "still no", left[0].Reason)
		d.End()
	})
}

// What another replica has stored while nothing is judged is not owed to anybody, and must not look as if all were delivered.
func TestWhatOthersHaveStoredIsUnjudgedToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		one, stopOne := openAs(t, "one", m, newTenure(0, 1))
		two, stopTwo := openAs(t, "two", m, newTenure())
		time.Sleep(time.Second)
		openAll(t, "a", one, two)
		m.refuse("ncs.events", func([]kafkalog.Record) error { return kafka.TopicAuthorizationFailed })
		for i := range 30 {
			by := one
			if i >= 10 {
				by = two
			}
			_, err := journaltest.Append(by, journaltest.Record(i, "a"))
			require.NoError(t, err)
		}
		know := func(j *Journal) {
			_, err := j.Frontier(t.Context())
			require.NoError(t, err)
		}
		know(one)
		require.EqualValues(t, 30, one.Snapshot().Unjudged)
		know(two)
		require.Zero(t, two.Snapshot().Unjudged, "of its own shards")
		m.setBefore(nil)
		time.Sleep(2 * time.Second)
		know(one)
		require.Zero(t, one.Snapshot().Unjudged)
		stopOne()
		stopTwo()
	})
}
