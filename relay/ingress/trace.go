package ingress

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/telemetry"
)

// Strangers can call as often as they like; of the calls that are refused no more than so many a second have a span.
const (
	refusedSpans      = 10
	refusedSpansBurst = 20
)

// call is what the span of a call will tell. It is filled in on the way, which costs nothing worth mentioning, and the
// span is made when the call has ended: calls that are not sampled, or all when there is no exporter, then cost nothing.
type call struct {
	id       ncs.EventID // zero: refused, or no answer to who it is
	match    ncs.Match
	verified time.Time
	standing standing
	claimed  time.Time
	routed   time.Time
	sinks    []string
	appended time.Time
	position journal.Position
	leads    bool // its span is the parent of the event's deliveries
}

// trace makes the span of a call.
func (h *Ingress) trace(src *source, r *http.Request, c *call, a *answer, arrived time.Time) {
	if !h.tracing.Enabled() {
		return
	}
	var id trace.SpanContext
	switch accepted := h.tracing.Accepted(c.id); {
	case c.id == ncs.EventID{}:
		if !h.refused.Allow() {
			return
		}
	case !accepted.IsSampled():
		return
	case c.leads:
		id = accepted
	default:
		id = accepted.WithSpanID(trace.SpanID{})
	}
	name, method := telemetry.Method(r.Method)
	span := h.tracing.StartIngress(id, name, src.Path, arrived)
	defer span.End()
	if !span.IsRecording() {
		return
	}
	c.describe(span)
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	fault := ""
	if a.status >= http.StatusInternalServerError {
		fault = a.reason
		span.SetStatus(codes.Error, a.text)
	}
	span.SetAttributes(telemetry.OnCall(method, scheme, src.Path, a.status, fault)...)
	span.SetAttributes(telemetry.AttrSource.String(src.Name), telemetry.AttrOutcome.String(a.outcome))
	if a.reason != "" {
		span.SetAttributes(telemetry.AttrReason.String(a.reason))
	}
	caller := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header))
	link(span, trace.SpanContextFromContext(caller).WithTraceState(trace.TraceState{}), telemetry.LinkCaller) // the state may be long
	if a.outcome == outcomeDuplicate {
		link(span, h.tracing.Accepted(c.id), telemetry.LinkAccepted)
	}
}

// describe adds the steps that the call has gone through, each at the time it was done.
func (c *call) describe(span trace.Span) {
	if !c.verified.IsZero() {
		span.AddEvent(telemetry.SpanEventVerify, trace.WithTimestamp(c.verified), trace.WithAttributes(
			telemetry.AttrSignature.String(c.match.Kind.String()), telemetry.AttrSecret.Int(c.match.Secret)))
	}
	if !c.claimed.IsZero() {
		span.AddEvent(telemetry.SpanEventClaim, trace.WithTimestamp(c.claimed), trace.WithAttributes(
			telemetry.AttrStanding.String(c.standing.String())))
	}
	if !c.routed.IsZero() {
		span.AddEvent(telemetry.SpanEventRoute, trace.WithTimestamp(c.routed), trace.WithAttributes(
			telemetry.AttrSinks.StringSlice(c.sinks)))
	}
	if !c.appended.IsZero() {
		span.AddEvent(telemetry.SpanEventAppend, trace.WithTimestamp(c.appended), trace.WithAttributes(
			telemetry.AttrPosition.String(c.position.String())))
	}
}

func link(span trace.Span, to trace.SpanContext, what string) {
	if to.IsValid() {
		span.AddLink(trace.Link{SpanContext: to, Attributes: []attribute.KeyValue{telemetry.AttrLink.String(what)}})
	}
}

func newRefusedLimit() *rate.Limiter { return rate.NewLimiter(refusedSpans, refusedSpansBurst) }
