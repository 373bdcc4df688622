package kafkajournal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// What a replica whose clock is wrong leaves to others is in the brokers' time, and what it reads it takes by its own clock.
func TestTimesAreTheBrokersForAllReplicas(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0, time.Second} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemLogs()
				m.ahead = ahead
				if ahead.Abs() < leastSkew {
					ahead = 0
				}
				j := mustOpen(t, testOptions(t, m, 1))
				stop := journaltest.Start(t, j)
				a := journaltest.Sink(t, j, "a")
				recs := journaltest.Fill(t, j, 0, 1, "a")
				for _, r := range journaltest.Drain(t, a, 1) {
					require.WithinDuration(t, time.Now(), r.Stored, 5*time.Second)
				}
				due := time.Now().Add(time.Minute).Truncate(time.Millisecond)
				a.Failed(recs[0].Position, journal.Retry{Attempts: 1, Next: due})
				stop()
				stored, err := newestState(m, "a")
				require.NoError(t, err)
				require.WithinDuration(t, due.Add(ahead), stored.pending[0].Retry.Next, 5*time.Second)
				j = mustOpen(t, testOptions(t, m, 1))
				stop = journaltest.Start(t, j)
				pending := journaltest.Sink(t, j, "a").Pending()
				require.Len(t, pending, 1)
				require.WithinDuration(t, due, pending[0].Retry.Next, 5*time.Second)
				loaded, err := j.Load([]journal.Position{recs[0].Position})
				require.NoError(t, err)
				require.WithinDuration(t, time.Now(), loaded[0].Stored, 5*time.Second)
				stop()
			})
		})
	}
}
