// Package gateway is the relay at work: it takes signed notifications, keeps each event once, has it stored before it answers
// 200, and delivers it to every sink it was routed to until that has taken it or the delivery is a dead letter. It also holds what
// operators ask.
//
// The protocol is in relay/ncs, the rules in relay/route, what is stored in relay/journal; DESIGN.md has the decisions.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
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
	ingress.Settings
	Sinks []deliver.SinkSpec
}

// Gateway takes notifications (it is an http.Handler) and delivers events (Run).
type Gateway struct {
	ingress *ingress.Ingress
	sinks   *deliver.Sinks
	journal journal.Journal
	trail   *trail.Trail
	log     *slog.Logger
}

// New builds the sinks and loads the keys of known events. It starts nothing.
func New(o Options) (*Gateway, error) {
	s, err := deliver.New(deliver.Options{Sinks: o.Sinks, Journal: o.Journal, Logger: o.Logger, Metrics: o.Metrics, Tracing: o.Tracing, Trail: o.Trail})
	if err != nil {
		return nil, err
	}
	// After the sinks: the journal must know those that the rules name.
	in, err := ingress.New(ingress.Options{Settings: o.Settings.Settings, Journal: o.Journal, Logger: o.Logger, Metrics: o.Metrics,
		Tracing: o.Tracing, Trail: o.Trail})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	g := &Gateway{ingress: in, sinks: s, journal: o.Journal, trail: o.Trail, log: o.Logger}
	g.observe(o.Metrics, o.Tracing)
	return g, nil
}

// ServeHTTP takes a notification.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.ingress.ServeHTTP(w, r) }

// Run delivers until ctx ends; then it lets the Sends in flight end for at most grace, closes the sinks and returns.
// Deliveries cut off or not begun are made by the next process.
func (g *Gateway) Run(ctx context.Context, grace time.Duration) error {
	var keys sync.WaitGroup
	keys.Go(func() { g.ingress.Run(ctx) })
	defer keys.Wait()
	return g.sinks.Run(ctx, grace)
}

// Reload replaces the settings while notifications are taken and events delivered; Run must be running. After an error
// everything is as it was. See Sinks.Reload and Ingress.Reload.
func (g *Gateway) Reload(ctx context.Context, s Settings) error {
	return g.sinks.Reload(ctx, s.Sinks, func() error { return g.ingress.Reload(s.Settings) })
}

// Catalogue names products and events as the settings in force do.
func (g *Gateway) Catalogue() *ncs.Catalogue { return g.ingress.Router().Catalogue() }

// KnownKeys is how many keys the deduplication knows.
func (g *Gateway) KnownKeys() int { return g.ingress.KnownKeys() }

// ShutdownConfig paces the end of the process.
type ShutdownConfig struct {
	Delay   time.Duration `yaml:"delay"`   // storing goes on so long after readiness is gone
	Timeout time.Duration `yaml:"timeout"` // for calls and attempts in flight to end, after the delay
}

// SetDefaults fills what the configuration may leave out.
func (c *ShutdownConfig) SetDefaults() {
	c.Delay = 5 * time.Second
	c.Timeout = 20 * time.Second
}

// Check reports what is wrong with c.
func (c *ShutdownConfig) Check(report problem.Report) {
	if c.Timeout < time.Second {
		report("timeout", "%v is too short", "use 1s or more: calls and attempts in flight are cut off after it", c.Timeout)
	}
}

// Status is what the gateway says of itself to operators: one snapshot, in which all accounts balance.
type Status struct {
	DedupKeys int            `json:"dedup_keys"`
	Sources   []SourceStatus `json:"sources"`
	Sinks     []SinkStatus   `json:"sinks"`
	Unjudged  uint64         `json:"unjudged"`                 // stored, and not yet known what is owed of them: 0 on a disk, where both are one
	Unsure    string         `json:"unjudged_error,omitempty"` // why there may be more of them
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
	Name         string               `json:"name"`
	Owner        string               `json:"owner,omitempty"`
	Configured   bool                 `json:"configured"`
	State        string               `json:"state"` // one of the States
	Trouble      *deliver.Trouble     `json:"trouble,omitempty"`
	Errors       []deliver.ErrorGroup `json:"errors,omitempty"` // of the last minutes
	Owed         uint64               `json:"owed"`
	Delivered    uint64               `json:"delivered"`
	Dead         uint64               `json:"dead"`
	Skipped      uint64               `json:"skipped"`
	Dropped      uint64               `json:"dropped"`
	Pending      uint64               `json:"pending"`
	PendingBytes int64                `json:"pending_bytes"`
	Oldest       time.Time            `json:"oldest_pending,omitzero"` // received
	DeadLetters  uint64               `json:"dead_letters"`            // kept
	Paused       string               `json:"paused,omitempty"`        // why
	PausedUntil  time.Time            `json:"paused_until,omitzero"`   // when that ends by itself
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

// Status returns the accounts of this moment, those of sources and sinks that are not configured any more included.
func (g *Gateway) Status() Status {
	_, err := g.journal.Frontier(context.Background()) // it is known from here on what other replicas have stored
	snapshot := g.journal.Snapshot()
	s := Status{
		DedupKeys: g.KnownKeys(),
		Sources:   []SourceStatus{},
		Unjudged:  snapshot.Unjudged,
	}
	if disk, ok := g.journal.(journal.OnDisk); ok {
		j := disk.DiskStats()
		s.Journal = JournalStatus{Bytes: j.Bytes, Free: j.Free, Segments: j.Segments, Damaged: j.Damaged, LostRecords: j.LostRecords}
	}
	if err != nil {
		s.Unsure = err.Error()
	}
	if err := g.journal.Ready(); err != nil {
		s.Journal.Error = err.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(snapshot.Accounts)) {
		a := snapshot.Accounts[name]
		s.Sources = append(s.Sources, SourceStatus{name, a.Received, a.Rejected, a.Unavailable, a.Tests, a.Duplicates, a.Quarantined, a.Accepted, a.InFlight()})
	}
	s.Sinks = g.sinksOf(snapshot)
	return s
}

// Sinks returns the accounts of this moment, as Status does. It asks no broker.
func (g *Gateway) Sinks() []SinkStatus { return g.sinksOf(g.journal.Snapshot()) }

func (g *Gateway) sinksOf(snapshot journal.Snapshot) (list []SinkStatus) {
	for _, js := range snapshot.Sinks {
		t := js.Totals
		sink := SinkStatus{Name: js.Name, Configured: js.Open, Owed: t.Owed, Delivered: t.Delivered, Dead: t.Dead, Skipped: t.Skipped,
			Dropped: t.Dropped, Pending: t.Pending, PendingBytes: js.PendingBytes, Oldest: js.Oldest, DeadLetters: js.Letters}
		sink.Paused, sink.PausedUntil = deliver.ParsePause(js.Paused)
		g.addState(&sink, time.Now())
		list = append(list, sink)
	}
	return list
}

// addState says how a sink is doing.
func (g *Gateway) addState(s *SinkStatus, now time.Time) {
	state, configured := g.sinks.State(s.Name, now)
	switch {
	case s.Name == relay.Unroutable:
		s.State = deliver.StateQuarantine
	case !configured:
		s.State = deliver.StateRemoved
	default:
		s.Owner, s.State, s.Trouble, s.Errors = state.Owner, state.Name, state.Trouble, state.Errors
	}
}
