package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"ncs-relay/relay/porttest"
)

// collector is the OpenTelemetry Collector's own OTLP receiver.
type collector struct {
	sink     consumertest.TracesSink
	metrics  consumertest.MetricsSink
	endpoint string
}

func startCollector(t *testing.T, protocol string) *collector {
	t.Helper()
	c := &collector{endpoint: porttest.Free()}
	factory := otlpreceiver.NewFactory()
	cfg := factory.CreateDefaultConfig()
	require.NoError(t, confmap.NewFromStringMap(map[string]any{
		"protocols": map[string]any{protocol: map[string]any{"endpoint": c.endpoint}},
	}).Unmarshal(cfg))
	settings := receivertest.NewNopSettings(factory.Type())
	traces, err := factory.CreateTraces(t.Context(), settings, cfg, &c.sink)
	require.NoError(t, err)
	metrics, err := factory.CreateMetrics(t.Context(), settings, cfg, &c.metrics) // shares the server
	require.NoError(t, err)
	require.NoError(t, traces.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, traces.Shutdown(context.Background())) })
	require.NoError(t, metrics.Start(context.Background(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, metrics.Shutdown(context.Background())) })
	return c
}

// spans are those that came in, by trace id.
func (c *collector) spans() map[string][]ptrace.Span {
	traces := map[string][]ptrace.Span{}
	for _, batch := range c.sink.AllTraces() {
		for _, rs := range batch.ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, s := range ss.Spans().All() {
					id := s.TraceID().String()
					traces[id] = append(traces[id], s)
				}
			}
		}
	}
	return traces
}

// tracedReceiver notes the traceparent of each call that it takes, and refuses all until it is opened.
type tracedReceiver struct {
	mu      sync.Mutex
	open    bool
	refused int
	parents map[string]string // by event id

	replayed string
}

func (r *tracedReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.open {
		r.refused++
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.Copy(w, req.Body) // a receiver that repeats what it got
		return
	}
	if req.Header.Get("Ncs-Relay-Replay") != "" {
		r.replayed = req.Header.Get("Traceparent")
		return
	}
	r.parents[req.Header.Get("Ncs-Relay-Event-Id")] = req.Header.Get("Traceparent")
}

func (r *tracedReceiver) counts() (refused, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused, len(r.parents)
}

func (r *tracedReceiver) setOpen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = true
}

// TestOneTraceForEachEvent plays a recording into the real program, kills it while the HTTP service refuses everything, and
// reads back what the collector got: for each event one trace of calls, attempts before and after the restart, and copies.
func TestOneTraceForEachEvent(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			far := &tracedReceiver{parents: map[string]string{}}
			service := httptest.NewServer(far)
			defer service.Close()
			const topic = "ncs.cloud_recording.uploader"
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, topic))
			require.NoError(t, err)
			defer cluster.Close()
			private := &tracedReceiver{parents: map[string]string{}, open: true}
			untraced := httptest.NewServer(private)
			defer untraced.Close()
			c := startCollector(t, protocol)
			r := newRelay(t, strings.Replace(httpSinkHead, ", token: canary-admin-token", "", 1)+httpSinkSource+`
sinks:
  - name: service
    http: {url: "`+service.URL+`/hooks/token-of-the-path"}
    retry: {initial: 10ms, max_interval: 50ms}
  - {name: kafka, kafka: {brokers: ["`+cluster.ListenAddrs()[0]+`"], topic: "ncs.{product}.{category}"}}
  - {name: private, http: {url: "`+untraced.URL+`"}, propagate_trace: false}
routes: [{to: [service, kafka, private]}]
`)
			wire := map[string]string{"grpc": "grpc", "http": "http/protobuf"}[protocol]
			r.environment = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + wire,
				"OTEL_METRICS_EXPORTER=none", "OTEL_BSP_SCHEDULE_DELAY=50"}
			r.start()
			const events = 5
			var ids []string
			for i := range events {
				ids = append(ids, r.postTraced(recording("s", i, 1)))
			}
			r.eventually(func() bool { // a failed attempt and all calls are at the collector, which a kill would lose
				traces := c.spans()
				for _, id := range ids {
					if roots, sends, _ := split(traces[id]); len(roots) == 0 || len(sends) == 0 {
						return false
					}
				}
				return slices.ContainsFunc(traces[ids[0]], func(s ptrace.Span) bool { return attr(s, "ncs_relay.sink") == "service" })
			}, "spans before the kill")
			r.kill()
			far.setOpen()
			r.start()
			require.Equal(t, ids[0], r.postTraced(recording("s", 0, 2)), "a copy after the restart")
			r.eventually(func() bool { _, taken := far.counts(); return taken == events }, "deliveries")
			records := consumeRecords(t, cluster.ListenAddrs()[0], topic, events)
			r.eventually(func() bool { return r.sinkStatus("service").Pending == 0 }, "settled")
			r.mustAsk("replay", "--sink", "service", "--id", ids[0], "--yes", "--wait")
			r.terminate()

			traces := c.spans()
			for _, parent := range private.parents {
				require.Empty(t, parent, "not where propagate_trace is false")
			}
			for _, record := range records {
				id, parent := header(t, record, "ncs-event-id"), header(t, record, "traceparent")
				_, sends, _ := split(traces[id])
				require.True(t, slices.ContainsFunc(sends, func(s ptrace.Span) bool {
					return parent == "00-"+id+"-"+s.SpanID().String()+"-01"
				}), "a record continues one of the attempts that were made: %s", parent)
			}
			require.Len(t, traces, events, "one trace for each event")
			for i, id := range ids {
				spans := map[string]bool{}
				for _, s := range traces[id] {
					require.False(t, spans[s.SpanID().String()], "each span has an id of its own")
					spans[s.SpanID().String()] = true
				}
				roots, sends, posts := split(traces[id])
				posts = slices.DeleteFunc(posts, func(s ptrace.Span) bool { return attr(s, "ncs_relay.sink") == "private" })
				if i == 0 {
					replay := posts[len(posts)-1]
					posts = posts[:len(posts)-1]
					require.Equal(t, "1", attr(replay, "ncs_relay.replay"))
					require.Equal(t, roots[0].SpanID(), replay.ParentSpanID())
					require.Equal(t, "00-"+id+"-"+replay.SpanID().String()+"-01", far.replayed)
				}
				accepted := roots[0]
				require.Equal(t, "POST /ncs", accepted.Name())
				require.Equal(t, ptrace.SpanKindServer, accepted.Kind())
				require.Equal(t, "200", attr(accepted, "http.response.status_code"))
				require.Equal(t, "accepted", attr(accepted, "ncs_relay.outcome"))
				require.Equal(t, []string{"verify", "claim", "route", "append"}, eventNames(accepted))
				require.Equal(t, "caller", linkKinds(accepted))
				require.NotEmpty(t, sends)
				for _, s := range sends {
					require.Equal(t, "send "+topic, s.Name())
					require.Equal(t, accepted.SpanID(), s.ParentSpanID())
					require.Equal(t, "kafka", attr(s, "messaging.system"))
					require.Equal(t, "send", attr(s, "messaging.operation.type"))
					require.Equal(t, topic, attr(s, "messaging.destination.name"))
					require.Equal(t, id, attr(s, "messaging.message.id"))
				}
				last := posts[len(posts)-1]
				require.Equal(t, "200", attr(last, "http.response.status_code"))
				require.Equal(t, accepted.SpanID(), last.ParentSpanID())
				require.Equal(t, "00-"+id+"-"+last.SpanID().String()+"-01", far.parents[id], "the receiver continues the attempt that it took")
				for n, p := range posts[:len(posts)-1] {
					require.Equal(t, "503", attr(p, "http.response.status_code"))
					require.Equal(t, "503", attr(p, "error.type"))
					require.Equal(t, "5xx", attr(p, "ncs_relay.reason"))
					require.Equal(t, ptrace.StatusCodeError, p.Status().Code())
					require.Equal(t, n > 0 && attr(p, "ncs_relay.attempt") != "1", attr(p, "http.request.resend_count") != "")
				}
				if i == 0 {
					require.Greater(t, len(posts), 1, "attempts before the restart are in the same trace")
					require.Len(t, roots, 2)
					require.Equal(t, "duplicate", attr(roots[1], "ncs_relay.outcome"))
					require.Equal(t, accepted.SpanID(), roots[1].Links().At(1).SpanID(), "a copy links to the call that was accepted")
				}
			}
			for _, batch := range c.sink.AllTraces() {
				all, err := (&ptrace.JSONMarshaler{}).MarshalTraces(batch)
				require.NoError(t, err)
				for _, hidden := range []string{"token-of-the-path", serveSecret, "channel ü", "1596555306257"} { // the last two: payload
					require.NotContains(t, string(all), hidden)
				}
			}
		})
	}
}

// postTraced posts as a caller that is in a trace of its own, and gives the event's id.
func (r *relayUnderTest) postTraced(body []byte) string {
	r.t.Helper()
	req, err := http.NewRequest("POST", r.url, bytes.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Agora-Signature-V2", signed(sha256.New, serveSecret, body))
	req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00") // not sampled: not for us to follow
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	var answer struct{ Event string }
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&answer))
	_, err = hex.DecodeString(answer.Event)
	require.NoError(r.t, err)
	return answer.Event
}

func isRoot(s ptrace.Span) bool { return s.ParentSpanID().IsEmpty() }

// split sorts the spans of a trace by kind, each in order of time.
func split(spans []ptrace.Span) (roots, sends, posts []ptrace.Span) {
	slices.SortFunc(spans, func(a, b ptrace.Span) int { return int(a.StartTimestamp()) - int(b.StartTimestamp()) })
	for _, s := range spans {
		switch {
		case isRoot(s):
			roots = append(roots, s)
		case s.Kind() == ptrace.SpanKindProducer:
			sends = append(sends, s)
		case s.Kind() == ptrace.SpanKindClient:
			posts = append(posts, s)
		}
	}
	return roots, sends, posts
}

func attr(s ptrace.Span, key string) string {
	if v, ok := s.Attributes().Get(key); ok {
		return v.AsString()
	}
	return ""
}

func eventNames(s ptrace.Span) (names []string) {
	for _, e := range s.Events().All() {
		names = append(names, e.Name())
	}
	return names
}

func linkKinds(s ptrace.Span) string {
	var kinds []string
	for _, l := range s.Links().All() {
		kind, _ := l.Attributes().Get("ncs_relay.link")
		kinds = append(kinds, kind.AsString())
	}
	return strings.Join(kinds, " ")
}

// TestCollectorInTroubleCostsNoAnswer compares the time of answers without a collector and with one that is away, hangs or
// is slow. Lost spans are counted, and nothing waits.
func TestCollectorInTroubleCostsNoAnswer(t *testing.T) {
	t.Parallel()
	calls := 400
	if testing.Short() {
		calls = 100
	}
	release := make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hung.Close()
	defer close(release)
	away := porttest.Free()
	slow, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and nothing else
	require.NoError(t, err)
	defer slow.Close()

	median := func(protocol, endpoint string) time.Duration {
		r := newRelay(t, httpSinkHead+httpSinkSource)
		if endpoint != "" {
			r.environment = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + protocol,
				"OTEL_METRICS_EXPORTER=none", "OTEL_EXPORTER_OTLP_TIMEOUT=500", "OTEL_BSP_EXPORT_TIMEOUT=500"}
		}
		r.start()
		var took []time.Duration
		for i := range calls {
			began := time.Now()
			require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i%20), i, 1)))
			took = append(took, time.Since(began))
		}
		if endpoint != "" {
			r.eventually(func() bool { return strings.Trim(r.metric("ncs_relay_trace_spans_lost_total"), "0") != "" }, "lost spans are not counted")
		}
		r.terminate()
		slices.Sort(took)
		return took[len(took)/2]
	}
	alone := median("", "")
	for name, endpoint := range map[string]string{"away": "http://" + away, "hung": hung.URL, "silent": "http://" + slow.Addr().String()} {
		for _, protocol := range []string{"http/protobuf", "grpc"} {
			with := median(protocol, endpoint)
			t.Logf("median answer without a collector %s, with one that is %s over %s %s (x%.2f)", alone, name, protocol, with, float64(with)/float64(alone))
		}
	}
}

// series are the newest values that came in, as relayUnderTest.series gives those of the page.
func (c *collector) series() map[string]float64 {
	values := map[string]float64{}
	for _, batch := range c.metrics.AllMetrics() {
		for _, rm := range batch.ResourceMetrics().All() {
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					set := func(attributes pcommon.Map, value float64) {
						var labels []string
						for k, v := range attributes.All() {
							labels = append(labels, fmt.Sprintf("%s=%q", k, v.AsString()))
						}
						slices.Sort(labels)
						values[strings.TrimPrefix(m.Name(), "ncs_relay_")+"{"+strings.Join(labels, ",")+"}"] = value
					}
					number := func(points pmetric.NumberDataPointSlice) {
						for _, p := range points.All() {
							if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
								set(p.Attributes(), float64(p.IntValue()))
							} else {
								set(p.Attributes(), p.DoubleValue())
							}
						}
					}
					switch m.Type() {
					case pmetric.MetricTypeSum:
						number(m.Sum().DataPoints())
					case pmetric.MetricTypeGauge:
						number(m.Gauge().DataPoints())
					case pmetric.MetricTypeHistogram:
						for _, p := range m.Histogram().DataPoints().All() {
							set(p.Attributes(), float64(p.Count()))
						}
					}
				}
			}
		}
	}
	return values
}

// TestCollectorGetsWhatThePageShows compares the page with what the collector's own receiver got.
func TestCollectorGetsWhatThePageShows(t *testing.T) {
	t.Parallel()
	for protocol, wire := range map[string]string{"grpc": "grpc", "http": "http/protobuf"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			service := startTeam(t)
			c := startCollector(t, protocol)
			r := newRelay(t, strings.ReplaceAll(everything, "%SERVICE%", "http://"+service.address))
			r.environment = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + c.endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=" + wire}
			r.start()
			for i := range 20 {
				r.post(recording("s", i/2, 1))
			}
			r.post([]byte("[]"))
			r.eventually(func() bool {
				values, _ := r.series()
				return values[`sink_account{sink="service",state="delivered"}`] == 10 && values[`sink_account{sink="archive",state="delivered"}`] == 10 &&
					values[`dead_letters{sink="unroutable"}`] == 1
			}, "settled")
			page, _ := r.series()
			r.terminate()
			got := c.series()
			passing := regexp.MustCompile(`^(connections|journal_(free_)?bytes|dedup_oldest|build_info)`) // change by themselves, or have labels with dots
			for name, value := range page {
				if _, ok := got[name]; !ok {
					require.Zero(t, value, "%s is missing", name)
					require.Regexp(t, `_seconds\{`, name, "only histograms come with their first value")
				} else if !passing.MatchString(name) {
					require.Equal(t, value, got[name], name)
				}
			}
			for name := range got {
				require.Contains(t, page, name)
			}
		})
	}
}

// TestTelemetryIsSilentUnlessAskedFor: nobody is called, and what cannot be meant is said at once.
func TestTelemetryIsSilentUnlessAskedFor(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	defer collector.Close()
	endpoint := "OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL
	for name, environment := range map[string][]string{
		"disabled": {endpoint, "OTEL_SDK_DISABLED=true", "OTEL_TRACES_SAMPLER=not looked at"},
		"none":     {endpoint, "OTEL_TRACES_EXPORTER=none", "OTEL_METRICS_EXPORTER=none"},
		"unset":    nil,
		"away":     {"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + porttest.Free()}, // still no failure of the relay
	} {
		r := newRelay(t, httpSinkHead+httpSinkSource)
		r.environment = environment
		r.start()
		require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
		r.terminate()
		require.Zero(t, calls.Load(), name)
		if name != "away" {
			require.NotContains(t, r.log.String(), "telemetry", name)
		}
	}
}

// TestNoTelemetryVariableKeepsTheRelayFromTakingNotifications uses what platforms inject and people mistype, and wants check to say
// the same as serve.
func TestNoTelemetryVariableKeepsTheRelayFromTakingNotifications(t *testing.T) {
	t.Parallel()
	endpoint := "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + porttest.Free()
	for want, environment := range map[string][]string{
		"OTEL_TRACES_SAMPLER: unknown sampler":                     {endpoint, "OTEL_TRACES_SAMPLER=xray"},
		"OTEL_TRACES_SAMPLER_ARG: not a number from 0 to 1":        {endpoint, "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=2"},
		"OTEL_EXPORTER_OTLP_ENDPOINT: not a URL":                   {"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318"},
		"OTEL_EXPORTER_OTLP_PROTOCOL: no such protocol":            {endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"},
		"OTEL_TRACES_EXPORTER: no such exporter":                   {"OTEL_TRACES_EXPORTER=pigeon"},
		"OTEL_METRICS_EXPORTER: no such exporter":                  {"OTEL_METRICS_EXPORTER=pigeon"},
		"OTEL_EXPORTER_OTLP_CERTIFICATE: file \"/nowhere/ca.pem\"": {endpoint, "OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere/ca.pem"},
		"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: not a positive number":    {endpoint, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=0"},
	} {
		r := newRelay(t, httpSinkHead+httpSinkSource)
		check := exec.Command("ncs-relay", "check", "-c", r.config)
		check.Env = append(os.Environ(), environment...)
		out, err := check.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), want)

		r.environment = environment
		r.start()
		require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
		r.terminate()
		variable, problem, _ := strings.Cut(want, ": ")
		require.Contains(t, r.log.String(), variable)
		require.Contains(t, strings.ReplaceAll(r.log.String(), `\"`, `"`), problem)
	}
}

// page is the metrics page.
func (r *relayUnderTest) page() string {
	r.t.Helper()
	resp, err := http.Get(r.admin + "/metrics")
	require.NoError(r.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	return string(b)
}

// TestMetricsPageIsClean checks a page with traffic on it by promtool.
func TestMetricsPageIsClean(t *testing.T) {
	t.Parallel()
	promtool := needsPromtool(t)
	r := newRelay(t, httpSinkHead+httpSinkSource+"sinks:\n  - {name: archive, file: {path: \"%DIR%/events.jsonl\"}}\nroutes: [{to: [archive]}]\n")
	r.start()
	before := r.page()
	require.Contains(t, before, `ncs_relay_delivery_attempts_total{outcome="failed",reason="timeout",sink="archive"} 0`)
	require.Contains(t, before, `ncs_relay_sink_state{sink="archive",state="delivering"} 1`)
	for i := range 20 {
		r.post(recording("s", i/2, 1))
	}
	r.eventually(func() bool {
		return strings.Contains(r.page(), `ncs_relay_sink_account{sink="archive",state="delivered"} 10`)
	}, "deliveries")
	page := r.page()
	r.terminate()
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(page)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}
