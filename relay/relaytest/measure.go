//go:build unix

package relaytest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/telemetry"
)

// CPU is the processor time that this process has used.
func CPU(t testing.TB) time.Duration {
	t.Helper()
	var used syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// MeasureSenders measures b.N records that workers send in batches of perBatch, each worker as fast as it can. An operation is a record.
func MeasureSenders(b *testing.B, workers, perBatch int, send func(worker int) error) {
	var left atomic.Int64
	left.Store(int64((b.N + perBatch - 1) / perBatch))
	var sending sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	before := CPU(b)
	for worker := range workers {
		sending.Go(func() {
			for left.Add(-1) >= 0 {
				if err := send(worker); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	sending.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(CPU(b)-before)/float64(b.N), "cpu-ns/op")
}

// MeasureTraces measures what the spans of an event cost, switched off and at two ratios. begin returns what makes those of the nth
// event and reports whether they are exported. It is called no faster than they are, for what is lost is not paid for.
func MeasureTraces(b *testing.B, begin func(b *testing.B, tracing *telemetry.Tracing) (spans func(n int) (sampled bool))) {
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
				tracing = ExportTo(b, server.URL, "traceidratio", tt.ratio)
			}
			spans := begin(b, tracing)
			before := CPU(b)
			b.ReportAllocs()
			n, waiting := 0, 0
			for b.Loop() {
				if spans(n) {
					waiting++
				}
				n++
				for ; waiting > 2048; waiting -= 512 { // of the 8192 that are held; the SDK exports up to 512 at once
					<-exported
				}
			}
			require.NoError(b, tracing.Shutdown(b.Context()))
			b.ReportMetric(float64(CPU(b)-before)/float64(n), "cpu-ns/event")
			require.Zero(b, tracing.LostSpans())
		})
	}
}
