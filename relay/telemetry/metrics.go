package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
)

const (
	// Label sets of one instrument beyond which the SDK folds into one series; it guards memory against a mistake of
	// ours. The SDK's 2000 is in reach of an honest configuration: sinks x outcomes.
	seriesLimit = 20_000

	pageRequests = 4 // scrapes at once; more are answered 503
	pageTimeout  = 10 * time.Second
)

// Metrics makes the relay's instruments and shows them on the metrics page, and, when the OTEL_* variables ask for it,
// sends them to a collector. Its methods may be called concurrently.
//
// Instruments are named as they appear on the page, without the common prefix: "notifications_total". The suffix says
// kind and unit (_total, _seconds, _bytes), so names on the page, in OTLP and in the code are the same. A name that
// would come out differently is a bug of the caller and panics.
type Metrics struct {
	provider *sdkmetric.MeterProvider
	meter    metric.Meter
	zeros    *withZeros
	page     http.Handler
}

// NewMetrics sets metrics up. OTEL_SDK_DISABLED and the like concern the collector only: the page is the relay's own. The Metrics
// can be used whatever the error, which says why no collector gets them although the variables are right.
func NewMetrics(ctx context.Context, o Options) (*Metrics, error) {
	handleSDKErrors(o.Log)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	page, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes), // the default hangs on a global
		otelprom.WithoutScopeInfo(),
	)
	if err != nil {
		panic("BUG: no metrics page: " + err.Error()) // nothing outside the process is asked for it
	}
	options := []sdkmetric.Option{
		sdkmetric.WithReader(page),
		sdkmetric.WithResource(newResource(ctx, o)),
		sdkmetric.WithCardinalityLimit(seriesLimit),
		sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter), // instruments are given no trace, so reservoirs only cost
	}
	// The exporter "prometheus" would open a second page, on the port ours has by default.
	var notExported error
	if o.exports(metrics) && o.Getenv("OTEL_METRICS_EXPORTER") != "prometheus" && len(o.refusals(metrics)) == 0 {
		reader, err := autoexport.NewMetricReader(ctx)
		if err == nil {
			options = append(options, sdkmetric.WithReader(reader))
		} else {
			notExported = fmt.Errorf("metrics are not exported: %w", err)
		}
	}
	provider := sdkmetric.NewMeterProvider(options...)
	zeros := &withZeros{Gatherer: registry, zeros: make(map[string]*dto.MetricFamily)}
	m := &Metrics{
		provider: provider,
		meter:    provider.Meter(scopeName),
		zeros:    zeros,
		page: promhttp.HandlerFor(zeros, promhttp.HandlerOpts{
			ErrorLog:            pageLog{o.Log},
			ErrorHandling:       promhttp.ContinueOnError, // half a page tells more than none
			MaxRequestsInFlight: pageRequests,
			Timeout:             pageTimeout,
		}),
	}
	build := []attribute.KeyValue{attribute.String("version", o.Version), attribute.String("go_version", runtime.Version())}
	m.Gauge("build_info", "Always 1; the labels say what is running.", func(observe Observe) { observe(1, build...) })
	return m, notExported
}

// Handler serves the metrics page.
func (m *Metrics) Handler() http.Handler { return m.page }

// Shutdown sends the last values to the collector, if there is one, and stops. The page lacks the relay's metrics then.
// A second call does nothing.
func (m *Metrics) Shutdown(ctx context.Context) error {
	if err := m.provider.Shutdown(ctx); err != nil && !errors.Is(err, sdkmetric.ErrReaderShutdown) {
		return fmt.Errorf("export the last metrics: %w", err)
	}
	return nil
}

// Counter makes a counter. Its name ends in _total.
func (m *Metrics) Counter(name, help string) *Counter {
	c := &Counter{series: make(map[attribute.Distinct]*CounterSeries)}
	full, unit := fullName(name, otlptranslator.MetricTypeMonotonicCounter)
	_, err := m.meter.Int64ObservableCounter(full, metric.WithDescription(help), metric.WithUnit(unit), metric.WithInt64Callback(c.observe))
	must(name, err)
	return c
}

// Counter is a family of series. It counts by itself, for a fifteenth of what the SDK's counters cost, and tells the SDK its
// values when the page is read. Make its series once per configuration, not per event.
type Counter struct {
	mu     sync.Mutex // guards series
	series map[attribute.Distinct]*CounterSeries
}

// With returns the series with these labels. It is on the page from then on, at 0: an alert on a rate needs the first
// failure to be a step and not a birth.
func (c *Counter) With(labels ...attribute.KeyValue) *CounterSeries {
	set := attribute.NewSet(labels...)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.series[set.Equivalent()]
	if s == nil {
		s = &CounterSeries{labels: metric.WithAttributeSet(set)}
		c.series[set.Equivalent()] = s
	}
	return s
}

func (c *Counter) observe(_ context.Context, o metric.Int64Observer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.series {
		o.Observe(s.value.Load(), s.labels)
	}
	return nil
}

// CounterSeries is one line of the page.
type CounterSeries struct {
	value  atomic.Int64
	labels metric.ObserveOption
}

// Add raises the counter by n, which is not negative.
func (s *CounterSeries) Add(n int64) { s.value.Add(n) }

// Histogram makes a histogram of durations with these bounds in seconds. Its name ends in _seconds.
func (m *Metrics) Histogram(name, help string, buckets []float64) *Histogram {
	full, unit := fullName(name, otlptranslator.MetricTypeHistogram)
	if unit != "s" {
		panic("BUG: histogram of durations not named _seconds: " + name)
	}
	h, err := m.meter.Float64Histogram(full, metric.WithDescription(help), metric.WithUnit(unit),
		metric.WithExplicitBucketBoundaries(buckets...))
	must(name, err)
	return &Histogram{h, func(labels attribute.Set) { m.zeros.add(full, help, buckets, labels) }}
}

// Histogram is a family of series. Make its series once per configuration, not per event.
type Histogram struct {
	histogram metric.Float64Histogram
	zero      func(labels attribute.Set)
}

// With returns the series with these labels. It is on the page from then on; a collector gets it with the first Record.
func (h *Histogram) With(labels ...attribute.KeyValue) *HistogramSeries {
	set := attribute.NewSet(labels...)
	h.zero(set)
	return &HistogramSeries{h.histogram, []metric.RecordOption{metric.WithAttributeSet(set)}}
}

// HistogramSeries is one set of buckets. Record costs no allocation.
type HistogramSeries struct {
	histogram metric.Float64Histogram
	labels    []metric.RecordOption
}

// Record adds one duration.
func (s *HistogramSeries) Record(d time.Duration) {
	s.histogram.Record(context.Background(), d.Seconds(), s.labels...)
}

// Observe reports the present value of the series with these labels.
type Observe func(value float64, labels ...attribute.KeyValue)

// Gauge makes a gauge whose values collect reports when the page is read. A series that collect no longer reports is gone
// from the page. collect may run concurrently with itself and must not block.
func (m *Metrics) Gauge(name, help string, collect func(Observe)) {
	full, unit := fullName(name, otlptranslator.MetricTypeGauge)
	_, err := m.meter.Float64ObservableGauge(full, metric.WithDescription(help), metric.WithUnit(unit),
		metric.WithFloat64Callback(callback(collect)))
	must(name, err)
}

// CounterFunc makes a counter whose totals are kept elsewhere; collect reports them as it does for a Gauge. For numbers
// that are contended or persisted anyway this is cheaper than a Counter.
func (m *Metrics) CounterFunc(name, help string, collect func(Observe)) {
	full, unit := fullName(name, otlptranslator.MetricTypeMonotonicCounter)
	_, err := m.meter.Float64ObservableCounter(full, metric.WithDescription(help), metric.WithUnit(unit),
		metric.WithFloat64Callback(callback(collect)))
	must(name, err)
}

func callback(collect func(Observe)) metric.Float64Callback {
	return func(_ context.Context, o metric.Float64Observer) error {
		collect(func(value float64, labels ...attribute.KeyValue) {
			o.Observe(value, metric.WithAttributeSet(attribute.NewSet(labels...)))
		})
		return nil
	}
}

// fullName returns the instrument's name and unit for a name on the page, by asking the exporter's own translation whether
// it comes out as it went in.
func fullName(name string, kind otlptranslator.MetricType) (full, unit string) {
	full = metricPrefix + name
	switch base := strings.TrimSuffix(name, "_total"); {
	case strings.HasSuffix(base, "_seconds"):
		unit = "s"
	case strings.HasSuffix(base, "_bytes"):
		unit = "By"
	}
	namer := otlptranslator.NewMetricNamer("", otlptranslator.UnderscoreEscapingWithSuffixes)
	shown, err := namer.Build(otlptranslator.Metric{Name: full, Unit: unit, Type: kind})
	if err == nil && shown != full {
		err = fmt.Errorf("would be shown as %s", shown)
	}
	must(name, err)
	return full, unit
}

func must(name string, err error) {
	if err != nil {
		panic(fmt.Sprintf("BUG: metric %s: %v", name, err))
	}
}

// pageLog is where the metrics page reports what it could not show.
type pageLog struct{ log *slog.Logger }

func (l pageLog) Println(v ...any) {
	l.log.Warn("metrics page is incomplete", "error", errors.New(strings.TrimSpace(fmt.Sprintln(v...))))
}
