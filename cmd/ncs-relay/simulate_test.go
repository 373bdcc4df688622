package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/porttest"
	"ncs-relay/relay/simulate"
)

// startSimulate runs the command; the function gives its exit status, and what it printed.
func startSimulate(t *testing.T, args ...string) (cmd *exec.Cmd, end func() (status int, out, errs string)) {
	t.Helper()
	cmd = exec.Command("ncs-relay", append([]string{"simulate"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, func() (int, string, string) {
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil {
			require.True(t, errors.As(err, &exit), err)
		}
		return cmd.ProcessState.ExitCode(), out.String(), errs.String()
	}
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	r := newRelay(t, oneSource)
	r.start()
	url := "--url=" + r.url

	t.Run("the tally adds up", func(t *testing.T) {
		t.Parallel()
		_, end := startSimulate(t, url, "--secret", serveSecret, "--recordings=20", "--channels=5", "--copies=0.3", "--resends=0.3",
			"--shuffle=0.2", "--failovers=0.5", "--bad-signatures=0.3", "--json")
		status, out, errs := end()
		require.Equal(t, exitOK, status, errs)
		require.Empty(t, errs, "no bar without a terminal")
		var tally simulate.Tally
		require.NoError(t, json.Unmarshal([]byte(out), &tally))
		require.Equal(t, 25, tally.Entities)
		require.Equal(t, tally.Events, tally.First)
		require.Equal(t, tally.Calls, tally.First+tally.Copies+tally.Resends+tally.Forged)
		require.Equal(t, map[int]int{200: tally.Calls - tally.Forged, 401: tally.Forged}, tally.Statuses)
		require.Equal(t, map[string]int{simulate.Accepted: tally.Events, simulate.Duplicate: tally.Copies + tally.Resends}, tally.Outcomes)
		for _, n := range []int{tally.Copies, tally.Resends, tally.Forged} {
			require.Positive(t, n)
		}
	})
	t.Run("for people", func(t *testing.T) {
		t.Parallel()
		_, end := startSimulate(t, url, "--secret", serveSecret, "--recordings=3")
		status, out, errs := end()
		require.Equal(t, exitOK, status, errs)
		require.Regexp(t, `played to the end +3 *\n`, out)
		require.Regexp(t, `not acknowledged +0 *\n`, out)
		require.Contains(t, out, "200 OK")
	})
	t.Run("a wrong secret ends it", func(t *testing.T) {
		t.Parallel()
		_, end := startSimulate(t, url, "--secret=wrong", "--recordings=1000")
		status, out, errs := end()
		require.Equal(t, exitFailed, status)
		require.Contains(t, out, "401 Unauthorized")
		require.NotContains(t, out, "200 OK")
		require.Contains(t, errs, "is the URL right, and the secret?")
	})
}

func TestSimulateInterrupted(t *testing.T) {
	t.Parallel()
	called := make(chan struct{}, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{} }))
	defer server.Close()
	cmd, end := startSimulate(t, "--url", server.URL, "--secret=x", "--recordings=100", "--rate=20", "--json")
	<-called
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	status, out, _ := end()
	require.Equal(t, exitFailed, status)
	var tally simulate.Tally
	require.NoError(t, json.Unmarshal([]byte(out), &tally), "the tally is printed all the same")
	require.Positive(t, tally.Calls)
	require.Less(t, tally.Entities, 100)
}

func TestSimulateWhereNobodyListens(t *testing.T) {
	t.Parallel()
	_, end := startSimulate(t, "--url=http://"+porttest.Free()+"/ncs", "--secret=x", "--recordings=1000")
	status, out, errs := end()
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, "no answer")
	require.Contains(t, errs, "is the URL right, and the secret?")
}
