package telemetry

import (
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
)

const (
	sdkErrorLength = 500 // a collector's answer is part of the text and may be any length
)

// sdkErrors logs the errors of the OpenTelemetry SDK, at most one a minute: an unreachable collector gives one for
// every batch. It replaces the SDK's defaults, which print to stderr.
type sdkErrors struct {
	log *slog.Logger
	Repetition
}

// handleSDKErrors installs the hooks for the process. The last caller's logger gets the errors.
func handleSDKErrors(log *slog.Logger) *sdkErrors {
	e := &sdkErrors{log: log}
	otel.SetErrorHandler(e)
	otel.SetLogger(logr.New(sdkLog{e}))
	return e
}

// Handle logs err, or counts it when a line was written within the last minute.
func (e *sdkErrors) Handle(err error) {
	suppressed, ok := e.Allow(time.Now())
	if !ok || err == nil {
		return
	}
	text := err.Error()
	if len(text) > sdkErrorLength {
		text = text[:sdkErrorLength] + "..."
	}
	e.log.Warn("telemetry is not getting through", "error", text, "suppressed", suppressed)
}

// sdkLog is what the SDK logs to. Only its errors are passed on, without their key/value pairs: these hold values of variables, and OTEL_EXPORTER_OTLP_HEADERS is where collectors' tokens live.
type sdkLog struct{ errors *sdkErrors }

func (sdkLog) Init(logr.RuntimeInfo)            {}
func (sdkLog) Enabled(int) bool                 { return false }
func (sdkLog) Info(int, string, ...any)         {}
func (l sdkLog) WithValues(...any) logr.LogSink { return l }
func (l sdkLog) WithName(string) logr.LogSink   { return l }

func (l sdkLog) Error(err error, msg string, pairs ...any) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == "environment variable" {
			return // see Warnings
		}
	}
	var whole *url.Error // of url.Parse: its text repeats the URL, password and all
	if err == nil || errors.As(err, &whole) {
		l.errors.Handle(errors.New(msg))
		return
	}
	l.errors.Handle(errors.New(msg + ": " + err.Error()))
}
