package deliver

import (
	"context"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/telemetry"
)

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
