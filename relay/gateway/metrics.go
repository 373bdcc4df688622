package gateway

import (
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/telemetry"
)

// Outcomes of a notification, as answers and metrics name them.
const (
	outcomeAccepted    = "accepted"
	outcomeDuplicate   = "duplicate"
	outcomeTest        = "test"
	outcomeQuarantined = "quarantined"
	outcomeRejected    = "rejected"
	outcomeUnavailable = "unavailable"
)

// The reasons beside an outcome. Those of quarantine also come from ncs.
const (
	reasonUnknownPath = "unknown_path"
	reasonMethod      = "method"
	reasonTooLarge    = "too_large"
	reasonCompressed  = "compressed"
	reasonBody        = "body"
	reasonSignature   = "signature"
	reasonProduct     = "product_not_allowed"
	reasonConflict    = "conflict"
	reasonBusy        = "busy"
	reasonFull        = "disk_full"
	reasonJournal     = "journal"
)

// sourceOutcomes are all outcomes and reasons that a notification at a source can have: the series that exist from
// the start.
func sourceOutcomes() map[string][]string {
	return map[string][]string{
		outcomeAccepted:    {"", reasonConflict},
		outcomeDuplicate:   {""},
		outcomeTest:        {""},
		outcomeQuarantined: append(ncs.Reasons(), reasonProduct),
		outcomeRejected:    {reasonMethod, reasonTooLarge, reasonCompressed, reasonBody, reasonSignature},
		outcomeUnavailable: {reasonBusy, reasonFull, reasonJournal},
	}
}

// metrics are the gateway's instruments.
type metrics struct {
	notifications *telemetry.Counter
	signatures    *telemetry.Counter
	accept        *telemetry.Histogram
	appended      *telemetry.HistogramSeries
	delay         *telemetry.Histogram
	hits          *telemetry.Counter
	copyAge       *telemetry.Histogram
	outOfOrder    *telemetry.Counter
	attempts      *telemetry.Counter
	delivery      *telemetry.Histogram
	latency       *telemetry.Histogram
	ruleErrors    *telemetry.Counter
	unmatched     *telemetry.CounterSeries
	unknownPath   *telemetry.CounterSeries
}

func newMetrics(m *telemetry.Metrics) *metrics {
	r := &metrics{
		notifications: m.Counter("notifications_total", "Calls received, by outcome."),
		signatures:    m.Counter("signatures_total", "Verified calls, by kind of signature and index of the secret that matched."),
		accept:        m.Histogram("accept_duration_seconds", "Time from a call to its answer.", telemetry.AcceptBuckets()),
		delay: m.Histogram("arrival_delay_seconds", "Time from an event, by its payload's own clock, to its arrival.",
			telemetry.DelayBuckets()),
		appended: m.Histogram("journal_append_duration_seconds", "Time from queueing an event until it is on disk.",
			telemetry.AppendBuckets()).With(),
		hits: m.Counter("dedup_hits_total", "Copies recognised, by whether the event was stored already or still being stored."),
		copyAge: m.Histogram("copy_age_seconds", "Time from an event, or the newest under its key, to a copy of it. Redundant "+
			"notifications come together; what comes later than some seconds was sent again.", telemetry.CopyBuckets()),
		outOfOrder: m.Counter("out_of_order_total", "Events that came after a later one of their entity, by the payload's clock."),
		latency: m.Histogram("delivery_latency_seconds", "Time from an event's arrival until a sink has taken it; replays not included.",
			telemetry.LatencyBuckets()),
		attempts:   m.Counter("delivery_attempts_total", "Events sent to sinks, by outcome of the attempt and, when it failed, reason."),
		delivery:   m.Histogram("delivery_duration_seconds", "Time one send to a sink took.", telemetry.DeliveryBuckets()),
		ruleErrors: m.Counter("rule_errors_total", "Events on which a rule's expression failed."),
		unmatched:  m.Counter("unmatched_total", "Events that no rule and no unmatched sink took.").With(),
	}
	r.unknownPath = r.notifications.With(telemetry.LabelSource.String(""),
		telemetry.LabelOutcome.String(outcomeRejected), telemetry.LabelReason.String(reasonUnknownPath))
	return r
}

// sourceMetrics counts for one source.
type sourceMetrics struct {
	notifications map[[2]string]*telemetry.CounterSeries // by outcome and reason
	signatures    map[ncs.Match]*telemetry.CounterSeries
	hits          map[standing]*telemetry.CounterSeries
	outOfOrder    *telemetry.CounterSeries
	accept, delay *telemetry.HistogramSeries
	copyAge       *telemetry.HistogramSeries
}

func (m *metrics) forSource(name string, secrets int) *sourceMetrics {
	source := telemetry.LabelSource.String(name)
	s := &sourceMetrics{
		notifications: make(map[[2]string]*telemetry.CounterSeries),
		signatures:    make(map[ncs.Match]*telemetry.CounterSeries),
		accept:        m.accept.With(source),
		delay:         m.delay.With(source),
		copyAge:       m.copyAge.With(source),
		outOfOrder:    m.outOfOrder.With(source),
		hits:          make(map[standing]*telemetry.CounterSeries),
	}
	for _, h := range []standing{isKnown, isInFlight} {
		s.hits[h] = m.hits.With(source, telemetry.LabelKind.String(h.String()))
	}
	for outcome, reasons := range sourceOutcomes() {
		for _, reason := range reasons {
			s.notifications[[2]string{outcome, reason}] = m.notifications.With(source,
				telemetry.LabelOutcome.String(outcome), telemetry.LabelReason.String(reason))
		}
	}
	for i := range secrets {
		for _, kind := range []ncs.Kind{ncs.V1, ncs.V2} {
			s.signatures[ncs.Match{Kind: kind, Secret: i}] = m.signatures.With(source,
				attribute.String("kind", kind.String()), attribute.Int("secret", i))
		}
	}
	return s
}

func (s *sourceMetrics) count(a answer) { s.notifications[[2]string{a.outcome, a.reason}].Add(1) }

// Outcomes of an attempt.
const (
	outcomeDelivered = "delivered"
	outcomeFailed    = "failed"  // is tried again
	outcomeRefused   = "refused" // for good
)

type attemptOutcome struct {
	outcome string
	reason  relay.Reason // "" when it was delivered
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
	with(outcomeDelivered, "")
	for _, r := range relay.Reasons() {
		with(outcomeFailed, r)
		with(outcomeRefused, r)
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
		if outcome == outcomeDelivered && a.Replay == 0 {
			s.latency.Record(max(0, now.Sub(a.ReceivedAt)))
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

// observe shows the numbers that are kept elsewhere, read when somebody asks for the page.
func (g *Gateway) observe(m *telemetry.Metrics) {
	perSink := func(collect func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue)) func(telemetry.Observe) {
		return func(observe telemetry.Observe) {
			for _, s := range g.journal.Snapshot().Sinks {
				collect(observe, s, telemetry.LabelSink.String(s.Name))
			}
		}
	}
	m.CounterFunc("deliveries_total", "Deliveries settled, by outcome, over all restarts.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.Totals.Delivered), sink, telemetry.LabelOutcome.String("delivered"))
			observe(float64(s.Totals.Dead), sink, telemetry.LabelOutcome.String("dead"))
			observe(float64(s.Totals.Skipped), sink, telemetry.LabelOutcome.String("skipped"))
			observe(float64(s.Totals.Dropped), sink, telemetry.LabelOutcome.String("dropped"))
		}))
	m.Gauge("pending_deliveries", "Deliveries owed and not settled.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.Totals.Pending), sink)
		}))
	m.Gauge("pending_bytes", "Bytes of the bodies owed and not settled, which the sink's backlog bounds.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.PendingBytes), sink)
		}))
	m.Gauge("oldest_pending_age_seconds", "Age of the oldest delivery not settled; 0 when there is none.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			age := time.Duration(0)
			if !s.Oldest.IsZero() {
				age = max(0, time.Since(s.Oldest))
			}
			observe(age.Seconds(), sink)
		}))
	m.Gauge("dead_letters", "Dead letters kept.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.Letters), sink)
		}))
	m.CounterFunc("dead_letters_dropped_total", "Dead letters that their limits dropped.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.LettersLost), sink)
		}))

	m.Gauge("sink_account", "Deliveries over all restarts, by state; one snapshot: owed = delivered + dead + skipped + dropped + pending.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			for state, n := range map[string]uint64{"owed": s.Totals.Owed, "delivered": s.Totals.Delivered, "dead": s.Totals.Dead,
				"skipped": s.Totals.Skipped, "dropped": s.Totals.Dropped, "pending": s.Totals.Pending} {
				observe(float64(n), sink, telemetry.LabelState.String(state))
			}
		}))
	m.Gauge("source_account", "Calls over all restarts, by state; one snapshot: received = rejected + unavailable + test + duplicate + "+
		"quarantined + accepted + in_flight.", func(observe telemetry.Observe) {
		for name, a := range g.journal.Snapshot().Accounts {
			for state, n := range map[string]uint64{"received": a.Received, outcomeRejected: a.Rejected, outcomeUnavailable: a.Unavailable,
				outcomeTest: a.Tests, outcomeDuplicate: a.Duplicates, outcomeQuarantined: a.Quarantined, outcomeAccepted: a.Accepted,
				"in_flight": a.InFlight()} {
				observe(float64(n), telemetry.LabelSource.String(name), telemetry.LabelState.String(state))
			}
		}
	})
	g.observeSinks(m)

	m.Gauge("notifications_in_flight", "Verified calls without an answer so far.", func(observe telemetry.Observe) {
		observe(float64(len(g.ingress.Load().places)))
	})
	m.CounterFunc("trace_spans_lost_total", "Sampled spans that did not reach the collector.", func(observe telemetry.Observe) {
		observe(float64(g.tracing.LostSpans()))
	})

	m.CounterFunc("trail_entries_lost_total", "Copies, attempts and levers that inspect will not know of: the disk was too slow or full.", func(observe telemetry.Observe) {
		observe(float64(g.trail.Lost()))
	})

	m.Gauge("dedup_keys", "Keys that the deduplication knows.", func(observe telemetry.Observe) {
		observe(float64(g.dedup.stats().keys))
	})
	m.CounterFunc("dedup_conflicts_total", "Different events stored under one key.", func(observe telemetry.Observe) {
		observe(float64(g.dedup.stats().conflicts))
	})
	m.Gauge("dedup_oldest_key_age_seconds", "Age of the least recently used key.", func(observe telemetry.Observe) {
		observe(g.dedup.stats().oldest.Seconds())
	})
	m.Gauge("dedup_max_keys", "Keys that the deduplication may know: dedup.max_keys.", func(observe telemetry.Observe) {
		observe(float64(g.dedup.stats().maxKeys))
	})
	m.Gauge("dedup_window_seconds", "How long a key is to be known: dedup.window.", func(observe telemetry.Observe) {
		observe(g.dedup.stats().window.Seconds())
	})
	if disk, ok := g.journal.(journal.OnDisk); ok {
		observeDisk(m, disk)
	}
}

func observeDisk(m *telemetry.Metrics, disk journal.OnDisk) {
	m.CounterFunc("journal_syncs_total", "Groups of events written with one sync; events per group = appends / syncs.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Syncs))
	})
	m.CounterFunc("journal_faults_total", "Times the disk failed the journal or had no room.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Faults))
	})
	m.Gauge("journal_free_bytes", "Bytes free on the journal's volume.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Free))
	})
	m.Gauge("journal_bytes", "Bytes the journal takes on disk.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Bytes))
	})
	m.Gauge("journal_max_bytes", "Bytes the journal may take on disk: journal.max_size.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().MaxBytes))
	})
}

// observeSinks shows what the dispatchers know.
func (g *Gateway) observeSinks(m *telemetry.Metrics) {
	perSink := func(collect func(observe telemetry.Observe, r *running, sink attribute.KeyValue)) func(telemetry.Observe) {
		return func(observe telemetry.Observe) {
			g.mu.Lock()
			defer g.mu.Unlock()
			for name, r := range g.sinks {
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
