package deliver

import (
	"testing"
	"testing/synctest"
	"time"

	"ncs-relay/relay"

	"github.com/stretchr/testify/require"
)

// A lone event leaves at once. What comes while it is under way, or just after it, leaves together.
func TestBatchesFillByThemselves(t *testing.T) {
	spec := SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Batch = 60
		b.sink.Slow = func(relay.Attempt) time.Duration { return time.Second }
		b.sink.Lanes = func(*relay.Event) relay.Lane { return relay.Lane{Group: "topic", Key: "0"} }
		began := time.Now()
		b.owe("e")
		synctest.Wait()
		require.Equal(t, []time.Time{began}, b.tries())
		for range 99 {
			b.owe("e")
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, []int{1, 60, 39}, b.sink.Sizes())
	})
}

// A lane that has just sent waits a moment for more; one at rest does not, and one that holds a batch has waited enough.
func TestBatchesFillUnderLoad(t *testing.T) {
	spec := SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Batch = 50
		b.sink.Lanes = func(*relay.Event) relay.Lane { return relay.Lane{Group: "topic", Key: "0"} }
		for range 3 { // at rest
			time.Sleep(time.Second)
			began, before := time.Now(), len(b.tries())
			b.owe("e")
			synctest.Wait()
			require.Equal(t, []time.Time{began}, b.tries()[before:])
		}
		time.Sleep(time.Second)
		before := len(b.sink.Sizes())
		for range 1000 { // one a millisecond
			b.owe("e")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		sizes := b.sink.Sizes()[before:]
		require.Less(t, len(sizes), 1000/9)
		require.Equal(t, 1000, sum(sizes))
		require.Equal(t, 1, sizes[0])

		before = len(b.tries())
		began := time.Now()
		b.owe("e")
		synctest.Wait()
		for range 149 { // faster than a batch fills in time
			b.owe("e")
		}
		synctest.Wait()
		require.Equal(t, []int{1, 50, 50}, b.sink.Sizes()[before:])
		require.Equal(t, []time.Time{began, began, began}, b.tries()[before:])
	})
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}
