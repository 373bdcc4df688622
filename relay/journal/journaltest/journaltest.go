// Package journaltest holds the contract suite of the journal, which every journal must pass.
package journaltest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

// Opener opens one journal, again and again: what an earlier one left must be there.
type Opener func(t testing.TB) journal.Opened

// Run runs the contract suite. setup gives an Opener of a new journal, which takes no record of 1 MiB.
func Run(t *testing.T, setup func(t *testing.T) Opener) {
	tests := []struct {
		name string
		run  func(*testing.T, Opener)
	}{
		{"reads in append order what was appended", testOrder},
		{"hands out nothing beyond the frontier", testFrontier},
		{"settles in any order, any number of times", testSettle},
		{"hands out after a restart what was not settled", testRestart},
		{"reports each of many concurrent appends once", testConcurrent},
		{"reports appends that come too late", testClosed},
		{"refuses records it cannot keep", testRefuse},
		{"keeps bodies of any size that fits", testSizes},
		{"knows keys after a restart, oldest first", testKeys},
		{"keeps accounts balanced", testTotals},
		{"keeps dead letters", testDeadLetters},
		{"knows all sinks", testSinks},
		{"starts a new sink at the frontier", testNewSink},
		{"is ready while it takes appends", testReady},
		{"knows which sinks are paused", testPaused},
		{"hands a released sink on", testRelease},
		{"knows the oldest delivery", testOldest},
		{"keeps the accounts of sources", testAccounts},
		{"balances accounts at every instant", testBalance},
		{"scans in order", testScan},
		{"finds events by id", testFind},
		{"tells how a delivery stands", testStanding},
		{"moves what is owed to another sink", testMove},
		{"drops what is owed", testDropPending},
		{"delivers again what is settled", testReplay},
		{"delivers dead letters again", testReplayLetters},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.run(t, setup(t))
		})
	}
}

// Patience is how long a test waits for what a journal does by itself.
const patience = 30 * time.Second

// Start runs j until it has its shards, and returns what stops and closes it.
func Start(t testing.TB, j journal.Opened) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-ended)
			require.NoError(t, j.Close())
		})
	}
	t.Cleanup(stop)
	await(t, "it has no shard", func() bool { held, _ := j.Shards(); return len(held) > 0 })
	return stop
}

// await waits until done reports true.
func await(t testing.TB, missing string, done func() bool) {
	t.Helper()
	for began := time.Now(); !done(); time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			require.Fail(t, "the journal does not come to an end: "+missing)
		}
	}
}

// diff compares, but for when a journal has stored something.
func diff(want, got any, options ...cmp.Option) string {
	return cmp.Diff(want, got, append(options, cmpopts.IgnoreFields(journal.Record{}, "Stored"))...)
}

// judged waits until it is known of all that was appended whether it is owed. A journal on a disk knows at once.
func judged(t testing.TB, j journal.Operator) {
	t.Helper()
	await(t, "what was appended is not judged", func() bool { return j.Snapshot().Unjudged == 0 })
}

// Record makes the nth record of a test, different from all others in every field.
func Record(n int, sinks ...string) *journal.Record {
	r := &journal.Record{
		Time: time.UnixMilli(1_750_000_000_000 + int64(n)), Source: "recording", ProductID: 3, EventType: n % 100, Entity: fmt.Sprintf("sid-%d", n%7),
		Sinks: sinks, ContentType: "application/json", SignatureV2: fmt.Sprintf("%064x", n), TraceFlags: 1,
		Body: fmt.Appendf(nil, `{"noticeId":"%d","fill":"%0*d"}`, n, n%300, 0),
	}
	if n%5 == 0 {
		r.Quarantine, r.SignatureV1 = "odd", fmt.Sprintf("%040x", n)
	}
	binary.BigEndian.PutUint64(r.ID[:], uint64(n)+1)
	binary.BigEndian.PutUint64(r.Key[8:], uint64(n)+1)
	binary.BigEndian.PutUint64(r.SpanID[:], uint64(n)+1)
	return r
}

// Append appends and waits for the outcome.
func Append(j journal.Appender, r *journal.Record) (journal.Position, error) {
	type outcome struct {
		pos journal.Position
		err error
	}
	done := make(chan outcome, 1)
	if err := j.Append(context.Background(), r, func(pos journal.Position, err error) { done <- outcome{pos, err} }); err != nil {
		return journal.Position{}, err
	}
	o := <-done
	return o.pos, o.err
}

// Fill appends n records from number from on.
func Fill(t testing.TB, j journal.Appender, from, n int, sinks ...string) []*journal.Record {
	t.Helper()
	var recs []*journal.Record
	for i := range n {
		r := Record(from+i, sinks...)
		pos, err := Append(j, r)
		require.NoError(t, err)
		r.Position = pos
		recs = append(recs, r)
	}
	if o, ok := j.(journal.Operator); ok {
		judged(t, o)
	}
	return recs
}

// Shard is the shard of a journal that has one only.
func Shard(t testing.TB, j journal.Sharded) *journal.Shard {
	t.Helper()
	held, _ := j.Shards()
	require.Len(t, held, 1)
	return held[0]
}

// Owed is an open sink with its deliveries, which knows its name and its account.
type Owed struct {
	journal.Sink
	journal.Deliveries
	name string
	j    journal.Operator
}

// Sink opens a sink.
func Sink(t testing.TB, j journal.Journal, name string) Owed {
	t.Helper()
	owed, err := OpenSink(j, name)
	require.NoError(t, err)
	return owed
}

// OpenSink opens a sink of a journal that has one shard only, which may fail.
func OpenSink(j journal.Journal, name string) (Owed, error) {
	s, err := j.Sink(name)
	if err != nil {
		return Owed{}, err
	}
	held, _ := j.Shards()
	return Owed{s, s.Owed(held[0]), name, j}, nil
}

// Totals are the sink's.
func (o Owed) Totals() journal.Totals { return StatusOf(o.j, o.name).Totals }

// StatusOf is what a journal knows of a sink.
func StatusOf(j journal.Operator, name string) journal.SinkStatus {
	for _, s := range j.Snapshot().Sinks {
		if s.Name == name {
			return s
		}
	}
	return journal.SinkStatus{}
}

// Drain reads until there is nothing more.
func Drain(t testing.TB, c journal.Deliveries, maxBytes int) (all []*journal.Record) {
	t.Helper()
	for began := time.Now(); ; {
		recs, err := c.Next(maxBytes)
		require.NoError(t, err)
		all = append(all, recs...)
		if len(recs) == 0 && !behind(c) {
			return all
		}
		if len(recs) == 0 { // it may be reading meanwhile
			require.Less(t, time.Since(began), patience, "Next does not hand out what is owed")
			time.Sleep(time.Millisecond)
		}
	}
}

// behind reports whether there is more to read, as far as c can tell.
func behind(c journal.Deliveries) bool {
	o, ok := c.(Owed)
	return ok && (o.j.Snapshot().Unjudged > 0 || o.Totals().Pending > uint64(len(o.Deliveries.Pending())))
}

// Positions are those of recs.
func Positions(recs []*journal.Record) []journal.Position {
	var p []journal.Position
	for _, r := range recs {
		p = append(p, r.Position)
	}
	return p
}

// Pending are the positions that were handed out and are not settled.
func Pending(c journal.Deliveries) []journal.Position {
	var p []journal.Position
	for _, d := range c.Pending() {
		p = append(p, d.Position)
	}
	return p
}

func balanced(t testing.TB, c Owed) journal.Totals {
	t.Helper()
	n := c.Totals()
	require.Equal(t, n.Owed, n.Delivered+n.Dead+n.Skipped+n.Dropped+n.Pending, "%+v", n)
	return n
}

func testOrder(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	a, b := Sink(t, j, "a"), Sink(t, j, "b")
	both := Fill(t, j, 0, 50, a.name, b.name)
	onlyA := Fill(t, j, 50, 50, a.name)
	Fill(t, j, 100, 10)
	require.Empty(t, diff(slices.Concat(both, onlyA), Drain(t, a, 1000)))
	require.Empty(t, diff(both, Drain(t, b, 1)))
	require.True(t, slices.IsSortedFunc(Positions(both), journal.Position.Compare))

	wanted := []journal.Position{onlyA[3].Position, both[2].Position, both[49].Position, both[2].Position}
	loaded, err := j.Load(wanted)
	require.NoError(t, err)
	require.Empty(t, diff([]*journal.Record{onlyA[3], both[2], both[49], both[2]}, loaded), "in the order asked")
}

// Frontier is the journal's.
func Frontier(t require.TestingT, j journal.Operator) journal.Cut {
	cut, err := j.Frontier(context.Background())
	require.NoError(t, err)
	return cut
}

func testFrontier(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	c := Sink(t, j, "a")
	for n := range 100 {
		appended := c.Appended()
		require.Empty(t, Drain(t, c, 1))
		var pos journal.Position
		got := make(chan error, 1)
		require.NoError(t, j.Append(t.Context(), Record(n, c.name), func(p journal.Position, err error) { pos = p; got <- err }))
		require.NoError(t, <-got)
		<-appended
		judged(t, j)
		require.Equal(t, pos, Frontier(t, j).In(pos.Shard))
		require.Equal(t, []journal.Position{pos}, Positions(Drain(t, c, 1)))
	}
}

func testSettle(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	c := Sink(t, j, "a")
	recs := Fill(t, j, 0, 20, c.name)
	c.Settle(recs[0].Position, journal.Delivered)
	require.EqualValues(t, 20, balanced(t, c).Pending, "nothing was handed out yet")
	require.False(t, c.Owes(recs[0].Position))
	Drain(t, c, 1<<20)
	require.True(t, c.Owes(recs[0].Position))
	for _, i := range []int{5, 3, 19, 5, 0} {
		c.Settle(recs[i].Position, journal.Delivered)
		c.Settle(recs[i].Position, journal.Skipped)
		c.Bury(journal.DeadLetter{Position: recs[i].Position})
		c.Failed(recs[i].Position, journal.Retry{Attempts: 1})
	}
	require.False(t, c.Owes(recs[0].Position))
	require.Equal(t, journal.Totals{Owed: 20, Delivered: 4, Pending: 16}, balanced(t, c))
	require.Len(t, c.Pending(), 16)
	require.Empty(t, Drain(t, c, 1<<20), "handed out once")
}

func testRestart(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	c := Sink(t, j, "a")
	recs := Fill(t, j, 0, 60, c.name)
	for handed := 0; handed < 40; {
		next, err := c.Next(1)
		require.NoError(t, err)
		handed += len(next)
	}
	for i := range 40 {
		if i%3 != 0 {
			c.Settle(recs[i].Position, journal.Delivered)
		}
	}
	retry := journal.Retry{Attempts: 3, FirstError: "refused", LastError: "time-out", FirstFailed: time.UnixMilli(1), LastFailed: time.UnixMilli(2), Next: time.UnixMilli(3)}
	c.Failed(recs[9].Position, retry)
	before := balanced(t, c)
	stop()

	j = open(t)
	Start(t, j)
	c = Sink(t, j, "a")
	require.Equal(t, before, balanced(t, c))
	var want []journal.Pending
	for i := 0; i < 40; i += 3 {
		p := journal.Pending{Position: recs[i].Position}
		if i == 9 {
			p.Retry = retry
		}
		want = append(want, p)
	}
	require.Empty(t, diff(want, c.Pending()))
	require.Empty(t, diff(recs[40:], Drain(t, c, 1)))
	more := Fill(t, j, 60, 1, c.name)
	require.Positive(t, more[0].Position.Compare(recs[59].Position))
}

func testConcurrent(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	c := Sink(t, j, "a")
	const workers, each = 8, 50
	var mu sync.Mutex
	calls := make(map[int]int)
	at := make(map[journal.Position]int)
	var last journal.Position
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				n := w*each + i
				wg.Add(1)
				err := j.Append(context.Background(), Record(n, c.name), func(pos journal.Position, err error) {
					defer wg.Done()
					mu.Lock()
					defer mu.Unlock()
					calls[n]++
					at[pos] = n
					if err != nil || pos.Compare(last) <= 0 {
						t.Errorf("done(%s, %v) after %s", pos, err, last)
					}
					last = pos
				})
				if err != nil {
					wg.Done()
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, calls, workers*each)
	for n, times := range calls {
		require.Equal(t, 1, times, "record %d", n)
	}
	judged(t, j)
	got := Drain(t, c, 4096)
	require.Len(t, got, workers*each)
	for _, r := range got {
		want := Record(at[r.Position], c.name)
		want.Position = r.Position
		require.Empty(t, diff(want, r))
	}
}

func testClosed(t *testing.T, open Opener) {
	j := open(t)
	results := make(chan error, 10)
	for n := range 10 {
		require.NoError(t, j.Append(t.Context(), Record(n), func(_ journal.Position, err error) { results <- err }))
	}
	require.NoError(t, j.Close())
	for range 10 {
		require.ErrorIs(t, <-results, journal.ErrClosed)
	}
	_, err := Append(j, Record(11))
	require.ErrorIs(t, err, journal.ErrClosed)

	j = open(t)
	ctx, cancel := context.WithCancel(t.Context())
	for n := range 10 {
		require.NoError(t, j.Append(t.Context(), Record(n), func(_ journal.Position, err error) { results <- err }))
	}
	cancel()
	require.NoError(t, j.Run(ctx))
	for range 10 {
		require.NoError(t, <-results, "what was queued when Run was to end is written")
	}
	require.NoError(t, j.Close())
}

func testRefuse(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	never := func(journal.Position, error) { t.Error("done was called") }
	require.Error(t, j.Append(t.Context(), Record(1, "nobody"), never), "no such sink")
	c := Sink(t, j, "a")
	require.Error(t, j.Append(t.Context(), Record(1, c.name, c.name), never))
	huge := Record(1, c.name)
	huge.Body = make([]byte, 65<<20)
	require.ErrorIs(t, j.Append(t.Context(), huge, never), journal.ErrTooLarge)
}

func testSizes(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	c := Sink(t, j, "a")
	var recs []*journal.Record
	add := func(size int) error {
		r := Record(len(recs), c.name)
		r.Body = bytes.Repeat([]byte{byte(size)}, size)
		pos, err := Append(j, r)
		if err == nil {
			r.Position = pos
			recs = append(recs, r)
		}
		return err
	}
	for size := range 40 {
		require.NoError(t, add(size))
	}
	for size := 1 << 10; ; size += 1 + size/30 { // the largest that fits is among them, or nearly
		err := add(size)
		if err != nil {
			require.ErrorIs(t, err, journal.ErrTooLarge)
			for ; err != nil; err = add(size) {
				size--
			}
			break
		}
		require.Less(t, size, 1<<20, "segments are too large for this suite")
	}
	same := func(got []*journal.Record) {
		t.Helper()
		require.Equal(t, Positions(recs), Positions(got))
		for i := range recs {
			require.True(t, bytes.Equal(recs[i].Body, got[i].Body), "body of %d bytes", len(recs[i].Body))
		}
	}
	same(Drain(t, c, 1))
	stop()
	j = open(t)
	var loaded []*journal.Record
	for some := range slices.Chunk(Positions(recs), 32) {
		read, err := j.Load(some)
		require.NoError(t, err)
		loaded = append(loaded, read...)
	}
	same(loaded)
	require.NoError(t, j.Close())
}

func testKeys(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	recs := Fill(t, j, 0, 30)
	require.NoError(t, j.Flush())
	recs = append(recs, Fill(t, j, 30, 30)...)
	type known struct {
		Key, ID [16]byte
		Time    time.Time
	}
	check := func(n int, since time.Time, want []*journal.Record) {
		t.Helper()
		var got, all []known
		require.NoError(t, j.Keys(Shard(t, j), n, since, func(key, id [16]byte, at time.Time) {
			got = append(got, known{key, id, at})
		}))
		for _, r := range want {
			all = append(all, known{r.Key, r.ID, r.Time})
		}
		require.Empty(t, diff(all, got))
	}
	check(1000, time.Time{}, recs)
	check(40, time.Time{}, recs[20:])
	stop()
	j = open(t)
	Start(t, j)
	check(1000, time.Time{}, recs)
	check(7, time.Time{}, recs[53:])
	check(1000, recs[45].Time, recs[45:])
}

func testTotals(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	c := Sink(t, j, "a")
	recs := Fill(t, j, 0, 12, c.name)
	Fill(t, j, 12, 5)
	Drain(t, c, 1<<20)
	c.Settle(recs[0].Position, journal.Delivered)
	c.Settle(recs[1].Position, journal.Skipped)
	c.Settle(recs[2].Position, journal.Dropped)
	c.Bury(journal.DeadLetter{Position: recs[3].Position, Reason: "no"})
	want := journal.Totals{Owed: 12, Delivered: 1, Dead: 1, Skipped: 1, Dropped: 1, Pending: 8}
	require.Equal(t, want, balanced(t, c))
	var size int
	for _, r := range recs[4:] {
		size += len(r.Body)
	}
	require.EqualValues(t, size, c.PendingBytes(Shard(t, j)))
	stop()
	j = open(t)
	Start(t, j)
	status := j.Snapshot().Sinks
	require.Equal(t, []journal.SinkStatus{{Name: "a", Totals: want, PendingBytes: int64(size), Letters: 1, Oldest: recs[4].Time}}, status)
	require.Equal(t, want, balanced(t, Sink(t, j, "a")))
}

func testDeadLetters(t *testing.T, open Opener) {
	j := open(t)
	stop := Start(t, j)
	c := Sink(t, j, "a")
	recs := Fill(t, j, 0, 10, c.name)
	Drain(t, c, 1<<20)
	var want []journal.DeadLetter
	for i := range 6 {
		l := journal.DeadLetter{Position: recs[i].Position, Reason: fmt.Sprint("refused ", i), Cause: []string{"", "4xx"}[i%2], At: time.UnixMilli(int64(i + 1)), Size: int64(len(recs[i].Body)),
			Retry: journal.Retry{Attempts: i, FirstError: "x", LastError: "y", FirstFailed: time.UnixMilli(5), LastFailed: time.UnixMilli(6)}}
		want = append(want, l)
		c.Bury(l)
		if i == 2 {
			require.NoError(t, j.Flush())
		}
	}
	unwritten := cmpopts.IgnoreFields(journal.DeadLetter{}, "Written") // which not every journal says
	check := func() {
		t.Helper()
		got, err := j.DeadLetters("a", journal.Position{}, 100)
		require.NoError(t, err)
		require.Empty(t, diff(want, got, unwritten))
		got, err = j.DeadLetters("a", want[1].Position, 2)
		require.NoError(t, err)
		require.Empty(t, diff(want[2:4], got, unwritten))
		one, found, err := j.DeadLetter("a", want[1].Position)
		require.NoError(t, err)
		require.True(t, found)
		require.Empty(t, diff(want[1], one, unwritten))
		_, found, err = j.DeadLetter("a", recs[7].Position)
		require.NoError(t, err)
		require.False(t, found, "it is pending")
		loaded, err := j.Load([]journal.Position{want[len(want)-1].Position})
		require.NoError(t, err)
		require.Empty(t, diff(recs[5:6], loaded))
	}
	check()
	stop()
	j = open(t)
	Start(t, j)
	check()
	c = Sink(t, j, "a")
	require.Equal(t, Positions(recs[6:]), Pending(c))
	require.NoError(t, j.DropLetters("a", want[0]))
	require.NoError(t, j.DropLetters("a", want[0]))
	want = want[1:]
	check()
	require.EqualValues(t, 6, balanced(t, c).Dead)
	require.EqualValues(t, 5, j.Snapshot().Sinks[0].Letters)
}

func testSinks(t *testing.T, open Opener) {
	for _, names := range [][]string{{"a", "b"}, {"c", "b"}, {"d", "a"}} {
		j := open(t)
		stop := Start(t, j)
		for _, name := range names {
			Sink(t, j, name)
		}
		stop()
	}
	j := open(t)
	Start(t, j)
	var names []string
	for _, s := range j.Snapshot().Sinks {
		names = append(names, s.Name)
		require.False(t, s.Open)
	}
	require.Equal(t, []string{"a", "b", "c", "d"}, names)
}

func testNewSink(t *testing.T, open Opener) {
	j := open(t)
	Start(t, j)
	a := Sink(t, j, "a")
	Fill(t, j, 0, 10, a.name)
	b := Sink(t, j, "b")
	require.Empty(t, Drain(t, b, 1))
	require.Equal(t, journal.Totals{}, b.Totals())
	recs := Fill(t, j, 10, 3, a.name, b.name)
	require.Empty(t, diff(recs, Drain(t, b, 1)))
}

// later is when every record of a test is older than any retention.
var later = time.Now().AddDate(10, 0, 0)

// sweep makes room at once, where the journal would do so by itself in time.
func sweep(t testing.TB, j journal.Journal) {
	t.Helper()
	if s, ok := j.(interface {
		Sweep(ctx context.Context, now time.Time) error
	}); ok {
		require.NoError(t, s.Sweep(t.Context(), later))
	}
}
