// Package sinktest is the contract that every sink is tested against: what a far side receives is what Agora sent and
// what the documentation says, in order, and what Send reports is true. It leaves to each sink's own tests what only
// that sink does: its wire format, its verdicts, its files or connections.
package sinktest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ncs-relay/relay"
)

// patience bounds every wait of the suite. It is no measure of speed: a sink that needs it has hung.
const patience = 30 * time.Second

// Harness tells the suite how to get a sink and its far side.
type Harness struct {
	// New makes a sink with a far side of its own, healthy and empty, and ends the far side with t.Cleanup. The suite
	// closes the sink first, and then expects all goroutines gone that began after New, those too that serve the
	// sink's connections at the far side. Everything the sink logs must go to logger.
	New func(t *testing.T, logger *slog.Logger) Fixture

	OneLane               bool // all events are one lane
	CarriesAttempt        bool // the number of the attempt reaches the far side
	CarriesIdempotencyKey bool
	CarriesTraceparent    bool
}

// Fixture is one sink and its far side. Event ids are in hex, as EventID.String gives them. The faults hold until
// Heal; a sink whose far side cannot have a fault leaves it nil, and the suite skips what needs it.
type Fixture struct {
	Sink relay.Sink

	// Received gives every event the far side has taken so far, copies too, in the order it took them. Where the
	// far side keeps several orders (partitions) only the order within each has a meaning.
	Received func(t *testing.T) []Received

	Fail   func(id string) // the far side takes no batch with this event, for a reason that may pass
	Refuse func(id string) // the far side will never take this event
	Hang   func(id string) // the far side takes calls with this event and does not answer
	Heal   func()          // ends all faults, hanging calls included

	// Secrets are the values of every secret the sink was configured with. Far sides should repeat what they were sent in their
	// refusals, so that the suite can see it kept out of errors and logs.
	Secrets []string
}

// Run runs the contract. The test that calls it must not be parallel: the suite looks for goroutines left behind.
func Run(t *testing.T, h Harness) {
	t.Run("bodies arrive byte for byte", suite(h, testBodies))
	t.Run("everything known of an event arrives", suite(h, testMetadata))
	t.Run("attempt, replay, test and trace arrive", suite(h, testAttempt))
	t.Run("order holds within an entity", suite(h, testOrder))
	t.Run("lanes do not wait for each other", suite(h, testLanesIndependent))
	t.Run("taken is true when some fail", suite(h, testTaken))
	t.Run("a refused event does not stop the rest", suite(h, testRefused))
	t.Run("Send returns when its context ends", suite(h, testCancel))
	t.Run("Send with an ended context takes nothing", suite(h, testCancelled))
	t.Run("secrets stay out of errors and logs", suite(h, testSecrets))
	t.Run("Close may be called again", suite(h, testClose))
}

// bench is what one test of the suite works with.
type bench struct {
	Harness
	Fixture
	log *syncBuffer

	mu     sync.Mutex
	errors []error // everything Send has returned
}

// suite wraps a test: a fresh fixture, a closed sink, nothing left running, no secret printed.
func suite(h Harness, test func(*testing.T, *bench)) func(*testing.T) {
	return func(t *testing.T) {
		b := &bench{Harness: h, log: new(syncBuffer)}
		b.Fixture = h.New(t, slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		// The far side goes on running, so that connections end because the sink ends them.
		running := goleak.IgnoreCurrent()
		defer func() {
			if b.Heal != nil {
				b.Heal()
			}
			require.NoError(t, b.Sink.Close())
			goleak.VerifyNone(t, running)
			b.requireNoSecrets(t)
		}()
		test(t, b)
	}
}

func (b *bench) requireNoSecrets(t *testing.T) {
	printed := b.log.String()
	for _, err := range b.errors {
		printed += fmt.Sprintf("\n%v %+v %#v", err, err, err)
	}
	for i, secret := range b.Secrets {
		require.NotContains(t, printed, secret, "secret %d was printed", i)
	}
}

// send is Send with the checks that hold for every call.
func (b *bench) send(t *testing.T, ctx context.Context, lane relay.Lane, batch []relay.Attempt) (int, error) {
	taken, err := b.Sink.Send(ctx, lane, batch)
	if err != nil {
		b.mu.Lock()
		b.errors = append(b.errors, err)
		b.mu.Unlock()
	}
	// assert-like, because lanes run in goroutines of their own
	if taken < 0 || taken > len(batch) || (err == nil) != (taken == len(batch)) {
		t.Errorf("Send of %d events returned (%d, %v)", len(batch), taken, err)
		return len(batch), nil // so that nobody waits for more
	}
	return taken, err
}

// deliver does what the dispatcher does, as far as a sink can see it: lanes side by side, each lane in order and one
// batch at a time, again after a plain error, on after a permanent one. It returns the ids that were refused.
func (b *bench) deliver(t *testing.T, events ...*relay.Event) (refused []string) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for pending := Batch(events...); len(pending) > 0; {
		var again []relay.Attempt
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, lane := range b.lanes(t, pending) {
			wg.Go(func() {
				left, no := b.drain(t, ctx, lane)
				mu.Lock()
				defer mu.Unlock()
				again = append(again, left...)
				refused = append(refused, no...)
			})
		}
		wg.Wait()
		b.relane(again)
		slices.SortFunc(again, func(x, y relay.Attempt) int { return x.Position.Compare(y.Position) })
		pending = again
		require.NoError(t, ctx.Err(), "the sink did not take everything")
	}
	return refused
}

type laneWork struct {
	lane   relay.Lane
	events []relay.Attempt
}

// lanes sorts attempts into lanes; unordered events get one each.
func (b *bench) lanes(t *testing.T, pending []relay.Attempt) []laneWork {
	var work []laneWork
	at := map[relay.Lane]int{}
	for _, a := range pending {
		lane := b.Sink.Lane(a.Event)
		require.Equal(t, lane, b.Sink.Lane(a.Event), "Lane changes its mind")
		i, ok := at[lane]
		if !ok || lane.Key == "" {
			i = len(work)
			at[lane] = i
			work = append(work, laneWork{lane: lane})
		}
		work[i].events = append(work[i].events, a)
	}
	return work
}

// drain sends the events of one lane until all are taken or refused, ctx ends, or the lanes are out of date.
func (b *bench) drain(t *testing.T, ctx context.Context, work laneWork) (left []relay.Attempt, refused []string) {
	left = work.events
	for len(left) > 0 && ctx.Err() == nil {
		taken, err := b.send(t, ctx, work.lane, b.cut(left))
		left = left[taken:]
		switch {
		case err == nil:
		case relay.IsPermanent(err):
			refused = append(refused, id(left[0].Event))
			left = left[1:]
		case errors.Is(err, relay.ErrRelane):
			return left, refused
		default:
			for i := range left {
				left[i].Number++
			}
			wait(ctx, 5*time.Millisecond)
		}
	}
	return left, refused
}

// cut takes as many events as the sink wants at once.
func (b *bench) cut(left []relay.Attempt) []relay.Attempt {
	maxEvents, maxBytes := b.Sink.MaxBatch()
	n, size := 1, len(left[0].Body)
	for n < min(len(left), maxEvents) && (maxBytes == 0 || size+len(left[n].Body) <= maxBytes) {
		size += len(left[n].Body)
		n++
	}
	return left[:n]
}

// relane lets the sink give new lanes to what is left over, which can only be for that reason.
func (b *bench) relane(again []relay.Attempt) {
	r, ok := b.Sink.(relay.Relaner)
	if !ok {
		return
	}
	groups := map[string]bool{}
	for _, a := range again {
		groups[r.Lane(a.Event).Group] = true
	}
	for group := range groups {
		r.Relane(group)
	}
}

func testBodies(t *testing.T, b *bench) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	bodies := [][]byte{
		{},
		[]byte(`{}`),
		[]byte("{ \"a\" : 1,\r\n\t\"b\":[ ] }\n\n"),
		[]byte(`{"name":"<b>&amp;</b>","quote":"\"","slash":"\\/","escape":"\u0041\ud83d\ude00"}`),
		[]byte("{\"text\":\"\u2028\u2029\ufeff\ufffd\u0000é世界😀\"}"),
		[]byte("\xef\xbb\xbf{}"),
		[]byte("{\"cut\":\"\xe4\xb8"),
		[]byte("{\"surrogate\":\"\xed\xa0\x80\"}"),
		every,
		bytes.Repeat([]byte{0xff}, 999),
		[]byte(`{"long":"` + strings.Repeat("0123456789abcdef", 1<<16) + `"}`),
	}
	want := map[string]string{}
	var events []*relay.Event
	for i, body := range bodies {
		e := Event(i, "entity-"+strconv.Itoa(i%3))
		e.Body = body
		Sign(e)
		events = append(events, e)
		want[id(e)] = string(body)
	}
	require.Empty(t, b.deliver(t, events...))

	got := map[string]string{}
	for _, r := range b.Received(t) {
		got[r.ID] = string(r.Body)
	}
	require.Len(t, got, len(want))
	for i, e := range events {
		require.True(t, want[id(e)] == got[id(e)], "body %d differs: sent %.60q, arrived %.60q", i, want[id(e)], got[id(e)])
	}
}

func testMetadata(t *testing.T, b *bench) {
	full := Event(1, "sid-1")
	full.ContentType = "application/json;charset=utf-8"

	bare := Event(2, "")
	bare.ContentType, bare.SignatureV1, bare.SignatureV2 = "", "", ""

	odd := Event(3, "Raum 7/ä+b%2F世界\"\n&=;,😀")
	odd.ReceivedAt = time.Date(2026, 1, 2, 5, 4, 5, 999_999_999, time.FixedZone("", 2*3600))
	odd.SignatureV1 = ""

	unknown := Event(4, "sid-4")
	unknown.Info.ProductID, unknown.Info.Product = 99, "unknown_99"
	unknown.Info.EventType, unknown.Info.Event, unknown.Info.Category, unknown.Info.Known = 7, "unknown_7", "unknown", false

	events := []*relay.Event{full, bare, odd, unknown}
	require.Empty(t, b.deliver(t, events...))
	b.requireReceived(t, Batch(events...))
}

func testAttempt(t *testing.T, b *bench) {
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	batch := Batch(Event(1, "a"), Event(2, "b"), Event(3, "c"), Event(4, "d"), Event(5, "e"))
	batch[1].Number = 7
	batch[2].Replay = 3
	batch[3].Traceparent = traceparent
	batch[4].Test = true
	for _, a := range batch {
		_, err := b.send(t, t.Context(), b.Sink.Lane(a.Event), []relay.Attempt{a})
		require.NoError(t, err)
	}
	b.requireReceived(t, batch)
}

// requireReceived compares what arrived with what section "What a sink receives" of the documentation says.
func (b *bench) requireReceived(t *testing.T, batch []relay.Attempt) {
	want := make([]Received, 0, len(batch))
	for _, a := range batch {
		want = append(want, b.want(a))
	}
	byID := cmpopts.SortSlices(func(x, y Received) bool { return x.ID < y.ID })
	require.Empty(t, cmp.Diff(want, b.Received(t), byID, cmpopts.EquateEmpty()))
}

func (b *bench) want(a relay.Attempt) Received {
	r := Received{
		ID:          id(a.Event),
		Product:     a.Info.Product,
		Event:       a.Info.Event,
		EventType:   strconv.Itoa(a.Info.EventType),
		Category:    a.Info.Category,
		Entity:      a.Entity,
		Source:      a.Source,
		ReceivedAt:  a.ReceivedAt.UTC().Format("2006-01-02T15:04:05.000Z"),
		Body:        a.Body,
		ContentType: a.ContentType,
		SignatureV1: a.SignatureV1,
		SignatureV2: a.SignatureV2,
	}
	if a.Test {
		r.Test = "true"
	}
	key := r.ID
	if a.Replay > 0 {
		r.Replay = strconv.Itoa(int(a.Replay))
		key += "-r" + r.Replay
	}
	if b.CarriesIdempotencyKey {
		r.IdempotencyKey = key
	}
	if b.CarriesAttempt {
		r.Attempt = strconv.Itoa(a.Number)
	}
	if b.CarriesTraceparent {
		r.Traceparent = a.Traceparent
	}
	return r
}

func testOrder(t *testing.T, b *bench) {
	events := sequence(5, 40)
	require.Empty(t, b.deliver(t, events...))
	b.requireInOrder(t, events)
}

// sequence makes n events for each of several entities, taking turns.
func sequence(entities, n int) []*relay.Event {
	var events []*relay.Event
	for i := range n {
		for entity := range entities {
			events = append(events, Event(i*entities+entity, "entity-"+strconv.Itoa(entity)))
		}
	}
	return events
}

// requireInOrder asserts that all events arrived and that, copies apart, each entity's came in the order of events.
func (b *bench) requireInOrder(t *testing.T, events []*relay.Event) {
	want, got := map[string][]string{}, map[string][]string{}
	for _, e := range events {
		want[e.Entity] = append(want[e.Entity], id(e))
	}
	seen := map[string]bool{}
	for _, r := range b.Received(t) {
		if !seen[r.ID] {
			got[r.Entity] = append(got[r.Entity], r.ID)
		}
		seen[r.ID] = true
	}
	require.Empty(t, cmp.Diff(want, got))
}

func testLanesIndependent(t *testing.T, b *bench) {
	if b.OneLane {
		t.Skip("this sink has one lane")
	}
	stuck := Event(0, "stuck")
	others := b.otherLanes(t, stuck)
	b.Hang(id(stuck))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.send(t, ctx, b.Sink.Lane(stuck), Batch(stuck))
	}()
	require.Empty(t, b.deliver(t, others...))
	b.requireInOrder(t, others)
	cancel()
	<-done
}

// otherLanes returns events whose lanes are not that of e.
func (b *bench) otherLanes(t *testing.T, e *relay.Event) []*relay.Event {
	var others []*relay.Event
	for n := 1; n <= 50; n++ {
		other := Event(n, "other-"+strconv.Itoa(n))
		if b.Sink.Lane(other) != b.Sink.Lane(e) {
			others = append(others, other)
		}
	}
	require.NotEmpty(t, others, "all events are one lane")
	return others
}

func testTaken(t *testing.T, b *bench) {
	if b.Fail == nil {
		t.Skip("the far side cannot fail")
	}
	events := sequence(1, 20)
	b.Fail(id(events[7]))
	left := Batch(events...)
	for {
		taken, err := b.send(t, t.Context(), b.Sink.Lane(events[0]), b.cut(left))
		left = left[taken:]
		if err != nil {
			require.False(t, relay.IsPermanent(err), "a fault that may pass is not permanent: %v", err)
			break
		}
	}
	require.LessOrEqual(t, 20-len(left), 7, "the failed event was reported as taken")
	b.Heal()
	b.requireHas(t, events[:20-len(left)])

	var rest []*relay.Event
	for _, a := range left {
		rest = append(rest, a.Event)
	}
	require.Empty(t, b.deliver(t, rest...))
	b.requireInOrder(t, events)
}

// requireHas asserts that what Send reported as taken is there.
func (b *bench) requireHas(t *testing.T, events []*relay.Event) {
	got := map[string]bool{}
	for _, r := range b.Received(t) {
		got[r.ID] = true
	}
	for _, e := range events {
		require.True(t, got[id(e)], "event %s was reported as taken and is not there", e.Position)
	}
}

func testRefused(t *testing.T, b *bench) {
	if b.Refuse == nil {
		t.Skip("the far side refuses no single event")
	}
	events := sequence(2, 12)
	bad := []int{0, 9, 10, 23}
	var want []string
	for _, i := range bad {
		b.Refuse(id(events[i]))
		want = append(want, id(events[i]))
	}
	refused := b.deliver(t, events...)
	require.ElementsMatch(t, want, refused)
	for _, i := range slices.Backward(bad) {
		events = slices.Delete(events, i, i+1)
	}
	b.requireInOrder(t, events)
}

func testCancel(t *testing.T, b *bench) {
	if b.Hang == nil {
		t.Skip("the far side cannot hang")
	}
	e := Event(0, "entity")
	b.Hang(id(e))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		_, err := b.send(t, ctx, b.Sink.Lane(e), Batch(e))
		returned <- err
	}()
	wait(t.Context(), 20*time.Millisecond) // mostly gets the call to the far side; true at any instant
	cancel()
	select {
	case err := <-returned:
		require.ErrorIs(t, err, context.Canceled)
		require.False(t, relay.IsPermanent(err), "an attempt cut off says nothing about the event")
	case <-time.After(patience):
		require.FailNow(t, "Send did not return")
	}
}

func testCancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := Event(0, "entity")
	taken, err := b.send(t, ctx, b.Sink.Lane(e), Batch(e))
	require.Zero(t, taken)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, relay.IsPermanent(err))
	require.Empty(t, b.Received(t))
}

// testSecrets provokes every kind of failure; suite looks at what was printed.
func testSecrets(t *testing.T, b *bench) {
	if len(b.Secrets) == 0 {
		t.Skip("no secrets configured")
	}
	failed, refused := Event(0, "failed"), Event(1, "refused")
	for e, fault := range map[*relay.Event]func(string){failed: b.Fail, refused: b.Refuse} {
		if fault == nil {
			continue
		}
		fault(id(e))
		_, err := b.send(t, t.Context(), b.Sink.Lane(e), Batch(e))
		require.Error(t, err)
	}
	if b.Hang != nil {
		testCancel(t, b)
	}
}

func testClose(t *testing.T, b *bench) {
	require.NoError(t, b.Sink.Close())
	require.NoError(t, b.Sink.Close()) // and once more by suite
}

// id is the event's id as far sides see it, written independently of EventID.String.
func id(e *relay.Event) string { return hex.EncodeToString(e.ID[:]) }

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// syncBuffer is a buffer that several goroutines may log into.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
