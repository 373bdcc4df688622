// Package ingress takes signed notifications: it verifies them, keeps each event once, and has it stored before it answers 200. It
// knows which sinks an event is owed to, and nothing of how that is delivered.
//
// Server is the public listener: whatever strangers and slow clients do, honest calls get through.
package ingress

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"golang.org/x/time/rate"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

// Options are the parts of an Ingress, which owns none of them. The journal must know the sinks that the rules name.
type Options struct {
	Settings
	Journal journal.Appender
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
	Tracing *telemetry.Tracing
	Trail   *trail.Trail // nil: nobody will ask for copies
}

// Settings are what a reload replaces, all at once.
type Settings struct {
	Router  *route.Router
	Sources []SourceConfig
	Dedup   DedupConfig
	Limits  LimitsConfig
}

// Ingress takes notifications: it is an http.Handler.
type Ingress struct {
	journal journal.Appender
	dedup   *dedup

	storeFor time.Duration // how long a notification waits for the journal
	timers   sync.Pool     // stopped ones: one for each call would be a tenth of what a call allocates

	loaded  []*journal.Shard // of these New loaded the known keys
	metrics *metrics
	tracing *telemetry.Tracing
	trail   *trail.Trail
	log     *slog.Logger
	setup   atomic.Pointer[setup]
	refused *rate.Limiter // spans of refused calls
	ruleLog telemetry.Repetition
	order   order

	listeners listeners
}

// setup is what a notification needs to know. A notification uses one from its first step to its last, whatever is
// reloaded meanwhile.
type setup struct {
	sources    map[string]*source // by path
	router     *route.Router
	ruleErrors []*telemetry.CounterSeries // by rule
	places     chan struct{}              // one for each notification between its verification and its answer
}

// byName returns a source, or nil.
func (in *setup) byName(name string) *source {
	for _, s := range in.sources {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// New loads the keys of known events. It starts nothing.
func New(o Options) (*Ingress, error) {
	h := &Ingress{
		journal: o.Journal,
		metrics: newMetrics(o.Metrics),
		tracing: o.Tracing,
		trail:   o.Trail,
		log:     o.Logger,
		refused: newRefusedLimit(),

		storeFor: storeTimeout,
		timers:   sync.Pool{New: newStoppedTimer},
	}
	if patient, ok := o.Journal.(journal.Patient); ok {
		h.storeFor = patient.AppendsFor()
	}
	var err error
	if h.dedup, err = newDedup(o.Dedup, time.Now); err != nil {
		return nil, err
	}
	in, err := h.newSetup(o.Settings)
	if err != nil {
		return nil, err
	}
	h.setup.Store(in)
	h.loaded, _ = h.journal.Shards()
	if err := h.loadKeys(h.loaded, o.Dedup.MaxKeys, o.Dedup.Window); err != nil {
		return nil, fmt.Errorf("load known keys: %w", err)
	}
	h.observe(o.Metrics)
	return h, nil
}

func (h *Ingress) newSetup(s Settings) (*setup, error) {
	in := &setup{
		router:  s.Router,
		sources: make(map[string]*source, len(s.Sources)),
		places:  make(chan struct{}, s.Limits.InFlight),
	}
	for _, c := range s.Sources {
		src, err := newSource(c, s.Router.Catalogue(), h.journal.Account(c.Name), h.metrics, h.log)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", c.Name, err)
		}
		in.sources[c.Path] = src
	}
	for i := range s.Router.Rules() {
		in.ruleErrors = append(in.ruleErrors, h.metrics.ruleErrors.With(attribute.Int("rule", i)))
	}
	return in, nil
}

// Reload replaces the settings while notifications are taken. After an error everything is as it was.
func (h *Ingress) Reload(s Settings) error {
	in, err := h.newSetup(s)
	if err != nil {
		return err
	}
	h.dedup.configure(s.Dedup)
	h.journal.KeepKeys(s.Dedup.MaxKeys, s.Dedup.Window)
	h.setup.Store(in)
	return nil
}

// Run keeps the known keys those of the journal's shards until ctx ends. Notifications are taken before and after, too.
func (h *Ingress) Run(ctx context.Context) {
	h.dedup.finishLoading()
	h.followShards(ctx, h.loaded)
}

// loadKeys reads which events of some shards were accepted. Ages count from the newest of these.
func (h *Ingress) loadKeys(shards []*journal.Shard, maxKeys int, window time.Duration) error {
	var newest time.Time
	for _, shard := range shards {
		err := h.journal.Keys(shard, 1, time.Time{}, func(_, _ [16]byte, at time.Time) {
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
		err := h.journal.Keys(shard, max(1, maxKeys/shard.Of), newest.Add(-window), func(key, id [16]byte, at time.Time) {
			events = append(events, loaded(ncs.Identity{Key: key, ID: id}, max(0, newest.Sub(at)), shard.Number))
		})
		if err != nil {
			return err
		}
	}
	if len(shards) > 1 {
		slices.SortStableFunc(events, func(a, b loadedEvent) int { return cmp.Compare(a.at, b.at) })
	}
	return h.dedup.load(events, maxKeys)
}

// followShards loads the known keys of shards that come, besides those that are loaded, and forgets those of shards that go.
func (h *Ingress) followShards(ctx context.Context, loaded []*journal.Shard) {
	for {
		held, changed := h.journal.Shards()
		var again <-chan time.Time
		for _, shard := range loaded {
			if !slices.Contains(held, shard) {
				h.dedup.forget(shard.Number)
			}
		}
		came := slices.DeleteFunc(slices.Clone(held), func(s *journal.Shard) bool { return slices.Contains(loaded, s) })
		loaded = held
		if len(came) > 0 {
			bounds := h.dedup.stats()
			if err := h.loadKeys(came, bounds.maxKeys, bounds.window); err != nil {
				h.log.Error("known keys cannot be read: copies of events that other processes took may pass", "error", err)
				loaded = slices.DeleteFunc(slices.Clone(held), func(s *journal.Shard) bool { return slices.Contains(came, s) })
				again = time.After(time.Second)
			}
			h.dedup.finishLoading()
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// KnownKeys is how many keys the deduplication knows.
func (h *Ingress) KnownKeys() int { return h.dedup.stats().keys }

// Router returns the rules in force.
func (h *Ingress) Router() *route.Router { return h.setup.Load().router }

// TakeAgain takes up a body that was quarantined as if it came now, under the rules of today, and waits until it is stored. It
// reports whether the body is understood now.
func (h *Ingress) TakeAgain(ctx context.Context, quarantined *journal.Record) (understood bool, err error) {
	in := h.setup.Load()
	src := in.byName(quarantined.Source)
	if src == nil {
		return false, nil
	}
	reading := src.intake.Read(quarantined.Body)
	if reading.Quarantine != "" {
		return false, nil
	}
	rec := *quarantined
	rec.Quarantine, rec.Sinks, rec.Key, rec.ID = "", nil, reading.Identity.Key, reading.Identity.ID
	return true, h.storeAgain(ctx, in, &rec, reading.Notification, src.account)
}

// storeAgain appends an event that came earlier, unless it is known, and waits for the disk.
func (h *Ingress) storeAgain(ctx context.Context, in *setup, rec *journal.Record, n *ncs.Notification, account journal.SourceAccount) error {
	c, standing := h.claim(ncs.Identity{Key: rec.Key, ID: rec.ID}, time.Now().Add(h.storeFor))
	switch standing {
	case isKnown:
		return nil
	case isLoading:
		return errBusy
	case isNew:
		h.describe(in, rec, n)
		account.Received() // the journal will count it as accepted
		h.store(c, rec, time.Now(), account)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
