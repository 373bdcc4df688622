package kafkajournal

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// alone runs test with a journal of one shard, on logs in memory and with fake time.
func alone(t *testing.T, change func(*Options), test func(j *Journal, l *link, m *memLogs)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		l := &link{logs: m}
		opts := testOptions(t, l, 1)
		if change != nil {
			change(&opts)
		}
		j := mustOpen(t, opts)
		stop := journaltest.Start(t, j)
		test(j, l, m)
		stop()
		l.late.Wait()
	})
}

// run runs a journal, whether it gets a shard or not, and returns what ends that and says how.
func run(t *testing.T, j *Journal) (end func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func (l *link) hold() (letGo func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := make(chan struct{})
	l.held = held
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.held = nil
		close(held)
	}
}

func TestAppendIsTriedForSevenSeconds(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, m *memLogs) {
		letGo := l.hold()
		began := time.Now()
		done := make(chan error, 1)
		require.NoError(t, j.Append(t.Context(), journaltest.Record(1), func(_ journal.Position, err error) { done <- err }))
		require.Error(t, <-done)
		require.InDelta(t, 7, time.Since(began).Seconds(), 0.5)
		require.ErrorContains(t, j.Ready(), "ncs.inbox")
		letGo()
		time.Sleep(3 * time.Second)
		require.NoError(t, j.Ready(), "without an append, too")
		journaltest.Fill(t, j, 2, 1)
		require.Equal(t, offset(2), j.shard(0).core.judged, "what was under way has landed, and is judged")
	})
}

func TestShardWhoseStateCannotBeStoredHandsOutNothing(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 30, "a")
		first, err := a.Next(1)
		require.NoError(t, err)
		time.Sleep(time.Second)
		m.refuse("ncs.state", func([]kafkalog.Record) error { return errors.New("no") })
		a.Settle(first[0].Position, journal.Delivered)
		time.Sleep(9 * time.Second)
		more, err := a.Next(1)
		require.NoError(t, err)
		require.Len(t, more, 1)
		time.Sleep(2 * time.Second)
		none, err := a.Next(1)
		require.NoError(t, err)
		require.Empty(t, none, "whatever is delivered now would be delivered again")
		appended := a.Appended()
		m.setBefore(nil)
		<-appended
		require.Equal(t, journaltest.Positions(recs[2:]), journaltest.Positions(journaltest.Drain(t, a, 1<<20)))
	})
}

func TestWhatIsOwedBecomesADeadLetterBeforeRetentionEndsIt(t *testing.T) {
	alone(t, func(o *Options) { o.Retention = 4 * time.Hour }, func(j *Journal, l *link, m *memLogs) {
		a, b := journaltest.Sink(t, j, "a"), journaltest.Sink(t, j, "b")
		b.Release()
		old := journaltest.Fill(t, j, 0, 20, "a", "b")
		handed, err := a.Next(1)
		require.NoError(t, err)
		require.NotEmpty(t, handed)
		time.Sleep(2*time.Hour + 50*time.Minute)
		young := journaltest.Fill(t, j, 20, 5, "a", "b")
		time.Sleep(5 * time.Minute)
		require.Zero(t, journaltest.StatusOf(j, "a").Letters)
		time.Sleep(10 * time.Minute)
		for _, name := range []string{"a", "b"} {
			letters, err := j.DeadLetters(name, journal.Position{}, 100)
			require.NoError(t, err)
			require.Len(t, letters, len(old), name)
			require.Equal(t, causeRetention, letters[0].Cause)
			require.EqualValues(t, len(young), journaltest.StatusOf(j, name).Totals.Pending)
		}
		m.cut("ncs.inbox", 0, 20)
		m.cut("ncs.events", 0, 20)
		recs, err := j.Load(journaltest.Positions(old))
		require.NoError(t, err)
		require.Equal(t, old[3].Body, recs[3].Body, "letters have the bodies")
		require.Equal(t, journaltest.Positions(young), journaltest.Positions(journaltest.Drain(t, a, 1)))
	})
}

func TestDeadLettersHaveLimits(t *testing.T) {
	change := func(o *Options) { o.Dead = journal.DeadConfig{Retention: time.Hour, MaxSize: 4000} }
	alone(t, change, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 30, "a")
		for _, r := range journaltest.Drain(t, a, 1<<20) {
			a.Bury(journal.DeadLetter{Position: r.Position, At: time.Now()})
		}
		time.Sleep(time.Minute)
		status := journaltest.StatusOf(j, "a")
		require.Less(t, status.Letters, uint64(16))
		require.EqualValues(t, 30, status.Letters+status.LettersLost)
		letters, err := j.DeadLetters("a", journal.Position{}, 100)
		require.NoError(t, err)
		require.Equal(t, recs[29].Position, letters[len(letters)-1].Position, "the oldest go")
		time.Sleep(2 * time.Hour)
		require.Zero(t, journaltest.StatusOf(j, "a").Letters)
		require.EqualValues(t, 30, journaltest.StatusOf(j, "a").Totals.Dead)
	})
}

func TestMorePendingThanOneRecordHoldsBecomesDeadLetters(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 200, "a")
		s := j.shard(0)
		s.mu.Lock()
		s.core.largest = 500
		s.mu.Unlock()
		for _, r := range journaltest.Drain(t, a, 1<<20) {
			a.Failed(r.Position, journal.Retry{Attempts: 1, LastError: strings.Repeat("x", 1000)})
		}
		time.Sleep(5 * time.Second)
		letters, err := j.DeadLetters("a", journal.Position{}, 1000)
		require.NoError(t, err)
		require.NotEmpty(t, letters)
		require.Equal(t, causeBacklog, letters[0].Cause)
		require.Equal(t, recs[0].Position, letters[0].Position, "the oldest")
		require.Equal(t, journal.Totals{Owed: 200, Dead: uint64(len(letters)), Pending: 200 - uint64(len(letters))}, a.Totals())
		again, err := newestState(m, "a")
		require.NoError(t, err)
		require.Len(t, again.pending, 200-len(letters))
		require.Empty(t, again.pending[0].Retry.LastError, "the texts go first")
	})
}

// refuse lets appends to a topic fail.
func (m *memLogs) refuse(topic string, why func(recs []kafkalog.Record) error) {
	m.setBefore(func(to string, recs []kafkalog.Record) error {
		if to == topic {
			return why(recs)
		}
		return nil
	})
}

func TestALetterThatIsTooLargeGoesWithoutItsHistoryThenWithoutItsBody(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 250, "a")
		m.refuse("ncs.dead", func(recs []kafkalog.Record) error {
			for i, r := range recs {
				size := len(r.Value)
				for _, h := range r.Headers {
					size += len(h.Value)
				}
				if size > 700 {
					return &kafkalog.Refused{Record: i, Err: errors.New("too large")}
				}
			}
			return nil
		})
		all := journaltest.Drain(t, a, 1<<20)
		for _, n := range []int{5, 6, 220} {
			retry := journal.Retry{Attempts: 3}
			if n > 5 {
				retry.LastError = strings.Repeat("x", 1000)
			}
			if n == 220 {
				all[n].Body = nil // ours
			}
			a.Bury(journal.DeadLetter{Position: all[n].Position, Reason: "no", Retry: retry})
		}
		require.NoError(t, j.Flush())
		letters, err := j.DeadLetters("a", journal.Position{}, 9)
		require.NoError(t, err)
		require.Len(t, letters, 3)
		require.Equal(t, 3, letters[0].Retry.Attempts, "it fits")
		require.Zero(t, letters[1].Retry, "its history does not")
		require.EqualValues(t, 3, a.Totals().Dead)
		m.cut("ncs.inbox", 0, 250)
		m.cut("ncs.events", 0, 250)
		j.shard(0).mu.Lock()
		j.shard(0).ring = ring{from: 250, max: 1}
		j.shard(0).mu.Unlock()
		loaded, err := j.Load(journaltest.Positions([]*journal.Record{recs[5], recs[6], recs[7]}))
		require.NoError(t, err)
		require.Equal(t, recs[5].Body, loaded[0].Body)
		require.Equal(t, recs[6].Body, loaded[1].Body)
		require.Nil(t, loaded[2], "gone, and no dead letter")
		seen := 0
		require.NoError(t, j.Scan(t.Context(), func(*journal.Record) bool { return true }, func(*journal.Record) bool { seen++; return true }))
		require.Equal(t, 3, seen, "dead letters are all that is left")
	})
}

func TestALetterThatCannotBeWrittenHoldsNothingElseUp(t *testing.T) {
	alone(t, nil, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 10, "a")
		m.refuse("ncs.dead", func([]kafkalog.Record) error { return errors.New("no") })
		all := journaltest.Drain(t, a, 1<<20)
		a.Bury(journal.DeadLetter{Position: all[0].Position, Reason: "no"})
		a.Settle(all[1].Position, journal.Delivered)
		time.Sleep(20 * time.Second)
		stored, err := newestState(m, "a")
		require.NoError(t, err)
		require.Len(t, stored.pending, 9, "the other is stored as settled, this one as pending")
		more := journaltest.Fill(t, j, 10, 1, "a")
		require.Equal(t, journaltest.Positions(more), journaltest.Positions(journaltest.Drain(t, a, 1)))
		m.refuse("", nil)
		time.Sleep(2 * time.Second)
		stored, err = newestState(m, "a")
		require.NoError(t, err)
		require.EqualValues(t, 1, stored.tally.Dead)
	})
}

func TestNothingIsGivenUpWithoutALease(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, l *link, m *memLogs) {
		a := journaltest.Sink(t, j, "a")
		journaltest.Fill(t, j, 0, 10, "a")
		all := journaltest.Drain(t, a, 1<<20)
		require.NoError(t, j.Flush())
		a.Bury(journal.DeadLetter{Position: all[0].Position, Reason: "no"})
		a.Settle(all[1].Position, journal.Delivered)
		own.set(false, 0)
		a.End()
		time.Sleep(5 * time.Second)
		require.Empty(t, m.log("ncs.dead", 0).recs)
		stored, err := newestState(m, "a")
		require.NoError(t, err)
		require.Len(t, stored.pending, 9)
		own.set(true, 0)
	})
}

// newestState is the newest record of a sink.
func newestState(m *memLogs, sink string) (*sinkState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	recs := m.log("ncs.state", 0).recs
	for i := len(recs) - 1; ; i-- {
		if key, _ := decodeStateKey(recs[i].Key); key.name == sink && recs[i].Value != nil {
			return decodeSinkState(recs[i].Value)
		}
	}
}

func TestRecordsOfFormerOwnersAreRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		for range 3 {
			j := mustOpen(t, testOptions(t, m, 1))
			stop := journaltest.Start(t, j)
			a := journaltest.Sink(t, j, "a")
			journaltest.Fill(t, j, 0, 5, "a")
			journaltest.Drain(t, a, 1)
			stop()
		}
		lives := func() int {
			left := newLegacy()
			m.mu.Lock()
			defer m.mu.Unlock()
			require.NoError(t, left.add(m.log("ncs.state", 0).recs))
			return len(left.cursors[cursorName{kindSink, "a"}])
		}
		require.Equal(t, 3, lives())
		j := mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		time.Sleep(9 * time.Minute)
		require.Equal(t, 4, lives(), "an owner may still write")
		time.Sleep(5 * time.Minute)
		require.Equal(t, 1, lives())
		stop()
		j = mustOpen(t, testOptions(t, m, 1))
		stop = journaltest.Start(t, j)
		require.Len(t, j.Pending("a"), 5)
		stop()
	})
}

func TestLogsThatAreNotTheFormerOnesStopTheShard(t *testing.T) {
	t.Parallel()
	for topic, want := range map[string]string{"ncs.state": "has no state", "ncs.events": "ends at 0", "ncs.inbox": "ends at 0"} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMemLogs()
				j := mustOpen(t, testOptions(t, m, 1))
				stop := journaltest.Start(t, j)
				journaltest.Fill(t, j, 0, 5)
				stop()
				m.mu.Lock()
				delete(m.logs, topic+"/0")
				m.mu.Unlock()
				j = mustOpen(t, testOptions(t, m, 1))
				end := run(t, j)
				time.Sleep(5 * time.Second)
				held, _ := j.Shards()
				require.Empty(t, held)
				require.ErrorContains(t, j.Ready(), want)
				require.ErrorIs(t, j.Ready(), errForeignLog)
				_ = end()
				require.NoError(t, j.Close())
			})
		})
	}
}
