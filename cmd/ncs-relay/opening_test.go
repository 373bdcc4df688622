package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/config"
)

// blockedRelay is one whose data_dir cannot be opened until unblock was called. Then a journal with known keys is there.
func blockedRelay(t *testing.T) (r *relayUnderTest, unblock func()) {
	t.Helper()
	r = newRelay(t, strings.Replace(oneSource, "%DIR%/data", "%DIR%/blocked/data", 1))
	fillJournal(t, filepath.Join(r.dir, "whole", "data"), 20_000)
	blocked := filepath.Join(r.dir, "blocked")
	require.NoError(t, os.WriteFile(blocked, nil, 0o600))
	return r, func() {
		require.NoError(t, os.Remove(blocked))
		require.NoError(t, os.Rename(filepath.Join(r.dir, "whole"), blocked))
	}
}

// What calls are told, over new and over kept connections, from the moment at which one is answered.
func TestNoCallIsRefusedWhileTheJournalOpens(t *testing.T) {
	t.Parallel()
	r, unblock := blockedRelay(t)
	r.launch()
	r.eventually(func() bool {
		a, err := r.call(recording("first", 1, 1))
		return err == nil && a.code == 503 && r.probe("/livez") == 200
	}, "not answered")

	var stored, asked atomic.Int64
	var faults sync.Map
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(keep bool, once func(*http.Client) string) {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep}}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if fault := once(client); fault != "" {
					faults.Store(fault, true)
				}
			}
		})
	}
	for _, keep := range []bool{true, false, false} {
		before := 503
		loop(keep, func(client *http.Client) string {
			a, err := r.callBy(client, recording("sid", int(asked.Add(1)), 1))
			switch {
			case err != nil:
				return err.Error()
			case a.code == 200:
				stored.Add(1)
			case before == 200:
				return "503 after 200: " + a.err
			}
			before = a.code
			return ""
		})
		loop(keep, func(client *http.Client) string {
			for path, want := range map[string]int{"/livez": 200, "/metrics": 200, "/readyz": 0} {
				resp, err := client.Get(r.admin + path)
				if err != nil {
					return err.Error()
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if want != 0 && resp.StatusCode != want {
					return path + ": " + resp.Status
				}
			}
			return ""
		})
	}
	r.eventually(func() bool { return asked.Load() > 20 }, "no calls")
	require.Zero(t, stored.Load())
	unblock()
	r.eventually(func() bool { return stored.Load() > 100 && r.probe("/readyz") == 200 }, "never stored")
	close(stop)
	wg.Wait()
	faults.Range(func(fault, _ any) bool { t.Error("a call was not answered: ", fault); return true })
	r.terminate()
	require.Contains(t, r.log.String(), `"known_keys":20000`)
}

// The commonest first fault of a deployment: whoever asks is told why.
func TestWhyTheJournalCannotBeOpened(t *testing.T) {
	t.Parallel()
	r, unblock := blockedRelay(t)
	r.launch()
	r.eventually(func() bool { return r.probe("/livez") == 200 }, "not alive")
	said := func(args ...string) string {
		args = append(args, "--admin", r.admin)
		out, err := exec.Command("ncs-relay", args...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, exitFailed, exit.ExitCode(), "%s", out)
		return string(out)
	}
	r.eventually(func() bool { return strings.Contains(said("health"), "the journal cannot be opened") }, "no reason")
	for _, args := range [][]string{{"health"}, {"status"}, {"status", "--json"}, {"sinks", "list"}} {
		out := said(args...)
		require.Contains(t, out, "the journal cannot be opened: ")
		require.Contains(t, out, "blocked/data: not a directory", args)
	}
	a, err := r.call(recording("s", 1, 1))
	require.NoError(t, err)
	require.Equal(t, 503, a.code)
	require.NotContains(t, a.err, "blocked", "strangers are not told")
	require.Equal(t, 200, r.probe("/metrics"))
	unblock()
	r.untilReady()
	require.NoError(t, exec.Command("ncs-relay", "status", "--admin", r.admin).Run())
	r.terminate()
}

func TestAJournalThatCannotBeOpenedIsLoggedEachMinute(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blocked"), nil, 0o600))
	synctest.Test(t, func(t *testing.T) {
		cfg := &config.Config{DataDir: filepath.Join(dir, "blocked", "data")}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute+30*time.Second)
		defer cancel()
		var log lockedBuffer
		var told []string
		_, err := openJournal(ctx, diskOpener(cfg, slog.New(slog.DiscardHandler)), slog.New(slog.NewTextHandler(&log, nil)), nil, func(why string) { told = append(told, why) })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 4, strings.Count(log.String(), "not a directory"), log.String())
		require.Contains(t, log.String(), "suppressed=59")
		require.Greater(t, len(told), 200)
	})
}

func TestALimitOfOpenFilesThatDoesNotFitIsToldAtStart(t *testing.T) {
	t.Parallel()
	for files, told := range map[string]bool{"2000": true, "20000": false} {
		r := newRelay(t, oneSource+"limits: {connections: 5000}\n")
		child := startCrashChild(t, r.config, "sh", "-c", `ulimit -n `+files+` && exec "$@"`, "sh")
		t.Cleanup(child.end)
		r.eventually(func() bool { return r.probe("/readyz") == 200 }, "never ready")
		require.Equal(t, told, strings.Contains(child.log.String(), "limits.connections does not fit the limit of open files"), "%s", child.log)
		child.terminate()
	}
}
