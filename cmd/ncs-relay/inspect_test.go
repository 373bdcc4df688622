package main

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ncs"
)

// TestInspectTellsTheLifeOfAnEvent kills the real program between the attempts at an event, and asks the next process for
// all that happened: there is no tracing backend.
func TestInspectTellsTheLifeOfAnEvent(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	service.answers(always(http.StatusServiceUnavailable))
	r := newRelay(t, strings.Replace(httpSinkHead, ", token: canary-admin-token", "", 1)+httpSinkSource+`
sinks:
  - {name: service, http: {url: "http://`+service.address+`/token-of-the-path"}, retry: {initial: 20ms, max_interval: 100ms}}
  - {name: archive, file: {path: %DIR%/archive.jsonl}}
routes:
  - {match: {product: cloud_recording}, to: [service, archive]}
  - {match: {event: cloud_recording.session_exit}, to: [archive]}
`)
	r.start()
	id := r.postTraced(recording("s", 1, 1))
	require.Equal(t, "duplicate", r.post(recording("s", 1, 2)))
	r.eventually(func() bool {
		out := r.mustAsk("inspect", id)
		return strings.Contains(out, "service: attempt 2 failed") && strings.Contains(out, "archive: delivered")
	}, "two attempts before the kill")
	shown := r.mustAsk("pending", "show", id)
	require.Contains(t, shown, "  service: pending")
	require.NotContains(t, shown, "archive", "it is settled there")
	require.Contains(t, shown, string(recording("s", 1, 1)))
	require.Equal(t, string(recording("s", 1, 1)), r.mustAsk("pending", "show", id, "--body"))
	r.kill()
	service.answers(always(http.StatusOK))
	r.start()
	r.eventually(func() bool { return strings.Count(r.mustAsk("inspect", id), ": delivered") == 2 }, "delivered after the restart")
	require.Equal(t, "duplicate", r.post(recording("s", 1, 3)))

	out := r.mustAsk("inspect", "--entity", "s")
	t.Logf("\n%s", out)
	const at = `20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ`
	for _, line := range []string{
		id + `  cloud_recording\.uploaded`,
		`  entity s`,
		`  says .*status 0 \(normal\).*`,
		`  received ` + `20\d\d-\S+ \(\S+ ago\) at source recording, position 1, \d+ B`,
		`  service: delivered`,
		`  archive: delivered`,
		`  routes\[0\] to service, archive applies`,
		`  routes\[1\] to archive does not apply: event is cloud_recording\.uploaded, rule wants cloud_recording\.session_exit`,
		`  ` + at + `  archive: attempt 1 delivered after \S+`,
		`  ` + at + `  copy at source recording`,
		`  ` + at + `  service: attempt 1 failed after \S+ \(5xx\): .*503.*`,
		`  ` + at + `  service: attempt 2 failed after \S+ \(5xx\): .*503.*`,
		`  ` + at + `  service: attempt \d+ delivered after \S+`,
	} {
		require.Regexp(t, regexp.MustCompile(`(?m)^`+line+`$`), out)
	}
	require.Equal(t, 2, strings.Count(out, "copy at source recording"), "before and after the restart")
	require.NotContains(t, out, "token-of-the-path")
	require.NotContains(t, out, "channel ü", "payload")

	require.Equal(t, string(recording("s", 1, 1)), r.mustAsk("inspect", id, "--body"), "byte for byte")
	require.NotContains(t, r.mustAsk("inspect", id, "--json"), `"body"`, "only where it is asked for")
	status, _, errs := r.ask("pending", "show", id)
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "no sink is owed the event "+id)
	status, _, errs = r.ask("inspect", "--entity", "s", "--body")
	require.Equal(t, exitUsage, status, errs)

	var found struct{ Events []gateway.Life }
	require.NoError(t, json.Unmarshal([]byte(r.mustAsk("inspect", id, "--json")), &found))
	require.Len(t, found.Events, 1)
	require.Contains(t, found.Events[0].Facts, ncs.Fact{Field: "serviceType", Value: "2", Meaning: "uploader"})
	var attempts int
	for _, e := range found.Events[0].Trail {
		if e.Sink == "service" {
			attempts++
			require.Equal(t, e.Outcome == "delivered", e.Error == "")
		}
	}
	require.GreaterOrEqual(t, attempts, 3, "two before the restart and one after it")
	r.terminate()
	verified, err := exec.Command("ncs-relay", "journal", "verify", filepath.Join(r.dir, "data")).CombinedOutput()
	require.NoError(t, err)
	require.NotContains(t, string(verified), "trail", "is at home beside the journal")
}
