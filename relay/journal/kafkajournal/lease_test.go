package kafkajournal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// What is broken off may land after what is written next, and the next owner would believe the older of the two.
func TestAStateThatIsBeingWrittenIsNotBrokenOffWhenItsShardIsLetGo(t *testing.T) {
	var own *tenure
	alone(t, func(o *Options) { own = newTenure(0); o.Ownership = own }, func(j *Journal, l *link, _ *memLogs) {
		a := journaltest.Sink(t, j, "a")
		recs := journaltest.Fill(t, j, 0, 2, "a")
		first, err := a.Next(1)
		require.NoError(t, err)
		require.Len(t, first, 1)
		time.Sleep(time.Second)
		letGo := l.hold()
		a.Settle(recs[0].Position, journal.Delivered)
		time.Sleep(time.Second) // it is under way
		own.set(true)
		time.Sleep(time.Second)
		a.End()
		time.Sleep(time.Second)
		letGo()
		time.Sleep(time.Second)
		require.EqualValues(t, 0, <-own.released)
		require.Zero(t, l.brokenOff.Load())
	})
}

// A lease that ends comes before the news that others have the shards: a frozen process finds out so.
func TestShardsLetGoForALostLeaseAreReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, inMemory(), 10*time.Second, 3, 1)
		r := f.replicas[0]
		time.Sleep(3 * time.Second)
		r.own.set(false, 0, 1, 2)
		time.Sleep(5 * time.Second)
		require.Empty(t, r.j.all(), "let go")
		require.Empty(t, r.own.released, "still owned")
		r.own.set(true, 2)
		time.Sleep(5 * time.Second)
		require.Len(t, r.own.released, 2, "others wait for these")
		require.ElementsMatch(t, []int32{0, 1}, []int32{<-r.own.released, <-r.own.released})
		require.Empty(t, r.own.released)
		held, _ := r.j.Shards()
		require.Len(t, held, 1, "taken again")
		f.finish()
	})
}
