package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/porttest"
)

// The relay itself is a receiver that conforms; one that believes everybody is not, and the report says what to do.
func TestSimulateConformance(t *testing.T) {
	t.Parallel()
	r := newRelay(t, oneSource)
	r.start()
	ask := func(url string, more ...string) (int, string) {
		var out strings.Builder
		args := append([]string{"simulate", "--conformance", url, "--secret", serveSecret}, more...)
		return run(t.Context(), args, nil, &out, &out), out.String()
	}
	status, out := ask(r.url)
	require.Equal(t, exitOK, status, out)
	require.Contains(t, out, "ok    must    refuses what another secret signed")
	require.Contains(t, out, "0 musts and 0 shoulds failed")
	r.terminate()

	naive := "http://" + listenAt(t, porttest.Free(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }))
	status, out = ask(naive)
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, "FAIL  must    refuses what is not signed\n      rtc.channel_create")
	require.Contains(t, out, "do: check Agora-Signature-V2 over the raw bytes of the body")
	status, out = ask(naive, "--json")
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, `"must": true`)
	status, out = ask(naive, "--url", naive)
	require.Equal(t, exitUsage, status, out)
}
