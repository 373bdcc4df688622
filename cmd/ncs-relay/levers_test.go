package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/porttest"
)

// ask runs a command as an operator's script would: nobody there to ask.
func (r *relayUnderTest) ask(args ...string) (status int, out, errs string) {
	r.t.Helper()
	var stdout, stderr bytes.Buffer
	status = run(r.t.Context(), append(args, "--admin", r.admin), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

// mustAsk is ask where it works.
func (r *relayUnderTest) mustAsk(args ...string) string {
	r.t.Helper()
	status, out, errs := r.ask(args...)
	require.Equal(r.t, exitOK, status, "%s\n%s", args, errs)
	return out
}

// askLines is mustAsk with --json, where that prints a line for each item.
func askLines[T any](r *relayUnderTest, args ...string) (items []T) {
	r.t.Helper()
	for line := range strings.Lines(r.mustAsk(append(args, "--json")...)) {
		var item T
		require.NoError(r.t, json.Unmarshal([]byte(line), &item), line)
		items = append(items, item)
	}
	return items
}

func (r *relayUnderTest) sinkStatus(name string) gateway.SinkStatus {
	r.t.Helper()
	sinks := askLines[gateway.SinkStatus](r, "sinks", "list")
	i := slices.IndexFunc(sinks, func(s gateway.SinkStatus) bool { return s.Name == name })
	require.GreaterOrEqual(r.t, i, 0, name)
	return sinks[i]
}

// team is a service that answers as its test says, and keeps the calls it took.
type team struct {
	address string

	mu     sync.Mutex // guards what follows
	answer func(body string) int
	took   []teamCall
}

type teamCall struct {
	body   string
	header http.Header
	at     time.Time
}

func startTeam(t *testing.T) *team {
	s := &team{address: porttest.Free(), answer: func(string) int { return http.StatusOK }}
	listenAt(t, s.address, s)
	return s
}

func (s *team) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	status := s.answer(string(b))
	if status == http.StatusOK {
		s.took = append(s.took, teamCall{string(b), r.Header.Clone(), time.Now()})
	}
	w.WriteHeader(status)
}

// answers changes what the service does from now on.
func (s *team) answers(answer func(body string) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func always(status int) func(string) int { return func(string) int { return status } }

func (s *team) calls() []teamCall {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.took)
}

func (s *team) bodies() (bodies []string) {
	for _, c := range s.calls() {
		bodies = append(bodies, c.body)
	}
	return bodies
}

// replays are the calls of replays.
func (s *team) replays() (calls []teamCall) {
	return slices.DeleteFunc(s.calls(), func(c teamCall) bool { return c.header.Get("Ncs-Relay-Replay") == "" })
}

const leversConfig = `
listen: "%%LISTEN%%"
admin: {listen: "%%ADMIN%%"}
data_dir: %%DIR%%/data
journal: {min_free: 1MiB}
shutdown: {delay: 0s, timeout: 10s}
sources:
  - {name: recording, path: /ncs, secrets: [` + serveSecret + `]%s}
sinks:
%s
routes: [{to: [%s]}]
`

// newOperated is a relay with a service for each name.
func newOperated(t *testing.T, teams map[string]*team) *relayUnderTest {
	r := newRelay(t, fmt.Sprintf(leversConfig, "", sinksTo(teams), strings.Join(names(teams), ", ")))
	r.start()
	return r
}

func names(teams map[string]*team) (names []string) {
	for name := range teams {
		names = append(names, name)
	}
	return slices.Sorted(slices.Values(names))
}

func sinksTo(teams map[string]*team) (lines string) {
	for _, name := range names(teams) {
		lines += fmt.Sprintf("  - {name: %s, http: {url: \"http://%s/hooks\"}, retry: {initial: 100ms, max_interval: 200ms}}\n", name, teams[name].address)
	}
	return lines
}

// restartWith ends the relay and starts it with another configuration at the same addresses.
func (r *relayUnderTest) restartWith(source, sinks, to string) {
	r.t.Helper()
	r.terminate()
	text := strings.NewReplacer("%LISTEN%", strings.TrimSuffix(strings.TrimPrefix(r.url, "http://"), "/ncs"),
		"%ADMIN%", strings.TrimPrefix(r.admin, "http://"), "%DIR%", r.dir).Replace(fmt.Sprintf(leversConfig, source, sinks, to))
	require.NoError(r.t, os.WriteFile(r.config, []byte(text), 0o600))
	r.start()
}

func TestPendingDeliveriesAreListedAndSkipped(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	r := newOperated(t, map[string]*team{"service": service})
	poison, blocked := string(recording("s1", 1, 1)), string(recording("s1", 2, 1))
	service.answers(func(body string) int {
		if body == poison {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	require.Equal(t, "accepted", r.post([]byte(poison)))
	require.Equal(t, "accepted", r.post([]byte(blocked)))
	require.Equal(t, "accepted", r.post(recording("s2", 3, 1)))
	var list []gateway.Delivery
	r.eventually(func() bool {
		list = askLines[gateway.Delivery](r, "pending", "list", "--sink", "service")
		return len(list) == 2 && list[0].Attempts > 1 && !list[0].Next.IsZero()
	}, "two of s1 are pending")
	require.Negative(t, list[0].Position.Compare(list[1].Position))
	require.Equal(t, "s1", list[0].Entity)
	require.Contains(t, list[0].LastError, "500")
	require.Zero(t, list[1].Attempts)

	// One page at a time, and the whole.
	status, out, errs := r.ask("pending", "list", "--limit", "1", "--json")
	require.Equal(t, exitOK, status)
	require.Equal(t, 1, strings.Count(out, "\n"))
	require.Contains(t, errs, "there are more")
	require.Len(t, askLines[gateway.Delivery](r, "pending", "list", "--limit", "1", "--all"), 2)
	require.Contains(t, r.mustAsk("pending", "list", "--entity", "s1"), "500")
	require.Empty(t, askLines[gateway.Delivery](r, "pending", "list", "--entity", "s2"))
	require.Contains(t, r.mustAsk("inspect", list[0].ID.String()), "service: pending")

	skip := []string{"pending", "skip", "--sink", "service", "--id", list[0].ID.String()}
	status, _, errs = r.ask(skip...)
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "would skip 1 deliveries (id="+list[0].ID.String()+" sink=service); --yes does it")
	r.eventually(func() bool { return r.mustAsk(append(skip, "--yes")...) == "1 skipped\n" }, "skipped when it is not being sent")
	r.eventually(func() bool { return slices.Contains(service.bodies(), blocked) }, "the next of the entity")
	require.NotContains(t, service.bodies(), poison)
	r.eventually(func() bool { return r.sinkStatus("service").Pending == 0 }, "settled")
	var s gateway.Status
	require.NoError(t, json.Unmarshal([]byte(r.mustAsk("status", "--json")), &s))
	i := slices.IndexFunc(s.Sinks, func(s gateway.SinkStatus) bool { return s.Name == "service" })
	require.EqualValues(t, []uint64{3, 2, 1}, []uint64{s.Sinks[i].Owed, s.Sinks[i].Delivered, s.Sinks[i].Skipped})
	require.Contains(t, r.mustAsk("inspect", list[0].ID.String()), "service: skipped")
	require.Contains(t, r.mustAsk("inspect", list[1].ID.String()), "service: delivered")
	r.terminate()
}

func TestDeadLettersAreShownReplayedAndDropped(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	service.answers(always(http.StatusUnprocessableEntity))
	r := newOperated(t, map[string]*team{"service": service})
	for i := range 5 {
		require.Equal(t, "accepted", r.post(recording("s1", i+1, 1)))
	}
	var letters []gateway.DeadLetter
	list := func(args ...string) []gateway.DeadLetter {
		list := askLines[gateway.DeadLetter](r, append([]string{"deadletters", "list"}, args...)...)
		for i := range list { // the journal keeps milliseconds
			for _, at := range []*time.Time{&list[i].At, &list[i].FirstFailed, &list[i].LastFailed} {
				*at = at.Truncate(time.Millisecond)
			}
		}
		return list
	}
	r.eventually(func() bool { letters = list(); return len(letters) == 5 }, "dead letters")
	require.True(t, slices.IsSortedFunc(letters, func(a, b gateway.DeadLetter) int { return a.Position.Compare(b.Position) }))
	require.Contains(t, letters[0].Reason, "422")
	require.Equal(t, 1, letters[0].Attempts)

	require.Empty(t, cmp.Diff(letters[:2], list("--limit", "2")))
	require.Empty(t, cmp.Diff(letters, list("--since", "1h", "--sink", "service", "--source", "recording", "--product", "cloud_recording",
		"--event", "uploaded", "--entity", "s1", "--reason", "422", "--until", "2999-01-01T00:00:00Z")))
	require.Empty(t, cmp.Diff(letters[1:2], list("--id", letters[1].ID.String())))
	for _, none := range [][]string{{"--entity", "s2"}, {"--reason", "500"}, {"--until", "1h"}, {"--product", "rtc"}, {"--event", "cloud_recording.session_exit"}} {
		require.Empty(t, list(none...), none)
	}

	position := fmt.Sprint(letters[0].Position)
	shown := r.mustAsk("deadletters", "show", "service", position)
	require.Contains(t, shown, letters[0].ID.String())
	require.Contains(t, shown, "422")
	require.Equal(t, string(recording("s1", 1, 1)), r.mustAsk("deadletters", "show", "service", position, "--body"))
	var letter admin.Letter
	require.NoError(t, json.Unmarshal([]byte(r.mustAsk("deadletters", "show", "service", position, "--json")), &letter))
	require.Equal(t, string(recording("s1", 1, 1)), string(letter.Bytes()))
	status, _, errs := r.ask("deadletters", "show", "service", "4711")
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "not found")

	// Still refused: it stays.
	first := []string{"deadletters", "replay", "--id", letters[0].ID.String(), "--wait", "--yes"}
	status, out, _ := r.ask(first...)
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, "0 delivered, 1 failed")
	require.Len(t, list(), 5)

	service.answers(always(http.StatusOK))
	status, _, errs = r.ask("deadletters", "replay", "--entity", "s1")
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "would deliver 5 events again (entity=s1) to service 5; --yes does it")
	require.Contains(t, r.mustAsk(first...), "1 delivered, 0 failed")
	calls := service.calls()
	require.Len(t, calls, 1)
	require.Equal(t, string(recording("s1", 1, 1)), calls[0].body)
	require.NotEmpty(t, calls[0].header.Get("Ncs-Relay-Replay"))
	require.Equal(t, letters[0].ID.String()+"-r"+calls[0].header.Get("Ncs-Relay-Replay"), calls[0].header.Get("Idempotency-Key"))
	r.eventually(func() bool { return cmp.Equal(letters[1:], list()) }, "it is gone")

	status, _, errs = r.ask("deadletters", "drop", "--id", letters[1].ID.String())
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "would delete 1 dead letters")
	require.Equal(t, "1 dropped\n", r.mustAsk("deadletters", "drop", "--id", letters[1].ID.String(), "--yes"))
	require.Empty(t, cmp.Diff(letters[2:], list()))
	require.Equal(t, "3 dropped\n", r.mustAsk("deadletters", "drop", "--all", "--yes"))
	require.Empty(t, list())
	require.Equal(t, "0 dropped\n", r.mustAsk("deadletters", "drop", "--all"), "nothing to ask about")
	r.terminate()
}

func TestQuarantinedBodiesAreRoutedAfterTheSourceWasCorrected(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	teams := map[string]*team{"service": service}
	r := newRelay(t, fmt.Sprintf(leversConfig, ", products: [rtc]", sinksTo(teams), "service"))
	r.start()
	body := recording("s1", 1, 1)
	require.Equal(t, "quarantined", r.post(body))
	require.Equal(t, "quarantined", r.post([]byte("[1]")))
	unroutable := func() []gateway.DeadLetter {
		return askLines[gateway.DeadLetter](r, "deadletters", "list", "--sink", relay.Unroutable)
	}
	r.eventually(func() bool { return len(unroutable()) == 2 }, "quarantined")
	for _, lever := range [][]string{{"sinks", "pause", relay.Unroutable}, {"sinks", "resume", relay.Unroutable}, {"sinks", "drop", relay.Unroutable},
		{"sinks", "move", relay.Unroutable, "--to", "service"}, {"sinks", "move", "service", "--to", relay.Unroutable},
		{"pending", "skip", "--sink", relay.Unroutable, "--all", "--yes"}} {
		status, _, errs := r.ask(lever...)
		require.Equal(t, exitFailed, status, lever)
		require.Contains(t, errs, "unroutable is no destination", lever)
	}
	require.Len(t, unroutable(), 2, "nothing is hidden")
	replay := []string{"deadletters", "replay", "--sink", relay.Unroutable, "--yes"}
	require.Contains(t, r.mustAsk(replay...), "0 of 2 quarantined bodies")

	r.restartWith("", sinksTo(teams), "service")
	require.Contains(t, r.mustAsk(replay...), "1 of 2 quarantined bodies")
	r.eventually(func() bool { return slices.Equal(service.bodies(), []string{string(body)}) }, "delivered")
	require.Len(t, unroutable(), 1)
	require.Equal(t, "duplicate", r.post(body), "it is known now")
	r.terminate()
}

func TestPauseSurvivesARestart(t *testing.T) {
	t.Parallel()
	service, other := startTeam(t), startTeam(t)
	r := newOperated(t, map[string]*team{"service": service, "other": other})
	r.mustAsk("sinks", "pause", "service", "--reason", "migration until 14:00")
	require.Equal(t, "migration until 14:00", r.sinkStatus("service").Paused)
	r.terminate()
	r.start()
	require.Equal(t, "migration until 14:00", r.sinkStatus("service").Paused)
	r.mustAsk("sinks", "pause", "service", "--reason", "migration until 15:00")
	r.kill() // what was answered is on disk
	r.start()
	require.Equal(t, "migration until 15:00", r.sinkStatus("service").Paused)
	require.Contains(t, r.mustAsk("sinks", "list"), "paused: migration until 15:00")
	body := string(recording("s1", 1, 1))
	require.Equal(t, "accepted", r.post([]byte(body)))
	r.eventually(func() bool { return slices.Equal(other.bodies(), []string{body}) }, "the other sink goes on")
	require.Empty(t, service.bodies())
	r.mustAsk("sinks", "resume", "service")
	r.eventually(func() bool { return slices.Equal(service.bodies(), []string{body}) }, "after the pause")
	require.Empty(t, r.sinkStatus("service").Paused)

	// For a while: kept over a crash, and ended by itself.
	r.mustAsk("sinks", "pause", "service", "--for", "2h", "--reason", "migration")
	r.kill()
	r.start()
	require.Equal(t, "migration", r.sinkStatus("service").Paused)
	require.InDelta(t, 2*time.Hour, time.Until(r.sinkStatus("service").PausedUntil), float64(time.Minute))
	require.Contains(t, r.mustAsk("sinks", "list"), "paused: migration, ends in 1h59m")
	require.Equal(t, "accepted", r.post(recording("s1", 2, 1)))
	r.mustAsk("sinks", "pause", "service", "--for", "1s", "--reason", "migration")
	r.eventually(func() bool { return len(service.bodies()) == 2 }, "the pause ends by itself")
	require.Empty(t, r.sinkStatus("service").Paused)
	status, _, errs := r.ask("sinks", "pause", "service", "--for", "soon")
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, `--for: "soon" is not a duration such as 90m, 2h or 3d`)
	status, _, errs = r.ask("sinks", "pause", "nobody")
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, `"nobody"`)
	r.terminate()
}

func TestStatusTellsThatASinkFails(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	service.answers(always(http.StatusInternalServerError))
	r := newOperated(t, map[string]*team{"service": service})
	require.Contains(t, r.mustAsk("status"), "delivering")
	for i := range 10 {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i), 1, 1)))
	}
	r.eventually(func() bool { return strings.Contains(r.mustAsk("status"), "failing since ") }, "nothing is delivered")
	require.Equal(t, deliver.StateFailing, r.sinkStatus("service").State)
	service.answers(always(http.StatusOK))
	r.mustAsk("sinks", "resume", "service")
	r.eventually(func() bool { return strings.Contains(r.mustAsk("sinks", "list"), "delivering") }, "all is well")
	r.terminate()
}

func TestRemovedSinksAreListedMovedAndDropped(t *testing.T) {
	t.Parallel()
	old, gone, twin, kept := startTeam(t), startTeam(t), startTeam(t), startTeam(t)
	old.answers(always(http.StatusServiceUnavailable))
	gone.answers(always(http.StatusServiceUnavailable))
	twin.answers(always(http.StatusServiceUnavailable))
	r := newOperated(t, map[string]*team{"old": old, "gone": gone, "twin": twin, "kept": kept})
	var sent []string
	for i := range 4 {
		sent = append(sent, string(recording("s1", i+1, 1)))
		require.Equal(t, "accepted", r.post([]byte(sent[i])))
	}
	r.eventually(func() bool { return len(kept.bodies()) == 4 }, "delivered")
	for _, args := range [][]string{{"sinks", "drop", "old", "--yes"}, {"sinks", "move", "old", "--to", "kept"}} {
		status, _, errs := r.ask(args...)
		require.Equal(t, exitFailed, status)
		require.Contains(t, errs, "remove it from the configuration first")
	}

	renamed := startTeam(t)
	r.restartWith("", sinksTo(map[string]*team{"renamed": renamed, "kept": kept}), "kept")
	require.False(t, r.sinkStatus("old").Configured)
	require.EqualValues(t, 4, r.sinkStatus("old").Pending)
	require.Contains(t, r.mustAsk("sinks", "list"), "removed: move or drop what it is owed")
	require.Len(t, askLines[gateway.Delivery](r, "pending", "list", "--sink", "old"), 4)

	require.Equal(t, "4 deliveries moved from old to renamed\n", r.mustAsk("sinks", "move", "old", "--to", "renamed"))
	r.eventually(func() bool { return slices.Equal(sent, renamed.bodies()) }, "delivered in order where it was moved to")
	require.Zero(t, r.sinkStatus("old").Pending)
	require.Equal(t, "0 deliveries moved from twin to kept\n4 skipped, which kept was owed anyway\n",
		r.mustAsk("sinks", "move", "twin", "--to", "kept"))
	require.Zero(t, r.sinkStatus("twin").Pending)
	require.Len(t, kept.bodies(), 4)

	status, _, errs := r.ask("sinks", "drop", "gone")
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "would give up 4 deliveries that sink gone is owed; --yes does it")
	require.Equal(t, "4 deliveries given up\n", r.mustAsk("sinks", "drop", "gone", "--yes"))
	require.Zero(t, r.sinkStatus("gone").Pending)
	require.EqualValues(t, 4, r.sinkStatus("gone").Dropped)
	for _, args := range [][]string{{"sinks", "move", "nobody", "--to", "kept"}, {"sinks", "move", "gone", "--to", "nobody"}, {"sinks", "drop", "nobody", "--yes"}} {
		status, _, errs := r.ask(args...)
		require.Equal(t, exitFailed, status, args)
		require.Contains(t, errs, `"nobody"`)
	}
	r.terminate()
}

func TestAdminTokenOfCommands(t *testing.T) {
	t.Parallel()
	const token = "canary-token"
	r := newRelay(t, strings.Replace(fmt.Sprintf(leversConfig, "", "  - {name: archive, file: {path: %DIR%/events.jsonl}}", "archive"),
		`"%ADMIN%"}`, `"%ADMIN%", token: `+token+`}`, 1))
	r.start()
	status, _, errs := r.ask("status")
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "--token-env NAME, --token-file FILE or $NCS_RELAY_TOKEN_FILE")
	file := filepath.Join(r.dir, "token")
	require.NoError(t, os.WriteFile(file, []byte("wrong"), 0o600))
	status, _, errs = r.ask("status", "--token-file", file)
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "not the relay's admin.token")
	require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	out := r.mustAsk("status", "--token-file", file)
	require.Contains(t, out, "archive")
	require.NotContains(t, out+errs, token)

	// The configuration has address and token, also where its secrets are not, and variables have them too.
	for _, environment := range [][]string{nil, {adminVariable + "=" + r.admin, tokenFileVariable + "=" + file}} {
		args := []string{"status"}
		if environment == nil {
			args = append(args, "-c", r.config)
		}
		cmd := exec.CommandContext(t.Context(), "ncs-relay", args...)
		cmd.Env = append(os.Environ(), environment...)
		b, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", b)
		require.Contains(t, string(b), "archive")
	}
	status, _, errs = r.ask("status", "-c", r.config)
	require.Equal(t, exitUsage, status, errs)
	require.Contains(t, errs, "--admin cannot be combined with --config")
	r.terminate()
}

// What is wrong with a filter is said before anything is done.
func TestBadFiltersOfCommands(t *testing.T) {
	t.Parallel()
	r := newRelay(t, fmt.Sprintf(leversConfig, "", "  - {name: archive, file: {path: %DIR%/events.jsonl}}", "archive"))
	r.start()
	for _, tt := range []struct{ args, problem string }{
		{"deadletters list --product nonsense", "product: "},
		{"deadletters list --event 31", "event: "},
		{"deadletters list --id 12", "id: "},
		{"deadletters list --since yesterday", "--since: "},
		{"deadletters list --since -2h", "--since: "},
		{"deadletters list --since 1h --until 2h", "until: "},
		{"deadletters list --limit 0", "--limit: "},
		{"deadletters list --sink=", "sink: empty"},
		{"deadletters drop --sink=", "sink: empty"},
		{"deadletters drop --yes", "wants a filter, or --all"},
		{"deadletters drop --all --sink archive --yes", "--all goes with no other filter"},
		{"deadletters replay --yes", "wants a filter, or --all"},
		{"replay --yes", "wants a filter, or --all"},
		{"replay --sink archive --reason x", "reason: "},
		{"replay --sink archive --rate -1", "rate: "},
		{"replay --sink archive --to=", "to: empty"},
		{"pending skip --entity s1 --yes", "--sink is needed"},
		{"pending skip --sink archive --yes", "wants a filter, or --all"},
		{"pending list --reason x", "unknown flag"},
		{"inspect", "wants one event id, or --entity"},
		{"inspect xyz", "id: "},
		{"inspect --entity=", "entity: empty"},
		{"inspect --entity s1 --limit 1001", "limit: "},
	} {
		status, out, errs := r.ask(strings.Fields(tt.args)...)
		require.Equal(t, exitUsage, status, tt.args)
		require.Contains(t, errs, tt.problem, tt.args)
		require.Empty(t, out)
	}
	for _, args := range []string{"deadletters list --sink nobody", "deadletters drop --sink nobody --yes", "replay --sink nobody --yes", "replay --sink archive --to nobody --yes"} {
		status, _, errs := r.ask(strings.Fields(args)...)
		require.Equal(t, exitFailed, status, args)
		require.Contains(t, errs, "no sink has this name", args)
	}
	status, _, errs := r.ask("inspect", strings.Repeat("ab", 16))
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "the journal has no event with id=")
	r.terminate()
}

func TestCommandsSayWhenNoRelayAnswers(t *testing.T) {
	t.Parallel()
	r := &relayUnderTest{t: t, admin: "http://" + porttest.Free()}
	for _, args := range []string{"status", "sinks list", "sinks pause x", "sinks resume x", "sinks move x --to y", "sinks drop x", "pending list",
		"pending skip --sink x --all", "deadletters list", "deadletters show x 1", "deadletters drop --all", "deadletters replay --all",
		"replay --all", "replay list", "replay cancel 1", "inspect --entity e"} {
		status, out, errs := r.ask(strings.Fields(args)...)
		require.Equal(t, exitFailed, status, args)
		require.Contains(t, errs, "is it running", args)
		require.Empty(t, out)
	}
	other := startTeam(t)
	other.answers(always(http.StatusOK))
	r.admin = other.address // somebody else's
	status, _, errs := r.ask("status")
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "does not answer as a relay")
	other.answers(always(http.StatusNotFound))
	_, _, errs = r.ask("status")
	require.Contains(t, errs, "is not the admin address of a relay")
}
