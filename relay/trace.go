package relay

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay/telemetry"
)

// traceDelivery makes one span for each event of a batch, each in its event's own trace, and puts the context to send
// along into the attempts. The function it returns ends the spans. Without an exporter it does nothing.
func traceDelivery(ctx context.Context, t *telemetry.Tracing, s *SinkSpec, batch []Attempt) func(taken int, err error) {
	if !t.Enabled() {
		return func(int, error) {}
	}
	spans := make([]trace.Span, len(batch))
	for i := range batch {
		a := &batch[i]
		_, spans[i] = t.StartDelivery(ctx, a.Trace, s.Name, s.SpanKind,
			telemetry.AttrEvent.String(a.Info.Product+"."+a.Info.Event),
			telemetry.AttrEntity.String(clip(a.Entity)),
			telemetry.AttrAttempt.Int(a.Number),
			attribute.Int("messaging.batch.message_count", len(batch)))
		if s.PropagateTrace {
			a.Traceparent = telemetry.Traceparent(spans[i].SpanContext())
		}
	}
	return func(taken int, err error) {
		for i, span := range spans {
			if i >= taken && err != nil {
				span.SetStatus(codes.Error, clip(err.Error()))
			}
			span.End()
		}
	}
}
