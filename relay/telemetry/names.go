package telemetry

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

const (
	serviceName  = "ncs-relay"
	scopeName    = "ncs-relay"
	metricPrefix = "ncs_relay_"
)

// Attributes of spans. Those of HTTP and messaging are the semantic conventions' (see the functions below); there is none
// for webhooks, so the relay's own live under ncs_relay. None holds payload: ids, names of the configuration, and numbers.
const (
	AttrSource    = attribute.Key("ncs_relay.source")
	AttrSink      = attribute.Key("ncs_relay.sink")
	AttrSinks     = attribute.Key("ncs_relay.sinks")
	AttrEvent     = attribute.Key("ncs_relay.event") // product.event, as in rules
	AttrEntity    = attribute.Key("ncs_relay.entity")
	AttrOutcome   = attribute.Key("ncs_relay.outcome") // the same words as the metrics' label
	AttrReason    = attribute.Key("ncs_relay.reason")  // likewise
	AttrPosition  = attribute.Key("ncs_relay.position")
	AttrAttempt   = attribute.Key("ncs_relay.attempt")
	AttrReplay    = attribute.Key("ncs_relay.replay")
	AttrBatch     = attribute.Key("ncs_relay.batch")     // how many were sent together, where it is more than one
	AttrSignature = attribute.Key("ncs_relay.signature") // v1 or v2
	AttrSecret    = attribute.Key("ncs_relay.secret")    // index of the one that matched
	AttrStanding  = attribute.Key("ncs_relay.standing")  // what the deduplication said: new, in_flight, known
	AttrLink      = attribute.Key("ncs_relay.link")      // of links, one of the following
)

// Values of AttrLink.
const (
	LinkCaller   = "caller"   // the span that the caller says it is in
	LinkAccepted = "accepted" // of a copy: the call that was accepted
)

// Events of the span of a call, each at the time it ended.
const (
	SpanEventVerify = "verify" // the signature was found right
	SpanEventClaim  = "claim"  // the deduplication answered
	SpanEventRoute  = "route"  // the sinks are known
	SpanEventAppend = "append" // the event is on disk
)

// OnCall describes a call of NCS as the conventions for HTTP servers want it. errorType is "" for what is no fault of ours.
func OnCall(method, scheme, path string, status int, errorType string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(method),
		semconv.URLScheme(scheme),
		semconv.URLPath(path),
		semconv.HTTPRoute(path),
		semconv.HTTPResponseStatusCode(status),
	}
	if errorType != "" {
		attrs = append(attrs, semconv.ErrorTypeKey.String(errorType))
	}
	return attrs
}

// Method returns a method as span names and attributes may hold it: callers can invent any number of others.
func Method(method string) (name, attr string) {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY":
		return method, method
	}
	return "HTTP", "_OTHER"
}

// ToHTTP describes the deliveries to an HTTP service as the conventions for HTTP clients want it. Path and query may
// hold tokens and so are redacted.
func ToHTTP(address string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.HTTPRequestMethodPost}
	scheme, rest, _ := strings.Cut(address, "://")
	rest = rest[:min(len(rest), strings.IndexAny(rest+"/", "/?#"))]
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil || u.Host == "" {
		return attrs
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		port = map[string]int{"http": 80, "https": 443}[u.Scheme]
	}
	return append(attrs, semconv.URLFull(u.Scheme+"://"+u.Host+"/REDACTED"), semconv.ServerAddress(u.Hostname()), semconv.ServerPort(port))
}

// HTTPStatus is what an HTTP service answered.
func HTTPStatus(status int) attribute.KeyValue { return semconv.HTTPResponseStatusCode(status) }

// Resent says that a call is the n-th to be made again.
func Resent(n int) attribute.KeyValue { return semconv.HTTPRequestResendCount(n) }

// ToKafka describes the deliveries to Kafka as the conventions for messaging want it.
func ToKafka(brokers []string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		semconv.MessagingSystemKafka,
		semconv.MessagingOperationTypeSend,
		semconv.MessagingOperationName(OperationSend),
	}
	if len(brokers) != 1 {
		return attrs // which of them leads a partition is the client's business
	}
	host, port, err := net.SplitHostPort(brokers[0])
	if err != nil {
		return append(attrs, semconv.ServerAddress(brokers[0]))
	}
	attrs = append(attrs, semconv.ServerAddress(host))
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, semconv.ServerPort(n))
	}
	return attrs
}

// OperationSend begins the names of spans of deliveries to Kafka; the topic follows.
const OperationSend = "send"

// Message describes one message to Kafka. The conventions want no count of a batch on the span of one message.
func Message(topic, partition, id, key string, size int) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		semconv.MessagingDestinationName(topic),
		semconv.MessagingMessageID(id),
		semconv.MessagingMessageBodySize(size),
	}
	if partition != "" {
		attrs = append(attrs, semconv.MessagingDestinationPartitionID(partition))
	}
	if key != "" {
		attrs = append(attrs, semconv.MessagingKafkaMessageKey(key))
	}
	return attrs
}

// ErrorType is the class of what went wrong.
func ErrorType(class string) attribute.KeyValue { return semconv.ErrorTypeKey.String(class) }

// Labels of metrics: bounded sets only. Names of sources and sinks come from the configuration.
const (
	LabelSource  = attribute.Key("source")
	LabelSink    = attribute.Key("sink")
	LabelOutcome = attribute.Key("outcome")
	LabelReason  = attribute.Key("reason")
	LabelState   = attribute.Key("state")
	LabelKind    = attribute.Key("kind")
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

// AppendBuckets are the bounds, in seconds, for the time until an event is on disk.
func AppendBuckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
}

// LatencyBuckets are the bounds, in seconds, for the time from an event's arrival until a sink has taken it: from at once to
// after an outage of a day.
func LatencyBuckets() []float64 {
	return []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600}
}

// CopyBuckets are the bounds, in seconds, for how long after an event its copy comes. Redundant notifications come
// together; NCS sends again what was not answered within 10 s, the first time at once, so what comes later is a resend.
func CopyBuckets() []float64 {
	return []float64{1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600}
}
