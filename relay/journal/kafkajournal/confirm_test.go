package kafkajournal

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

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

// What the owner wrote to the new topic before it noticed is no harm where all was read before; else what was not read would be lost.
func TestEventsThatHaveBegunAgainAreConfirmedWhereNothingIsMissing(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		t.Run(fmt.Sprint(behind), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMemLogs()
				j := mustOpen(t, testOptions(t, m, 1))
				end := run(t, j)
				synctest.Wait()
				a := journaltest.Sink(t, j, "a")
				recs := journaltest.Fill(t, j, 0, 3, "a")
				if !behind {
					journaltest.Drain(t, a, 1<<20)
				}
				require.NoError(t, j.Flush())
				again := func() {
					m.mu.Lock()
					defer m.mu.Unlock()
					delete(m.logs, "ncs.events/0")
				}
				again()
				_, err := journaltest.Append(j, journaltest.Record(3, "a"))
				require.NoError(t, err)
				time.Sleep(time.Second)
				require.NotEmpty(t, m.records("ncs.events"))
				a.End()
				_ = end()
				_ = j.Close()

				j = mustOpen(t, testOptions(t, m, 1))
				_, err = j.Confirm(t.Context(), 0, func(topic string) bool { return topic == "events" })
				if behind {
					require.ErrorIs(t, err, ErrEventsBegun)
					again()
					_, err = j.Confirm(t.Context(), 0, func(topic string) bool { return topic == "events" })
				}
				require.NoError(t, err)
				journaltest.Start(t, j)
				synctest.Wait()
				a = journaltest.Sink(t, j, "a")
				got := journaltest.Pending(a)
				got = append(got, journaltest.Positions(journaltest.Drain(t, a, 1<<20))...)
				require.Len(t, got, 4)
				require.Equal(t, journaltest.Positions(recs), got[:3])
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
