package relay

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"

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
	delay         *telemetry.Histogram
	attempts      *telemetry.Counter
	delivery      *telemetry.Histogram
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
		attempts:   m.Counter("delivery_attempts_total", "Events sent to sinks, by outcome of the attempt."),
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
	accept, delay *telemetry.HistogramSeries
}

func (m *metrics) forSource(name string, secrets int) *sourceMetrics {
	source := telemetry.LabelSource.String(name)
	s := &sourceMetrics{
		notifications: make(map[[2]string]*telemetry.CounterSeries),
		signatures:    make(map[ncs.Match]*telemetry.CounterSeries),
		accept:        m.accept.With(source),
		delay:         m.delay.With(source),
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

// sinkMetrics counts for one sink.
type sinkMetrics struct {
	delivered, failed, refused *telemetry.CounterSeries
	delivery                   *telemetry.HistogramSeries
}

func (m *metrics) forSink(name string) *sinkMetrics {
	sink := telemetry.LabelSink.String(name)
	with := func(outcome string) *telemetry.CounterSeries {
		return m.attempts.With(sink, telemetry.LabelOutcome.String(outcome))
	}
	return &sinkMetrics{
		delivered: with("delivered"), failed: with("failed"), refused: with("refused"),
		delivery: m.delivery.With(sink),
	}
}

// attempt counts what became of each event of a Send.
func (s *sinkMetrics) attempt(r sendResult) {
	s.delivered.Add(int64(r.taken))
	switch rest := int64(len(r.batch) - r.taken); {
	case rest == 0 || errors.Is(r.err, ErrRelane):
	case IsPermanent(r.err):
		s.refused.Add(1)
	default:
		s.failed.Add(rest)
	}
	s.delivery.Record(r.took)
}

// observe shows the numbers that are kept elsewhere, read when somebody asks for the page.
func (g *Gateway) observe(m *telemetry.Metrics) {
	perSink := func(collect func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue)) func(telemetry.Observe) {
		return func(observe telemetry.Observe) {
			for _, s := range g.journal.Sinks() {
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

	m.Gauge("dedup_keys", "Keys that the deduplication knows.", func(observe telemetry.Observe) {
		observe(float64(g.dedup.stats().keys))
	})
	m.CounterFunc("dedup_conflicts_total", "Different events stored under one key.", func(observe telemetry.Observe) {
		observe(float64(g.dedup.stats().conflicts))
	})
	m.Gauge("dedup_oldest_key_age_seconds", "Age of the least recently used key.", func(observe telemetry.Observe) {
		observe(g.dedup.stats().oldest.Seconds())
	})
	m.Gauge("journal_free_bytes", "Bytes free on the journal's volume.", func(observe telemetry.Observe) {
		observe(float64(g.journal.Stats().Free))
	})
	m.Gauge("journal_bytes", "Bytes the journal takes on disk.", func(observe telemetry.Observe) {
		observe(float64(g.journal.Stats().Bytes))
	})
}
