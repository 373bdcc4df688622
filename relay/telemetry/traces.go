package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

const (
	traceQueue = 8192        // spans held for the exporter; a span is about 1 KiB
	traceDelay = time.Second // the SDK's 5 s would keep a busy queue full

	maxAttribute = 256 // bytes of an attribute's value: spans hold ids and names, and errors that quote the far side
)

// Tracing starts spans and exports them. Its methods may be called concurrently.
type Tracing struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider // nil = nothing is exported
	sampler  sampler
	spans    *spanQueue // nil = nothing is exported
	host     string
}

// NewTracing sets tracing up as the OTEL_* variables say. When they ask for no exporter, or for one that cannot be had, it
// starts nothing, and the spans are no-ops. The Tracing can be used whatever the error, which says why nothing is exported
// although the variables are right; an unreachable collector is none.
func NewTracing(ctx context.Context, o Options) (*Tracing, error) {
	off := &Tracing{tracer: noop.NewTracerProvider().Tracer(scopeName)}
	if !o.exports(traces) || len(o.refusals(traces)) > 0 {
		return off, nil
	}
	sdkErrors := handleSDKErrors(o.Log)
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return off, fmt.Errorf("traces are not exported: %w", err)
	}
	sampler := o.sampler()
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxAttribute
	spans := newSpanQueue(exporter, o.batchSize(), sdkErrors)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(spans),
		sdktrace.WithSampler(sampler),
		sdktrace.WithIDGenerator(idGenerator{}),
		sdktrace.WithResource(newResource(ctx, o)),
		sdktrace.WithRawSpanLimits(limits),
	)
	host, _ := os.Hostname() // without a name replicas share span ids, which costs clarity only
	return &Tracing{tracer: provider.Tracer(scopeName), provider: provider, sampler: sampler, spans: spans, host: host}, nil
}

// sampler decides on the trace id, so that all spans of an event are kept or none, or for parentbased_ once, at the
// first span.
type sampler struct {
	sdktrace.Sampler
	parentBased bool
}

// newSampler makes the sampler that the standard variables name. Unlike the SDK it looks at no parent unless told to. Parents are always our own spans: what the caller says of his is a link.
func newSampler(name, arg string) (sampler, error) {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "" {
		return sampler{Sampler: sdktrace.AlwaysSample()}, nil
	}
	root, parentBased := strings.CutPrefix(name, "parentbased_")
	s := sampler{parentBased: parentBased}
	switch root {
	case "always_on":
		s.Sampler = sdktrace.AlwaysSample()
	case "always_off":
		s.Sampler = sdktrace.NeverSample()
	case "traceidratio":
		ratio, err := parseRatio(strings.TrimSpace(arg))
		if err != nil {
			return sampler{}, err
		}
		s.Sampler = sdktrace.TraceIDRatioBased(ratio)
	default:
		return sampler{}, fmt.Errorf("OTEL_TRACES_SAMPLER: unknown sampler %q", name)
	}
	if parentBased {
		s.Sampler = sdktrace.ParentBased(s.Sampler)
	}
	return s, nil
}

// samples returns the decision on a span without making it: of 100 spans sampled at 1 %, 99 then cost nothing.
func (s sampler) samples(id trace.TraceID, parent trace.SpanContext) bool {
	if s.parentBased && parent.IsValid() {
		return parent.IsSampled()
	}
	params := sdktrace.SamplingParameters{ParentContext: context.Background(), TraceID: id}
	return s.ShouldSample(params).Decision == sdktrace.RecordAndSample
}

func parseRatio(arg string) (float64, error) {
	if arg == "" {
		return 1, nil
	}
	ratio, err := strconv.ParseFloat(arg, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) { // the negation also catches NaN
		return 0, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG: %q is not a number from 0 to 1", arg)
	}
	return ratio, nil
}

// Enabled reports whether spans go anywhere. Building attributes costs more than a span: ask first.
func (t *Tracing) Enabled() bool { return t.provider != nil }

// LostSpans counts sampled spans that did not reach the collector: the queue was full or the export failed. A batch the
// collector took in part counts as a whole.
func (t *Tracing) LostSpans() int64 {
	if !t.Enabled() {
		return 0
	}
	return t.spans.lost.Load()
}

// Accepted is the span of the call that was, or will be, accepted as event: what its deliveries have as their parent and
// its copies link to. It is known before that span exists. Without an exporter it is no span.
func (t *Tracing) Accepted(event [16]byte) trace.SpanContext {
	if !t.Enabled() {
		return trace.SpanContext{}
	}
	c := trace.SpanContextConfig{TraceID: event, SpanID: acceptedSpanID(t.host, event)}
	if t.sampler.samples(event, trace.SpanContext{}) {
		c.TraceFlags = trace.FlagsSampled
	}
	return trace.NewSpanContext(c)
}

// StartIngress starts the span of one call of NCS, which began at start. Its ids are those of id, random where id has
// none: a rejected call has no event, and a copy no span id of its own. It is always a root: whatever trace the caller claims
// to be in must not decide what we record.
func (t *Tracing) StartIngress(id trace.SpanContext, method, path string, start time.Time) trace.Span {
	_, span := t.tracer.Start(withIDs(context.Background(), id.TraceID(), id.SpanID()), method+" "+path,
		trace.WithNewRoot(),
		trace.WithTimestamp(start),
		trace.WithSpanKind(trace.SpanKindServer))
	return span
}

// SamplesDelivery reports whether StartDelivery would make a span that is recorded.
func (t *Tracing) SamplesDelivery(parent trace.SpanContext) bool {
	return t.Enabled() && t.sampler.samples(parent.TraceID(), parent)
}

// StartDelivery starts the span of one attempt at a sink. Its parent is the ingress span as the journal has it. A parent
// without a span id (journaled while tracing was off) gives its trace id to a new root.
func (t *Tracing) StartDelivery(ctx context.Context, parent trace.SpanContext, name string, kind trace.SpanKind) (context.Context, trace.Span) {
	if parent.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	} else {
		ctx = trace.ContextWithSpanContext(withIDs(ctx, parent.TraceID(), trace.SpanID{}), trace.SpanContext{})
	}
	return t.tracer.Start(ctx, name, trace.WithSpanKind(kind))
}

// Shutdown exports what is queued and stops. When ctx ends first the rest is given up, counted as lost.
func (t *Tracing) Shutdown(ctx context.Context) error {
	if !t.Enabled() {
		return nil
	}
	// When ctx ends the SDK stops waiting but goes on exporting, for up to a minute a batch.
	defer t.spans.giveUp()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("export the last spans: %w", err)
	}
	return nil
}

// Traceparent is the W3C header of sc, or "" when sc is no span.
func Traceparent(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	flags := "00"
	if sc.IsSampled() {
		flags = "01"
	}
	return "00-" + sc.TraceID().String() + "-" + sc.SpanID().String() + "-" + flags
}

var errSpanQueueFull = errors.New("the queue of spans is full: the collector is too slow or away")

// spanQueue is the SDK's batch processor with its losses counted: full, it drops without a word.
type spanQueue struct {
	sdktrace.SpanProcessor // the batch processor
	errors                 *sdkErrors
	held                   atomic.Int64 // ended and not yet through the exporter
	lost                   atomic.Int64
	giveUp                 context.CancelFunc // ends exports, also later ones
}

func newSpanQueue(exporter sdktrace.SpanExporter, batch int, errors *sdkErrors) *spanQueue {
	ctx, cancel := context.WithCancel(context.Background())
	q := &spanQueue{errors: errors, giveUp: cancel}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(countingExporter{exporter, q, ctx},
		sdktrace.WithMaxQueueSize(traceQueue), sdktrace.WithMaxExportBatchSize(batch), sdktrace.WithBatchTimeout(traceDelay))
	return q
}

// OnEnd takes a span over, or drops and counts it when traceQueue spans are held: the batch processor's queue, of the
// same size, can then never be full.
func (q *spanQueue) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() && q.held.Add(1) > traceQueue {
		q.held.Add(-1)
		q.lost.Add(1)
		q.errors.Handle(errSpanQueueFull)
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// countingExporter tells its queue what became of the spans.
type countingExporter struct {
	sdktrace.SpanExporter
	queue *spanQueue
	stop  context.Context
}

func (e countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.stop, cancel)()

	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.queue.held.Add(-int64(len(spans)))
	if err != nil {
		e.queue.lost.Add(int64(len(spans)))
	}
	return err
}
