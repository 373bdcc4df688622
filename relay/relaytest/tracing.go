package relaytest

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/telemetry"
)

// ExportTo exports to a collector at url.
func ExportTo(t testing.TB, url, sampler, arg string) *telemetry.Tracing {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_TRACES_SAMPLER", sampler)
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", arg)
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.Options{Getenv: os.Getenv, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = tracing.Shutdown(context.Background()) })
	return tracing
}
