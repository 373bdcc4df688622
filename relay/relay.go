// Package relay is the gateway: it takes signed notifications, keeps each event once, has it on disk before it answers
// 200, and delivers it to every sink it was routed to until that has taken it or the delivery is a dead letter.
//
// The protocol is in relay/ncs, the rules in relay/route, what is kept on disk in relay/journal; sinks implement the
// Sink interface and know nothing of retries, order or duplicates. DESIGN.md has the decisions.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
)

// Unroutable is the reserved sink name under which quarantined bodies are dead letters.
const Unroutable = "unroutable"

// Options are the parts of a gateway. The gateway owns none of them: whoever made them closes them, after Run ended.
type Options struct {
	Journal *journal.Journal
	Router  *route.Router
	Sources []SourceConfig
	Sinks   []SinkSpec
	Dedup   DedupConfig
	Limits  LimitsConfig
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
	Tracing *telemetry.Tracing
}

// Gateway takes notifications (it is an http.Handler) and delivers events (Run).
type Gateway struct {
	journal     *journal.Journal
	router      *route.Router
	sources     map[string]*source // by path
	sinkIDs     map[string]journal.SinkID
	unroutable  journal.SinkID
	dedup       *dedup
	places      chan struct{} // one for each notification between its verification and its answer
	dispatchers []*dispatcher
	metrics     *metrics
	tracing     *telemetry.Tracing
	log         *slog.Logger
}

// New wires a gateway and loads the keys of known events. It starts nothing.
func New(o Options) (*Gateway, error) {
	known, err := newDedup(o.Dedup, time.Now)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		journal: o.Journal,
		router:  o.Router,
		sources: make(map[string]*source, len(o.Sources)),
		sinkIDs: make(map[string]journal.SinkID, len(o.Sinks)),
		places:  make(chan struct{}, o.Limits.InFlight),
		dedup:   known,
		metrics: newMetrics(o.Metrics),
		tracing: o.Tracing,
		log:     o.Logger,
	}
	for _, c := range o.Sources {
		if err := g.addSource(c); err != nil {
			return nil, fmt.Errorf("source %s: %w", c.Name, err)
		}
	}
	// Quarantined bodies take the way of all events: to a sink, which refuses each for good.
	unroutable := SinkSpec{Name: Unroutable, Sink: refuser{}, Concurrency: 1}
	for _, spec := range append([]SinkSpec{unroutable}, o.Sinks...) {
		if err := g.addSink(spec); err != nil {
			return nil, fmt.Errorf("sink %s: %w", spec.Name, err)
		}
	}
	g.unroutable = g.sinkIDs[Unroutable]
	err = o.Journal.Keys(o.Dedup.MaxKeys, time.Now().Add(-o.Dedup.Window), func(key, id [16]byte, at time.Time, _ journal.Position) {
		g.dedup.restore(ncs.Identity{Key: key, ID: id}, at)
	})
	if err != nil {
		return nil, fmt.Errorf("load known keys: %w", err)
	}
	g.observe(o.Metrics)
	return g, nil
}

func (g *Gateway) addSource(c SourceConfig) error {
	var secrets []string
	for _, s := range c.Secrets {
		secrets = append(secrets, s.Reveal())
	}
	verifier, err := ncs.NewVerifier(secrets, c.Signature == "any")
	if err != nil {
		return err
	}
	src := &source{SourceConfig: c, verifier: verifier, metrics: g.metrics.forSource(c.Name, len(secrets)), log: g.log.With("source", c.Name)}
	if len(c.Products) > 0 {
		src.products = make(map[string]bool)
		for _, p := range c.Products {
			src.products[p] = true
		}
	}
	if c.TestMatch != "" {
		if src.test, err = route.CompileExpr(c.TestMatch); err != nil {
			return fmt.Errorf("test_match: %w", err)
		}
	}
	g.sources[c.Path] = src
	return nil
}

func (g *Gateway) addSink(spec SinkSpec) error {
	cursor, err := g.journal.Sink(spec.Name)
	if err != nil {
		return err
	}
	spec.Concurrency = max(1, spec.Concurrency)
	g.sinkIDs[spec.Name] = cursor.ID()
	g.dispatchers = append(g.dispatchers, newDispatcher(spec, g.journal, cursor, g.log, g.metrics.forSink(spec.Name), g.tracing))
	return nil
}

// Run delivers until ctx ends; then it lets the Sends in flight end for at most grace and returns. Deliveries cut off
// or not begun are made by the next process.
func (g *Gateway) Run(ctx context.Context, grace time.Duration) {
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cut) })
	defer stop()

	var wg sync.WaitGroup
	for _, d := range g.dispatchers {
		wg.Go(func() { d.run(ctx, hard) })
	}
	wg.Wait()
}

// KnownKeys is how many keys the deduplication knows.
func (g *Gateway) KnownKeys() int { return g.dedup.stats().keys }

// Status is what the gateway says of itself to operators.
type Status struct {
	DedupKeys int          `json:"dedup_keys"`
	Sinks     []SinkStatus `json:"sinks"`
}

// SinkStatus are one sink's accounts: owed = delivered + dead + skipped + dropped + pending.
type SinkStatus struct {
	Name         string `json:"name"`
	Configured   bool   `json:"configured"`
	Owed         uint64 `json:"owed"`
	Delivered    uint64 `json:"delivered"`
	Dead         uint64 `json:"dead"`
	Skipped      uint64 `json:"skipped"`
	Dropped      uint64 `json:"dropped"`
	Pending      uint64 `json:"pending"`
	PendingBytes int64  `json:"pending_bytes"`
	DeadLetters  uint64 `json:"dead_letters"` // kept
}

// Status gives the accounts of this moment, those of sinks that are not configured any more included.
func (g *Gateway) Status() Status {
	s := Status{DedupKeys: g.KnownKeys()}
	for _, js := range g.journal.Sinks() {
		t := js.Totals
		s.Sinks = append(s.Sinks, SinkStatus{js.Name, js.Opened, t.Owed, t.Delivered, t.Dead, t.Skipped, t.Dropped, t.Pending, js.PendingBytes, js.Letters})
	}
	return s
}

// eventOf makes the event of a journal record. Product, event and category come from the catalogue of today.
func eventOf(r *journal.Record) *Event {
	return &Event{
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

// size is what an event costs a dispatcher's window.
func (e *Event) size() int { return len(e.Body) + 512 }

// refuser is the sink of quarantined bodies: each becomes a dead letter with the reason of its quarantine.
type refuser struct{}

func (refuser) Lane(*Event) Lane     { return Lane{Key: Unroutable} }
func (refuser) MaxBatch() (int, int) { return 1, 0 }
func (refuser) Close() error         { return nil }
func (refuser) Send(_ context.Context, _ Lane, batch []Attempt) (int, error) {
	return 0, Permanent(errors.New(batch[0].Quarantine))
}
