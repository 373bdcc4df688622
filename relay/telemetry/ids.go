package telemetry

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"
)

type idsKey struct{}

type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// withIDs makes a root started with the returned context take these ids. An all-zero id, which W3C forbids, means a
// random one, as in other contexts.
func withIDs(ctx context.Context, trace trace.TraceID, span trace.SpanID) context.Context {
	return context.WithValue(ctx, idsKey{}, ids{trace, span})
}

// idGenerator gives roots the ids of their context. Ids need to be unlikely to meet, not secret.
type idGenerator struct{}

func (g idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, _ := ctx.Value(idsKey{}).(ids)
	for !id.trace.IsValid() {
		binary.NativeEndian.PutUint64(id.trace[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id.trace[8:], rand.Uint64())
	}
	if !id.span.IsValid() {
		id.span = g.NewSpanID(ctx, id.trace)
	}
	return id.trace, id.span
}

func (idGenerator) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// acceptedSpanID is the id of the span of the call that was accepted as event, known before that span exists and long
// after: copies link to it without anybody having to look it up. The host keeps apart relays that accept the same event.
func acceptedSpanID(host string, event [16]byte) (id trace.SpanID) {
	h := fnv.New64a()
	h.Write(event[:])
	h.Write([]byte(host))
	h.Sum(id[:0])
	if !id.IsValid() {
		id[0] = 1
	}
	return id
}
