package relay

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A lone event leaves at once: there is no timer that would wait for more. What comes while it is under way leaves together.
func TestBatchesFillByThemselves(t *testing.T) {
	spec := SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.batch = 60
		b.sink.slow = func(Attempt) time.Duration { return time.Second }
		b.sink.lanes = func(*Event) Lane { return Lane{Group: "topic", Key: "0"} }
		began := time.Now()
		b.owe("e")
		synctest.Wait()
		require.Equal(t, []time.Time{began}, b.tries())
		for range 99 {
			b.owe("e")
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, []int{1, 60, 39}, b.sink.sizes())
	})
}
