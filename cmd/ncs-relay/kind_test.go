package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
	"ncs-relay/sinks"
)

// mainWithMail is the program with one more kind of sink, of which nothing outside this file knows.
func mainWithMail() {
	kinds = append(sinks.Kinds[:len(sinks.Kinds):len(sinks.Kinds)], new(mailConfig))
	main()
}

// mailConfig puts each event into a file of its own.
type mailConfig struct {
	Spool string `yaml:"spool,path"`
	Limit int    `yaml:"limit"`
}

func (c *mailConfig) SetDefaults() { c.Limit = 1000 }

func (c *mailConfig) Check(report problem.Report) {
	if c.Limit < 1 {
		report("limit", "%d is not positive", "the default is 1000", c.Limit)
	}
}

func (c *mailConfig) Key() string         { return "mail" }
func (c *mailConfig) Owns() (_, _ string) { return "spool", c.Spool }

func (c *mailConfig) Look() (path string, note bool, err error) {
	_, err = os.Stat(c.Spool)
	return "spool", false, err
}

func (c *mailConfig) Traits(string, string, *slog.Logger) relay.Traits {
	return relay.Traits{
		Build:       func() (relay.Sink, error) { return mailSink{*c}, nil },
		Concurrency: 2,
		Ordered:     true,
		SpanKind:    trace.SpanKindInternal,
	}
}

type mailSink struct{ mailConfig }

func (s mailSink) Lane(e *relay.Event) relay.Lane { return relay.Lane{Key: e.Entity} }
func (s mailSink) MaxBatch() (events, bytes int)  { return 1, 0 }
func (s mailSink) Close() error                   { return nil }

func (s mailSink) Send(_ context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	a := batch[0]
	if len(a.Body) > s.Limit {
		return 0, relay.Permanent(errors.New("too large for a mail"))
	}
	return 1, os.WriteFile(filepath.Join(s.Spool, a.ID.String()), a.Body, 0o600)
}

// TestAKindOfSinkIsOneFolderAndOneLine uses every command that knows of sinks with a kind that only this file has.
func TestAKindOfSinkIsOneFolderAndOneLine(t *testing.T) {
	t.Parallel()
	r := newRelay(t, oneSource+`
sinks:
  - {name: letters, mail: {spool: %DIR%/spool}}
routes: [{to: [letters]}]
`)
	ask := func(args ...string) (status int, out string) {
		cmd := exec.Command(r.program, append(args, "-c", r.config)...)
		text, err := cmd.CombinedOutput()
		require.True(t, err == nil || errors.As(err, new(*exec.ExitError)), "%v", err)
		return cmd.ProcessState.ExitCode(), string(text)
	}
	status, out := ask("check")
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, "sinks[0]", "the program as it is has no such kind")
	require.Contains(t, out, "unknown key (known keys: name, owner, order, retry, backlog, propagate_trace, kafka, http, file)")

	r.program = "ncs-relay-mail"
	_, out = ask("check")
	require.Contains(t, out, "sinks[0].mail.spool: stat "+filepath.Join(r.dir, "spool")+": no such file", "what serve would fail with")
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "spool"), 0o700))
	status, out = ask("check", "--connect")
	require.Equal(t, exitOK, status, out)
	_, out = ask("config", "show")
	require.Contains(t, out, "mail:\n    spool: "+filepath.Join(r.dir, "spool")+"\n    limit: 1000\n")
	_, out = ask("sinks", "test", "letters")
	require.Contains(t, out, "\ndelivered\n")

	good, err := os.ReadFile(r.config)
	require.NoError(t, err)
	for from, want := range map[string][2]string{
		"mail: {spool: ":                      {"mail: {limit: 0, spool: ", "sinks[0].mail.limit: 0 is not positive (the default is 1000)"},
		"{name: letters, ":                    {"{name: letters, order: none, ", `sinks[0].order: "none" is not for mail sinks (remove it: mail keeps order at no cost)`},
		"sinks:\n":                            {"sinks:\n  - {name: more, mail: {spool: %DIR%/spool}}\n", `spool" is taken by sinks[0].mail.spool`},
		"letters, mail: {spool: %DIR%/spool}": {"letters", "sinks[0]: the sink has no destination (give one of kafka, http, file, mail)"},
		"letters, mail":                       {"letters, http: {url: 'https://a'}, mail", "sinks[0]: the sink has more than one destination: http, mail (make each a sink of its own)"},
	} {
		from, to := strings.ReplaceAll(from, "%DIR%", r.dir), strings.ReplaceAll(want[0], "%DIR%", r.dir)
		require.True(t, bytes.Contains(good, []byte(from)), from)
		require.NoError(t, os.WriteFile(r.config, bytes.Replace(good, []byte(from), []byte(to), 1), 0o600))
		status, out := ask("check")
		require.Equal(t, exitFailed, status, out)
		require.Contains(t, out, want[1])
	}
	require.NoError(t, os.WriteFile(r.config, good, 0o600))

	r.start()
	body := recording("s", 1, 1)
	require.Equal(t, "accepted", r.post(body))
	large := bytes.Replace(recording("s2", 1, 1), []byte("uploaded"), bytes.Repeat([]byte("x"), 2000), 1)
	require.Equal(t, "accepted", r.post(large))
	r.eventually(func() bool { s := r.sinkStatus("letters"); return s.Delivered == 1 && s.Dead == 1 }, "not delivered")
	r.terminate()
	require.Contains(t, strings.Join(contents(t, filepath.Join(r.dir, "spool")), "\n"), string(body))
}
