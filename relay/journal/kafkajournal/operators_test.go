package kafkajournal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// pair runs test with two replicas that have two shards each.
func pair(t *testing.T, test func(one, two *Journal, second *tenure)) {
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
		test(one, two, second)
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
		for _, j := range []*Journal{one, two} {
			r := j.Replays()[0]
			require.True(t, r.Finished())
			require.EqualValues(t, 40, r.Totals().Delivered)
			require.Equal(t, r.Spec().To, r.Totals().Read)
		}

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
