package deliver

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

// TestAnyHistoryOfDeliveries plays drawn histories of one sink under fake time: what comes, how the far side answers, what
// operators do, reloads, restarts and crashes. The far side, which knows nothing of lanes and cursors, watches all along
// what a receiver may rely on, and in the end nothing is missing.
func TestAnyHistoryOfDeliveries(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{spec: SinkSpec{
			Name:        "sink",
			Concurrency: rapid.IntRange(1, 4).Draw(rt, "concurrency"),
			Breaks:      rapid.Bool().Draw(rt, "breaks"),
			Unordered:   rapid.IntRange(0, 5).Draw(rt, "unordered") == 5,
			Backlog:     rapid.SampledFrom([]int64{0, 0, 60}).Draw(rt, "backlog"),
			Retry: RetryConfig{Initial: time.Second, MaxInterval: time.Minute,
				MaxAge:      rapid.SampledFrom([]time.Duration{100 * time.Hour, 10 * time.Minute}).Draw(rt, "max age"),
				MaxAttempts: rapid.SampledFrom([]int{0, 0, 4}).Draw(rt, "max attempts")},
		}}
		batch := rapid.IntRange(1, 4).Draw(rt, "batch")
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 40).Draw(rt, "steps")
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) { h.play(t, batch, seed, steps) })
		if len(h.judge.problems) > 0 {
			rt.Fatalf("%s", h.judge.problems[0])
		}
	})
}

// step is a thing that happens, with a number whose meaning depends on it.
type step struct {
	What string
	N    int
}

func drawStep(rt *rapid.T) step {
	what := rapid.SampledFrom([]string{"come", "come", "come", "pass", "pass", "mood", "mood", "lanes", "pause", "resume", "skip", "reload", "restart",
		"crash", "replay", "replay dead", "cancel"}).Draw(rt, "what")
	return step{what, rapid.IntRange(0, 30).Draw(rt, "n")}
}

// history is one sink with its journal in a bubble.
type history struct {
	spec  SinkSpec
	judge *judge

	t       *testing.T
	fs      *disktest.CrashFS
	dir     string
	sinks   *Sinks
	journal journal.Opened
	end     func()

	version int // of the sink's definition
	came    int
}

func (h *history) play(t *testing.T, batch int, seed uint64, steps []step) {
	dir, err := os.MkdirTemp("/dev/shm", "history")
	if err != nil {
		dir, err = os.MkdirTemp("", "history")
	}
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	h.t, h.dir, h.fs = t, dir, disktest.NewCrashFS(seed)
	h.judge = &judge{spec: h.spec, batch: batch, rand: rand.New(rand.NewPCG(seed, 2)), books: map[journal.Position]*book{},
		running: map[relay.Lane]bool{}, replayed: map[uint32]map[string]journal.Position{}, lanes: 1}
	h.spec.Build = func() (relay.Sink, error) { return h.judge, nil }
	h.start()
	for _, s := range steps {
		h.step(s)
	}
	h.judge.set("well")
	require.NoError(t, h.sinks.Resume(t.Context(), "sink"))
	time.Sleep(3 * time.Hour)
	synctest.Wait()
	h.judge.settle(h.journal.Snapshot().Sinks[0], h.journal.Replays())
	var left []int
	require.NoError(t, h.sinks.on(t.Context(), "sink", func(d *dispatcher) {
		l := &d.lanes
		left = []int{l.queued, l.loaded, len(l.all), l.fresh.len(), l.again.len(), len(l.waiting),
			d.inFlight, d.retrying, len(d.busy), len(d.sending), len(d.draining)}
	}))
	if slices.Max(left) != 0 || slices.Min(left) != 0 {
		h.judge.problem("left in memory: %v", left)
	}
	h.end()
}

func (h *history) start() {
	t := h.t
	log := slog.New(slog.DiscardHandler)
	metrics, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: log})
	require.NoError(t, err)
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{Log: log})
	require.NoError(t, err)
	h.journal = disktest.Open(t, h.dir, disktest.Options{FS: h.fs, Logger: log, SegmentSize: 8 << 10})
	h.judge.journal = h.journal
	h.sinks, err = New(Options{Sinks: h.specs(), Journal: h.journal, Logger: log, Metrics: metrics, Tracing: tracing})
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	jctx, jcancel := context.WithCancel(t.Context())
	var wg, jwg sync.WaitGroup
	jwg.Go(func() { h.journal.Run(jctx) })
	wg.Go(func() { h.sinks.Run(ctx, time.Hour) })
	h.end = func() {
		cancel()
		wg.Wait()
		jcancel()
		jwg.Wait()
		h.journal.Close()
		require.NoError(t, metrics.Shutdown(context.Background()))
	}
}

func (h *history) specs() []SinkSpec {
	h.spec.Config = h.version
	return []SinkSpec{h.spec}
}

// saved has on disk what an operator did, as the answer to that promises.
func (h *history) saved(err error) {
	require.NoError(h.t, err)
	require.NoError(h.t, h.journal.Flush())
}

// skip skips what waits, of one entity only unless that is "".
func (h *history) skip(entity string) {
	var positions []journal.Position
	for _, p := range h.journal.Pending("sink") {
		records, err := h.journal.Load([]journal.Position{p.Position})
		require.NoError(h.t, err)
		if r := records[0]; r != nil && (entity == "" || r.Entity == entity) {
			positions = append(positions, p.Position)
		}
	}
	_, err := h.sinks.Skip(h.t.Context(), "sink", positions)
	h.saved(err)
}

func (h *history) replay(dead bool, rate float64) {
	to, err := h.journal.Frontier(h.t.Context())
	require.NoError(h.t, err)
	spec := journal.ReplaySpec{Sink: "sink", Of: "sink", Filter: []byte(`{"sink":"sink"}`), To: to, DeadLetters: dead, Rate: rate,
		CreatedAt: time.Now()}
	matched, err := h.journal.CountReplay(h.t.Context(), spec, func(*journal.Record) bool { return true })
	require.NoError(h.t, err)
	if matched == 0 {
		return
	}
	r, err := h.journal.AddReplay(spec)
	require.NoError(h.t, err)
	require.NoError(h.t, h.sinks.AddReplay(h.t.Context(), r))
}

func (h *history) step(s step) {
	ctx := h.t.Context()
	switch s.What {
	case "come":
		for range s.N + 1 {
			h.come()
		}
	case "pass":
		time.Sleep(time.Duration(s.N*s.N) * time.Second)
	case "mood":
		h.judge.set(moods[s.N%len(moods)])
	case "lanes":
		h.judge.spread(1 + s.N%3)
	case "pause":
		h.saved(h.sinks.Pause(ctx, "sink", "test", time.Time{}))
	case "resume":
		h.saved(h.sinks.Resume(ctx, "sink"))
	case "skip":
		entity := ""
		if s.N%4 > 0 {
			entity = entities[s.N%len(entities)]
		}
		h.skip(entity)
	case "reload":
		h.version++
		require.NoError(h.t, h.sinks.Reload(ctx, h.specs(), func() error { return nil }))
	case "restart":
		h.end()
		h.start()
	case "crash":
		time.Sleep(time.Duration(s.N*17) * time.Millisecond) // also between an outcome and the checkpoint
		h.fs.Crash()
		h.judge.crash()
		h.end()
		h.fs.Restart(float64(s.N) / 30)
		h.start()
	case "replay", "replay dead":
		rate := 0.0
		if s.N%3 == 0 {
			rate = 0.5
		}
		h.replay(s.What == "replay dead", rate)
	case "cancel":
		if list := h.journal.Replays(); len(list) > 0 {
			r := list[s.N%len(list)]
			r.Cancel()
			h.saved(h.sinks.DropReplay(ctx, r))
		}
	}
}

var entities = []string{"", "a", "b", "c", "d"}

// come appends an event that the sink is owed.
func (h *history) come() {
	h.came++
	id := relaytest.Identity(h.came, 1)
	entity := entities[(h.came*h.came)%len(entities)]
	rec := &journal.Record{ID: id.ID, Key: id.Key, Time: time.Now(), Source: "main", Entity: entity,
		Sinks: []string{"sink"}, Body: []byte("{}")}
	h.journal.Account("main").Received()
	appended := make(chan error, 1)
	require.NoError(h.t, h.journal.Append(h.t.Context(), rec, func(pos journal.Position, err error) {
		if err == nil {
			h.judge.owe(pos, entity)
		}
		appended <- err
	}))
	require.NoError(h.t, <-appended)
}

// moods are how the far side answers.
var moods = []string{"well", "well", "flaky", "down", "refusing", "busy", "a fails", "slow", "gone"}

// book is what the judge knows of an event.
type book struct {
	entity    string
	attempted bool
	taken     int             // how often it was, replays apart
	replayed  map[uint32]bool // attempted in these replays
	raised    bool            // taken as a replay
	cut       bool            // an attempt was cut off, or what became of it may be forgotten: it may come again
}

// judge is a far side that watches. Its mutex guards all.
type judge struct {
	spec    SinkSpec
	journal journal.Opened
	batch   int

	mu       sync.Mutex
	rand     *rand.Rand
	mood     string
	crashed  bool
	lanes    int // what entities are spread over now
	assigned int // what Lane says
	running  map[relay.Lane]bool
	books    map[journal.Position]*book
	replayed map[uint32]map[string]journal.Position // the newest attempted of each entity, by replay
	problems []string
}

func (j *judge) problem(format string, args ...any) {
	j.problems = append(j.problems, fmt.Sprintf(format, args...))
}

func (j *judge) set(mood string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mood = mood
}

func (j *judge) spread(lanes int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lanes = lanes
}

func (j *judge) owe(pos journal.Position, entity string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.book(pos, entity)
}

// book is that of an event, which may be sent before whoever appended it is told.
func (j *judge) book(pos journal.Position, entity string) *book {
	if j.books[pos] == nil {
		j.books[pos] = &book{entity: entity, replayed: map[uint32]bool{}}
	}
	return j.books[pos]
}

// crash: whatever was settled may be forgotten.
func (j *judge) crash() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.crashed = true
	for _, b := range j.books {
		b.cut = true
	}
}

func (j *judge) Lane(ev *relay.Event) relay.Lane {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lane(ev)
}

func (j *judge) lane(ev *relay.Event) relay.Lane {
	switch {
	case ev.Entity == "":
		return relay.Lane{Group: "topic"}
	case ev.Entity == "d": // of a topic of its own
		return relay.Lane{Group: "other", Key: "d"}
	}
	return relay.Lane{Group: "topic", Key: fmt.Sprint(crc32.ChecksumIEEE([]byte(ev.Entity)) % uint32(max(1, j.assigned)))}
}

func (j *judge) Relane(string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for lane := range j.running {
		if lane.Group == "topic" {
			j.problem("laned anew while %v is being sent", lane)
		}
	}
	j.assigned = j.lanes
}

func (j *judge) MaxBatch() (int, int) { return j.batch, 1 << 20 }
func (j *judge) Close() error         { return nil }

func (j *judge) Send(ctx context.Context, lane relay.Lane, batch []relay.Attempt) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.watch(lane, batch)
	mark := lane
	if lane.Key == "" || j.spec.Unordered {
		mark.Key = fmt.Sprint(batch[0].Position, batch[0].Replay)
	}
	if j.running[mark] {
		j.problem("two Sends of lane %v", lane)
	}
	if j.running[mark] = true; len(j.running) > j.spec.Concurrency {
		j.problem("%d Sends at a time", len(j.running))
	}
	defer delete(j.running, mark)
	if j.mood == "slow" || j.rand.IntN(4) == 0 {
		wait := time.Duration(j.rand.IntN(5000)) * time.Millisecond
		j.mu.Unlock()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		j.mu.Lock()
	}
	if ctx.Err() != nil {
		for _, a := range batch {
			j.books[a.Position].cut = true
		}
		return 0, ctx.Err()
	}
	if lane.Group == "topic" && lane.Key != "" && j.assigned != j.lanes {
		return 0, relay.ErrRelane
	}
	for i, a := range batch {
		if err := j.verdict(a); err != nil {
			return i, err
		}
		j.took(a)
	}
	return len(batch), nil
}

// watch looks at what is sent.
func (j *judge) watch(lane relay.Lane, batch []relay.Attempt) {
	if len(batch) > j.batch {
		j.problem("a batch of %d", len(batch))
	}
	for i, a := range batch {
		b := j.book(a.Position, a.Entity)
		switch {
		case a.Replay != batch[0].Replay || j.lane(a.Event) != lane:
			j.problem("a batch of %v has an event of %v", lane, j.lane(a.Event))
		case i > 0 && (a.Position.Compare(batch[i-1].Position) <= 0 || j.spec.Unordered || lane.Key == ""):
			j.problem("a batch has %s after %s", a.Position, batch[i-1].Position)
		}
		if a.Replay > 0 {
			newest := j.replayed[a.Replay]
			if newest == nil {
				newest = make(map[string]journal.Position)
				j.replayed[a.Replay] = newest
			}
			if !b.replayed[a.Replay] && a.Position.Compare(newest[b.entity]) < 0 && b.entity != "" && !j.spec.Unordered && !j.crashed {
				j.problem("replay %d: %s of %q is first attempted after %s", a.Replay, a.Position, b.entity, newest[b.entity])
			}
			newest[b.entity] = slices.MaxFunc([]journal.Position{newest[b.entity], a.Position}, journal.Position.Compare)
			b.replayed[a.Replay] = true
			continue
		}
		if !b.attempted && b.entity != "" && !j.spec.Unordered {
			j.nothingOpen(a, batch[:i])
		}
		b.attempted = true
	}
}

// nothingOpen is the promise of order: an event is not attempted before the earlier ones of its entity are settled, or sent
// with it before it.
func (j *judge) nothingOpen(a relay.Attempt, before []relay.Attempt) {
	for pos, earlier := range j.books {
		if earlier.entity != a.Entity || pos.Compare(a.Position) >= 0 || slices.ContainsFunc(before, func(b relay.Attempt) bool { return b.Position == pos }) {
			continue
		}
		if s, _ := j.journal.Standing("sink", pos); s.State == journal.StatePending || s.State == journal.StateWaiting {
			j.problem("%s of %q is attempted while %s is %s", a.Position, a.Entity, pos, s.State)
		}
	}
}

// verdict is the far side's answer to one event.
func (j *judge) verdict(a relay.Attempt) error {
	chance := j.rand.IntN(10)
	switch {
	case j.mood == "down", j.mood == "flaky" && chance < 3, j.mood == "a fails" && a.Entity == "a":
		return errors.New("503")
	case j.mood == "refusing" && chance < 4:
		return relay.Permanent(errors.New("422"))
	case j.mood == "busy" && chance < 5:
		return &relay.RetryAfterError{Err: errors.New("429"), After: time.Duration(j.rand.IntN(60)) * time.Second, All: chance < 2}
	case j.mood == "gone" && chance == 0:
		return relay.Pause(errors.New("410"))
	}
	return nil
}

func (j *judge) took(a relay.Attempt) {
	b := j.books[a.Position]
	if a.Replay > 0 {
		b.raised = true
		return
	}
	if b.taken++; b.taken > 1 && !b.cut {
		j.problem("%s is delivered %d times", a.Position, b.taken)
	}
}

// settle is the end of the story: all is well, and time went by.
func (j *judge) settle(s journal.SinkStatus, replays []journal.Replay) {
	j.mu.Lock()
	defer j.mu.Unlock()
	totals := s.Totals
	if s.Name != "sink" || totals.Owed != uint64(len(j.books)) || totals.Pending != 0 || totals.Dropped != 0 ||
		totals.Owed != totals.Delivered+totals.Dead+totals.Skipped {
		j.problem("%d events came, and the accounts say %+v", len(j.books), s)
	}
	missing := uint64(0)
	for pos, b := range j.books {
		standing, err := j.journal.Standing("sink", pos)
		if err != nil {
			j.problem("%s", err)
		}
		if b.taken == 0 && !b.raised && standing.State != journal.StateDead {
			missing++
		}
	}
	if missing > totals.Skipped {
		j.problem("%d events never arrived, are no dead letters, and %d were skipped", missing, totals.Skipped)
	}
	for _, r := range replays {
		if t := r.Totals(); !r.Finished() || t.Matched != t.Delivered+t.Failed+t.Skipped+t.Pending {
			j.problem("replay %d: %+v", r.ID(), t)
		}
	}
}
