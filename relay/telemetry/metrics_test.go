package telemetry_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/telemetry"
)

func newMetrics(t testing.TB, getenv func(string) string) *telemetry.Metrics {
	t.Helper()
	m, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Getenv: getenv, Version: "1.2.3", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Shutdown(context.Background())) })
	return m
}

// page reads the metrics page as Prometheus does.
func page(t *testing.T, m *telemetry.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(w.Body)
	require.NoError(t, err)
	return families
}

func labels(m *dto.Metric) string {
	var s []string
	for _, l := range m.Label {
		s = append(s, l.GetName()+"="+l.GetValue())
	}
	return strings.Join(s, ",")
}

// The names are a contract with everybody's dashboards: design.md 2.6.
func TestNamesOnThePage(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, nil)
	source, sink := telemetry.LabelSource.String("recording"), telemetry.LabelSink.String("billing")
	outcome, reason := telemetry.LabelOutcome.String("rejected"), telemetry.LabelReason.String("signature")
	one := func(observe telemetry.Observe) { observe(1) }
	oneBySink := func(observe telemetry.Observe) { observe(1, sink) }

	m.Counter("notifications_total", "h").With(source, outcome, reason)
	m.Counter("deliveries_total", "h").With(sink, outcome)
	m.Counter("delivery_attempts_total", "h").With(sink, outcome)
	m.Gauge("pending_deliveries", "h", oneBySink)
	m.Gauge("oldest_pending_age_seconds", "h", oneBySink)
	m.Gauge("dead_letters", "h", oneBySink)
	m.Histogram("delivery_duration_seconds", "h", telemetry.DeliveryBuckets()).With(sink).Record(time.Second)
	m.Histogram("accept_duration_seconds", "h", telemetry.AcceptBuckets()).With(source).Record(time.Second)
	m.Histogram("arrival_delay_seconds", "h", telemetry.DelayBuckets()).With(source).Record(time.Second)
	m.Gauge("dedup_keys", "h", one)
	m.CounterFunc("dedup_conflicts_total", "h", one)
	m.Gauge("dedup_oldest_key_age_seconds", "h", one)
	m.Gauge("journal_bytes", "h", one)
	m.Gauge("journal_free_bytes", "h", one)
	m.CounterFunc("journal_written_bytes_total", "h", one)
	m.Gauge("config_generation", "h", one)
	m.Gauge("config_last_reload_successful", "h", one)
	m.Gauge("config_last_reload_timestamp_seconds", "h", one)

	got := map[string]string{}
	for name, family := range page(t, m) {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		require.Len(t, family.Metric, 1, name)
		got[name] = strings.ToLower(family.GetType().String()) + " " + labels(family.Metric[0])
	}
	require.Contains(t, got["target_info"], "service_name=ncs-relay")
	require.Contains(t, got["target_info"], "service_version=1.2.3")
	delete(got, "target_info")
	require.Contains(t, got["ncs_relay_build_info"], "version=1.2.3")
	delete(got, "ncs_relay_build_info")
	require.Empty(t, cmp.Diff(map[string]string{
		"ncs_relay_notifications_total":                  "counter outcome=rejected,reason=signature,source=recording",
		"ncs_relay_deliveries_total":                     "counter outcome=rejected,sink=billing",
		"ncs_relay_delivery_attempts_total":              "counter outcome=rejected,sink=billing",
		"ncs_relay_pending_deliveries":                   "gauge sink=billing",
		"ncs_relay_oldest_pending_age_seconds":           "gauge sink=billing",
		"ncs_relay_dead_letters":                         "gauge sink=billing",
		"ncs_relay_delivery_duration_seconds":            "histogram sink=billing",
		"ncs_relay_accept_duration_seconds":              "histogram source=recording",
		"ncs_relay_arrival_delay_seconds":                "histogram source=recording",
		"ncs_relay_dedup_keys":                           "gauge ",
		"ncs_relay_dedup_conflicts_total":                "counter ",
		"ncs_relay_dedup_oldest_key_age_seconds":         "gauge ",
		"ncs_relay_journal_bytes":                        "gauge ",
		"ncs_relay_journal_free_bytes":                   "gauge ",
		"ncs_relay_journal_written_bytes_total":          "counter ",
		"ncs_relay_config_generation":                    "gauge ",
		"ncs_relay_config_last_reload_successful":        "gauge ",
		"ncs_relay_config_last_reload_timestamp_seconds": "gauge ",
	}, got))
}

func TestGoAndProcessMetrics(t *testing.T) {
	t.Parallel()
	families := page(t, newMetrics(t, nil))
	require.Contains(t, families, "go_goroutines")
	require.Contains(t, families, "process_start_time_seconds")
}

func TestValues(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, nil)
	sink := telemetry.LabelSink.String("billing")
	counter := m.Counter("things_total", "Things.")
	series := counter.With(sink)
	value := func(name string) float64 { return page(t, m)[name].Metric[0].GetCounter().GetValue() }
	require.Zero(t, value("ncs_relay_things_total"), "a series is there before anything happened")
	series.Add(2)
	counter.With(sink).Add(1) // the same series, made again after a reload
	require.EqualValues(t, 3, value("ncs_relay_things_total"))

	waits := m.Histogram("waits_seconds", "Waits.", []float64{.1, 1}).With(sink)
	none := page(t, m)["ncs_relay_waits_seconds"]
	require.Equal(t, "Waits.", none.GetHelp())
	require.Equal(t, "sink=billing", labels(none.Metric[0]))
	require.Zero(t, none.Metric[0].Histogram.GetSampleCount())
	require.Len(t, none.Metric[0].Histogram.Bucket, 3, "with +Inf")
	waits.Record(200 * time.Millisecond)
	require.Len(t, page(t, m)["ncs_relay_waits_seconds"].Metric, 1, "the same series")
	histogram := page(t, m)["ncs_relay_waits_seconds"].Metric[0].Histogram
	require.InDelta(t, .2, histogram.GetSampleSum(), 1e-9)
	var bounds []float64
	var counts []uint64
	for _, b := range histogram.Bucket {
		bounds, counts = append(bounds, b.GetUpperBound()), append(counts, b.GetCumulativeCount())
	}
	require.Equal(t, []float64{.1, 1}, bounds[:2])
	require.Equal(t, []uint64{0, 1}, counts[:2])

	var removed atomic.Bool
	m.Gauge("level", "Level.", func(observe telemetry.Observe) {
		observe(7, sink)
		if !removed.Load() {
			observe(8, telemetry.LabelSink.String("archive"))
		}
	})
	require.Len(t, page(t, m)["ncs_relay_level"].Metric, 2)
	removed.Store(true)
	level := page(t, m)["ncs_relay_level"].Metric
	require.Len(t, level, 1, "a series nobody reports any more is gone")
	require.EqualValues(t, 7, level[0].GetGauge().GetValue())
}

func TestNamesThatWouldComeOutDifferently(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, nil)
	none := func(telemetry.Observe) {}
	require.Panics(t, func() { m.Counter("things", "h") })
	require.Panics(t, func() { m.CounterFunc("things", "h", none) })
	require.Panics(t, func() { m.Histogram("delivery_duration", "h", telemetry.DeliveryBuckets()) })
	require.Panics(t, func() { m.Gauge("no good", "h", none) })
	for _, name := range []string{"double__score", "_led", "trailing_"} {
		require.Panics(t, func() { m.Gauge(name, "h", none) }, name)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, nil)
	counter := m.Counter("things_total", "h")
	for i := range 20_100 {
		counter.With(telemetry.LabelReason.Int(i)).Add(1)
	}
	family := page(t, m)["ncs_relay_things_total"].Metric
	require.Len(t, family, 20_000)
	require.True(t, slices.ContainsFunc(family, func(m *dto.Metric) bool {
		return labels(m) == "otel_metric_overflow=true" && m.GetCounter().GetValue() == 101
	}))
}

func TestBucketsRise(t *testing.T) {
	t.Parallel()
	for _, b := range [][]float64{telemetry.AcceptBuckets(), telemetry.DeliveryBuckets(), telemetry.DelayBuckets()} {
		require.True(t, slices.IsSorted(b))
		require.Equal(t, slices.Compact(slices.Clone(b)), b)
	}
}

func TestMetricsGoToACollectorOnlyWhenAskedFor(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/metrics" && strings.Contains(string(body), "ncs_relay_things_total") {
			calls.Add(1)
		}
	}))
	t.Cleanup(server.Close)
	for _, tt := range []struct {
		exporter, disabled string
		want               int64
	}{{"", "", 1}, {"otlp", "", 1}, {"none", "", 0}, {"prometheus", "", 0}, {"", "true", 0}} {
		t.Run(tt.exporter+tt.disabled, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
			t.Setenv("OTEL_METRICS_EXPORTER", tt.exporter)
			t.Setenv("OTEL_SDK_DISABLED", tt.disabled)
			calls.Store(0)
			m := newMetrics(t, os.Getenv)
			m.Counter("things_total", "h").With()
			require.Contains(t, page(t, m), "ncs_relay_things_total", "the page is there in any case")
			require.NoError(t, m.Shutdown(t.Context()))
			require.Equal(t, tt.want, calls.Load())
		})
	}
}

func BenchmarkCounterAdd(b *testing.B) {
	series := newMetrics(b, nil).Counter("things_total", "h").With(telemetry.LabelSink.String("billing"))
	b.ReportAllocs()
	for b.Loop() {
		series.Add(1)
	}
}

func BenchmarkHistogramRecord(b *testing.B) {
	series := newMetrics(b, nil).Histogram("waits_seconds", "h", telemetry.DeliveryBuckets()).With(telemetry.LabelSink.String("billing"))
	b.ReportAllocs()
	for b.Loop() {
		series.Record(time.Millisecond)
	}
}
