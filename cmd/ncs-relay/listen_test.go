package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/porttest"
)

// heardCall is what a developer's service got.
type heardCall struct {
	head http.Header
	body string
}

// A developer's machine gets what a sink gets, body and headers, as long as it listens and over a restart of the relay; the sink
// gets it as ever.
func TestListenSendsWhatASinkGets(t *testing.T) {
	t.Parallel()
	service, other := startTeam(t), startTeam(t)
	r := newOperated(t, map[string]*team{"service": service, "other": other})
	calls := make(chan heardCall, 10)
	mine := listenAt(t, porttest.Free(), http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		calls <- heardCall{req.Header, string(b)}
	}))
	ctx, stop := context.WithCancel(t.Context())
	out, done := &lockedBuffer{}, make(chan int)
	go func() {
		done <- run(ctx, []string{"listen", "--forward-to", "http://" + mine + "/{event}", "--sink", "service", "--entity", "s1", "--admin", r.admin}, nil, out, out)
	}()
	r.eventually(func() bool { return strings.Contains(out.String(), "listening") }, "listening")
	require.Equal(t, "accepted", r.post(recording("s2", 1, 1)))
	require.Equal(t, "accepted", r.post(recording("s1", 1, 1)))
	call := <-calls
	require.Equal(t, string(recording("s1", 1, 1)), call.body)
	for name, want := range map[string]string{"Ncs-Relay-Event": "uploaded", "Ncs-Relay-Category": "uploader", "Ncs-Relay-Source": "recording",
		"Ncs-Relay-Entity": "s1", "Ncs-Relay-Attempt": "1", "Content-Type": "application/json"} {
		require.Equal(t, want, call.head.Get(name), name)
	}
	require.Len(t, call.head.Get("Agora-Signature-V2"), 64)
	secret := regexp.MustCompile(`secret of webhook-signature: (whsec_\S+)`).FindStringSubmatch(out.String())
	require.NotNil(t, secret, out.String())
	webhook, err := standardwebhooks.NewWebhook(secret[1])
	require.NoError(t, err)
	require.NoError(t, webhook.Verify([]byte(call.body), call.head))
	r.eventually(func() bool { return len(service.bodies()) == 2 }, "the sink gets its own")

	r.terminate()
	r.start()
	r.eventually(func() bool { return strings.Count(out.String(), "listening") == 2 }, "connected again: "+out.String())
	require.Equal(t, "accepted", r.post(recording("s1", 2, 1)))
	require.Equal(t, string(recording("s1", 2, 1)), (<-calls).body)
	stop()
	require.Equal(t, exitOK, <-done, out.String())
	r.terminate()
}

// Nobody listens in vain, nor in too great a number.
func TestListenUsage(t *testing.T) {
	t.Parallel()
	service := startTeam(t)
	r := newOperated(t, map[string]*team{"service": service})
	for args, want := range map[string]string{
		"":                                      "--forward-to is needed",
		"--forward-to ftp://x":                  `scheme "ftp"`,
		"--forward-to http://x --sink nobody":   `"nobody"`,
		"--forward-to http://x --event nothing": `unknown event "nothing"`,
	} {
		var out strings.Builder
		status := run(t.Context(), append([]string{"listen", "--admin", r.admin}, strings.Fields(args)...), nil, &out, &out)
		require.NotEqual(t, exitOK, status)
		require.Contains(t, out.String(), want)
	}
	for range 8 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.admin+"/api/v1/listen", nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	status, _, errs := r.ask("listen", "--forward-to", "http://localhost:1")
	require.Equal(t, exitFailed, status)
	require.Contains(t, errs, "as many listen already as may (8)")
	began := time.Now()
	r.terminate()
	require.Less(t, time.Since(began), 5*time.Second, "listeners hold up no shutdown")
}
