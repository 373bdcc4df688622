package deliver

import (
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"ncs-relay/relay"
	"ncs-relay/relay/telemetry"
)

// Outcomes of an attempt.
const (
	OutcomeDelivered = "delivered"
	OutcomeFailed    = "failed"  // is tried again
	OutcomeRefused   = "refused" // for good
)

type attemptOutcome struct {
	outcome string
	reason  relay.Reason // "" when it was delivered
}

// metrics are the instruments of deliveries.
type metrics struct {
	attempts *telemetry.Counter
	delivery *telemetry.Histogram
	latency  *telemetry.Histogram
}

func newMetrics(m *telemetry.Metrics) *metrics {
	return &metrics{
		latency: m.Histogram("delivery_latency_seconds", "Time from an event's arrival until a sink has taken it; replays not included.",
			telemetry.LatencyBuckets()),
		attempts: m.Counter("delivery_attempts_total", "Events sent to sinks, by outcome of the attempt and, when it failed, reason."),
		delivery: m.Histogram("delivery_duration_seconds", "Time one send to a sink took.", telemetry.DeliveryBuckets()),
	}
}

// sinkMetrics counts for one sink.
type sinkMetrics struct {
	attempts          map[attemptOutcome]*telemetry.CounterSeries
	delivery, latency *telemetry.HistogramSeries

	// What the dispatcher's goroutine knows, for the page.
	inFlight, queued atomic.Int64
}

func (m *metrics) forSink(name string) *sinkMetrics {
	sink := telemetry.LabelSink.String(name)
	s := &sinkMetrics{
		attempts: make(map[attemptOutcome]*telemetry.CounterSeries),
		delivery: m.delivery.With(sink),
		latency:  m.latency.With(sink),
	}
	with := func(outcome string, reason relay.Reason) {
		s.attempts[attemptOutcome{outcome, reason}] = m.attempts.With(sink,
			telemetry.LabelOutcome.String(outcome), telemetry.LabelReason.String(string(reason)))
	}
	with(OutcomeDelivered, "")
	for _, r := range relay.Reasons() {
		with(OutcomeFailed, r)
		with(OutcomeRefused, r)
	}
	return s
}

// attempt counts what became of each event of a Send.
func (s *sinkMetrics) attempt(r sendResult, now time.Time) {
	for i, a := range r.batch {
		outcome, reason := r.outcome(i)
		if outcome == "" {
			break
		}
		s.attempts[attemptOutcome{outcome, reason}].Add(1)
		if outcome == OutcomeDelivered && a.Replay == 0 {
			s.latency.Record(max(0, now.Sub(a.StoredAt)))
		}
	}
	s.delivery.Record(r.took)
}

// known keeps the label bounded whatever a sink says.
func known(r relay.Reason) relay.Reason {
	if slices.Contains(relay.Reasons(), r) {
		return r
	}
	return relay.ReasonOther
}

// observe notes what the dispatcher has in hand, for the metrics and the state; called by its goroutine.
func (d *dispatcher) observe(now time.Time) {
	d.metrics.inFlight.Store(int64(d.inFlight))
	d.metrics.queued.Store(int64(d.lanes.queued))
	unread := false
	for _, f := range d.feeds {
		unread = unread || f.retryAt.After(now)
	}
	d.health.observe(d.lanes.failed(d.retrying), d.pace.until, d.paused != "", unread)
}

// observe shows what the dispatchers know.
func (s *Sinks) observe(m *telemetry.Metrics) {
	perSink := func(collect func(observe telemetry.Observe, r *running, sink attribute.KeyValue)) func(telemetry.Observe) {
		return func(observe telemetry.Observe) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for name, r := range s.sinks {
				collect(observe, r, telemetry.LabelSink.String(name))
			}
		}
	}
	m.Gauge("sends_in_flight", "Sends running now.",
		perSink(func(observe telemetry.Observe, r *running, sink attribute.KeyValue) {
			observe(float64(r.metrics.inFlight.Load()), sink)
		}))
	m.Gauge("queued_deliveries", "Pending deliveries that are in memory; the others are read when there is room.",
		perSink(func(observe telemetry.Observe, r *running, sink attribute.KeyValue) {
			observe(float64(r.metrics.queued.Load()), sink)
		}))
	m.Gauge("backlog_max_bytes", "Bytes of bodies the sink may be owed: its backlog.max_size.",
		perSink(func(observe telemetry.Observe, r *running, sink attribute.KeyValue) {
			if r.Backlog > 0 { // unroutable has no bound, and 0 would be one that is reached
				observe(float64(r.Backlog), sink)
			}
		}))
	m.Gauge("sink_state", "1 for the state the sink is in, 0 for the others.",
		perSink(func(observe telemetry.Observe, r *running, sink attribute.KeyValue) {
			if r.Name == relay.Unroutable {
				return // it sends nothing
			}
			now, _ := r.health.state(time.Now())
			for _, state := range sinkStates() {
				value := 0.0
				if state == now {
					value = 1
				}
				observe(value, sink, telemetry.LabelState.String(state))
			}
		}))
	m.Gauge("sink_failing_seconds", "For how long a sink has taken nothing and failed, and why; 0 while it is not failing.",
		perSink(func(observe telemetry.Observe, r *running, sink attribute.KeyValue) {
			if r.Name == relay.Unroutable {
				return
			}
			now, reason, since := time.Now(), relay.Reason(""), time.Duration(0)
			if state, trouble := r.health.state(now); state == StateFailing {
				reason, since = trouble.Reason, max(0, now.Sub(trouble.Since))
			}
			observe(since.Seconds(), sink, attribute.String("owner", r.Owner), telemetry.LabelReason.String(string(reason)))
		}))
}
