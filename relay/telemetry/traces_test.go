package telemetry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"ncs-relay/relay/telemetry"
)

func TestMain(m *testing.M) {
	if os.Getenv("TELEMETRY_TEST_CHILD") != "" {
		child()
		return
	}
	os.Unsetenv("NO_COLOR") // tests of colours set them
	os.Unsetenv("TERM")
	goleak.VerifyTestMain(m)
}

// Tests that export are not parallel: exporters read the environment of the process, and the SDK has one error hook.

// otlpServer is a collector that takes spans over HTTP.
type otlpServer struct {
	*httptest.Server
	mu       sync.Mutex
	spans    []*otlp.Span
	resource map[string]string
	answer   int // 0 = 200
}

func newOTLPServer(t *testing.T) *otlpServer {
	s := &otlpServer{resource: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *otlpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request collector.ExportTraceServiceRequest
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer != 0 {
		w.WriteHeader(s.answer)
		io.WriteString(w, strings.Repeat("no\n", 10_000))
		return
	}
	for _, rs := range request.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			s.resource[a.Key] = a.Value.GetStringValue()
		}
		for _, ss := range rs.ScopeSpans {
			s.spans = append(s.spans, ss.Spans...)
		}
	}
}

func newTracing(t *testing.T, env map[string]string) (*telemetry.Tracing, *bytes.Buffer) {
	t.Helper()
	for k, v := range env {
		t.Setenv(k, v)
	}
	var out bytes.Buffer
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{
		Getenv: os.Getenv, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(&out, nil)),
	})
	require.NoError(t, err)
	return tracing, &out
}

var eventID = [16]byte{0xaa, 1, 2, 3, 4, 5, 6, 7, 0x08, 9, 10, 11, 12, 13, 14, 15}

// ids are those of a span that belongs to an event and is not the accepted call's.
func ids(event [16]byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: event})
}

func TestSpansOfAnEventMeetInOneTrace(t *testing.T) {
	server := newOTLPServer(t)
	tracing, out := newTracing(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL})
	require.True(t, tracing.Enabled())

	start := time.Now().Add(-time.Second)
	journaled := tracing.Accepted(eventID) // before there is a span
	ingress := tracing.StartIngress(journaled, "POST", "/ncs/recording", start)
	ingress.End()
	require.Equal(t, ingress.SpanContext(), journaled)
	require.True(t, tracing.SamplesDelivery(journaled))
	_, delivery := tracing.StartDelivery(t.Context(), journaled, "deliver billing", trace.SpanKindClient)
	delivery.End()
	require.NoError(t, tracing.Shutdown(t.Context()))

	require.Equal(t, trace.TraceID(eventID), journaled.TraceID())
	require.True(t, journaled.IsSampled())
	require.Len(t, server.spans, 2)
	in, deliver := server.spans[0], server.spans[1]
	require.Equal(t, "POST /ncs/recording", in.Name)
	require.Equal(t, otlp.Span_SPAN_KIND_SERVER, in.Kind)
	require.Empty(t, in.ParentSpanId)
	require.EqualValues(t, start.UnixNano(), in.StartTimeUnixNano)
	require.Equal(t, "deliver billing", deliver.Name)
	require.Equal(t, otlp.Span_SPAN_KIND_CLIENT, deliver.Kind)
	require.Equal(t, in.SpanId, deliver.ParentSpanId)
	for _, span := range server.spans {
		require.Equal(t, eventID[:], span.TraceId)
	}
	require.Equal(t, "ncs-relay", server.resource["service.name"])
	require.Equal(t, "1.2.3", server.resource["service.version"])
	require.Zero(t, tracing.LostSpans())
	require.Empty(t, out.String())
}

func TestServiceNameIsTheUsers(t *testing.T) {
	server := newOTLPServer(t)
	tracing, _ := newTracing(t, map[string]string{
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": server.URL + "/v1/traces",
		"OTEL_SERVICE_NAME":                  "callbacks",
	})
	span := tracing.StartIngress(ids(eventID), "POST", "/", time.Now())
	span.End()
	require.NoError(t, tracing.Shutdown(t.Context()))
	require.Equal(t, "callbacks", server.resource["service.name"])
}

func TestTraceIDs(t *testing.T) {
	server := newOTLPServer(t)
	tracing, _ := newTracing(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL})
	defer tracing.Shutdown(t.Context())

	t.Run("an event without an id gets a random trace", func(t *testing.T) {
		a := tracing.StartIngress(ids([16]byte{}), "POST", "/", time.Now())
		b := tracing.StartIngress(ids([16]byte{}), "POST", "/", time.Now())
		require.True(t, a.SpanContext().IsValid())
		require.True(t, b.SpanContext().IsValid())
		require.NotEqual(t, a.SpanContext().TraceID(), b.SpanContext().TraceID())
	})
	t.Run("copies of an event have spans of their own", func(t *testing.T) {
		a := tracing.StartIngress(ids(eventID), "POST", "/", time.Now())
		b := tracing.StartIngress(ids(eventID), "POST", "/", time.Now())
		require.NotEqual(t, a.SpanContext().SpanID(), b.SpanContext().SpanID())
	})
	t.Run("an event journaled while tracing was off", func(t *testing.T) {
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: eventID})
		_, span := tracing.StartDelivery(t.Context(), parent, "billing", trace.SpanKindProducer)
		require.Equal(t, trace.TraceID(eventID), span.SpanContext().TraceID())
		require.True(t, span.SpanContext().IsSampled())
	})
	t.Run("a delivery ignores a span around it", func(t *testing.T) {
		around := tracing.StartIngress(ids([16]byte{1}), "POST", "/", time.Now())
		ctx := trace.ContextWithSpan(t.Context(), around)
		parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: eventID})
		_, span := tracing.StartDelivery(ctx, parent, "billing", trace.SpanKindProducer)
		require.Equal(t, trace.TraceID(eventID), span.SpanContext().TraceID())
		require.NotEqual(t, around.SpanContext().TraceID(), span.SpanContext().TraceID())
	})
}

func TestSampling(t *testing.T) {
	low, high := [16]byte{15: 1}, [16]byte{8: 0xff, 15: 1} // the SDK compares bits 1 to 63 of the last eight bytes
	for _, tt := range []struct {
		name, sampler, arg        string
		low, high, sampledParents bool
	}{
		{"default", "", "", true, true, true},
		{"all", "always_on", "", true, true, true},
		{"none", "always_off", "", false, false, false},
		{"half", "traceidratio", "0.5", true, false, false},
		{"no ratio", "traceidratio", "", true, true, true},
		{"parents", "parentbased_traceidratio", "0.5", true, false, true},
		{"parents only", "ParentBased_Always_Off", "", false, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := newOTLPServer(t)
			tracing, _ := newTracing(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL,
				"OTEL_TRACES_SAMPLER":         tt.sampler, "OTEL_TRACES_SAMPLER_ARG": tt.arg,
			})
			defer tracing.Shutdown(t.Context())
			for id, want := range map[[16]byte]bool{low: tt.low, high: tt.high} {
				span := tracing.StartIngress(ids(id), "POST", "/", time.Now())
				require.Equal(t, want, span.SpanContext().IsSampled())
				require.Equal(t, want, tracing.Accepted(id).IsSampled(), "foretold")
				require.Equal(t, trace.TraceID(id), span.SpanContext().TraceID())
				require.True(t, span.SpanContext().SpanID().IsValid())
			}
			parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: high, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
			_, span := tracing.StartDelivery(t.Context(), parent, "billing", trace.SpanKindClient)
			require.Equal(t, tt.sampledParents, span.SpanContext().IsSampled())
			require.Equal(t, tt.sampledParents, tracing.SamplesDelivery(parent), "foretold")
		})
	}
}

// TestOfAnEventAllSpansAreKeptOrNone asks for very many events what becomes of the accepted call, of copies, of attempts, and
// of attempts in the next process.
func TestOfAnEventAllSpansAreKeptOrNone(t *testing.T) {
	server := newOTLPServer(t)
	env := map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1",
	}
	first, _ := newTracing(t, env)
	next, _ := newTracing(t, env)
	const events = 10_000
	kept := 0
	for i := range events {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(i)))
		id := [16]byte(sum[:])
		accepted := first.Accepted(id)
		want := accepted.IsSampled()
		if want {
			kept++
		}
		for n, span := range []trace.Span{
			first.StartIngress(accepted, "POST", "/", time.Now()),
			first.StartIngress(accepted.WithSpanID(trace.SpanID{}), "POST", "/", time.Now()), // a copy
			next.StartIngress(accepted.WithSpanID(trace.SpanID{}), "POST", "/", time.Now()),
		} {
			require.Equal(t, want, span.IsRecording(), "%d", n)
			span.End()
		}
		for _, tracing := range []*telemetry.Tracing{first, next} {
			for _, parent := range []trace.SpanContext{accepted, ids(id)} { // and journaled while tracing was off
				_, span := tracing.StartDelivery(t.Context(), parent, "billing", trace.SpanKindClient)
				require.Equal(t, want, span.IsRecording())
				require.Equal(t, want, tracing.SamplesDelivery(parent))
				span.End()
			}
		}
	}
	require.InDelta(t, events/10, kept, events/50)
	require.NoError(t, first.Shutdown(t.Context()))
	require.NoError(t, next.Shutdown(t.Context()))
	traces := map[string]int{}
	for _, s := range server.spans {
		traces[string(s.TraceId)]++
	}
	require.Len(t, traces, kept)
	for _, n := range traces {
		require.Equal(t, 7, n)
	}
}

func TestNothingIsExportedUnlessAskedFor(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	const unreachable = "http://127.0.0.1:1"
	for name, env := range map[string]map[string]string{
		"nothing set":      {},
		"only headers":     {"OTEL_EXPORTER_OTLP_HEADERS": "a=b"},
		"only metrics":     {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": unreachable},
		"none":             {endpoint: unreachable, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
		"disabled":         {endpoint: unreachable, "OTEL_SDK_DISABLED": "true"},
		"Disabled":         {endpoint: unreachable, "OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"},
		"bad but not used": {"OTEL_TRACES_SAMPLER": "often"},
	} {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			tracing, out := newTracing(t, env)
			goleak.VerifyNone(t, before) // before Shutdown: none was started
			require.False(t, tracing.Enabled())

			require.False(t, tracing.Accepted(eventID).IsValid())
			span := tracing.StartIngress(tracing.Accepted(eventID), "POST", "/", time.Now())
			require.False(t, span.IsRecording())
			require.Empty(t, telemetry.Traceparent(span.SpanContext()))
			require.False(t, tracing.SamplesDelivery(span.SpanContext()))
			_, span = tracing.StartDelivery(t.Context(), span.SpanContext(), "billing", trace.SpanKindClient)
			span.End()
			require.Empty(t, telemetry.Traceparent(span.SpanContext()))
			require.Zero(t, tracing.LostSpans())
			require.NoError(t, tracing.Shutdown(t.Context()))
			require.Empty(t, out.String())
		})
	}
	t.Run("no environment at all", func(t *testing.T) {
		t.Setenv(endpoint, unreachable)
		tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{})
		require.NoError(t, err)
		require.False(t, tracing.Enabled())
	})
}

// TestWrongVariablesAreWarnedOfAndIgnored is what the specification wants: platforms inject variables for SDKs of other languages.
func TestWrongVariablesAreWarnedOfAndIgnored(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.pem")
	for _, tt := range []struct {
		exported bool
		env      map[string]string
	}{
		{true, map[string]string{"OTEL_TRACES_SAMPLER": "xray"}},
		{true, map[string]string{"OTEL_TRACES_SAMPLER": "parentbased_jaeger_remote"}},
		{true, map[string]string{"OTEL_TRACES_SAMPLER_ARG": "2", "OTEL_TRACES_SAMPLER": "traceidratio"}},
		{true, map[string]string{"OTEL_TRACES_SAMPLER_ARG": "NaN", "OTEL_TRACES_SAMPLER": "traceidratio"}},
		{true, map[string]string{"OTEL_SDK_DISABLED": "canary"}},
		{true, map[string]string{"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"}},
		{true, map[string]string{"OTEL_BSP_EXPORT_TIMEOUT": "30s"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_TIMEOUT": "canary"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "canary"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "canary"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=canary%zz"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_INSECURE": "canary"}},
		{true, map[string]string{"OTEL_RESOURCE_ATTRIBUTES": "canary"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_CERTIFICATE": missing}},
		{true, map[string]string{"OTEL_METRIC_EXPORT_INTERVAL": "-1"}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "canary"}},
		{false, map[string]string{"OTEL_TRACES_EXPORTER": "pigeon"}},
		{false, map[string]string{"OTEL_TRACES_EXPORTER": "otlp,console"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:canary@%zz"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "//collector"}},
		{true, map[string]string{"OTEL_METRICS_EXPORTER": "pigeon"}},
	} {
		t.Run("", func(t *testing.T) {
			server := newOTLPServer(t)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
			t.Setenv("OTEL_METRICS_EXPORTER", "console")
			tracing, _ := newTracing(t, tt.env)
			require.Equal(t, tt.exported, tracing.Enabled())
			tracing.StartIngress(ids(eventID), "POST", "/", time.Now()).End()
			require.NoError(t, tracing.Shutdown(t.Context()))
			if tt.exported && tt.env["OTEL_EXPORTER_OTLP_INSECURE"] == "" { // which makes it call with TLS
				require.Len(t, server.spans, 1)
			}
			warnings := telemetry.Warnings(os.Getenv)
			require.NotEmpty(t, warnings)
			for _, w := range warnings {
				require.NotContains(t, w.String(), "canary")
				require.Contains(t, tt.env, w.Variable)
			}
		})
	}
}

func TestRightVariablesAreNotWarnedOf(t *testing.T) {
	t.Parallel()
	for _, env := range []map[string]string{
		{},
		{"OTEL_TRACES_SAMPLER": "xray", "OTEL_EXPORTER_OTLP_TIMEOUT": "canary"}, // nothing is exported, so nothing reads them
		{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1",
			"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, b=c=", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TIMEOUT": "5000",
			"OTEL_RESOURCE_ATTRIBUTES": "a=b,c=d", "OTEL_METRICS_EXPORTER": "prometheus", "OTEL_SDK_DISABLED": "False"},
	} {
		require.Empty(t, telemetry.Warnings(func(name string) string { return env[name] }))
	}
}

// A collector that is away costs one line, whatever the number of batches, and Shutdown ends with its context.
func TestCollectorAway(t *testing.T) {
	server := newOTLPServer(t)
	server.Close() // its port now refuses connections
	for name, answer := range map[string]int{"refuses connections": 0, "answers 500": 500, "answers 503": 503} {
		t.Run(name, func(t *testing.T) {
			url := server.URL
			if answer != 0 {
				failing := newOTLPServer(t)
				failing.answer = answer
				url = failing.URL
			}
			tracing, out := newTracing(t, map[string]string{
				"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
			})
			const spans = 200
			for range spans {
				span := tracing.StartIngress(ids(eventID), "POST", "/", time.Now())
				span.End()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			err := tracing.Shutdown(ctx)
			require.Eventually(t, func() bool { return tracing.LostSpans() == spans }, 10*time.Second, time.Millisecond)
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			http.DefaultClient.CloseIdleConnections()
			require.Equal(t, 1, strings.Count(out.String(), "\n"), out)
			require.Contains(t, out.String(), "telemetry is not getting through")
			require.Less(t, out.Len(), 1500, "a collector does not write our log")
		})
	}
}

func TestSDKErrorsAreOneLineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		_, err := telemetry.NewMetrics(t.Context(), telemetry.Options{Log: log})
		require.NoError(t, err)
		for range 120 {
			otel.Handle(errors.New("away"))
			time.Sleep(time.Second)
		}
		require.Equal(t, []string{"suppressed=0", "suppressed=59"}, regexp.MustCompile(`suppressed=\d+`).FindAllString(out.String(), -1))
	})
}

func TestSpanQueueIsBoundedAndCountsItsLosses(t *testing.T) {
	answer := make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-answer }))
	t.Cleanup(server.Close)
	t.Cleanup(release)
	tracing, out := newTracing(t, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL})
	const queue, over = 8192, 100
	for range queue + over {
		span := tracing.StartIngress(ids(eventID), "POST", "/", time.Now())
		span.End()
	}
	require.EqualValues(t, over, tracing.LostSpans())
	require.Contains(t, out.String(), "queue of spans is full")
	release()
	require.NoError(t, tracing.Shutdown(t.Context()))
	require.EqualValues(t, over, tracing.LostSpans())
}

func TestTraceparent(t *testing.T) {
	t.Parallel()
	id := trace.SpanContextConfig{TraceID: eventID, SpanID: trace.SpanID{1, 2, 3, 4, 5, 6, 7, 8}, TraceFlags: 0xff}
	prefix := "00-" + hex.EncodeToString(eventID[:]) + "-0102030405060708-"
	require.Equal(t, prefix+"01", telemetry.Traceparent(trace.NewSpanContext(id)))
	id.TraceFlags = 0xfe
	require.Equal(t, prefix+"00", telemetry.Traceparent(trace.NewSpanContext(id)))
	id.SpanID = trace.SpanID{}
	require.Empty(t, telemetry.Traceparent(trace.NewSpanContext(id)))
}

// The SDK prints what it cannot parse, tokens included, to stderr by default. Only a process of its own can show that
// nothing is printed there.
func TestSDKPrintsNothingAndShowsNoToken(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TELEMETRY_TEST_CHILD=1",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://user:canary@127.0.0.1:1/",
		"OTEL_EXPORTER_OTLP_HEADERS=canary,authorization=canary%zz,can ary=x",
		"OTEL_RESOURCE_ATTRIBUTES=malformed",
		"OTEL_METRIC_EXPORT_INTERVAL=canary",
	)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), stderr.String())
	require.Empty(t, stderr.String())
	require.Contains(t, stdout.String(), "telemetry is not getting through")
	require.NotContains(t, stdout.String(), "canary")
}

func child() {
	options := telemetry.Options{Getenv: os.Getenv, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))}
	tracing, err := telemetry.NewTracing(context.Background(), options)
	if err != nil {
		panic(err)
	}
	metrics, err := telemetry.NewMetrics(context.Background(), options)
	if err != nil {
		panic(err)
	}
	span := tracing.StartIngress(ids(eventID), "POST", "/", time.Now())
	span.End()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	tracing.Shutdown(ctx) //nolint:errcheck // nobody listens
	metrics.Shutdown(ctx) //nolint:errcheck
}

func TestNamesOfHTTPDestinationsHoldNoTokens(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://user:token@hooks.example.com/services/token?key=token": "https://hooks.example.com/REDACTED 443",
		"http://[::1]:8080?token":          "http://[::1]:8080/REDACTED 8080",
		"http://billing.internal/{entity}": "http://billing.internal/REDACTED 80",
		"nonsense":                         " ",
	} {
		var full, port string
		for _, a := range telemetry.ToHTTP(address) {
			require.NotContains(t, a.Value.String(), "token")
			switch a.Key {
			case "url.full":
				full = a.Value.String()
			case "server.port":
				port = a.Value.String()
			}
		}
		require.Equal(t, want, full+" "+port)
	}
}
