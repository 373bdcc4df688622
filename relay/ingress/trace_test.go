package ingress

import (
	"io"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
	"ncs-relay/relay/telemetry"
)

// BenchmarkTrace measures what the span of a call costs. It makes them no
// faster than they are exported, for what is lost is not paid for.
func BenchmarkTrace(b *testing.B) {
	off, err := telemetry.NewTracing(b.Context(), telemetry.Options{})
	require.NoError(b, err)
	for _, tt := range []struct{ name, ratio string }{{"off", ""}, {"ratio=1%", "0.01"}, {"ratio=100%", "1"}} {
		b.Run(tt.name, func(b *testing.B) {
			exported := make(chan struct{}, 1<<16)
			server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				exported <- struct{}{}
			}))
			defer server.Close()
			tracing := off
			if tt.ratio != "" {
				tracing = relaytest.ExportTo(b, server.URL, "traceidratio", tt.ratio)
			}
			g := &Ingress{tracing: tracing, refused: newRefusedLimit()}
			src := &source{SourceConfig: SourceConfig{Name: "recording", Path: "/ncs"}}
			r := httptest.NewRequest("POST", "/ncs", nil)
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			b.ReportAllocs()
			n, waiting := 0, 0
			for b.Loop() {
				id := ncs.IdentifyOpaque("recording", []byte{byte(n), byte(n >> 8), byte(n >> 16)}).ID
				now := time.Now()
				g.trace(src, r, &call{id: id, verified: now, claimed: now, routed: now, appended: now, leads: true}, &answer{status: 200, outcome: outcomeAccepted}, now)
				if tracing.Accepted(id).IsSampled() {
					waiting++
				}
				n++
				for ; waiting > 2048; waiting -= 512 { // of the 8192 that are held; the SDK exports up to 512 at once
					<-exported
				}
			}
			require.NoError(b, tracing.Shutdown(b.Context()))
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := func(u syscall.Rusage) int64 { return u.Utime.Nano() + u.Stime.Nano() }
			b.ReportMetric(float64(cpu(after)-cpu(before))/float64(n), "cpu-ns/event")
			require.Zero(b, tracing.LostSpans())
		})
	}
}

func TestTracingThatIsOffCostsNothing(t *testing.T) {
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{})
	require.NoError(t, err)
	g := &Ingress{tracing: tracing}
	var c call
	var a answer
	require.Zero(t, testing.AllocsPerRun(100, func() {
		g.trace(nil, nil, &c, &a, time.Time{})
		_ = tracing.Accepted(c.id)
	}))
}
