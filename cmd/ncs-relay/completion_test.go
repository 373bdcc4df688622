package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/porttest"
)

// completed is what a shell is told: the names without their descriptions. It would offer no files.
func completed(t *testing.T, args ...string) (names []string) {
	t.Helper()
	var out, errs strings.Builder
	require.Equal(t, exitOK, run(t.Context(), append([]string{"__complete"}, args...), strings.NewReader(""), &out, &errs), errs.String())
	said, ok := strings.CutSuffix(out.String(), ":4\n") // 4 = no files
	require.True(t, ok, out.String())
	for line := range strings.Lines(said) {
		name, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		names = append(names, name)
	}
	return names
}

func TestShellsCompleteSinksOfTheRunningRelay(t *testing.T) {
	t.Parallel()
	r := newOperated(t, map[string]*team{"billing": startTeam(t), "analytics": startTeam(t)})
	for _, line := range []string{"sinks pause %", "sinks resume %", "deadletters show %", "pending list % --sink", "listen % --sink", "replay % --to", "sinks move old % --to"} {
		args := strings.Fields(strings.ReplaceAll(line, "%", "--admin "+r.admin))
		require.Subset(t, completed(t, append(args, "")...), []string{"analytics", "billing"}, line)
		require.Equal(t, []string{"billing"}, completed(t, append(args, "b")...), line)
	}
	require.Empty(t, completed(t, "sinks", "pause", "--admin", r.admin, "billing", ""), "one sink is enough")
	require.Empty(t, completed(t, "status", "--admin", r.admin, ""), "no files where there is no argument")
	require.Contains(t, completed(t, "sinks", "pause", "-c", r.config, ""), "billing", "admin of the configuration")
}

// Without a relay, or where the relay wants a token that is not there, the names are those of the configuration.
func TestShellsCompleteSinksOfTheConfiguration(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	address := porttest.Free()
	require.NoError(t, os.WriteFile(file, []byte(`
admin: {listen: "`+address+`"}
sources: [{name: recording, path: /ncs, secrets: ["${NOT_SET}"]}]
sinks: [{name: archive, owner: data, file: {path: ./events.jsonl}}, {name: billing, http: {url: "https://billing.example.com"}}]
routes: [{to: [archive]}]
`), 0o600))
	for _, line := range []string{"sinks test -c", "sinks pause -c", "trigger rtc.channel_create -c"} {
		args := append(strings.Fields(line), file)
		if args[0] == "trigger" {
			args = append(args, "--sink")
		}
		require.Equal(t, []string{"archive", "billing"}, completed(t, append(args, "")...), line)
	}
	listenAt(t, address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	require.Equal(t, []string{"archive", "billing"}, completed(t, "sinks", "pause", "-c", file, ""))
	require.NoError(t, os.WriteFile(file, []byte("sinks: ["), 0o600))
	require.Empty(t, completed(t, "sinks", "test", "-c", file, ""))
}

func TestShellsCompleteTheCatalogue(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"events show", "events schema", "trigger", "sinks test --event", "pending list --event", "replay --event", "listen --event"} {
		require.Equal(t, []string{"cloud_recording.uploaded"}, completed(t, append(strings.Fields(line), "cloud_recording.uploaded")...), line)
	}
	require.Equal(t, []string{"rtc.channel_create", "rtc.channel_destroy"}, completed(t, "events", "show", "rtc.channel_"))
	require.Contains(t, completed(t, "events", "show", ""), "cloud_recording.sts_expired")
	require.NotContains(t, completed(t, "trigger", ""), "cloud_recording.sts_expired", "it has no sample to send")
	for _, name := range completed(t, "pending", "list", "--product", "rtc", "--event", "") {
		require.True(t, strings.HasPrefix(name, "rtc."), name)
	}
	for _, line := range []string{"events --product", "replay --product", "init --product"} {
		require.Equal(t, []string{"cloud_recording"}, completed(t, append(strings.Fields(line), "cloud_recording")...), line)
	}
	require.Contains(t, completed(t, "events", "-c", "../../examples/catalogue/relay.yaml", "--product", ""), "signaling")
	require.Equal(t, []string{"file", "http", "kafka"}, completed(t, "init", "--sink", ""))
}
