package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"
)

type traceIDKey struct{}

// WithTraceID makes roots started with the returned context take id as their trace id: the event id, so that copies,
// retries, replays and replicas meet in one trace. An all-zero id, which W3C forbids, is ignored; such roots and those
// of other contexts get a random one.
func WithTraceID(ctx context.Context, id [16]byte) context.Context {
	return context.WithValue(ctx, traceIDKey{}, trace.TraceID(id))
}

// idGenerator gives roots the trace id of their context. Ids need to be unlikely to meet, not secret.
type idGenerator struct{}

func (g idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(traceIDKey{}).(trace.TraceID)
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id, g.NewSpanID(ctx, id)
}

func (idGenerator) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
