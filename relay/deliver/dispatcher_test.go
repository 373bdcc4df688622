package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

// bubble is a dispatcher with a real journal under fake time.
type bubble struct {
	t       *testing.T
	dir     string
	journal journal.Opened
	owed    journaltest.Owed
	to      string // the sink that owe is about
	sink    *relaytest.FarSide
	d       *dispatcher // its state is for its own goroutine: see on
	n       int

	eventType int // of what is owed
}

// inBubble runs test with a dispatcher under fake time.
func inBubble(t *testing.T, spec SinkSpec, test func(b *bubble)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(io.Discard, nil))
		j := disktest.Open(t, dir, disktest.Options{Logger: log})
		owed := journaltest.Sink(t, j, "sink")
		metrics, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		sink := relaytest.NewFarSide()
		spec.Name, spec.Concurrency = "sink", max(1, spec.Concurrency)
		d := newDispatcher(spec, sink, j, owed, log, newMetrics(metrics).forSink("sink"), tracing, nil)

		ctx, cancel := context.WithCancel(t.Context())
		var wg, jwg sync.WaitGroup
		jctx, jcancel := context.WithCancel(t.Context())
		jwg.Go(func() { j.Run(jctx) })
		wg.Go(func() { d.run(ctx, ctx) })
		defer func() {
			cancel()
			wg.Wait()
			jcancel()
			jwg.Wait()
			require.NoError(t, j.Close())
			require.NoError(t, metrics.Shutdown(context.Background()))
		}()
		test(&bubble{t: t, dir: dir, journal: j, owed: owed, to: "sink", sink: sink, d: d})
	})
}

// owe appends an event of an entity that the sink is owed.
func (b *bubble) owe(entity string) { b.oweBytes(entity, 2) }

func (b *bubble) oweBytes(entity string, size int) { b.oweBody(entity, make([]byte, size)) }

func (b *bubble) oweBody(entity string, body []byte) {
	b.t.Helper()
	appended := make(chan error, 1)
	b.append(entity, body, func(_ journal.Position, err error) { appended <- err })
	require.NoError(b.t, <-appended)
}

// oweType appends an event of a type of Cloud Recording.
func (b *bubble) oweType(entity string, number int) {
	b.eventType = number
	b.owe(entity)
}

func (b *bubble) append(entity string, body []byte, done func(journal.Position, error)) {
	b.t.Helper()
	b.n++
	id := relaytest.Identity(b.n, 1)
	rec := &journal.Record{ID: id.ID, Key: id.Key, Time: time.Now(), Source: "main", Entity: entity, Sinks: []string{b.to}, Body: body, ProductID: 3, EventType: b.eventType}
	require.NoError(b.t, b.journal.Append(b.t.Context(), rec, done))
}

// on runs f on the dispatcher's goroutine, which ends when f fails the test.
func (b *bubble) on(f func(d *dispatcher)) {
	b.t.Helper()
	done := make(chan struct{})
	b.d.control <- func() { defer close(done); f(b.d) }
	<-done
	if b.t.Failed() {
		b.t.FailNow()
	}
}

// slowly changes how long the sink takes.
func (b *bubble) slowly(wait func(relay.Attempt) time.Duration) {
	b.sink.Mu.Lock()
	defer b.sink.Mu.Unlock()
	b.sink.Slow = wait
}

// replay makes a replay of all that is settled; the dispatcher is to be told.
func (b *bubble) replay(rate float64) journaltest.Replayed {
	b.t.Helper()
	r, err := b.journal.AddReplay(journal.ReplaySpec{Sink: "sink", Rate: rate, Filter: []byte("{}"), CreatedAt: time.Now()})
	require.NoError(b.t, err)
	return journaltest.Resume(b.journal, r, func(*journal.Record) bool { return true })
}

// tries returns when the sink was tried, from the first try.
func (b *bubble) tries() (at []time.Time) {
	b.sink.Mu.Lock()
	defer b.sink.Mu.Unlock()
	return append(at, b.sink.At...)
}

func TestWaitsAreFullJitterAndDouble(t *testing.T) {
	c := RetryConfig{Initial: time.Second, MaxInterval: 8 * time.Second}
	limits := []time.Duration{1, 2, 4, 8, 8, 8, 8, 8}
	var low, high [8]bool
	for range 300 {
		b := newRetryBackoff(c)
		for i, limit := range limits {
			wait := b.next()
			require.LessOrEqual(t, wait, limit*time.Second+time.Millisecond)
			low[i] = low[i] || wait < limit*time.Second/4
			high[i] = high[i] || wait > limit*time.Second*3/4
		}
	}
	for i := range limits {
		require.True(t, low[i] && high[i], "wait %d is not spread over its whole interval", i)
	}
	resumed := newRetryBackoff(c)
	resumed.skip(1_000_000)
	require.LessOrEqual(t, resumed.next(), 8*time.Second)
}

func TestRetryAfterIsHonoured(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: time.Hour}}, func(b *bubble) {
		b.sink.Set(func(a relay.Attempt) error {
			if a.Number == 1 {
				return &relay.RetryAfterError{Err: errors.New("slow down"), After: 10 * time.Minute}
			}
			return nil
		})
		b.owe("e")
		time.Sleep(10*time.Minute - time.Second)
		require.Len(t, b.tries(), 1)
		time.Sleep(2 * time.Second)
		require.Len(t, b.tries(), 2)
		require.Len(t, b.sink.Received(), 1)
	})
}

func TestMaxAgeGivesUpAfterAFailedAttemptOnly(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: time.Hour}}, func(b *bubble) {
		b.sink.Set(func(relay.Attempt) error { return errors.New("down") })
		b.owe("e")
		b.owe("e")
		time.Sleep(59 * time.Minute)
		require.EqualValues(t, 2, b.owed.Totals().Pending)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		totals := b.owed.Totals()
		require.Zero(t, totals.Pending)
		require.EqualValues(t, 2, totals.Dead)

		tries := b.tries()
		require.Greater(t, len(tries), 60, "retries are at most a minute apart")
		for i := 1; i < len(tries); i++ {
			require.LessOrEqual(t, tries[i].Sub(tries[i-1]), time.Minute+time.Second)
		}
	})
}

// TestADeadLetterSaysThatItFailedAlike: a far side that stores its failure and repeats it for ever.
func TestADeadLetterSaysThatItFailedAlike(t *testing.T) {
	for _, same := range []bool{true, false} {
		inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour, MaxAttempts: 3}}, func(b *bubble) {
			b.sink.Set(func(a relay.Attempt) error {
				if same {
					return errors.New("stored failure")
				}
				return fmt.Errorf("failure %d", a.Number)
			})
			b.owe("e")
			time.Sleep(time.Minute)
			synctest.Wait()
			letters, err := b.journal.DeadLetters("sink", journal.Position{}, 10)
			require.NoError(t, err)
			require.Len(t, letters, 1)
			want := "given up after 3 attempts, the first and the last of which failed alike: stored failure"
			if !same {
				want = "given up after 3 attempts: failure 3"
			}
			require.Equal(t, want, letters[0].Reason)
		})
	}
}

func TestRetryingLanesLeaveHalfOfTheSlots(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}}, func(b *bubble) {
		b.sink.Slow = func(a relay.Attempt) time.Duration { return time.Minute } // each Send holds its slot
		b.sink.Set(func(a relay.Attempt) error {
			if a.Entity[0] == 'b' {
				return errors.New("down")
			}
			return nil
		})
		for _, e := range []string{"b1", "b2", "b3", "b4"} {
			b.owe(e)
		}
		time.Sleep(time.Minute + 10*time.Second) // the four have failed once and are due again
		require.Equal(t, 2, b.sink.Running(), "two of four slots are for lanes that failed")
		b.owe("g1")
		b.owe("g2")
		synctest.Wait()
		require.Equal(t, 4, b.sink.Running(), "the others are free for the living")
	})
}

// oweMoreThanTheWindow makes an entity's events alone more than a dispatcher may hold in memory.
func (b *bubble) oweMoreThanTheWindow(entity string) {
	const size = 256 << 10
	for range 2 * windowBytes / size {
		b.oweBytes(entity, size)
	}
}

func TestSlowEntityDelaysNoOtherHoweverMuchOfItWaits(t *testing.T) {
	for name, before := range map[string]int{"which was never tried": 0, "which failed": 1} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: 100 * time.Hour}}, func(b *bubble) {
				b.sink.Slow = func(a relay.Attempt) time.Duration {
					if a.Entity == "slow" && a.Number > before {
						return time.Hour
					}
					return 0
				}
				b.sink.Set(func(a relay.Attempt) error {
					if a.Entity == "slow" && a.Number <= before {
						return errors.New("time-out")
					}
					return nil
				})
				b.owe("slow")
				time.Sleep(10 * time.Second)
				require.Equal(t, 1, b.sink.Running())
				b.oweMoreThanTheWindow("slow")
				b.owe("other")
				synctest.Wait()
				require.Len(t, b.sink.Received(), 1, "the other one is delivered while the slow one hangs")
			})
		})
	}
}

func TestEntitiesThatWaitForARetryDelayNoOther(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Hour, MaxInterval: time.Hour, MaxAge: 100 * time.Hour}}, func(b *bubble) {
		b.sink.Set(func(a relay.Attempt) error {
			if a.Entity[0] == 'b' {
				return &relay.RetryAfterError{Err: errors.New("time-out"), After: time.Hour}
			}
			return nil
		})
		const size = 256 << 10
		for i := range 2 * windowBytes / size {
			b.oweBytes(fmt.Sprint("b", i), size)
		}
		b.owe("good")
		synctest.Wait()
		require.Len(t, b.sink.Received(), 1)
	})
}

func TestWhatWaitsIsBounded(t *testing.T) {
	const some, size = 5000, 2000
	for name, tc := range map[string]struct{ entities, room int }{
		"behind one event":      {1, some*itemBytes + laneBytes},
		"each failed by itself": {2 * some, some * (itemBytes + laneBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Hour, MaxInterval: time.Hour, MaxAge: 100 * time.Hour}}, func(b *bubble) {
				b.sink.Set(func(relay.Attempt) error { return &relay.RetryAfterError{Err: errors.New("down"), After: time.Hour} })
				b.on(func(d *dispatcher) { d.lanes.room = tc.room })
				for i := range 2 * some {
					b.append(fmt.Sprint("e", i%tc.entities), make([]byte, size), func(journal.Position, error) {})
				}
				time.Sleep(time.Minute)
				var queued, loaded int
				b.on(func(d *dispatcher) { queued, loaded = d.lanes.queued, d.lanes.loaded })
				require.InDelta(t, some, queued, 1<<20/size, "it reads a little more at a time than there is room for")
				require.Less(t, loaded, windowBytes)
				require.EqualValues(t, 2*some, b.owed.Totals().Pending)
				b.sink.Set(nil)
				b.on((*dispatcher).resumeSink)
				time.Sleep(time.Minute)
				require.Len(t, b.sink.Received(), 2*some, "reading goes on when there is room")
			})
		})
	}
}

func TestEventsDamagedOnDiskHoldUpNoOther(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Hour, MaxInterval: time.Hour, MaxAge: 100 * time.Hour}}, func(b *bubble) {
		b.sink.Batch = 3
		b.sink.Set(func(relay.Attempt) error { return &relay.RetryAfterError{Err: errors.New("down"), After: time.Hour} })
		for i := range 5 {
			b.oweBody("e", fmt.Appendf(nil, "event %d", i))
		}
		synctest.Wait()
		files, err := filepath.Glob(filepath.Join(b.dir, "log", "*"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		content, err := os.ReadFile(files[0])
		require.NoError(t, err)
		for _, lost := range []string{"event 0", "event 3"} {
			require.NoError(t, os.WriteFile(files[0], bytes.Replace(content, []byte(lost), []byte("rubbish"), 1), 0o600))
			content, err = os.ReadFile(files[0])
			require.NoError(t, err)
		}
		b.sink.Set(nil)
		b.on((*dispatcher).resumeSink)
		time.Sleep(time.Minute)
		var got []string
		for _, a := range b.sink.Received() {
			got = append(got, string(a.Body))
		}
		require.Equal(t, []string{"event 1", "event 2", "event 4"}, got)
		totals := b.owed.Totals()
		require.EqualValues(t, 2, totals.Dropped)
		require.Zero(t, totals.Pending)
	})
}

func TestFailedEntitiesThatWaitForASlotDelayNoOther(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: 100 * time.Hour}}, func(b *bubble) {
		b.sink.Set(func(a relay.Attempt) error {
			if a.Entity[0] == 'b' {
				return errors.New("time-out")
			}
			return nil
		})
		for i := range 10 {
			b.owe(fmt.Sprint("b", i))
		}
		synctest.Wait()
		b.slowly(func(a relay.Attempt) time.Duration {
			if a.Entity[0] == 'b' {
				return time.Hour
			}
			return 0
		})
		time.Sleep(time.Minute) // two of them hang, the others are due
		for i := range 10 {
			b.oweMoreThanTheWindow(fmt.Sprint("b", i))
		}
		b.owe("good")
		synctest.Wait()
		require.Len(t, b.sink.Received(), 1)
	})
}

func TestFailedEntitiesLeaveTurnsOfASingleSlot(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 1, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: 100 * time.Hour}}, func(b *bubble) {
		b.sink.Slow = func(a relay.Attempt) time.Duration { return time.Minute }
		b.sink.Set(func(a relay.Attempt) error {
			if a.Entity[0] == 'b' {
				return errors.New("time-out")
			}
			return nil
		})
		for i := range 10 {
			b.owe(fmt.Sprint("b", i))
		}
		time.Sleep(20 * time.Minute) // all have failed, and one or another is always due
		for i := range 3 {
			b.owe(fmt.Sprint("good", i))
		}
		time.Sleep(7 * time.Minute)
		require.Len(t, b.sink.Received(), 3, "every other turn")
		tries := len(b.tries())
		time.Sleep(10 * time.Minute)
		require.Greater(t, len(b.tries()), tries+5, "with nothing else to do the failed ones have every turn")
	})
}

// Bad entities alone pause a quiet sink. What comes then must not wait until they are given up.
func TestProbesAreSharedWithWhatWasNotTried(t *testing.T) {
	spec := SinkSpec{Concurrency: 16, Breaks: true, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 100 * time.Hour}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Set(func(a relay.Attempt) error {
			if a.Entity[0] == 'b' {
				return errors.New("500")
			}
			return nil
		})
		for i := range 20 {
			b.owe(fmt.Sprint("b", i))
		}
		time.Sleep(time.Hour)
		b.owe("good")
		time.Sleep(2*time.Minute + time.Second)
		require.Len(t, b.sink.Received(), 1, "one of two probes is for what was not tried")
	})
}

func TestIdleDispatcherDoesNothing(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}}, func(b *bubble) {
		b.owe("e")
		synctest.Wait()
		require.Len(t, b.sink.Received(), 1)
		lanes := b.sink.Laned
		turns := &countedReads{}
		b.on(func(d *dispatcher) {
			d.backlog.feeds = append(d.backlog.feeds, &feed{Deliveries: turns, shard: &journal.Shard{Number: 1, Of: 2}})
		})
		synctest.Wait()
		before := turns.n
		time.Sleep(24 * time.Hour)
		require.Equal(t, before, turns.n, "it did not even look")
		require.Len(t, b.tries(), 1)
		require.Equal(t, lanes, b.sink.Laned)
	})
}

// countedReads are no deliveries. A dispatcher looks for some whenever it does anything.
type countedReads struct {
	journal.Deliveries
	n int
}

func (c *countedReads) End() {}

func (c *countedReads) Next(int) ([]*journal.Record, error) { c.n++; return nil, nil }

func TestSameBatchIsSentAgain(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: time.Hour}}, func(b *bubble) {
		b.sink.Batch = 10
		b.sink.Set(func(relay.Attempt) error { return errors.New("no answer") })
		for range 3 {
			b.owe("e")
		}
		time.Sleep(time.Second)
		for range 3 { // come while the first wait
			b.owe("e")
		}
		time.Sleep(time.Minute)
		sizes := b.sink.Sizes()
		for _, n := range sizes {
			require.Equal(t, sizes[0], n, "a batch of unknown outcome is sent again as it was: %v", sizes)
		}
		b.sink.Set(nil)
		time.Sleep(time.Minute)
		require.Len(t, b.sink.Received(), 6)
	})
}

func TestDeadServiceIsProbedAndComesBackWithARamp(t *testing.T) {
	spec := SinkSpec{Concurrency: 16, Breaks: true, Retry: RetryConfig{Initial: time.Second, MaxInterval: 10 * time.Minute, MaxAge: 24 * time.Hour}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Set(func(relay.Attempt) error { return errors.New("connection refused") })
		for i := range 200 {
			b.owe(fmt.Sprint("e", i))
		}
		time.Sleep(time.Hour)
		down := len(b.tries())
		require.Less(t, down, 200, "a dead service was asked for every lane: %d", down)
		require.Greater(t, down, 60, "a dead service is probed at least once a minute")

		b.sink.Set(nil)
		b.slowly(func(relay.Attempt) time.Duration { return time.Second }) // so that what runs together is seen
		var most []int
		for range 1500 { // half a second each: longer than any lane waits
			most = append(most, b.sink.Running())
			time.Sleep(500 * time.Millisecond)
		}
		require.Equal(t, 200, len(b.sink.Received()))
		grown := slices.Compact(slices.DeleteFunc(most, func(n int) bool { return n == 0 }))
		require.GreaterOrEqual(t, len(grown), 4)
		require.Equal(t, []int{1, 2}, grown[:2], "it comes back with one Send, then two: %v", grown)
		require.Equal(t, 16, slices.Max(grown))
	})
}

// TestBadEventsDelayNoHealthyOnes: a receiver has a bug in one event type, or with some entities of any type. Healthy events come now
// and then, seldom compared with the retries of the bad ones.
func TestBadEventsDelayNoHealthyOnes(t *testing.T) {
	spec := SinkSpec{Concurrency: 16, Breaks: true, Retry: RetryConfig{Initial: time.Second, MaxInterval: 10 * time.Second, MaxAge: 24 * time.Hour}}
	for name, tt := range map[string]struct {
		goodType int
		bad      func(i int) string
		first    int // healthy events that may wait: what is wrong cannot be known before one of them succeeded
	}{
		"with the event type":                  {31, func(i int) string { return fmt.Sprint("bad", i%9) }, 0},
		"with the event type, ever more":       {31, func(i int) string { return fmt.Sprint("bad", i) }, 0},
		"with the entity, of the healthy type": {30, func(i int) string { return fmt.Sprint("bad", i%9) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, spec, func(b *bubble) {
				b.sink.Set(func(a relay.Attempt) error {
					if strings.HasPrefix(a.Entity, "bad") {
						return errors.New("500")
					}
					return nil
				})
				for i := range 9 {
					b.oweType(tt.bad(i), 30)
				}
				time.Sleep(time.Minute)
				slow := 0
				for i := range 150 {
					if i%10 == 0 {
						b.oweType(tt.bad(9+i/10), 30)
					}
					b.oweType(fmt.Sprint("good", i), tt.goodType)
					before := len(b.sink.Received())
					time.Sleep(50 * time.Millisecond)
					if synctest.Wait(); len(b.sink.Received()) <= before && len(b.sink.Received()) <= i-tt.first {
						slow++
					}
					time.Sleep(2 * time.Second)
				}
				require.LessOrEqual(t, slow, tt.first, "healthy events that waited")
				require.Equal(t, 150, len(b.sink.Received()))
				b.on(func(d *dispatcher) { require.False(t, d.pace.probing, "the breaker does not flap") })
			})
		})
	}
}

// TestADeadServiceIsSeldomTriedWithWhatComes: new entities of many types come all the time.
func TestADeadServiceIsSeldomTriedWithWhatComes(t *testing.T) {
	spec := SinkSpec{Concurrency: 16, Breaks: true, Retry: RetryConfig{Initial: time.Second, MaxInterval: 10 * time.Minute, MaxAge: 24 * time.Hour}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Set(func(relay.Attempt) error { return errors.New("connection refused") })
		for i := range 3600 {
			b.oweType(fmt.Sprint("e", i), 30+i%4)
			time.Sleep(time.Second)
		}
		require.Less(t, len(b.tries()), 5*60+100, "one probe a minute and one try for each of four types")
	})
}

func TestOneBadEntityDoesNotPauseTheSink(t *testing.T) {
	spec := SinkSpec{Concurrency: 16, Breaks: true, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: 24 * time.Hour}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Set(func(a relay.Attempt) error {
			if a.Entity == "bad" {
				return errors.New("500")
			}
			return nil
		})
		b.owe("bad")
		time.Sleep(time.Minute)
		for i := range 20 {
			b.owe(fmt.Sprint("good", i))
		}
		synctest.Wait()
		require.Len(t, b.sink.Received(), 20, "delivered at once")
	})
}

func TestBacklogIsBoundedAndTheOldestBecomeDeadLetters(t *testing.T) {
	spec := SinkSpec{Concurrency: 2, Backlog: 100 * 2, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}
	inBubble(t, spec, func(b *bubble) {
		b.sink.Set(func(relay.Attempt) error { return errors.New("down") })
		for i := range 300 {
			b.owe(fmt.Sprint("e", i%50)) // two bytes each
		}
		time.Sleep(10 * time.Second)
		totals := b.owed.Totals()
		require.LessOrEqual(t, totals.Pending, uint64(100))
		require.GreaterOrEqual(t, totals.Pending, uint64(90), "no more than needed is given up")
		require.EqualValues(t, 300, totals.Pending+totals.Dead)
		letters, err := b.journal.DeadLetters("sink", journal.Position{}, 1000)
		require.NoError(t, err)
		require.Equal(t, "backlog full", letters[0].Reason)

		b.sink.Set(nil)
		time.Sleep(10 * time.Minute)
		got := b.sink.Received()
		require.Len(t, got, int(totals.Pending))
		relaytest.RequireInOrder(t, got, len(got))
		require.Positive(t, got[0].Position.Compare(letters[0].Position))
	})
}

func TestWhatIsBeingSentIsNeitherShedNorSkippedButWhatWaitsBehindItIs(t *testing.T) {
	for name, give := range map[string]func(b *bubble){
		"skipped": func(b *bubble) {
			b.on(func(d *dispatcher) { require.Equal(b.t, 99, d.skip(positionsOf(b.owed.Pending()))) })
			require.EqualValues(b.t, 99, b.owed.Totals().Skipped)
		},
		"shed": func(b *bubble) {
			b.on(func(d *dispatcher) { d.Backlog = 1 })
			b.owe("e")
			synctest.Wait()
			require.EqualValues(b.t, 100, b.owed.Totals().Dead)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, SinkSpec{Concurrency: 2, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
				b.sink.Slow = func(relay.Attempt) time.Duration { return time.Hour }
				for range 100 {
					b.owe("e")
				}
				synctest.Wait()
				give(b)
				require.EqualValues(t, 1, b.owed.Totals().Pending)
				time.Sleep(2 * time.Hour)
				require.Len(t, b.sink.Received(), 1)
				require.Zero(t, b.owed.Totals().Pending)
			})
		})
	}
}

func TestWhatIsGivenUpBehindABatchLeavesTheOthersAsTheyWere(t *testing.T) {
	ls, l := newLanes(1), &lane{sending: 2}
	for n := range uint64(5) {
		l.items = append(l.items, item{position: relaytest.At(n + 1)})
	}
	var left []journal.Position
	ls.pop(l, 2)
	for _, it := range l.items {
		left = append(left, it.position)
	}
	require.Equal(t, []journal.Position{relaytest.At(1), relaytest.At(2), relaytest.At(4), relaytest.At(5)}, left)
}

func TestWhatWaitsBehindASkippedEventGoesOnAtOnce(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.sink.Set(func(a relay.Attempt) error {
			if a.Position.Offset <= 2 {
				return &relay.RetryAfterError{Err: errors.New("not now"), After: time.Hour}
			}
			return nil
		})
		for _, entity := range []string{"skipped", "other", "skipped", "other", "skipped"} {
			b.owe(entity)
		}
		time.Sleep(time.Minute)
		require.Empty(t, b.sink.Received())
		b.on(func(d *dispatcher) { require.Equal(t, 1, d.skip([]journal.Position{relaytest.At(1)})) })
		synctest.Wait()
		require.Len(t, b.sink.Received(), 2)
		require.Len(t, b.tries(), 4, "what was not skipped waits as before")
		b.sink.Set(nil)
		time.Sleep(time.Hour)
		require.Len(t, b.sink.Received(), 4)
	})
}

func TestReplaysAreNotPartOfTheBacklogAndNotSkipped(t *testing.T) {
	spec := SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}
	inBubble(t, spec, func(b *bubble) {
		b.owe("e")
		b.owe("f")
		time.Sleep(time.Minute)
		b.sink.Set(func(relay.Attempt) error { return errors.New("down") })
		r := b.replay(0)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay); d.Backlog = 2 })
		time.Sleep(time.Minute)
		for range 5 {
			b.owe("g")
		}
		time.Sleep(time.Minute)
		require.EqualValues(t, 5, b.owed.Totals().Dead+b.owed.Totals().Pending)
		require.Positive(t, b.owed.Totals().Dead)
		require.Equal(t, journal.ReplayTotals{Matched: 2, Pending: 2, Read: journal.Cut{relaytest.At(2)}}, r.Totals())
		b.on(func(d *dispatcher) { d.skip(positionsOf(append(b.owed.Pending(), r.Pending()...))) })
		require.EqualValues(t, 2, r.Totals().Pending)
	})
}

func positionsOf(pending []journal.Pending) (positions []journal.Position) {
	for _, p := range pending {
		positions = append(positions, p.Position)
	}
	return positions
}

func TestPauseAskedForByTheSink(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.sink.Set(func(relay.Attempt) error { return relay.Pause(errors.New("410 Gone")) })
		b.owe("e1")
		b.owe("e2")
		time.Sleep(10 * time.Hour)
		require.Len(t, b.tries(), 1, "a paused sink is left alone")
		require.EqualValues(t, 2, b.owed.Totals().Pending)
	})
}

func TestAPauseForAWhileEndsByItself(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.on(func(d *dispatcher) { d.pause("migration", time.Now().Add(2*time.Hour)) })
		b.owe("e1")
		time.Sleep(2*time.Hour - time.Second)
		require.Empty(t, b.tries())
		reason, until := ParsePause(b.owed.Paused())
		require.Equal(t, "migration", reason)
		require.Equal(t, time.Second, time.Until(until))
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, b.tries(), 1)
		require.Empty(t, b.owed.Paused())

		b.on(func(d *dispatcher) { d.pause("a while", time.Now().Add(time.Hour)) })
		b.on(func(d *dispatcher) { d.pause("for good", time.Time{}) })
		b.owe("e2")
		time.Sleep(48 * time.Hour)
		require.Len(t, b.tries(), 1, "the last pause counts, and that has no end")
	})
}

func TestAPauseIsReadAsItWasKept(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, reason := range []string{"", "migration", "x (until", "x (until noon)", "x (until 2030-01-01T00:00:00Z)", "until 14:00"} {
		for _, until := range []time.Time{{}, noon} {
			gotReason, gotUntil := ParsePause(pauseText(reason, until))
			require.Equal(t, reason, gotReason)
			require.True(t, until.Equal(gotUntil), reason)
		}
	}
}

func TestResumeTriesEverythingNow(t *testing.T) {
	for name, all := range map[string]bool{"each waits": false, "the sink waits": true} {
		t.Run(name, func(t *testing.T) {
			spec := SinkSpec{Concurrency: 4, Breaks: true, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}
			inBubble(t, spec, func(b *bubble) {
				b.sink.Set(func(relay.Attempt) error {
					return &relay.RetryAfterError{Err: errors.New("429"), After: time.Hour, All: all}
				})
				for i := range 3 {
					b.owe(fmt.Sprint("e", i))
				}
				time.Sleep(time.Minute)
				require.Empty(t, b.sink.Received())
				b.sink.Set(nil)
				b.on((*dispatcher).resumeSink)
				synctest.Wait()
				require.Len(t, b.sink.Received(), 3)
			})
		})
	}
}

func TestRetryAfterForAllHoldsTheWholeSink(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 8, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.sink.Set(func(relay.Attempt) error {
			return &relay.RetryAfterError{Err: errors.New("429"), After: time.Minute, All: true}
		})
		b.owe("e1")
		synctest.Wait()
		for i := range 20 {
			b.owe(fmt.Sprint("other", i))
		}
		time.Sleep(59 * time.Second)
		require.Len(t, b.tries(), 1)
		time.Sleep(2 * time.Second)
		require.Len(t, b.tries(), 2, "then one Send probes")
	})
}

func TestReplayKeepsItsRateFromTheFirstEventOn(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 4, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		for i := range 30 {
			b.owe(fmt.Sprint("e", i))
		}
		synctest.Wait()
		for _, rate := range []float64{0.5, 20} {
			r := b.replay(rate)
			before, began := len(b.tries()), time.Now()
			b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
			time.Sleep(90 * time.Second)
			tries := b.tries()[before:]
			require.Len(t, tries, 30)
			for i, at := range tries {
				due := time.Duration(float64(i) / rate * float64(time.Second))
				require.InDelta(t, due.Seconds(), at.Sub(began).Seconds(), maxLate.Seconds()+0.01, "event %d at %v a second", i, rate)
			}
		}
	})
}

func TestReplayAtARateNextToNothingIsNotUnlimited(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		for range 3 {
			b.owe("e")
		}
		synctest.Wait()
		r := b.replay(1e-300)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		time.Sleep(24 * time.Hour)
		require.Len(t, b.sink.Received(), 4)
	})
}

// A dispatcher that a reload makes takes up the replays it finds, and may then be told of one that was just begun.
func TestReplayToldTwiceRunsOnce(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.sink.Slow = func(relay.Attempt) time.Duration { return time.Second }
		for range 3 {
			b.owe("e")
		}
		time.Sleep(time.Minute)
		r := b.replay(0)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		time.Sleep(time.Minute)
		require.Len(t, b.sink.Received(), 6)
		require.True(t, r.Finished())
	})
}

func TestReplayIsAsOldAsItsRequest(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: time.Hour}}, func(b *bubble) {
		b.owe("e")
		time.Sleep(24 * time.Hour)
		b.sink.Set(func(relay.Attempt) error { return errors.New("down") })
		r := b.replay(0)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		time.Sleep(50 * time.Minute)
		require.EqualValues(t, 1, r.Totals().Pending)
		time.Sleep(20 * time.Minute)
		require.EqualValues(t, 1, r.Totals().Failed)
	})
}

// A part of a failed batch may be in flight when the rest of its lane goes.
func TestReplayCancelledInFlightLeavesLanesThatCanBeLaidOut(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Second, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		for range 5 {
			b.owe("e")
		}
		time.Sleep(time.Minute)
		b.sink.Mu.Lock()
		b.sink.Batch = 5
		b.sink.Mu.Unlock()
		b.sink.Set(func(relay.Attempt) error { return errors.New("down") })
		r := b.replay(0)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		synctest.Wait()
		b.sink.Mu.Lock()
		b.sink.Batch = 2 // the sink takes less at a time now
		b.sink.Mu.Unlock()
		b.slowly(func(relay.Attempt) time.Duration { return time.Hour })
		time.Sleep(time.Minute)
		require.Equal(t, 1, b.sink.Running())
		r.Cancel()
		b.on(func(d *dispatcher) {
			d.dropReplay(d.replayOf(r.ID()))
			d.take([]journal.Position{relaytest.At(1)})
		})
		b.sink.Set(nil)
		time.Sleep(3 * time.Hour)
		b.on(func(d *dispatcher) { require.Empty(t, d.lanes.all) })
	})
}

func TestReplayCancelledInFlightIsNotTriedAgain(t *testing.T) {
	for name, err := range map[string]error{"taken": nil, "failed": errors.New("down"), "refused": relay.Permanent(errors.New("no"))} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
				for range 5 {
					b.owe("e")
				}
				time.Sleep(time.Minute)
				b.slowly(func(relay.Attempt) time.Duration { return time.Minute })
				b.sink.Set(func(relay.Attempt) error { return err })
				r := b.replay(0)
				b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
				time.Sleep(time.Second)
				require.Equal(t, 1, b.sink.Running())
				r.Cancel()
				b.on(func(d *dispatcher) { d.dropReplay(d.replayOf(r.ID())) })
				time.Sleep(time.Hour)
				require.Len(t, b.tries(), 6)
				b.on(func(d *dispatcher) {
					require.Zero(t, d.lanes.queued)
					require.Zero(t, d.lanes.loaded)
					require.Empty(t, d.lanes.all)
				})
			})
		})
	}
}

// A dispatcher that has other work finds a replay cancelled before it is told, and is not told where a client has gone.
func TestReplayFoundCancelledIsNotTriedAgain(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		for range 5 {
			b.owe("e")
		}
		time.Sleep(time.Minute)
		b.sink.Set(func(a relay.Attempt) error {
			if a.Replay > 0 {
				return errors.New("down")
			}
			return nil
		})
		r := b.replay(0)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		time.Sleep(time.Minute)
		r.Cancel()
		b.owe("other")
		synctest.Wait()
		tries := len(b.tries())
		time.Sleep(time.Hour)
		require.Len(t, b.tries(), tries)
		b.on(func(d *dispatcher) { require.Empty(t, d.lanes.all) })
	})
}

func TestMovedDeliveriesComeInOrderWithThoseThatWait(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		gone, err := b.journal.Sink("gone")
		require.NoError(t, err)
		b.on(func(d *dispatcher) { d.pause("so that all wait", time.Time{}) })
		for range 3 {
			b.to = "gone"
			b.owe("e")
			b.to = "sink"
			b.owe("e")
		}
		synctest.Wait()
		gone.Release()
		b.on(func(d *dispatcher) {
			positions, _, err := b.journal.(journal.Mover).Move("gone", "sink")
			require.NoError(t, err)
			require.Len(t, positions, 3)
			d.take(positions)
		})
		b.on((*dispatcher).resumeSink)
		time.Sleep(time.Minute)
		relaytest.RequireInOrder(t, b.sink.Received(), 6)
	})
}

func TestASlowReplayDoesNotHoldUpNewLanes(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.sink.Lanes = func(ev *relay.Event) relay.Lane { return relay.Lane{Group: "topic", Key: ev.Entity} }
		moved := false
		b.sink.OnRelane = func(string) { moved = true }
		for range 3 {
			b.owe("e")
		}
		time.Sleep(time.Minute)
		b.sink.Set(func(a relay.Attempt) error {
			switch {
			case a.Replay > 0:
				return errors.New("down")
			case !moved:
				return relay.ErrRelane
			}
			return nil
		})
		r := b.replay(1. / 3600)
		b.on(func(d *dispatcher) { d.addReplay(r.Replay) })
		time.Sleep(time.Minute)
		b.owe("e")
		time.Sleep(time.Minute)
		require.Len(t, b.sink.Received(), 4)
		require.True(t, moved)
	})
}

func TestWhatWaitedIsTriedAtOnceOnItsNewLane(t *testing.T) {
	inBubble(t, SinkSpec{Concurrency: 2, Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		known := false
		b.sink.Lanes = func(ev *relay.Event) relay.Lane { return relay.Lane{Group: "topic", Key: fmt.Sprint(ev.Entity, known)} }
		b.sink.OnRelane = func(string) { known = true }
		b.sink.Set(func(a relay.Attempt) error {
			switch {
			case known:
				return nil
			case a.Entity == "e1":
				return &relay.RetryAfterError{Err: errors.New("no leader"), After: time.Hour}
			}
			return relay.ErrRelane
		})
		b.owe("e1")
		synctest.Wait()
		b.owe("e2")
		time.Sleep(time.Second)
		require.Len(t, b.sink.Received(), 2)
	})
}

func TestWaitOfAnEarlierLifeGoesOnUnlessTheClockWasSetBack(t *testing.T) {
	inBubble(t, SinkSpec{Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute, MaxAge: 24 * time.Hour}}, func(b *bubble) {
		b.on(func(d *dispatcher) {
			for wait, want := range map[time.Duration]time.Duration{
				time.Minute: time.Minute, 50 * time.Minute: 50 * time.Minute, 24 * time.Hour: time.Hour,
			} {
				l := &lane{stream: d.backlog, items: []item{{position: relaytest.At(1), retry: &journal.Retry{Attempts: 1, Next: time.Now().Add(wait)}}}}
				d.resume(l)
				require.Equal(t, want, time.Until(l.due))
				l.items = nil // it ends
			}
		})
	})
}

func TestAStepOfTheClockMakesNothingOld(t *testing.T) {
	began := time.Unix(1_700_000_000, 0)
	since := began.Add(time.Hour)
	require.Equal(t, time.Hour, ageOf(since, began.Add(2*time.Hour), began, 2*time.Hour), "the clock was not set")
	require.Equal(t, time.Hour, ageOf(since, began.Add(26*time.Hour), began, 2*time.Hour), "set forward by a day")
	set := began.Add(-24 * time.Hour) // set back by a day, after which the event came
	require.Equal(t, time.Hour, ageOf(set.Add(time.Hour), set.Add(2*time.Hour), began, 2*time.Hour))
	require.Zero(t, ageOf(since, began, began, 0), "received in the future")
}
