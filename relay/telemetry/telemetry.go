// Package telemetry sets up logs, traces and metrics, and holds the names they use.
//
// It promises that nothing leaves the process unless the usual OTEL_* variables ask for it, that the metrics page shows
// exactly the names that were given, and that trouble with a collector costs the relay a log line a minute and some
// counted spans, never a wait. What is measured and when a span starts and ends is left to the gateway.
//
// A variable whose value cannot be used is warned of (see Warnings) and left out of account: it never keeps the relay from
// starting.
//
// The OpenTelemetry SDK reports its own errors through two process-wide hooks. This package sets them (see sdkErrors)
// and uses no other global of the SDK: no global provider, no global propagator.
package telemetry

import (
	"context"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// Options of NewTracing and NewMetrics.
type Options struct {
	// Getenv reads the OTEL_* variables that decide whether anything is exported, and the sampler. The SDK's exporters
	// read their own (endpoint, headers, certificates) from the process's environment whatever is given here, so
	// anything but os.Getenv can only switch exporting off. nil: nothing is exported.
	Getenv  func(string) string
	Version string       // of the relay: service.version and build_info
	Log     *slog.Logger // gets the SDK's errors, at most one line a minute; required
}

// exports reports whether the user has asked for a signal ("TRACES", "METRICS") to be exported. The SDK's own answer would
// be yes by default, to localhost, which fills the logs of everybody who has no collector.
func (o Options) exports(signal string) bool {
	if o.Getenv == nil || strings.EqualFold(o.Getenv("OTEL_SDK_DISABLED"), "true") { // the Go SDK does not read it
		return false
	}
	switch o.Getenv("OTEL_" + signal + "_EXPORTER") {
	case "none":
		return false
	case "":
		return o.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || o.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
	default:
		return true
	}
}

// newResource describes this process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES come last and so win. A partial
// resource is used as far as it goes: a bad attribute must not keep the relay from starting.
func newResource(ctx context.Context, o Options) *resource.Resource {
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName(serviceName), semconv.ServiceVersion(o.Version)),
		resource.WithHost(), // tells replicas apart
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
	if err != nil {
		o.Log.Warn("telemetry resource is incomplete", "error", err)
	}
	return res
}
