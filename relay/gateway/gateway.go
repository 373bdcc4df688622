// Package gateway is the relay at work: it takes signed notifications, keeps each event once, has it stored before it answers
// 200, and delivers it to every sink it was routed to until that has taken it or the delivery is a dead letter. It also holds what
// operators ask.
//
// The protocol is in relay/ncs, the rules in relay/route, what is stored in relay/journal; DESIGN.md has the decisions.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

// Options are the parts of a gateway. The gateway owns none of them: whoever made them closes them, after Run ended.
type Options struct {
	Settings
	Journal journal.Journal
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
	Tracing *telemetry.Tracing
	Trail   *trail.Trail // nil: Inspect knows of no copies and attempts
}

// Settings are what a reload replaces, all at once.
type Settings struct {
	Router  *route.Router
	Sources []SourceConfig
	Sinks   []SinkSpec
	Dedup   DedupConfig
	Limits  LimitsConfig
}

// Gateway takes notifications (it is an http.Handler) and delivers events (Run).
type Gateway struct {
	journal journal.Journal
	dedup   *dedup
	loaded  []*journal.Shard // of these New loaded the known keys
	metrics *metrics
	tracing *telemetry.Tracing
	trail   *trail.Trail
	log     *slog.Logger
	ingress atomic.Pointer[ingress]
	refused *rate.Limiter // spans of refused calls
	ruleLog telemetry.Repetition
	order   order
	reloads chan reloadRequest
	ended   chan struct{} // closed when Run has ended

	mu    sync.Mutex          // guards sinks; only New and the goroutine of Run change it
	sinks map[string]*running // by name
}

// ingress is what a notification needs to know. A notification uses one from its first step to its last, whatever is
// reloaded meanwhile.
type ingress struct {
	sources    map[string]*source // by path
	router     *route.Router
	ruleErrors []*telemetry.CounterSeries // by rule
	places     chan struct{}              // one for each notification between its verification and its answer
}

// byName gives a source, or nil.
func (in *ingress) byName(name string) *source {
	for _, s := range in.sources {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// running is a configured sink.
type running struct {
	*dispatcher
	done chan struct{}      // closed when the dispatcher has ended
	stop context.CancelFunc // starts nothing more; this and cut are for the goroutine of Run alone
	cut  context.CancelFunc // ends the Sends in flight
}

// New wires a gateway and loads the keys of known events. It builds the sinks and starts nothing.
func New(o Options) (_ *Gateway, err error) {
	g := &Gateway{
		journal: o.Journal,
		metrics: newMetrics(o.Metrics),
		tracing: o.Tracing,
		trail:   o.Trail,
		log:     o.Logger,
		reloads: make(chan reloadRequest),
		ended:   make(chan struct{}),
		refused: newRefusedLimit(),
		sinks:   make(map[string]*running),
	}
	if g.dedup, err = newDedup(o.Dedup, time.Now); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.closeSinks())
		}
	}()
	for _, spec := range allSinks(o.Sinks) {
		if g.sinks[spec.Name], err = g.build(spec); err != nil {
			return nil, err
		}
	}
	in, err := g.newIngress(o.Settings)
	if err != nil {
		return nil, err
	}
	g.ingress.Store(in)
	g.loaded, _ = g.journal.Shards()
	if err := g.loadKeys(g.loaded, o.Dedup.MaxKeys, o.Dedup.Window); err != nil {
		return nil, fmt.Errorf("load known keys: %w", err)
	}
	g.observe(o.Metrics)
	return g, nil
}

// loadKeys reads which events of some shards were accepted. Ages count from the newest of these.
func (g *Gateway) loadKeys(shards []*journal.Shard, maxKeys int, window time.Duration) error {
	var newest time.Time
	for _, shard := range shards {
		err := g.journal.Keys(shard, 1, time.Time{}, func(_, _ [16]byte, at time.Time) {
			if at.After(newest) {
				newest = at
			}
		})
		if err != nil {
			return err
		}
	}
	events := make([]loadedEvent, 0, 1024)
	for _, shard := range shards {
		err := g.journal.Keys(shard, max(1, maxKeys/shard.Of), newest.Add(-window), func(key, id [16]byte, at time.Time) {
			events = append(events, loaded(ncs.Identity{Key: key, ID: id}, max(0, newest.Sub(at)), shard.Number))
		})
		if err != nil {
			return err
		}
	}
	if len(shards) > 1 {
		slices.SortStableFunc(events, func(a, b loadedEvent) int { return cmp.Compare(a.at, b.at) })
	}
	return g.dedup.load(events, maxKeys)
}

// followShards loads the known keys of shards that come, besides those that are loaded, and forgets those of shards that go.
func (g *Gateway) followShards(ctx context.Context, loaded []*journal.Shard) {
	for {
		held, changed := g.journal.Shards()
		var again <-chan time.Time
		for _, shard := range loaded {
			if !slices.Contains(held, shard) {
				g.dedup.forget(shard.Number)
			}
		}
		came := slices.DeleteFunc(slices.Clone(held), func(s *journal.Shard) bool { return slices.Contains(loaded, s) })
		loaded = held
		if len(came) > 0 {
			bounds := g.dedup.stats()
			if err := g.loadKeys(came, bounds.maxKeys, bounds.window); err != nil {
				g.log.Error("known keys cannot be read: copies of events that other processes took may pass", "error", err)
				loaded = slices.DeleteFunc(slices.Clone(held), func(s *journal.Shard) bool { return slices.Contains(came, s) })
				again = time.After(time.Second)
			}
			g.dedup.finishLoading()
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// allSinks adds the one for quarantined bodies. They take the way of all events: to a sink, which refuses each for good.
func allSinks(configured []SinkSpec) []SinkSpec {
	refuse := SinkSpec{Name: relay.Unroutable, Build: func() (relay.Sink, error) { return refuser{}, nil }}
	return append([]SinkSpec{refuse}, configured...)
}

// build makes a sink and opens it in the journal, which keeps what is owed to an open one for its reader: so that is last.
func (g *Gateway) build(spec SinkSpec) (*running, error) {
	sink, err := spec.Build()
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", spec.Name, err)
	}
	owed, err := g.journal.Sink(spec.Name)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", spec.Name, errors.Join(err, sink.Close()))
	}
	spec.Concurrency = max(1, spec.Concurrency)
	d := newDispatcher(spec, sink, g.journal, owed, g.log, g.metrics.forSink(spec.Name), g.tracing, g.trail)
	for _, r := range g.journal.Replays() {
		if r.Spec().Sink == spec.Name && !r.Finished() {
			d.addReplay(r)
		}
	}
	return &running{dispatcher: d, done: make(chan struct{})}, nil
}

// newIngress comes after the sinks that the router names were opened.
func (g *Gateway) newIngress(s Settings) (*ingress, error) {
	in := &ingress{
		router:  s.Router,
		sources: make(map[string]*source, len(s.Sources)),
		places:  make(chan struct{}, s.Limits.InFlight),
	}
	for _, c := range s.Sources {
		src, err := newSource(c, g.journal.Account(c.Name), g.metrics, g.log)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", c.Name, err)
		}
		in.sources[c.Path] = src
	}
	for i := range s.Router.Rules() {
		in.ruleErrors = append(in.ruleErrors, g.metrics.ruleErrors.With(attribute.Int("rule", i)))
	}
	return in, nil
}

// Run delivers until ctx ends; then it lets the Sends in flight end for at most grace, closes the sinks and returns.
// Deliveries cut off or not begun are made by the next process.
func (g *Gateway) Run(ctx context.Context, grace time.Duration) error {
	defer close(g.ended)
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cut) })

	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		g.dedup.finishLoading()
		g.followShards(ctx, g.loaded)
	}()
	defer func() { <-loaded }()
	for _, r := range g.sinks {
		r.start(ctx, hard)
	}
	for {
		select {
		case r := <-g.reloads:
			r.done <- g.apply(ctx, hard, r.settings)
		case <-ctx.Done():
			for _, r := range g.sinks {
				<-r.done
			}
			return g.closeSinks()
		}
	}
}

func (g *Gateway) closeSinks() error {
	var errs []error
	for _, r := range g.sinks {
		if r != nil {
			errs = append(errs, r.sink.Close())
		}
	}
	return errors.Join(errs...)
}

func (r *running) start(ctx, hard context.Context) {
	ctx, r.stop = context.WithCancel(ctx)
	hard, r.cut = context.WithCancel(hard)
	go func() {
		defer close(r.done)
		r.run(ctx, hard)
	}()
}

// KnownKeys is how many keys the deduplication knows.
func (g *Gateway) KnownKeys() int { return g.dedup.stats().keys }

// Status is what the gateway says of itself to operators: one snapshot, in which all accounts balance.
type Status struct {
	DedupKeys int            `json:"dedup_keys"`
	Sources   []SourceStatus `json:"sources"`
	Sinks     []SinkStatus   `json:"sinks"`
	Journal   JournalStatus  `json:"journal"`
}

// SourceStatus is one source's account: received = rejected + unavailable + tests + duplicates + quarantined + accepted
// + in flight. It is kept over restarts.
type SourceStatus struct {
	Name        string `json:"name"`
	Received    uint64 `json:"received"`
	Rejected    uint64 `json:"rejected"`
	Unavailable uint64 `json:"unavailable"`
	Tests       uint64 `json:"tests"`
	Duplicates  uint64 `json:"duplicates"`
	Quarantined uint64 `json:"quarantined"`
	Accepted    uint64 `json:"accepted"`
	InFlight    uint64 `json:"in_flight"`
}

// SinkStatus is one sink's account: owed = delivered + dead + skipped + dropped + pending. It is kept over restarts.
type SinkStatus struct {
	Name         string       `json:"name"`
	Owner        string       `json:"owner,omitempty"`
	Configured   bool         `json:"configured"`
	State        string       `json:"state"` // one of the States
	Trouble      *Trouble     `json:"trouble,omitempty"`
	Errors       []ErrorGroup `json:"errors,omitempty"` // of the last minutes
	Owed         uint64       `json:"owed"`
	Delivered    uint64       `json:"delivered"`
	Dead         uint64       `json:"dead"`
	Skipped      uint64       `json:"skipped"`
	Dropped      uint64       `json:"dropped"`
	Pending      uint64       `json:"pending"`
	PendingBytes int64        `json:"pending_bytes"`
	Oldest       time.Time    `json:"oldest_pending,omitzero"` // received
	DeadLetters  uint64       `json:"dead_letters"`            // kept
	Paused       string       `json:"paused,omitempty"`        // why
}

// JournalStatus is the state of the disk.
type JournalStatus struct {
	Error       string `json:"error,omitempty"` // why nothing can be stored
	Bytes       int64  `json:"bytes"`
	Free        int64  `json:"free"`
	Segments    int    `json:"segments"`
	Damaged     int64  `json:"damaged"`      // stretches that cannot be read
	LostRecords int64  `json:"lost_records"` // in them
}

// Status gives the accounts of this moment, those of sources and sinks that are not configured any more included.
func (g *Gateway) Status() Status {
	snapshot := g.journal.Snapshot()
	s := Status{
		DedupKeys: g.KnownKeys(),
		Sources:   []SourceStatus{},
	}
	if disk, ok := g.journal.(journal.OnDisk); ok {
		j := disk.DiskStats()
		s.Journal = JournalStatus{Bytes: j.Bytes, Free: j.Free, Segments: j.Segments, Damaged: j.Damaged, LostRecords: j.LostRecords}
	}
	if err := g.journal.Ready(); err != nil {
		s.Journal.Error = err.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Accounts)) {
		a := snapshot.Accounts[name]
		s.Sources = append(s.Sources, SourceStatus{name, a.Received, a.Rejected, a.Unavailable, a.Tests, a.Duplicates, a.Quarantined, a.Accepted, a.InFlight()})
	}
	for _, js := range snapshot.Sinks {
		t := js.Totals
		sink := SinkStatus{Name: js.Name, Configured: js.Open, Owed: t.Owed, Delivered: t.Delivered, Dead: t.Dead, Skipped: t.Skipped,
			Dropped: t.Dropped, Pending: t.Pending, PendingBytes: js.PendingBytes, Oldest: js.Oldest, DeadLetters: js.Letters, Paused: js.Paused}
		g.addState(&sink, time.Now())
		s.Sinks = append(s.Sinks, sink)
	}
	return s
}

// addState says how a sink is doing.
func (g *Gateway) addState(s *SinkStatus, now time.Time) {
	r := g.sink(s.Name)
	switch {
	case s.Name == relay.Unroutable:
		s.State = StateQuarantine
	case r == nil:
		s.State = StateRemoved
	default:
		s.Owner = r.Owner
		s.State, s.Trouble = r.health.state(now)
		s.Errors = r.health.errorGroups(now)
	}
}

// eventOf makes the event of a journal record. Product, event and category come from the catalogue of today.
func eventOf(r *journal.Record) *relay.Event {
	return &relay.Event{
		Position:    r.Position,
		ID:          r.ID,
		Info:        ncs.Lookup(r.ProductID, r.EventType),
		Source:      r.Source,
		Entity:      r.Entity,
		ReceivedAt:  r.Time,
		ContentType: r.ContentType,
		SignatureV1: r.SignatureV1,
		SignatureV2: r.SignatureV2,
		Body:        r.Body,
		Quarantine:  r.Quarantine,
		Trace: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: r.ID, SpanID: r.SpanID, TraceFlags: trace.TraceFlags(r.TraceFlags), Remote: true}),
	}
}

// sizeOf is what an event costs a dispatcher's window.
func sizeOf(ev *relay.Event) int { return len(ev.Body) + 512 }

// refuser is the sink of quarantined bodies: each becomes a dead letter with the reason of its quarantine.
type refuser struct{}

func (refuser) Lane(*relay.Event) relay.Lane { return relay.Lane{Key: relay.Unroutable} }
func (refuser) MaxBatch() (int, int)         { return 1, 0 }
func (refuser) Close() error                 { return nil }
func (refuser) Send(_ context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	return 0, relay.Permanent(relay.Because(relay.ReasonQuarantine, errors.New(batch[0].Quarantine)))
}
