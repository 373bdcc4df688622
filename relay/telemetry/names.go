package telemetry

import "go.opentelemetry.io/otel/attribute"

const (
	serviceName  = "ncs-relay"
	scopeName    = "ncs-relay"
	metricPrefix = "ncs_relay_"
)

// Attributes of spans. Those of HTTP and messaging follow the semantic conventions; there is none for webhooks, so the
// relay's own live under ncs_relay.
const (
	AttrSource   = attribute.Key("ncs_relay.source")
	AttrSink     = attribute.Key("ncs_relay.sink")
	AttrEvent    = attribute.Key("ncs_relay.event") // product.event, as in rules
	AttrEntity   = attribute.Key("ncs_relay.entity")
	AttrOutcome  = attribute.Key("ncs_relay.outcome") // the same words as the metrics' label
	AttrPosition = attribute.Key("ncs_relay.position")
	AttrAttempt  = attribute.Key("ncs_relay.attempt")
	AttrReplay   = attribute.Key("ncs_relay.replay")
)

// Labels of metrics: bounded sets only. Names of sources and sinks come from the configuration.
const (
	LabelSource  = attribute.Key("source")
	LabelSink    = attribute.Key("sink")
	LabelOutcome = attribute.Key("outcome")
	LabelReason  = attribute.Key("reason")
)

// AcceptBuckets are the bounds, in seconds, for the time to answer a notification: from one fsync up to the 10 s after
// which NCS gives up.
func AcceptBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 8, 10}
}

// DeliveryBuckets are the bounds, in seconds, for one attempt at a sink.
func DeliveryBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
}

// DelayBuckets are the bounds, in seconds, for how late a notification arrives: NCS sends again within a minute, a
// failover or a redundant notification may take hours.
func DelayBuckets() []float64 {
	return []float64{.25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600}
}
