package kafkajournal

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// deafen lets reads hang, and what is written.
func (l *link) deafen() (hear func()) {
	letGo := l.hold()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
	return func() {
		l.mu.Lock()
		l.deaf = false
		l.mu.Unlock()
		letGo()
	}
}

// appendTo appends an event to a shard of a journal of two.
func appendTo(t *testing.T, j *Journal, shard uint32, body string) error {
	rec := &journal.Record{Time: time.Now(), Source: "s", Body: []byte(body)}
	for n := byte(0); ShardOf("", rec.ID, 2) != shard; n++ {
		rec.ID[0] = n
	}
	done := make(chan error, 1)
	require.NoError(t, j.Append(t.Context(), rec, func(_ journal.Position, err error) { done <- err }))
	return <-done
}

// What one shard's brokers cannot do, all replicas cannot: if that ended their readiness, nobody would take what the others can.
func TestAShardThatTakesNoEventsIsNotTheWholeJournal(t *testing.T) {
	alone(t, func(o *Options) { o.Shards = 2 }, func(j *Journal, l *link, m *memLogs) {
		failing := func(recs []kafkalog.Record) error {
			if string(recs[0].Value) == "bad" {
				time.Sleep(appendFor) // as long as it is tried
				return errors.New("no leader")
			}
			return nil
		}
		m.refuse("ncs.inbox", failing)
		failed := make(chan error, 1)
		go func() { failed <- appendTo(t, j, 0, "bad") }()
		time.Sleep(time.Second)
		require.NoError(t, appendTo(t, j, 1, "good"))
		require.Error(t, <-failed)
		require.NoError(t, j.Ready(), "another was taken meanwhile")

		time.Sleep(time.Minute)
		require.Error(t, appendTo(t, j, 0, "bad"))
		require.ErrorContains(t, j.Ready(), "no leader", "no other was taken meanwhile")
		time.Sleep(2 * probeInterval)
		require.NoError(t, j.Ready(), "it would have been")

		m.refuse("ncs.inbox", func([]kafkalog.Record) error { return &kafkalog.Refused{Record: 0, Err: errors.New("too large")} })
		require.Error(t, appendTo(t, j, 0, "large"))
		require.NoError(t, j.Ready(), "another event is taken")
		m.refuse("", nil)
	})
}

func TestAJournalThatTakesNoEventsIsNotReady(t *testing.T) {
	for name, spoil := range map[string]func(*link, *memLogs) (mend func()){
		"nothing answers": func(l *link, m *memLogs) func() { return l.deafen() },
		"nothing can be written": func(l *link, m *memLogs) func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.before = func(string, []kafkalog.Record) error { return errors.New("too few replicas") }
			return func() { m.refuse("", nil) }
		},
		"no inbox answers": func(l *link, m *memLogs) func() {
			m.refuse("ncs.inbox", func([]kafkalog.Record) error { return errors.New("no leader") })
			m.hide("ncs.inbox")
			return func() { m.refuse("", nil); m.hide("") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			alone(t, func(o *Options) { o.Shards = 2 }, func(j *Journal, l *link, m *memLogs) {
				require.NoError(t, appendTo(t, j, 1, "good"))
				time.Sleep(time.Minute)
				mend := spoil(l, m)
				require.Error(t, appendTo(t, j, 0, "x"))
				for range 60 {
					require.Error(t, j.Ready())
					time.Sleep(time.Second)
				}
				mend()
				time.Sleep(10 * time.Second)
				require.NoError(t, j.Ready())
			})
		})
	}
}

// Otherwise the first call after a silence is answered 503, though other replicas could take it.
func TestAReplicaThatIsCutOffIsNotReadyThoughNobodyCalls(t *testing.T) {
	for name, cut := range map[string]func(*link, *memLogs) (mend func()){
		"nothing answers":  func(l *link, _ *memLogs) func() { return l.deafen() },
		"no inbox answers": func(_ *link, m *memLogs) func() { m.hide("ncs.inbox"); return func() { m.hide("") } },
		"the group only":   func(*link, *memLogs) func() { return func() {} },
	} {
		t.Run(name, func(t *testing.T) {
			var own *tenure
			alone(t, func(o *Options) { own = newTenure(0, 1); o.Shards, o.Ownership = 2, own }, func(j *Journal, l *link, m *memLogs) {
				require.NoError(t, appendTo(t, j, 1, "good"))
				time.Sleep(time.Minute)
				mend := cut(l, m)
				time.Sleep(10 * time.Second)
				require.NoError(t, j.Ready(), "as long as it has a lease nothing is asked")
				if name == "nothing answers" {
					_, err := j.Ends(context.Background())
					require.ErrorIs(t, err, context.DeadlineExceeded, "who gives a command does not wait for ever")
					require.ErrorIs(t, j.CatchUp(context.Background()), context.DeadlineExceeded)
				}
				own.set(false, 0, 1)
				for range 60 {
					time.Sleep(probeInterval)
					if j.Ready() != nil {
						break
					}
				}
				if name == "the group only" {
					require.NoError(t, j.Ready())
					require.NoError(t, appendTo(t, j, 1, "good"))
				} else {
					require.ErrorContains(t, j.Ready(), "topic ncs.inbox: no leader answers: ")
				}
				mend()
				time.Sleep(10 * time.Second)
				require.NoError(t, j.Ready(), "without a lease, too")
				own.set(true, 0, 1)
				require.NoError(t, appendTo(t, j, 0, "good"))
			})
		})
	}
}

// A replica that lacks the way to one broker would answer a part of its calls 503, and others would not.
func TestAReplicaThatLacksTheWayToSomeShardsIsNotReady(t *testing.T) {
	var own choosy
	alone(t, func(o *Options) { o.Shards = 2; own = choosy{newTenure(1), make(chan int32, 10)}; o.Ownership = own }, func(j *Journal, l *link, m *memLogs) {
		m.refuse("ncs.inbox", func(recs []kafkalog.Record) error {
			if string(recs[0].Value) == "bad" {
				return errors.New("no route")
			}
			return nil
		})
		require.NoError(t, appendTo(t, j, 1, "good"))
		m.hide("ncs.inbox")
		time.Sleep(time.Minute)
		require.Error(t, appendTo(t, j, 0, "bad"))
		time.Sleep(3 * time.Second)
		require.NoError(t, appendTo(t, j, 1, "good"))
		time.Sleep(watchInterval + reachWithin)
		require.ErrorIs(t, j.Ready(), errOutOfReach, "another replica has it")
		m.hide("")
		time.Sleep(2 * watchInterval)
		require.NoError(t, j.Ready())
	})
}
