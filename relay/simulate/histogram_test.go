package simulate

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHistogramQuantiles(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	for _, spread := range []int64{50, 5_000, 1e9, 1e12} {
		var h histogram
		exact := make([]time.Duration, 10_000)
		for i := range exact {
			exact[i] = time.Duration(rng.Int64N(spread))
			h.add(exact[i])
		}
		slices.Sort(exact)
		for _, q := range []float64{0, 0.5, 0.9, 0.99} {
			want, got := exact[int(q*10_000)], h.quantile(q)
			require.GreaterOrEqual(t, got, want)
			require.LessOrEqual(t, float64(got), float64(want)*1.04)
		}
		require.Equal(t, exact[len(exact)-1], h.quantile(1))
	}
}

// Every duration falls into a bucket whose ends enclose it, and the buckets are in order.
func TestHistogramBuckets(t *testing.T) {
	t.Parallel()
	var h histogram
	require.Zero(t, h.quantile(0.5))
	for i := 1; i < bucket(1<<62); i++ {
		require.Equal(t, i, bucket(upperEnd(i)))
		require.Equal(t, i, bucket(upperEnd(i-1)+1))
	}
	require.Equal(t, 0, bucket(-1))
	require.Less(t, bucket(1<<63-1), len(h.buckets))
}
