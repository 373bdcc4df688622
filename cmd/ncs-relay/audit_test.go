package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

// audited is a relay whose operator is known by name.
type audited struct {
	*relayUnderTest
	pulled []string // what the log should say of levers, since the last start
}

// pull uses a lever as ada, and notes what is to be logged of it.
func (a *audited) pull(logged string, args ...string) string {
	a.t.Helper()
	a.pulled = append(a.pulled, logged)
	return a.mustAsk(append(args, "--token-file", filepath.Join(a.dir, "token-of-ada"))...)
}

func (a *audited) see(args ...string) string {
	a.t.Helper()
	return a.mustAsk(append(args, "--token-file", filepath.Join(a.dir, "token-of-bob"))...)
}

// restart goes on with other sinks.
func (a *audited) restart(template, sinks, to string) {
	a.t.Helper()
	a.terminate()
	text := strings.NewReplacer("%LISTEN%", strings.TrimSuffix(strings.TrimPrefix(a.url, "http://"), "/ncs"),
		"%ADMIN%", strings.TrimPrefix(a.admin, "http://"), "%DIR%", a.dir).Replace(fmt.Sprintf(template, "", sinks, to))
	require.NoError(a.t, os.WriteFile(a.config, []byte(text), 0o600))
	a.start()
}

// send posts an event and returns its id.
func (a *audited) send(sid string, sequence int) string {
	a.t.Helper()
	body := recording(sid, sequence, 1)
	require.Equal(a.t, "accepted", a.post(body))
	n, err := ncs.Builtin().Parse(body)
	require.NoError(a.t, err)
	return n.Identify("recording").ID.String()
}

// shows waits until inspect says all of this about an event, and never that a delivery is just settled.
func (a *audited) shows(id string, lines ...string) (out string) {
	a.t.Helper()
	defer func() {
		if a.t.Failed() {
			a.t.Log(out)
		}
	}()
	a.eventually(func() bool {
		out = a.see("inspect", id)
		for _, line := range lines {
			if !strings.Contains(out, line) {
				return false
			}
		}
		return true
	}, strings.Join(lines, "; "))
	require.NotContains(a.t, out, "settled")
	return out
}

// requireLogged compares the lines of the log with the levers that were pulled; a question or a dry run is none.
func (a *audited) requireLogged() {
	a.t.Helper()
	var logged []string
	for _, l := range a.logLines() {
		if l["msg"] != "an operator acted" {
			continue
		}
		require.Equal(a.t, "INFO", l["level"])
		line := fmt.Sprint(l["by"], " ", l["action"])
		for _, key := range []string{"sink", "to", "filter", "reason", "count", "replay"} {
			if value, ok := l[key]; ok {
				line += fmt.Sprintf(" %s=%v", key, value)
			}
		}
		logged = append(logged, line)
	}
	require.Equal(a.t, a.pulled, logged)
	require.NotContains(a.t, a.log.String(), "canary-of-")
	a.pulled = nil
}

// TestEachLeverLeavesATrace pulls every lever of the real program as an operator with a token of his own. The log says who did
// what to how many, and inspect says it of the events that it was about, and how each delivery ended: also after a crash.
func TestEachLeverLeavesATrace(t *testing.T) {
	t.Parallel()
	service, old, gone := startTeam(t), startTeam(t), startTeam(t)
	answers := map[string]int{}
	service.answers(func(body string) int {
		for sid, status := range answers { // written while nothing is sent
			if strings.Contains(body, `"`+sid+`"`) {
				return status
			}
		}
		return http.StatusOK
	})
	old.answers(always(http.StatusServiceUnavailable))
	gone.answers(always(http.StatusServiceUnavailable))
	answer := func(sid string, status int) {
		service.mu.Lock()
		defer service.mu.Unlock()
		answers[sid] = status
	}
	tokens := `tokens: [{name: ada, token: canary-of-ada}, {name: bob, token: canary-of-bob}]`
	template := strings.Replace(leversConfig, `"%%ADMIN%%"}`, `"%%ADMIN%%", `+tokens+`}`, 1)
	teams := map[string]*team{"service": service, "old": old, "gone": gone}
	a := &audited{relayUnderTest: newRelay(t, fmt.Sprintf(template, "", sinksTo(teams), "service"))}
	for _, name := range []string{"ada", "bob"} {
		require.NoError(t, os.WriteFile(filepath.Join(a.dir, "token-of-"+name), []byte("canary-of-"+name+"\n"), 0o600))
	}
	a.start()

	// pause and resume: of what was delivered before nothing is said.
	before := a.send("before", 1)
	a.shows(before, "service: delivered", "attempt 1 delivered")
	a.pull("ada pause sink=service reason=migration", "sinks", "pause", "service", "--reason", "migration")
	waited := a.send("waited", 1)
	a.pull("ada resume sink=service", "sinks", "resume", "service")
	a.shows(waited, "service: delivered", "service: resume by ada")
	require.NotContains(t, a.see("inspect", before), "ada")

	// pending skip, of one that failed and of one behind it that was never tried. A question is no lever.
	answer("poison", http.StatusInternalServerError)
	poison, behind := a.send("poison", 1), a.send("poison", 2)
	a.shows(poison, "service: pending", "service: attempt 2 failed")
	skip := []string{"pending", "skip", "--sink", "service", "--entity", "poison", "--token-file", filepath.Join(a.dir, "token-of-ada")}
	status, _, errs := a.ask(skip...)
	require.Equal(t, exitUsage, status, errs)
	for skipped := 0; skipped < 2; { // what is being sent is left
		var n int
		_, err := fmt.Sscanf(a.mustAsk(append(skip, "--yes")...), "%d skipped", &n)
		require.NoError(t, err)
		a.pulled = append(a.pulled, fmt.Sprint("ada skip sink=service filter=entity=poison count=", n))
		skipped += n
	}
	a.kill() // a moment later
	a.requireLogged()
	a.start()
	a.shows(poison, "service: skipped", "failed", "service: skip by ada, count ", ", entity=poison")
	require.NotContains(t, a.shows(behind, "service: skipped", "service: skip by ada"), "attempt")
	require.NotContains(t, a.see("inspect", waited), "skip")

	// Dead letters: dropped, delivered by a replay; dropping all says nothing of what was skipped.
	answer("refused", http.StatusUnprocessableEntity)
	refused, mended := a.send("refused", 1), a.send("refused", 2)
	for _, id := range []string{refused, mended} {
		a.shows(id, "service: dead", "service: became a dead letter (4xx): ")
	}
	a.pull("ada drop_dead_letters sink=service filter=id="+refused+" count=1", "deadletters", "drop", "--sink", "service", "--id", refused, "--yes")
	a.shows(refused, "service: dropped", "service: drop dead letters by ada, count 1, id="+refused)
	answer("refused", http.StatusOK)
	a.pull("ada replay_dead_letters sink=service filter=reason=422 count=1 replay=1", "deadletters", "replay", "--reason", "422", "--wait", "--yes")
	a.shows(mended, "service: delivered", "service: replay dead letters by ada, replay 1, count 1, reason=422", "of replay 1 delivered")
	a.shows(refused, "service: dropped")
	a.pull("ada drop_dead_letters count=0", "deadletters", "drop", "--all", "--yes")
	a.shows(poison, "service: skipped")

	// A replay of what was delivered, and its end.
	a.pull("ada pause sink=service reason=by an operator", "sinks", "pause", "service")
	a.pull("ada replay sink=service filter=id="+before+" count=1 replay=2", "replay", "--id", before, "--yes")
	a.pull("ada cancel_replay replay=2", "replay", "cancel", "2")
	a.shows(before, "service: delivered", "service: replay by ada, replay 2, count 1, id="+before)
	a.requireLogged()

	// What removed sinks are owed: moved and dropped.
	a.restart(template, sinksTo(teams), "old, gone")
	owed := a.send("owed", 1)
	a.shows(owed, "old: pending", "gone: pending")
	renamed := startTeam(t)
	renamed.answers(always(http.StatusServiceUnavailable))
	a.restart(template, sinksTo(map[string]*team{"renamed": renamed}), "renamed")
	a.pull("ada move sink=old to=renamed count=1", "sinks", "move", "old", "--to", "renamed")
	a.pull("ada drop sink=gone count=1", "sinks", "drop", "gone", "--yes")
	a.shows(owed, "old: moved: to renamed", "old: move to renamed by ada, count 1", "gone: dropped", "gone: drop by ada, count 1", "renamed: pending", "renamed: attempt 1 failed")
	renamed.answers(always(http.StatusOK))
	a.shows(owed, "renamed: delivered")
	a.requireLogged()
	a.terminate()
}

func TestDeadLettersAreCountedByEventTypeAndReason(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	service.answers(func(body string) int {
		if strings.Contains(body, `"refused`) {
			return http.StatusUnprocessableEntity
		}
		return http.StatusRequestEntityTooLarge
	})
	r := newOperated(t, map[string]*team{"service": service})
	for i := range 5 {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("refused", i), 1, 1)))
	}
	require.Equal(t, "accepted", r.post(recording("large", 1, 1)))
	require.Equal(t, "quarantined", r.post([]byte("[1]")))
	type group struct {
		Sink, Product, Event, Cause string
		Count                       int
	}
	want := []group{{"service", "cloud_recording", "uploaded", "4xx", 5}, {"service", "cloud_recording", "uploaded", "too_large", 1}, {"unroutable", "", "", "not_object", 1}}
	list := func(args ...string) []group {
		return askLines[group](r, append([]string{"deadletters", "list", "--by-reason"}, args...)...)
	}
	r.eventually(func() bool { return slices.Equal(list(), want) }, "counted")
	r.kill()
	r.start()
	r.eventually(func() bool { return slices.Equal(list(), want) }, "the same after a crash")
	require.Equal(t, want[1:2], list("--reason", "413"))
	require.Equal(t, []group{{"service", "cloud_recording", "uploaded", "4xx", 1}}, list("--entity", "refused3"))
	out := r.mustAsk("deadletters", "list", "--by-reason")
	require.Regexp(t, `(?m)^5 +service +cloud_recording\.uploaded +4xx +\d+s ago +\S+ answered 422`, out)
	status, _, errs := r.ask("deadletters", "list", "--by-reason", "--all")
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "neither --limit nor --all")
	r.terminate()
}
