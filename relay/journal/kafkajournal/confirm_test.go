package kafkajournal

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// A topic that was deleted and made again stops the shard; an operator who confirms it gets everything that is left delivered.
func TestConfirmedTopicsAreGoneOnWith(t *testing.T) {
	t.Parallel()
	for topic, tt := range map[string]struct {
		what  string
		again []int // of five events, of which the first two were delivered and the third is pending
	}{
		"ncs.state":  {"all that the events hold is delivered again", []int{0, 1, 2, 3, 4}},
		"ncs.events": {"the events after 3 are made again from the inbox", []int{2, 3, 4}},
		"":           {"its topics are those that its state speaks of", []int{2, 3, 4}},
	} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMemLogs()
				j := mustOpen(t, testOptions(t, m, 1))
				stop := journaltest.Start(t, j)
				a := journaltest.Sink(t, j, "a")
				recs := journaltest.Fill(t, j, 0, 3, "a")
				journaltest.Drain(t, a, 1<<20)
				a.Settle(recs[0].Position, journal.Delivered)
				a.Settle(recs[1].Position, journal.Delivered)
				a.Release()
				recs = append(recs, journaltest.Fill(t, j, 3, 2, "a")...)
				stop()
				m.mu.Lock()
				delete(m.logs, topic+"/0")
				m.mu.Unlock()

				j = mustOpen(t, testOptions(t, m, 1))
				what, err := j.Confirm(t.Context(), 0, func(string) bool { return false })
				require.NoError(t, err)
				require.Equal(t, tt.what, what)
				journaltest.Start(t, j)
				synctest.Wait()
				a = journaltest.Sink(t, j, "a")
				recs = append(recs, journaltest.Fill(t, j, 5, 1, "a")...)
				got := journaltest.Pending(a)
				got = append(got, journaltest.Positions(journaltest.Drain(t, a, 1<<20))...)
				var want []journal.Position
				for _, i := range append(tt.again, 5) {
					want = append(want, recs[i].Position)
				}
				require.Equal(t, want, got)
				require.NoError(t, j.Ready())
				totals := a.Totals()
				require.Equal(t, totals.Owed, totals.Delivered+totals.Pending, "%+v", totals)
			})
		})
	}
}

func TestAnotherInboxIsNotConfirmed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemLogs()
		j := mustOpen(t, testOptions(t, m, 1))
		stop := journaltest.Start(t, j)
		journaltest.Fill(t, j, 0, 3)
		stop()
		j = mustOpen(t, testOptions(t, m, 1))
		_, err := j.Confirm(t.Context(), 0, func(topic string) bool { return topic == "inbox" })
		require.ErrorIs(t, err, ErrInboxGone)
		require.NoError(t, j.Close())
	})
}
