// Package deliver makes deliveries: to each sink what it is owed, in order per lane, until the sink has taken it or it is a dead
// letter. Retries, order, pace, health and replays are here, the same for every kind of sink.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

// ErrNoSink is in the chain of errors about a sink that is not configured.
var ErrNoSink = errors.New("no sink has this name")

// Options are the parts of Sinks, which own none of them.
type Options struct {
	Sinks   []SinkSpec
	Journal journal.Feeder
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
	Tracing *telemetry.Tracing
	Trail   *trail.Trail // nil: nobody will ask for attempts
}

// Sinks are all that are configured, each with its dispatcher. Methods may be called concurrently.
type Sinks struct {
	journal journal.Feeder
	metrics *metrics
	tracing *telemetry.Tracing
	trail   *trail.Trail
	log     *slog.Logger
	reloads chan reloadRequest
	ended   chan struct{} // closed when Run has ended

	mu    sync.Mutex          // guards sinks; only New and the goroutine of Run change it
	sinks map[string]*running // by name
}

// running is a configured sink.
type running struct {
	*dispatcher
	done chan struct{}      // closed when the dispatcher has ended
	stop context.CancelFunc // starts nothing more; this and cut are for the goroutine of Run alone
	cut  context.CancelFunc // ends the Sends in flight
}

// New builds the sinks. It starts nothing.
func New(o Options) (*Sinks, error) {
	s := &Sinks{
		journal: o.Journal,
		metrics: newMetrics(o.Metrics),
		tracing: o.Tracing,
		trail:   o.Trail,
		log:     o.Logger,
		reloads: make(chan reloadRequest),
		ended:   make(chan struct{}),
		sinks:   make(map[string]*running),
	}
	for _, spec := range allSinks(o.Sinks) {
		r, err := s.build(spec)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.sinks[spec.Name] = r
	}
	s.observe(o.Metrics)
	return s, nil
}

// allSinks adds the one for quarantined bodies. They take the way of all events: to a sink, which refuses each for good.
func allSinks(configured []SinkSpec) []SinkSpec {
	refuse := SinkSpec{Name: relay.Unroutable, Build: func() (relay.Sink, error) { return refuser{}, nil }}
	if len(configured) > 0 {
		refuse.Catalogue = configured[0].Catalogue
	}
	return append([]SinkSpec{refuse}, configured...)
}

// build makes a sink and opens it in the journal, which keeps what is owed to an open one for its reader: so that is last.
func (s *Sinks) build(spec SinkSpec) (*running, error) {
	sink, err := spec.Build()
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", spec.Name, err)
	}
	owed, err := s.journal.Sink(spec.Name)
	if err != nil {
		return nil, fmt.Errorf("sink %s: %w", spec.Name, errors.Join(err, sink.Close()))
	}
	spec.Concurrency = max(1, spec.Concurrency)
	d := newDispatcher(spec, sink, s.journal, owed, s.log, s.metrics.forSink(spec.Name), s.tracing, s.trail)
	d.takeReplays()
	return &running{dispatcher: d, done: make(chan struct{})}, nil
}

// Run delivers until ctx ends; then it lets the Sends in flight end for at most grace, closes the sinks and returns.
// Deliveries cut off or not begun are made by the next process.
func (s *Sinks) Run(ctx context.Context, grace time.Duration) error {
	defer close(s.ended)
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cut) })

	for _, r := range s.sinks {
		r.start(ctx, hard)
	}
	for {
		select {
		case r := <-s.reloads:
			r.done <- s.apply(ctx, hard, r)
		case <-ctx.Done():
			for _, r := range s.sinks {
				<-r.done
			}
			return s.Close()
		}
	}
}

// Close closes the sinks. Run does it, where it was called.
func (s *Sinks) Close() error {
	var errs []error
	for _, r := range s.sinks {
		errs = append(errs, r.sink.Close())
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

// Has reports whether a sink is configured.
func (s *Sinks) Has(name string) bool { return s.sink(name) != nil }

// Pause sends nothing more to a sink until Resume, or until a time that is not zero.
func (s *Sinks) Pause(ctx context.Context, name, reason string, until time.Time) error {
	return s.on(ctx, name, func(d *dispatcher) { d.pause(reason, until) })
}

// Resume ends a pause, also one that the breaker or the far side made.
func (s *Sinks) Resume(ctx context.Context, name string) error {
	return s.on(ctx, name, func(d *dispatcher) { d.resumeSink() })
}

// Take adds to what a sink is owed the deliveries that move has made pending at it.
func (s *Sinks) Take(ctx context.Context, name string, move func() ([]journal.Position, error)) error {
	var failed error
	err := s.on(ctx, name, func(d *dispatcher) {
		var positions []journal.Position
		if positions, failed = move(); failed == nil {
			d.take(positions)
		}
	})
	return errors.Join(err, failed)
}

// Skip settles deliveries that wait, and returns how many. What is being sent is left alone.
func (s *Sinks) Skip(ctx context.Context, name string, positions []journal.Position) (skipped int, err error) {
	err = s.on(ctx, name, func(d *dispatcher) { skipped = d.skip(positions) })
	return skipped, err
}

// AddReplay begins a replay to the sink that it names.
func (s *Sinks) AddReplay(ctx context.Context, r journal.Replay) error {
	return s.on(ctx, r.Spec().Sink, func(d *dispatcher) { d.addReplay(r) })
}

// DropReplay sends nothing more of a replay that was cancelled.
func (s *Sinks) DropReplay(ctx context.Context, r journal.Replay) error {
	return s.on(ctx, r.Spec().Sink, func(d *dispatcher) { d.dropReplay(d.replayOf(r.ID())) })
}

// on runs f on the goroutine of a sink's dispatcher, which owns the state, also while a reload replaces that.
func (s *Sinks) on(ctx context.Context, name string, f func(*dispatcher)) error {
	for {
		r := s.sink(name)
		if r == nil {
			return fmt.Errorf("%w: %q", ErrNoSink, name)
		}
		done := make(chan struct{})
		select {
		case r.control <- func() { f(r.dispatcher); close(done) }:
			<-done
			return nil
		case <-r.done: // a reload is about to replace it, or all ends
			select {
			case <-time.After(10 * time.Millisecond):
			case <-s.ended:
				return errors.New("the relay is shutting down")
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// refuser is the sink of quarantined bodies: each becomes a dead letter with the reason of its quarantine.
type refuser struct{}

func (refuser) Lane(*relay.Event) relay.Lane { return relay.Lane{Key: relay.Unroutable} }
func (refuser) MaxBatch() (int, int)         { return 1, 0 }
func (refuser) Close() error                 { return nil }
func (refuser) Send(_ context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	return 0, relay.Permanent(relay.Because(relay.ReasonQuarantine, errors.New(batch[0].Quarantine)))
}
