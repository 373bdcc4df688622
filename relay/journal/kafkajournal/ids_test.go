package kafkajournal

import (
	"encoding/binary"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

// BenchmarkKnownIDs tells what it costs to remember an event, in 24 shards, by id, and by key as well.
func BenchmarkKnownIDs(b *testing.B) {
	for name, byKey := range map[string]bool{"deliver": false, "drop": true} {
		b.Run(name, func(b *testing.B) {
			list := newIDs(func(uint32, offset) bool { return byKey })
			list.keep(b.N, 0)
			before := heap()
			for n := range b.N {
				rec := &journal.Record{Time: time.Now()}
				binary.BigEndian.PutUint64(rec.ID[:], uint64(n))
				rec.Key = rec.ID
				list.copyOf(uint32(n%24), &entry{rec: rec})
			}
			b.ReportMetric(float64(heap()-before)/float64(b.N), "B/id")
			runtime.KeepAlive(list)
		})
	}
}

// What a take-over reads back is not younger for that.
func TestTheOldestIDsGoFirstWhereverTheyWereMet(t *testing.T) {
	t.Parallel()
	list := newIDs(nil)
	list.keep(10, 0)
	event := func(n int) *entry {
		e := &entry{rec: &journal.Record{Stored: time.UnixMilli(int64(n))}}
		binary.BigEndian.PutUint64(e.rec.ID[:], uint64(n))
		return e
	}
	knows := func(shard uint32, from, to int) (count int) {
		for n := from; n < to; n++ {
			if _, found := list.find(shard, event(n).rec.ID); found {
				count++
			}
		}
		return count
	}
	for n := range 10 {
		list.recall(0, event(100+n))
	}
	for n := range 15 { // of a shard that is taken over
		list.recall(1, event(n))
	}
	require.Equal(t, 10, knows(0, 100, 110), "older ones of another shard have taken their place")
	for n := range 4 {
		list.recall(1, event(200+n))
	}
	require.Equal(t, 4, knows(1, 200, 204))
	require.Equal(t, 6, knows(0, 104, 110))
	require.Zero(t, knows(1, 0, 15)+knows(0, 100, 104))
}

// A shard that was not judged for a while has copies among what it is behind with, while the ids of others are younger.
func TestWhatIsJudgedLateIsKnownLikeAnyOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		list := newIDs(nil)
		list.keep(10, 0)
		now := time.Now()
		event := func(n int, stored time.Time) *entry {
			e := &entry{rec: &journal.Record{Stored: stored}}
			binary.BigEndian.PutUint64(e.rec.ID[:], uint64(n))
			return e
		}
		for n := range 10 {
			require.False(t, list.copyOf(0, event(n, now)))
		}
		time.Sleep(time.Millisecond) // of those met in the same one any goes first
		late := event(100, now.Add(-time.Hour))
		require.False(t, list.copyOf(1, late))
		list.add(1, late) // it is in ncs.events
		require.True(t, list.copyOf(1, event(100, now.Add(-time.Hour))))
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
