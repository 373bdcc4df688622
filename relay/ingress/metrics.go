package ingress

import (
	"go.opentelemetry.io/otel/attribute"

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

// metrics are the instruments of the ingress.
type metrics struct {
	notifications *telemetry.Counter
	signatures    *telemetry.Counter
	accept        *telemetry.Histogram
	appended      *telemetry.HistogramSeries
	delay         *telemetry.Histogram
	hits          *telemetry.Counter
	copyAge       *telemetry.Histogram
	outOfOrder    *telemetry.Counter
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

// observe shows the numbers that are kept elsewhere, read when somebody asks for the page.
func (h *Ingress) observe(m *telemetry.Metrics) {
	m.Gauge("notifications_in_flight", "Verified calls without an answer so far.", func(observe telemetry.Observe) {
		observe(float64(len(h.setup.Load().places)))
	})
	m.Gauge("dedup_keys", "Keys that the deduplication knows.", func(observe telemetry.Observe) {
		observe(float64(h.dedup.stats().keys))
	})
	m.CounterFunc("dedup_conflicts_total", "Different events stored under one key.", func(observe telemetry.Observe) {
		observe(float64(h.dedup.stats().conflicts))
	})
	m.Gauge("dedup_oldest_key_age_seconds", "Age of the least recently used key.", func(observe telemetry.Observe) {
		observe(h.dedup.stats().oldest.Seconds())
	})
	m.Gauge("dedup_max_keys", "Keys that the deduplication may know: dedup.max_keys.", func(observe telemetry.Observe) {
		observe(float64(h.dedup.stats().maxKeys))
	})
	m.Gauge("dedup_window_seconds", "How long a key is to be known: dedup.window.", func(observe telemetry.Observe) {
		observe(h.dedup.stats().window.Seconds())
	})
}
