package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// veiled are logs whose ends are behind for a while, as a new leader's are.
type veiled struct {
	logs
	mu   sync.Mutex
	most map[string]int64 // by topic: nothing from there on is seen
	fail map[string]error // by topic: of asking for ends
	then func(topic string)
}

func veil(o *Options) *veiled {
	v := &veiled{logs: o.logs, most: make(map[string]int64), fail: make(map[string]error)}
	o.logs = v
	return v
}

func (v *veiled) hide(topic string, from int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.most[topic] = from
}

func (v *veiled) show() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.most)
	clear(v.fail)
}

func (v *veiled) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error) {
	v.mu.Lock()
	most, hidden := v.most[topic]
	then := v.then
	v.mu.Unlock()
	if then != nil {
		then(topic)
	}
	if hidden && offset >= most {
		time.Sleep(wait)
		return kafkalog.Chunk{Next: offset, End: most}, nil
	}
	return v.logs.read(ctx, topic, partition, offset, maxBytes, wait)
}

func (v *veiled) ends(ctx context.Context, topic string, partitions ...int32) (map[int32]int64, error) {
	v.mu.Lock()
	most, hidden := v.most[topic]
	err := v.fail[topic]
	v.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ends, err := v.logs.ends(ctx, topic, partitions...)
	for p := range ends {
		if hidden {
			ends[p] = min(ends[p], most)
		}
	}
	return ends, err
}

// forgetful lets a journal know nothing of its newest events by heart.
func forgetful(j *Journal) {
	s := j.shard(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring = ring{from: s.core.next, max: 1}
}

// A new leader may need a moment until it shows what it has. What is dropped for that is lost.
func TestWhatCannotBeSeenYetIsNotTakenForLost(t *testing.T) {
	var v *veiled
	alone(t, func(o *Options) { v = veil(o) }, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 4, "a")
		journaltest.Drain(t, a, 1<<20)
		a.Bury(journal.DeadLetter{Position: recs[0].Position, Reason: "no"})
		require.NoError(t, j.Flush())
		forgetful(j)
		v.hide("ncs.inbox", 2)
		_, err := j.Load(journaltest.Positions(recs[3:]))
		require.Error(t, err, "it is there")
		v.show()
		got, err := j.Load(journaltest.Positions(recs[3:]))
		require.NoError(t, err)
		require.Equal(t, journaltest.Positions(recs[3:]), journaltest.Positions(got))

		m.cut("ncs.inbox", 0, 2)
		v.hide("ncs.dead", 0)
		_, err = j.Load(journaltest.Positions(recs[:1]))
		require.Error(t, err, "its letter is there")
		v.show()
		got, err = j.Load(journaltest.Positions(recs[:2]))
		require.NoError(t, err)
		require.Equal(t, recs[0].ID, got[0].ID)
		require.Nil(t, got[1])
	})
}

// Kafka removes a record from a compacted topic when it has a newer one of the same key: perhaps while the topic is being read.
func TestAStateThatIsCompactedWhileItIsReadIsRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		j := mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 5, "a")
		journaltest.Drain(t, a, 1<<20)
		stop()

		opts := testOptions(t, m, 1)
		v := veil(&opts)
		var once sync.Once
		v.then = func(topic string) {
			if topic == "ncs.state" {
				once.Do(func() { m.rewrite(topic, 0, "sink/a/") })
			}
		}
		j = mustOpen(t, opts)
		stop = journaltest.Start(t, j)
		require.Equal(t, journaltest.Positions(recs), pendingAt(j, "a"))
		stop()
	})
}

// rewrite appends the newest record of each key with a prefix again, and removes it where it was.
func (m *memLogs) rewrite(topic string, partition int32, prefix string) {
	m.mu.Lock()
	l := m.log(topic, partition)
	newest := make(map[string]kafkalog.Record)
	for i, r := range l.recs {
		if strings.HasPrefix(string(r.Key), prefix) {
			newest[string(r.Key)] = r
			l.recs[i].Offset = removed
		}
	}
	m.mu.Unlock()
	for _, r := range newest {
		m.append(topic, partition, []kafkalog.Record{r})
	}
}

// How far events are known must not be stored before the states of the sinks that they name.
func TestASinkWhoseFirstStateDoesNotFitLosesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		l := &link{logs: m}
		opts := testOptions(t, l, 1)
		own := newTenure(0)
		opts.Ownership = own
		j := mustOpen(t, opts)
		end := run(t, j)
		time.Sleep(time.Second)
		_, err := j.Sink("a")
		require.NoError(t, err)
		m.refuse("ncs.dead", func([]kafkalog.Record) error { return errors.New("no leader") })
		s := j.shard(0)
		s.mu.Lock()
		s.core.largest = 300
		delete(s.core.cursors, cursorName{kindSink, "b"})
		j.mu.Lock()
		j.sinks["b"] = &sink{j: j, name: "b", appended: make(chan struct{}), open: true} // it was opened before the shard was taken
		j.mu.Unlock()
		s.mu.Unlock()
		require.NoError(t, s.saving.take(t.Context()))
		recs := journaltest.Fill(t, j, 0, 200, "b")
		shard := journaltest.Shard(t, j)
		d := j.sinks["b"].Owed(shard)
		require.Len(t, journaltest.Drain(t, d, 1<<20), 200)
		s.saving.giveBack()
		time.Sleep(3 * time.Minute) // those of all other sinks are written again
		l.mu.Lock()
		l.cut = errors.New("killed")
		l.mu.Unlock()
		_ = end()
		_ = j.Close()

		m.refuse("", nil)
		j = mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		b := journaltest.Sink(t, j, "b")
		got := append(journaltest.Pending(b), journaltest.Positions(journaltest.Drain(t, b, 1<<20))...)
		letters, err := j.DeadLetters("b", journal.Position{}, 1000)
		require.NoError(t, err)
		require.Equal(t, len(recs), len(got)+len(letters))
		stop()
	})
}

// Whatever is handed out while a broker does not answer would come again after a crash.
func TestShardWhoseStateHangsHandsOutNothing(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 30, "a")
		first, err := a.Next(1)
		require.NoError(t, err)
		time.Sleep(time.Second)
		letGo := l.hold()
		a.Settle(first[0].Position, journal.Delivered)
		time.Sleep(30 * time.Second)
		none, err := a.Next(1)
		require.NoError(t, err)
		require.Empty(t, none, "nothing could be stored for half a minute")
		letGo()
		time.Sleep(12 * time.Second)
		require.Equal(t, journaltest.Positions(recs[1:]), journaltest.Positions(journaltest.Drain(t, a, 1<<20)))
	})
}

// Who asks late for the deliveries of a shard that is being let go must not get them: the next owner will.
func TestNobodyGetsDeliveriesOfAShardThatIsLetGo(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, l *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		shard := journaltest.Shard(t, j)
		recs := journaltest.Fill(t, j, 0, 3, "a")
		journaltest.Drain(t, a, 1<<20)
		r, err := j.AddReplay(journal.ReplaySpec{Sink: "a"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		letGo := l.hold()
		a.Settle(recs[0].Position, journal.Delivered)
		a.End()
		own.set(true)
		time.Sleep(time.Second)
		require.Empty(t, journaltest.Pending(a.Sink.Owed(shard)))
		require.Equal(t, nothing{}, r.In(shard, func(*journal.Record) bool { return true }))
		letGo()
		time.Sleep(time.Second)
		require.EqualValues(t, 0, <-own.released)
	})
}

// A lease may be over for an instant, and who looks then must not wait for ever.
func TestALeaseThatWasOverForAnInstantStallsNothing(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, _ *link, _ *memLogs) {
		over := func(fn func()) {
			own.mu.Lock()
			own.leased = false
			own.mu.Unlock()
			fn()
			own.mu.Lock()
			own.leased = true
			own.mu.Unlock()
		}
		var changed <-chan struct{}
		over(func() {
			var held []*journal.Shard
			held, changed = j.Shards()
			require.Empty(t, held)
		})
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			require.Fail(t, "nobody says that there are shards again")
		}
		time.Sleep(2 * time.Second)
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 3, "a")
		_, changed = j.Shards()
		over(func() {
			none, err := a.Next(1)
			require.NoError(t, err)
			require.Empty(t, none)
		})
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			require.Fail(t, "nobody says that there is something again")
		}
		a.End()
		time.Sleep(2 * time.Second)
		held, _ := j.Shards()
		require.Len(t, held, 1)
	})
}

// What is broken off may land after what is written when the shard is let go.
func TestWhatASweepStoresIsNotBrokenOff(t *testing.T) {
	var own *tenure
	change := func(o *Options) { own = newTenure(0); o.Ownership = own; o.Retention = 4 * time.Hour }
	alone(t, change, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 5, "a")
		a.End()
		var once sync.Once
		letGo := make(chan func(), 1)
		m.refuse("ncs.dead", func([]kafkalog.Record) error { // the sweep has buried
			once.Do(func() { letGo <- l.hold() })
			return errors.New("no leader")
		})
		time.Sleep(2*time.Hour + 59*time.Minute)
		release := <-letGo
		time.Sleep(time.Second)
		own.set(true)
		time.Sleep(time.Second)
		release()
		m.refuse("", nil)
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 0, <-own.released)
		require.Zero(t, l.brokenOff.Load())
	})
}

// A letter is the settlement, also of a delivery that the next owner does not know to have been handed out.
func TestADeadLetterIsNotDeliveredByTheNextOwner(t *testing.T) {
	for _, handedOut := range []bool{false, true} {
		t.Run(fmt.Sprint(handedOut), func(t *testing.T) { deadAtTheNextOwner(t, handedOut) })
	}
}

// deadAtTheNextOwner kills an owner who has written a letter and nothing more; what it has handed out before is stored if stored is
// true.
func deadAtTheNextOwner(t *testing.T, stored bool) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		l := &link{logs: m}
		j := mustOpen(t, testOptions(t, l, 1))
		end := run(t, j)
		time.Sleep(time.Second)
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 5, "a")
		time.Sleep(time.Second)
		if stored {
			journaltest.Drain(t, a, 1<<20)
			time.Sleep(time.Second)
		}
		m.refuse("ncs.state", func([]kafkalog.Record) error { return errors.New("no leader") })
		journaltest.Drain(t, a, 1<<20)
		a.Bury(journal.DeadLetter{Position: recs[1].Position, Reason: "no"})
		time.Sleep(2 * time.Second)
		l.mu.Lock()
		l.cut = errors.New("killed")
		l.mu.Unlock()
		_ = end()
		_ = j.Close()
		m.refuse("", nil)
		require.Len(t, m.records("ncs.dead"), 1)

		for range 2 {
			j = mustOpen(t, testOptions(t, m, 1))
			stop := journaltest.Start(t, j)
			a = journaltest.Sink(t, j, "a")
			got := append(journaltest.Pending(a), journaltest.Positions(journaltest.Drain(t, a, 1<<20))...)
			require.Equal(t, []journal.Position{recs[0].Position, recs[2].Position, recs[3].Position, recs[4].Position}, got)
			require.Equal(t, journal.Totals{Owed: 5, Dead: 1, Pending: 4}, a.Totals())
			require.EqualValues(t, 1, journaltest.StatusOf(j, "a").Letters)
			stop()
		}
	})
}

// The events have a prefix that anybody with the right to write may try a producer with.
func TestARecordThatSomebodyElseHasWrittenToTheEventsIsPassed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		j := mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 2, "a")
		m.append("ncs.events", 0, []kafkalog.Record{{Value: []byte("test")}, {Key: []byte("k")}})
		recs = append(recs, journaltest.Fill(t, j, 2, 2, "a")...)
		forgetful(j)
		require.Equal(t, journaltest.Positions(recs), journaltest.Positions(journaltest.Drain(t, a, 1)))
		seen := 0
		require.NoError(t, j.Scan(t.Context(), func(*journal.Record) bool { return true }, func(*journal.Record) bool { seen++; return true }))
		require.Equal(t, 4, seen)
		m.append("ncs.events", 0, []kafkalog.Record{{Value: []byte("test")}})
		stop()
		j = mustOpen(t, testOptions(t, m, 1))
		stop = journaltest.Start(t, j)
		a = journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 5, "a")
		require.EqualValues(t, 5, a.Totals().Owed)
		stop()
	})
}

// What was read shares the memory of a whole answer of a broker: whatever is kept of it must not.
func TestRecordsOwnTheirMemory(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a, b := journaltest.Sink(t, j, "a"), journaltest.Sink(t, j, "b")
		want := journaltest.Fill(t, j, 0, 3, "a", "b")
		fromRing := journaltest.Drain(t, a, 1)
		forgetful(j)
		fromEvents := journaltest.Drain(t, b, 1)
		loaded, err := j.Load(journaltest.Positions(want))
		require.NoError(t, err)
		a.Bury(journal.DeadLetter{Position: want[0].Position, Reason: "no"})
		require.NoError(t, j.Flush())
		s := j.shard(0)
		require.NoError(t, s.readDead(t.Context(), 0)) // as a take-over does
		m.mu.Lock()
		for _, l := range m.logs {
			for _, r := range l.recs {
				clear(r.Key)
				clear(r.Value)
			}
		}
		m.mu.Unlock()
		for _, got := range [][]*journal.Record{fromRing, fromEvents, loaded} {
			require.Equal(t, want[0].Body, got[0].Body)
		}
		require.Contains(t, string(s.letters["a"].list[0].key), "a/1/")
	})
}

// A replay that covers less than it says it does would be believed.
func TestAReplayWhoseEndIsNotKnownIsRefused(t *testing.T) {
	var v *veiled
	alone(t, func(o *Options) { v = veil(o) }, func(j *Journal, _ *link, m *memLogs) {
		journaltest.Sink(t, j, "a")
		m.append("ncs.inbox", 0, []kafkalog.Record{encodeRecord(journaltest.Record(0, "a"))}) // by another replica
		time.Sleep(time.Second)
		v.mu.Lock()
		v.fail["ncs.inbox"] = errors.New("no leader")
		v.mu.Unlock()
		_, err := j.AddReplay(journal.ReplaySpec{Sink: "a"})
		require.ErrorContains(t, err, "no leader")
		_, err = j.CountReplay(t.Context(), journal.ReplaySpec{Sink: "a"}, func(*journal.Record) bool { return true })
		require.ErrorContains(t, err, "no leader")
		v.show()
	})
}

// The end of the events may be told too early after the leader has changed.
func TestARowThatCannotBeSeenYetIsDeliveredSoon(t *testing.T) {
	var v *veiled
	alone(t, func(o *Options) { v = veil(o) }, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 1, "a")
		m.append("ncs.events", 0, []kafkalog.Record{m.records("ncs.events")[0]}) // a former owner's
		v.hide("ncs.events", 1)
		_, err := journaltest.Append(j, journaltest.Record(1, "a"))
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		v.show()
		time.Sleep(5 * time.Second)
		require.EqualValues(t, 2, a.Totals().Owed)
	})
}

func TestNoMoreIsGivenUpThanHasToBe(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 200, "a")
		m.refuse("ncs.dead", func([]kafkalog.Record) error { return errors.New("no leader") })
		s := j.shard(0)
		s.mu.Lock()
		s.core.largest = 500
		s.mu.Unlock()
		journaltest.Drain(t, a, 1<<20)
		time.Sleep(30 * time.Second)
		require.LessOrEqual(t, a.Totals().Dead, uint64(100), "half of it is enough")
		m.refuse("", nil)
	})
}

// A record without a value removes a letter.
func TestAnEmptyBodyHasADeadLetter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		j := mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		a := journaltest.Sink(t, j, "a")
		r := journaltest.Record(1, "a")
		r.Body = []byte{}
		pos, err := journaltest.Append(j, r)
		require.NoError(t, err)
		journaltest.Drain(t, a, 1)
		a.Bury(journal.DeadLetter{Position: pos, Reason: "no"})
		require.NoError(t, j.Flush())
		stop()
		j = mustOpen(t, testOptions(t, m, 1))
		stop = journaltest.Start(t, j)
		letters, err := j.DeadLetters("a", journal.Position{}, 10)
		require.NoError(t, err)
		require.Len(t, letters, 1)
		require.Empty(t, journaltest.Pending(journaltest.Sink(t, j, "a")))
		stop()
	})
}

// The topic of states has Kafka's own bound, however large bodies may be.
func TestStatesAreWrittenInPiecesThatTheirTopicTakes(t *testing.T) {
	alone(t, func(o *Options) { o.MaxRecord = 16 << 20 }, func(j *Journal, _ *link, m *memLogs) {
		m.refuse("ncs.state", func(recs []kafkalog.Record) error {
			size := 0
			for _, r := range recs {
				size += len(r.Key) + len(r.Value)
			}
			if size > 1<<20 {
				return &kafkalog.Refused{Record: -1, Err: errors.New("message too large")}
			}
			return nil
		})
		sinks := []string{"a", "b", "c"}
		for _, name := range sinks {
			journaltest.Sink(t, j, name)
		}
		journaltest.Fill(t, j, 0, 450, sinks...)
		for _, name := range sinks {
			k := journaltest.Sink(t, j, name)
			for _, r := range journaltest.Drain(t, k, 1<<20) {
				k.Failed(r.Position, journal.Retry{Attempts: 1, LastError: strings.Repeat("x", 1000)})
			}
		}
		require.NoError(t, j.Flush())
	})
}

// Kafka does not say which record of a batch is too large.
func TestLettersThatAreTooLargeTogetherAreKeptWhole(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 20, "a")
		m.refuse("ncs.dead", func(recs []kafkalog.Record) error {
			size := 0
			for _, r := range recs {
				size += len(r.Key) + len(r.Value)
			}
			if size > 500 {
				return &kafkalog.Refused{Record: -1, Err: errors.New("message too large")}
			}
			return nil
		})
		for _, r := range journaltest.Drain(t, a, 1<<20) {
			a.Bury(journal.DeadLetter{Position: r.Position, Reason: "no", Retry: journal.Retry{Attempts: 2}})
		}
		require.NoError(t, j.Flush())
		letters, err := j.DeadLetters("a", journal.Position{}, 100)
		require.NoError(t, err)
		require.Len(t, letters, 20)
		m.cut("ncs.inbox", 0, 20)
		forgetful(j)
		got, err := j.Load(journaltest.Positions(recs))
		require.NoError(t, err)
		for i, l := range letters {
			require.Equal(t, 2, l.Retry.Attempts)
			require.Equal(t, recs[i].Body, got[i].Body)
		}
	})
}

// A log that has lost its end gives offsets a second time: what is written there would be passed as known.
func TestALogThatLosesItsEndStopsTheShard(t *testing.T) {
	for topic, want := range map[string]error{"ncs.inbox": errForeignInbox, "ncs.events": errToBeConfirmed} {
		t.Run(topic, func(t *testing.T) {
			alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
				journaltest.Sink(t, j, "a")
				journaltest.Fill(t, j, 0, 5, "a")
				time.Sleep(time.Second)
				m.mu.Lock()
				l := m.log(topic, 0)
				l.recs = l.recs[:2]
				m.mu.Unlock()
				time.Sleep(3 * time.Second)
				for n := range 6 {
					_, _ = journaltest.Append(j, journaltest.Record(10+n, "a"))
				}
				time.Sleep(3 * time.Second)
				require.ErrorIs(t, j.Ready(), want)
			})
		})
	}
}

func pendingAt(j *Journal, sink string) (positions []journal.Position) {
	for _, p := range j.Pending(sink) {
		positions = append(positions, p.Position)
	}
	return positions
}

// A row is written again until it is there: its ids are known, and nobody would write it later.
func TestARowThatFailsIsWrittenAgain(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		m.refuse("ncs.events", func([]kafkalog.Record) error { return errors.New("no leader") })
		for n := range 3 {
			_, err := journaltest.Append(j, journaltest.Record(n, "a"))
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Len(t, m.records("ncs.events"), 0)
		m.refuse("", nil)
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 3, a.Totals().Owed)
	})
}

// The ids of a row that was given up with its shard are not known any more when the same process takes the shard again.
func TestARowThatWasGivenUpIsJudgedAgainByTheSameProcess(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, _ *link, m *memLogs) {
		journaltest.Sink(t, j, "a").End()
		m.refuse("ncs.events", func([]kafkalog.Record) error { return errors.New("no leader") })
		_, err := journaltest.Append(j, journaltest.Record(0, "a"))
		require.NoError(t, err)
		time.Sleep(time.Second)
		own.set(true)
		require.EqualValues(t, 0, <-own.released)
		m.refuse("", nil)
		own.set(true, 0)
		time.Sleep(2 * time.Second)
		require.EqualValues(t, 1, journaltest.StatusOf(j, "a").Totals.Owed)
	})
}

// Without a lease another owner may be sending what is pending.
func TestNothingIsLoadedWithoutALease(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, _ *link, _ *memLogs) {
		recs := journaltest.Fill(t, j, 0, 1)
		own.set(false, 0)
		_, err := j.Load(journaltest.Positions(recs))
		require.ErrorContains(t, err, "at the moment")
		own.set(true, 0)
	})
}

// repeated lets n large events be written by two owners, one after the other.
func repeated(t *testing.T, j *Journal, m *memLogs, n int, sinks ...string) (recs []*journal.Record) {
	for i := range n {
		r := journaltest.Record(i, sinks...)
		r.Body = make([]byte, 40_000)
		pos, err := journaltest.Append(j, r)
		require.NoError(t, err)
		r.Position = pos
		recs = append(recs, r)
	}
	time.Sleep(time.Second)
	m.append("ncs.events", 0, m.records("ncs.events"))
	return append(recs, journaltest.Fill(t, j, n, 3, sinks...)...)
}

// Rule E holds for whoever reads the events: who is behind, replays, those who look something up, and the sweep.
func TestRepetitionsArePassedByAllWhoReadTheEvents(t *testing.T) {
	alone(t, func(o *Options) { o.Retention = 4 * time.Hour }, func(j *Journal, _ *link, m *memLogs) {
		a, b := journaltest.Sink(t, j, "a"), journaltest.Sink(t, j, "b")
		recs := repeated(t, j, m, 10, "a", "b")
		forgetful(j)
		require.Equal(t, journaltest.Positions(recs), journaltest.Positions(journaltest.Drain(t, a, 1)))
		for _, r := range recs {
			a.Settle(r.Position, journal.Delivered)
		}

		r, err := j.AddReplay(journal.ReplaySpec{Sink: "a"})
		require.NoError(t, err)
		again := r.In(journaltest.Shard(t, j), func(*journal.Record) bool { return true })
		var got []*journal.Record
		for range 50 {
			next, err := again.Next(1)
			require.NoError(t, err)
			got = append(got, next...)
			time.Sleep(10 * time.Millisecond)
		}
		require.Equal(t, journaltest.Positions(recs), journaltest.Positions(got))

		seen := 0
		require.NoError(t, j.Scan(t.Context(), func(*journal.Record) bool { return true }, func(*journal.Record) bool { seen++; return true }))
		require.Equal(t, len(recs), seen)
		b.End()
		time.Sleep(3*time.Hour + 5*time.Minute)
		require.Equal(t, journal.Totals{Owed: 13, Dead: 13}, b.Totals())
		require.EqualValues(t, 13, journaltest.StatusOf(j, "b").Letters)
		again.End()
	})
}

// A replay that waits for what is to be judged ends, too, when that is gone.
func TestAReplayOfWhatIsGoneEnds(t *testing.T) {
	var v *veiled
	alone(t, func(o *Options) { v = veil(o) }, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		gate := make(chan struct{})
		v.mu.Lock()
		v.then = func(topic string) {
			if topic == "ncs.inbox" {
				<-gate
			}
		}
		v.mu.Unlock()
		time.Sleep(2 * time.Second)
		m.append("ncs.inbox", 0, []kafkalog.Record{encodeRecord(journaltest.Record(0, "a"))})
		m.cut("ncs.inbox", 0, 1)
		r, err := j.AddReplay(journal.ReplaySpec{Sink: "a"})
		require.NoError(t, err)
		again := r.In(journaltest.Shard(t, j), func(*journal.Record) bool { return true })
		time.Sleep(2 * time.Second)
		appended := a.Appended()
		none, err := again.Next(1)
		require.NoError(t, err)
		require.Empty(t, none)
		close(gate)
		select {
		case <-appended:
		case <-time.After(10 * time.Second):
			require.Fail(t, "nobody says so")
		}
		none, err = again.Next(1)
		require.NoError(t, err)
		require.Empty(t, none)
		require.True(t, r.Finished())
		again.End()
	})
}

// What another owner has written is handed out when it was counted, or the accounts of the sink would be wrong for good.
func TestEventsThatWereNotCountedAreNotHandedOut(t *testing.T) {
	var v *veiled
	alone(t, func(o *Options) { v = veil(o) }, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 3, "a")
		forgetful(j)
		v.hide("ncs.inbox", 3)
		time.Sleep(2 * time.Second)
		rec := encodeRecord(journaltest.Record(3, "a"))
		m.append("ncs.inbox", 0, []kafkalog.Record{rec})
		rec.Offset = 3
		e, err := decodeInbox(0, &rec)
		require.NoError(t, err)
		m.append("ncs.events", 0, []kafkalog.Record{eventOf(&rec, e)})
		require.Equal(t, journaltest.Positions(recs), journaltest.Positions(journaltest.Drain(t, a, 1<<20)))
		v.show()
		time.Sleep(2 * time.Second)
		require.Len(t, journaltest.Drain(t, a, 1<<20), 1)
		require.Equal(t, journal.Totals{Owed: 4, Pending: 4}, a.Totals())
	})
}

// Of the compacted topics a stray record cannot even be removed: its tombstone would stay for a month.
func TestRecordsThatSomebodyElseHasWrittenAreLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		j := mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 2, "a")
		for _, key := range []string{"test", "a/b/c", "sink/a/x", "judge/1/2/3"} {
			for _, value := range [][]byte{[]byte("x"), nil} {
				for _, topic := range []string{"ncs.state", "ncs.dead", "ncs.control"} {
					m.append(topic, 0, []kafkalog.Record{{Key: []byte(key), Value: value}})
				}
			}
		}
		for _, text := range []string{"x", "-5", "99999999999999999999"} {
			m.append("ncs.events", 0, []kafkalog.Record{{Value: []byte("x"), Headers: []kafkalog.Header{{Key: headerInbox, Value: []byte(text)}}}})
		}
		recs = append(recs, journaltest.Fill(t, j, 2, 2, "a")...)
		require.Len(t, journaltest.Drain(t, a, 1<<20), 4)
		a.Bury(journal.DeadLetter{Position: recs[0].Position, Reason: "no", At: time.Now()})
		require.NoError(t, j.Flush())
		stop()
		j = mustOpen(t, testOptions(t, m, 1))
		stop = journaltest.Start(t, j)
		a = journaltest.Sink(t, j, "a")
		require.Equal(t, journaltest.Positions(recs[1:]), journaltest.Pending(a))
		time.Sleep(15 * time.Minute)
		left := newLegacy()
		require.NoError(t, left.add(m.records("ncs.state")))
		require.Len(t, left.judges, 1, "those of former owners are removed all the same")
		stop()
	})
}

// A letter that is kept without its body cannot be delivered: an event without one is none.
func TestALetterWithoutItsBodyIsNotReplayed(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 3, "a")
		m.refuse("ncs.dead", func(recs []kafkalog.Record) error {
			for _, r := range recs {
				if strings.HasPrefix(string(r.Key), "a/2/") && len(r.Value) > 0 {
					return &kafkalog.Refused{Record: -1, Err: errors.New("message too large")}
				}
			}
			return nil
		})
		for _, r := range journaltest.Drain(t, a, 1<<20) {
			a.Bury(journal.DeadLetter{Position: r.Position, Reason: "no", At: time.Now()})
		}
		require.NoError(t, j.Flush())
		m.cut("ncs.inbox", 0, 3)
		m.cut("ncs.events", 0, 3)
		forgetful(j)
		for _, spec := range []journal.ReplaySpec{{Sink: "a", DeadLetters: true}, {Sink: "a"}} {
			n, err := j.CountReplay(t.Context(), spec, func(*journal.Record) bool { return true })
			require.NoError(t, err)
			require.Equal(t, 2, n)
			r, err := j.AddReplay(spec)
			require.NoError(t, err)
			again := r.In(journaltest.Shard(t, j), func(*journal.Record) bool { return true })
			var got []*journal.Record
			for range 20 {
				next, err := again.Next(1)
				require.NoError(t, err)
				got = append(got, next...)
				time.Sleep(10 * time.Millisecond)
			}
			require.Equal(t, []journal.Position{recs[0].Position, recs[2].Position}, journaltest.Positions(got), "%+v", spec)
			for _, r := range got {
				again.Settle(r.Position, journal.Skipped)
			}
			require.True(t, r.Finished())
			again.End()
		}
		require.EqualValues(t, 3, journaltest.StatusOf(j, "a").Letters)
	})
}

// Whether something is owed for too long is asked all the time, and the inbox is as long as a week.
func TestASweepReadsNoMoreThanItHasTo(t *testing.T) {
	var v *veiled
	alone(t, func(o *Options) { v = veil(o); o.Retention = 4 * time.Hour }, func(j *Journal, _ *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		old := journaltest.Fill(t, j, 0, 200, "a")
		journaltest.Drain(t, a, 1<<20)
		for _, r := range old {
			a.Settle(r.Position, journal.Delivered)
		}
		time.Sleep(4 * time.Hour)
		journaltest.Fill(t, j, 200, 5, "a")
		journaltest.Drain(t, a, 1<<20)
		var mu sync.Mutex
		reads := 0
		v.mu.Lock()
		v.then = func(topic string) {
			mu.Lock()
			defer mu.Unlock()
			if topic == "ncs.inbox" {
				reads++
			}
		}
		v.mu.Unlock()
		time.Sleep(5 * time.Minute) // ten sweeps; the judge reads each second
		mu.Lock()
		require.LessOrEqual(t, reads, 300+20)
		mu.Unlock()
		require.EqualValues(t, 5, a.Totals().Pending)
	})
}

// An owner that is none any more may still write: what it says is kept for the next to merge.
func TestALateRecordOfAFormerOwnerIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		late := stateKey{kindSink, "a", life{9}}
		for range 2 {
			j := mustOpen(t, testOptions(t, m, 1))
			stop := journaltest.Start(t, j)
			journaltest.Sink(t, j, "a")
			require.NoError(t, j.Flush())
			if len(m.records("ncs.inbox")) == 0 { // the former owner
				journaltest.Fill(t, j, 0, 2, "a")
				stop()
				continue
			}
			stored, err := newestState(m, "a")
			require.NoError(t, err)
			m.append("ncs.state", 0, []kafkalog.Record{{Key: late.encode(), Value: stored.encode()}})
			time.Sleep(30 * time.Minute)
			left := newLegacy()
			require.NoError(t, left.add(m.records("ncs.state")))
			require.Len(t, left.cursors[cursorName{kindSink, "a"}], 2)
			require.Contains(t, left.cursors[cursorName{kindSink, "a"}], late.life)
			stop()
		}
	})
}

// A shard with events and without a state would be nobody's for good.
func TestNothingIsJudgedBeforeTheOwnerHasAState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		m.refuse("ncs.state", func([]kafkalog.Record) error { return errors.New("no leader") })
		m.append("ncs.inbox", 0, []kafkalog.Record{encodeRecord(journaltest.Record(0, "a"))})
		j := mustOpen(t, testOptions(t, m, 1))
		end := run(t, j)
		time.Sleep(5 * time.Second)
		held, _ := j.Shards()
		require.Empty(t, held)
		require.Empty(t, m.records("ncs.events"))
		m.refuse("", nil)
		time.Sleep(2 * time.Second)
		require.Len(t, m.records("ncs.events"), 1)
		require.NoError(t, end())
		require.NoError(t, j.Close())
	})
}

// slow are logs of brokers whose clock is behind.
type slow struct {
	logs
	by time.Duration
}

func (s slow) read(ctx context.Context, topic string, partition int32, offset int64, maxBytes int, wait time.Duration) (kafkalog.Chunk, error) {
	chunk, err := s.logs.read(ctx, topic, partition, offset, maxBytes, wait)
	for i := range chunk.Records {
		chunk.Records[i].Time = chunk.Records[i].Time.Add(-s.by)
	}
	return chunk, err
}

// Only what is old goes, by the brokers' clock: topics drop their records by that.
func TestWhatIsYoungIsNotGivenUp(t *testing.T) {
	change := func(o *Options) { o.Retention = 4 * time.Hour; o.logs = slow{o.logs, 2 * time.Hour} }
	alone(t, change, func(j *Journal, _ *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 1, "a")
		time.Sleep(10 * time.Minute)
		journaltest.Fill(t, j, 1, 1, "a")
		require.Len(t, journaltest.Drain(t, a, 1), 2)
		time.Sleep(2*time.Hour + 45*time.Minute)
		require.Equal(t, journal.Totals{Owed: 2, Pending: 2}, a.Totals())
		time.Sleep(10 * time.Minute)
		require.Equal(t, journal.Totals{Owed: 2, Dead: 1, Pending: 1}, a.Totals())
	})
}

// A replay has not ended while a letter that it has delivered is there: without a lease it stays.
func TestAReplayEndsAfterItsLetters(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, _ *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 1, "a")
		journaltest.Drain(t, a, 1)
		a.Bury(journal.DeadLetter{Position: recs[0].Position, Reason: "no", At: time.Now()})
		require.NoError(t, j.Flush())
		r, err := j.AddReplay(journal.ReplaySpec{Sink: "a", DeadLetters: true})
		require.NoError(t, err)
		again := r.In(journaltest.Shard(t, j), func(*journal.Record) bool { return true })
		var got []*journal.Record
		for len(got) == 0 {
			time.Sleep(10 * time.Millisecond)
			got, err = again.Next(1)
			require.NoError(t, err)
		}
		done := func() bool {
			_, done := j.control.replay(r.ID()).doneIn(0)
			return done
		}
		own.set(false, 0)
		again.Settle(got[0].Position, journal.Delivered)
		require.NoError(t, j.Flush())
		time.Sleep(2 * time.Second)
		require.False(t, done(), "the next owner would not remove it")
		own.set(true, 0)
		again.End()
		a.End()
		time.Sleep(5 * time.Second)
		again = r.In(journaltest.Shard(t, j), func(*journal.Record) bool { return true })
		require.Len(t, again.Pending(), 1)
		again.Settle(got[0].Position, journal.Delivered)
		time.Sleep(5 * time.Second)
		require.True(t, done())
		require.Zero(t, journaltest.StatusOf(j, "a").Letters)
		again.End()
	})
}

// A copy that comes after the window is an event of its own.
func TestTheJudgeKnowsCopiesWithinTheWindow(t *testing.T) {
	alone(t, nil, func(j *Journal, _ *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		j.KeepKeys(100, time.Hour)
		r := journaltest.Record(0, "a")
		for owed, later := range []time.Duration{0, time.Hour, 2 * time.Hour} {
			late := *r
			late.Time = r.Time.Add(later)
			_, err := journaltest.Append(j, &late)
			require.NoError(t, err)
			time.Sleep(time.Second)
			require.EqualValues(t, max(1, owed), a.Totals().Owed, later)
		}
	})
}

// Though it has more events than its share of the ids, of which other shards need none.
func TestTheNextOwnerOfAHotShardKnowsItsLastHalfHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		owed := func(recs int, copies ...int) uint64 {
			opts := testOptions(t, m, 4)
			j := mustOpen(t, opts)
			j.KeepKeys(100, 24*time.Hour)
			defer journaltest.Start(t, j)()
			a := journaltest.Sink(t, j, "a")
			synctest.Wait()
			for i := range recs {
				copies = append(copies, i)
			}
			for _, i := range copies {
				r := journaltest.Record(i, "a")
				r.Entity = "hot"
				_, err := journaltest.Append(j, r)
				require.NoError(t, err)
			}
			time.Sleep(time.Second)
			return a.Totals().Owed
		}
		require.EqualValues(t, 60, owed(60))
		require.EqualValues(t, 60, owed(0, 5), "a copy is known after a take-over")
		time.Sleep(time.Hour)
		require.EqualValues(t, 60, owed(0, 50), "its share is known whenever it was")
		require.EqualValues(t, 61, owed(0, 5), "more than that is not read back for what came long ago")
	})
}

// One object for each ownership: the former one ends first.
func TestAShardIsNotTakenAgainBeforeItWasLetGo(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, _ *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		first := journaltest.Shard(t, j)
		own.set(false, 0)
		time.Sleep(time.Second)
		own.set(true, 0)
		time.Sleep(5 * time.Second)
		held, _ := j.Shards()
		require.Empty(t, held, "something may be in flight")
		a.End()
		time.Sleep(2 * time.Second)
		require.NotSame(t, first, journaltest.Shard(t, j))
		require.EqualValues(t, 2, j.SharedStats().TakeOvers)
	})
}

// Its owner stops when it has written to events that were made again. The next one must not take them for those of its state, which
// speaks of what nobody would be delivered then; nor because a sink that is owed nothing has seen none of the former ones.
func TestNobodyTakesOverEventsThatWereMadeAgain(t *testing.T) {
	for _, known := range []int{1, 3, 8} {
		for _, later := range []int{1, 4} {
			t.Run(fmt.Sprint(known, " and ", later), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newMemLogs()
					j := mustOpen(t, testOptions(t, m, 1))
					end := run(t, j)
					synctest.Wait()
					journaltest.Sink(t, j, "quiet").End()
					a := journaltest.Sink(t, j, "a")
					journaltest.Fill(t, j, 0, known, "a")
					journaltest.Drain(t, a, 1)
					require.NoError(t, j.Flush())
					m.mu.Lock()
					delete(m.logs, "ncs.events/0")
					m.mu.Unlock()
					for n := range later {
						_ = j.Append(t.Context(), journaltest.Record(known+n, "a"), func(journal.Position, error) {})
					}
					time.Sleep(time.Second)
					require.ErrorIs(t, j.Ready(), errToBeConfirmed)
					a.End()
					_ = end()
					_ = j.Close()
					require.NotEmpty(t, m.records("ncs.events"))

					j = mustOpen(t, testOptions(t, m, 1))
					end = run(t, j)
					time.Sleep(5 * time.Second)
					held, _ := j.Shards()
					require.Empty(t, held)
					require.ErrorIs(t, j.Ready(), errToBeConfirmed)
					_ = end()
					require.NoError(t, j.Close())
				})
			})
		}
	}
}

// What an owner writes next to a topic that was made again stands before what it knows to be there.
func TestATopicThatIsMadeAgainUnderItsOwnerStopsItAtOnce(t *testing.T) {
	for topic, want := range map[string]error{"ncs.inbox": errForeignInbox, "ncs.state": errToBeConfirmed, "ncs.dead": errToBeConfirmed} {
		t.Run(topic, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemLogs()
				j := mustOpen(t, testOptions(t, m, 1))
				end := run(t, j)
				defer func() {
					_ = end()
					_ = j.Close() // which says again what could not be stored
				}()
				synctest.Wait()
				a := journaltest.Sink(t, j, "a")
				journaltest.Fill(t, j, 0, 3, "a")
				recs := journaltest.Drain(t, a, 1)
				a.Bury(journal.DeadLetter{Position: recs[0].Position, Reason: "no"})
				require.NoError(t, j.Flush())
				require.NoError(t, j.Ready())
				m.mu.Lock()
				delete(m.logs, topic+"/0")
				m.mu.Unlock()
				if topic == "ncs.inbox" {
					_, err := journaltest.Append(j, journaltest.Record(10, "a"))
					require.ErrorIs(t, err, want)
				} else {
					a.Bury(journal.DeadLetter{Position: recs[1].Position, Reason: "no"})
					require.ErrorIs(t, j.Flush(), want)
				}
				require.ErrorIs(t, j.Ready(), want)
			})
		})
	}
}
