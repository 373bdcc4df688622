package kafkajournal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

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
