package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
)

func TestReplayOfWhatWasDelivered(t *testing.T) {
	t.Parallel()
	billing, archive := startTeam(t), startTeam(t)
	r := newOperated(t, map[string]*team{"archive": archive, "billing": billing})
	var ofOne []string
	for i := range 20 {
		body := recording(fmt.Sprint("s", i%2), i+1, 1)
		if i%2 == 1 {
			ofOne = append(ofOne, string(body))
		}
		require.Equal(t, "accepted", r.post(body))
	}
	r.eventually(func() bool { return len(billing.calls()) == 20 && len(archive.calls()) == 20 }, "delivered")
	r.settled()

	filter := []string{"replay", "--sink", "billing", "--entity", "s1"}
	var counted gateway.ReplayResult
	require.NoError(t, json.Unmarshal([]byte(r.mustAsk(append(filter, "--dry-run", "--json")...)), &counted))
	require.Equal(t, map[string]int{"billing": 10}, counted.Matched)
	require.Empty(t, counted.Replays)
	require.Len(t, billing.calls(), 20, "only counted")

	require.Equal(t, "replay 1 to billing: 10 delivered, 0 failed, 0 skipped\n", r.mustAsk(append(filter, "--yes", "--wait")...))
	replayed := billing.replays()
	require.Len(t, replayed, 10)
	for i, c := range replayed { // in order, marked, although every key is known
		require.Equal(t, ofOne[i], c.body)
		require.Equal(t, "1", c.header.Get("Ncs-Relay-Replay"))
		require.Equal(t, c.header.Get("Ncs-Relay-Event-Id")+"-r1", c.header.Get("Idempotency-Key"))
	}
	require.Empty(t, archive.replays())

	// Events of one sink to another; everything, to the sinks that were owed it.
	require.Contains(t, r.mustAsk("replay", "--sink", "billing", "--entity", "s0", "--to", "archive", "--yes", "--wait"), "to archive: 10 delivered")
	require.Len(t, archive.replays(), 10)
	require.Contains(t, r.mustAsk("replay", "--all", "--dry-run"), "40 events: archive 20, billing 20")
	require.Contains(t, r.mustAsk("replay", "--since", "1h", "--dry-run"), "40 events")
	require.Contains(t, r.mustAsk("replay", "--until", "1h", "--yes"), "0 events")

	for _, s := range r.settled().Sinks {
		if s.Name != relay.Unroutable {
			require.EqualValues(t, 20, s.Owed, "replays are accounted apart")
			require.EqualValues(t, 20, s.Delivered)
		}
	}
	list := askLines[gateway.ReplayStatus](r, "replay", "list")
	require.Len(t, list, 2)
	require.True(t, list[0].Finished && list[1].Finished)
	require.Contains(t, r.mustAsk("replay", "list"), "events, entity=s1 sink=billing")
	r.terminate()
}

func TestReplayGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	r := newOperated(t, map[string]*team{"service": service})
	var sent []string
	for i := range 60 {
		body := recording("s1", i+1, 1)
		sent = append(sent, string(body))
		require.Equal(t, "accepted", r.post(body))
	}
	r.settled()
	r.terminate() // has it on disk that they were settled
	r.start()
	taken := 0
	service.answers(func(string) int { // takes five, and then nothing more
		if taken++; taken > 5 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	require.Contains(t, r.mustAsk("replay", "--entity", "s1", "--yes"), "replay 1 to service: 60 events")
	r.eventually(func() bool { return len(service.replays()) == 5 }, "begun")
	r.kill()
	service.answers(always(http.StatusOK))
	r.start()
	r.eventually(func() bool {
		list := askLines[gateway.ReplayStatus](r, "replay", "list")
		return len(list) == 1 && list[0].Finished
	}, "ended")
	var bodies, first []string
	for _, c := range service.replays() {
		require.Equal(t, "1", c.header.Get("Ncs-Relay-Replay"))
		bodies = append(bodies, c.body)
		if !slices.Contains(first, c.body) {
			first = append(first, c.body)
		}
	}
	require.Equal(t, sent, first, "all, and the first time each came in order")
	require.LessOrEqual(t, len(bodies), 65)
	r.terminate()
}

// Slower than asked is always right, so a busy machine does not matter.
func TestReplayKeepsToItsRate(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	r := newOperated(t, map[string]*team{"service": service})
	for i := range 11 {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i), i+1, 1)))
	}
	r.settled()
	require.Contains(t, r.mustAsk("replay", "--all", "--rate", "20", "--yes", "--wait"), "11 delivered")
	calls := service.replays()
	require.GreaterOrEqual(t, calls[10].at.Sub(calls[0].at), 350*time.Millisecond, "ten intervals of 50 ms, less what may be made up for")
	r.terminate()
}

func TestReplayIsCancelled(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	r := newOperated(t, map[string]*team{"service": service})
	for i := range 10 {
		require.Equal(t, "accepted", r.post(recording("s1", i+1, 1)))
	}
	r.settled()
	r.terminate() // which saves that they are
	r.start()
	service.answers(always(http.StatusServiceUnavailable))
	r.mustAsk("replay", "--entity", "s1", "--yes")
	require.False(t, askLines[gateway.ReplayStatus](r, "replay", "list")[0].Finished)
	require.Equal(t, "replay 1 cancelled\n", r.mustAsk("replay", "cancel", "1"))
	r.kill() // what was answered is on disk
	service.answers(always(http.StatusOK))
	r.start()
	r.eventually(func() bool { return askLines[gateway.ReplayStatus](r, "replay", "list")[0].Finished }, "ended")
	r.mustAsk("sinks", "resume", "service")
	require.Equal(t, "accepted", r.post(recording("s1", 11, 1)))
	r.settled() // the sink has had the time to send what it should not
	require.Empty(t, service.replays())
	status, _, errs := r.ask("replay", "cancel", "4711")
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "not found")
	r.terminate()
}

func TestJournalOffline(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	r := newOperated(t, map[string]*team{"service": service})
	service.answers(always(http.StatusServiceUnavailable))
	var sent []string
	for i := range 10 {
		sent = append(sent, string(recording("s1", i+1, 1)))
		require.Equal(t, "accepted", r.post([]byte(sent[i])))
	}
	data := filepath.Join(r.dir, "data")
	offline := func(args ...string) (int, string, string) {
		var out, errs strings.Builder
		status := run(t.Context(), append([]string{"journal"}, args...), strings.NewReader(""), &out, &errs)
		return status, out.String(), errs.String()
	}
	status, _, errs := offline("verify", data)
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "stop the relay first")
	r.terminate()

	status, out, errs := offline("verify", "-c", r.config)
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "10 records in 1 segments")
	require.Contains(t, out, "sink service: 10 pending")
	require.Contains(t, out, "everything can be read")
	var report struct {
		Sound   bool
		Records int
	}
	status, out, _ = offline("verify", data, "--json")
	require.Equal(t, exitOK, status)
	require.NoError(t, json.Unmarshal([]byte(out), &report))
	require.True(t, report.Sound)
	require.Equal(t, 10, report.Records)

	bodies := func() (got []string) {
		for line := range strings.Lines(out) {
			var l struct {
				ID, Event, Entity, Source, Body string
				Headers                         map[string]string
			}
			require.NoError(t, json.Unmarshal([]byte(line), &l))
			require.Equal(t, []string{"uploaded", "s1", "recording"}, []string{l.Event, l.Entity, l.Source})
			require.Len(t, l.ID, 32)
			require.NotEmpty(t, l.Headers["agora-signature-v2"])
			got = append(got, l.Body)
		}
		return got
	}
	status, out, errs = offline("export", data)
	require.Equal(t, exitOK, status, errs)
	require.Equal(t, sent, bodies())

	files := filepath.Join(r.dir, "bodies")
	status, out, _ = offline("export", data, "--bodies", files)
	require.Equal(t, exitOK, status)
	require.Empty(t, out)
	require.Equal(t, sent, contents(t, files))

	// A byte is wrong: that event is gone, the others are not, and it is said.
	flip(t, data, []byte(`"sequence":4,`))
	status, out, _ = offline("verify", data)
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, "DAMAGED: ")
	status, out, errs = offline("export", data)
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "DAMAGED: ")
	require.Equal(t, slices.Delete(slices.Clone(sent), 3, 4), bodies())

	status, _, errs = offline("verify", filepath.Join(r.dir, "nothing"))
	require.Equal(t, exitFailed, status)
	require.NotEmpty(t, errs)
	status, _, _ = offline("verify", r.dir)
	require.Equal(t, exitFailed, status, "not a journal")
}

// contents are the files of a directory in the order of their names.
func contents(t *testing.T, dir string) (all []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		all = append(all, string(b))
	}
	return all
}

// flip damages the first record that has a text.
func flip(t *testing.T, data string, text []byte) {
	segments, err := filepath.Glob(filepath.Join(data, "log", "*"))
	require.NoError(t, err)
	for _, name := range segments {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		if i := bytes.Index(b, text); i >= 0 {
			b[i] ^= 1
			require.NoError(t, os.WriteFile(name, b, 0o600))
			return
		}
	}
	require.FailNow(t, "no such record")
}
