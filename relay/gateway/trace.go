package gateway

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"ncs-relay/relay"
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
func (g *Gateway) trace(src *source, r *http.Request, c *call, a *answer, arrived time.Time) {
	if !g.tracing.Enabled() {
		return
	}
	var id trace.SpanContext
	switch accepted := g.tracing.Accepted(c.id); {
	case c.id == ncs.EventID{}:
		if !g.refused.Allow() {
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
	span := g.tracing.StartIngress(id, name, src.Path, arrived)
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
		link(span, g.tracing.Accepted(c.id), telemetry.LinkAccepted)
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

// traceDelivery makes one span for each sampled event of a batch, each in its event's own trace, and puts the context to
// send along into the attempts. It returns the context for Send, which holds the span when the batch is a single event,
// so that the sink can add what it was answered, and a function that ends the spans.
//
// One span for the batch, with links to the traces of its events, would be cheaper when all is sampled, but would be
// found in none of these traces, be cut at the SDK's 128 links, and be kept or dropped apart from them. DESIGN.md has the
// figures.
func traceDelivery(ctx context.Context, t *telemetry.Tracing, s *SinkSpec, lane relay.Lane, batch []relay.Attempt) (context.Context, func(sendResult)) {
	if !t.Enabled() {
		return ctx, func(sendResult) {}
	}
	spans := make([]trace.Span, len(batch))
	for i := range batch {
		a := &batch[i]
		if s.PropagateTrace {
			a.Traceparent = telemetry.Traceparent(a.Trace)
		}
		if !t.SamplesDelivery(a.Trace) {
			continue
		}
		within, span := startDelivery(ctx, t, s, lane, a, len(batch))
		if spans[i] = span; s.PropagateTrace {
			a.Traceparent = telemetry.Traceparent(span.SpanContext())
		}
		if len(batch) == 1 {
			ctx = within
		}
	}
	return ctx, func(r sendResult) {
		for i, span := range spans {
			if span == nil {
				continue
			}
			outcome, reason := r.outcome(i)
			if outcome == "" {
				outcome = "not_tried"
			}
			span.SetAttributes(telemetry.AttrOutcome.String(outcome))
			if reason != "" {
				class, text := traced(r.err)
				span.SetStatus(codes.Error, text)
				span.SetAttributes(telemetry.AttrReason.String(string(reason)), telemetry.ErrorType(class))
			}
			span.End()
		}
	}
}

func startDelivery(ctx context.Context, t *telemetry.Tracing, s *SinkSpec, lane relay.Lane, a *relay.Attempt, batch int) (context.Context, trace.Span) {
	name := "deliver " + s.Name
	switch s.SpanKind {
	case trace.SpanKindProducer:
		name = telemetry.OperationSend + " " + lane.Group
	case trace.SpanKindClient:
		name = http.MethodPost
	}
	ctx, span := t.StartDelivery(ctx, a.Trace, name, s.SpanKind)
	span.SetAttributes(s.SpanAttrs...)
	span.SetAttributes(
		telemetry.AttrSink.String(s.Name),
		telemetry.AttrEvent.String(a.Info.Product+"."+a.Info.Event),
		telemetry.AttrAttempt.Int(a.Number))
	if a.Entity != "" {
		span.SetAttributes(telemetry.AttrEntity.String(a.Entity))
	}
	if a.Replay > 0 {
		span.SetAttributes(telemetry.AttrReplay.Int64(int64(a.Replay)))
	}
	if batch > 1 {
		span.SetAttributes(telemetry.AttrBatch.Int(batch))
	}
	switch {
	case s.SpanKind == trace.SpanKindProducer:
		span.SetAttributes(telemetry.Message(lane.Group, lane.Key, a.ID.String(), a.Entity, len(a.Body))...)
	case s.SpanKind == trace.SpanKindClient && a.Number > 1:
		span.SetAttributes(telemetry.Resent(a.Number - 1))
	}
	return ctx, span
}

// traced is what traces say of an error. An HTTP status says all: the text quotes the answer, in which the far side may
// repeat the event, and payload has no place in traces.
func traced(err error) (class, text string) {
	if err == nil { // a sink's bug
		return string(relay.ReasonOther), ""
	}
	if status := relay.StatusOf(err); status != 0 {
		return strconv.Itoa(status), ""
	}
	return string(relay.ReasonOf(err)), clip(err.Error())
}
