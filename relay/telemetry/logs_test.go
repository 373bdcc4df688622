package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/telemetry"
)

func newLogger(t testing.TB, format string, isTerminal bool) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	log, err := telemetry.NewLogger(telemetry.LogConfig{Level: "info", Format: format}, &out, isTerminal)
	require.NoError(t, err)
	return log, &out
}

func TestLogFormat(t *testing.T) {
	t.Parallel()
	const text, colour = "INF", "\x1b["
	for _, tt := range []struct {
		format     string
		isTerminal bool
		want       string
	}{
		{"auto", false, `{"time":`},
		{"auto", true, colour},
		{"json", true, `{"time":`},
		{"text", false, text},
		{"text", true, colour},
	} {
		t.Run(fmt.Sprint(tt.format, tt.isTerminal), func(t *testing.T) {
			t.Parallel()
			log, out := newLogger(t, tt.format, tt.isTerminal)
			log.Info("started", "source", "recording")
			require.Contains(t, out.String(), tt.want)
			require.Equal(t, tt.want == colour, strings.Contains(out.String(), colour))
			require.Contains(t, out.String(), "recording")
		})
	}
}

// no-color.org: any value but the empty one.
func TestColoursCanBeSwitchedOff(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		colours     bool
	}{{"NO_COLOR", "1", false}, {"NO_COLOR", "false", false}, {"NO_COLOR", "", true}, {"TERM", "dumb", false}, {"TERM", "xterm", true}} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			log, out := newLogger(t, "auto", true)
			log.Info("started", "source", "recording")
			require.Contains(t, out.String(), "INF", "a terminal gets text in any case")
			require.Equal(t, tt.colours, strings.Contains(out.String(), "\x1b["))
		})
	}
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	lines := map[string]int{"debug": 4, "info": 3, "warn": 2, "error": 1}
	for level, want := range lines {
		for _, format := range []string{"json", "text"} {
			var out bytes.Buffer
			log, err := telemetry.NewLogger(telemetry.LogConfig{Level: level, Format: format}, &out, false)
			require.NoError(t, err)
			log.Debug("1")
			log.Info("2")
			log.Warn("3")
			log.Error("4")
			require.Equal(t, want, strings.Count(out.String(), "\n"), "%s %s", level, format)
		}
	}
}

func TestLogConfigFaults(t *testing.T) {
	t.Parallel()
	var good telemetry.LogConfig
	good.SetDefaults()
	good.Check(func(path, message, _ string, _ ...any) { t.Errorf("%s: %s", path, message) })

	bad := telemetry.LogConfig{Level: "loud", Format: "xml"}
	var got []string
	bad.Check(func(path, message, hint string, values ...any) {
		message, _ = problem.Text(nil, message, hint, values...)
		got = append(got, path+": "+message)
	})
	require.Empty(t, cmp.Diff([]string{`level: unknown level "loud"`, `format: unknown format "xml"`}, got))

	for _, cfg := range []telemetry.LogConfig{{Level: "loud", Format: "json"}, {Level: "info", Format: "xml"}} {
		_, err := telemetry.NewLogger(cfg, new(bytes.Buffer), false)
		require.Error(t, err)
	}
}

// hostile holds what can forge a line, move the cursor or make tint write an escape character itself.
var hostile = []string{
	"\x1b[2J\x1b[1;31mowned\x1b[0m",
	"a\nINF all is well sink=billing",
	"a\r\nb", "\x00\x07\x08\x7f", "\u009b31m", "\u202egnp.exe", "\u2028", "bad \xff utf-8",
	`spelt out \x1b[2J with a space`, `\x1b`, `\\x1b `, "both \x1b and \\x1b",
	"", " ", `"`, `\`, "ünïcödé 録画", "tag \U000e0041", strings.Repeat("huge", 1000), strings.Repeat("録", 1000),
}

type marshaler string

func (m marshaler) MarshalText() ([]byte, error) { return []byte(m), nil }

type valuer string

func (v valuer) LogValue() slog.Value { return slog.StringValue(string(v)) }

func logEverywhere(log *slog.Logger, s string) {
	log.With(s, s).WithGroup("group").With("with", s).Info(s,
		"string", s, "error", errors.New(s), "bytes", []byte(s), "any", struct{ S string }{s},
		"text", marshaler(s), "valuer", valuer(s), slog.Group("inner", "key", s), "msg", s, s, 1)
}

func FuzzLogLineStaysOneHarmlessLine(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		log, out := newLogger(t, "json", false)
		logEverywhere(log, s)
		require.Equal(t, 1, strings.Count(out.String(), "\n"))
		require.True(t, json.Valid(out.Bytes()), "%q", out)
		require.Less(t, out.Len(), 100_000)
		for _, r := range strings.TrimSuffix(out.String(), "\n") {
			require.True(t, unicode.IsPrint(r), "%q in %q", r, out)
		}

		for _, isTerminal := range []bool{true, false} {
			log, out := newLogger(t, "text", isTerminal)
			logEverywhere(log, s)
			line, ok := strings.CutSuffix(out.String(), "\n")
			require.True(t, ok)
			require.True(t, utf8.ValidString(line), "%q", line)
			for _, colour := range []string{"\x1b[0m", "\x1b[2m", "\x1b[92m"} { // what tint itself writes
				line = strings.ReplaceAll(line, colour, "")
			}
			for _, r := range line {
				require.True(t, unicode.IsPrint(r), "%q in %q", r, line)
			}
		}
	})
}

func TestHostileLogTextLosesNothing(t *testing.T) {
	t.Parallel()
	log, out := newLogger(t, "text", false)
	log.Info("first\nsecond", "value", "a\xff\x1b[31mb c")
	require.Contains(t, out.String(), `INF first\nsecond value="a\xff\x1b[31mb c"`+"\n")
}

func TestHostileLogTextIsTheSameToAMachine(t *testing.T) {
	t.Parallel()
	for _, s := range hostile {
		log, out := newLogger(t, "json", false)
		log.Info("x", "value", s, "error", errors.New(s))
		var line struct{ Value, Error string }
		require.NoError(t, json.Unmarshal(out.Bytes(), &line))
		require.Equal(t, line.Value, line.Error)
		if utf8.ValidString(s) && len(s) <= 1024 {
			require.Equal(t, s, line.Value)
		}
		require.LessOrEqual(t, len(line.Value), 1100)
	}
}

func TestLogHandlesValuesThatPanic(t *testing.T) {
	t.Parallel()
	var nilError *telemetryTestError
	for format, want := range map[string]string{"text": "1s", "json": "1000000000"} {
		log, out := newLogger(t, format, true)
		log.Info("x", "error", nilError, "after", time.Second)
		require.Contains(t, out.String(), want)
	}
}

type telemetryTestError struct{ text string }

func (e *telemetryTestError) Error() string { return e.text }

func TestLogShowsNoSecret(t *testing.T) {
	t.Parallel()
	secret := relay.NewSecret("canary")
	for _, format := range []string{"json", "text"} {
		log, out := newLogger(t, format, false)
		log.Info("x", "secret", secret, "in", struct{ S relay.Secret }{secret}, "at", &secret)
		require.NotContains(t, out.String(), "canary")
		require.Contains(t, out.String(), "secret>") // JSON writes < as \u003c
	}
}
