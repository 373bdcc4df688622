package main

import (
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

func trigger(t *testing.T, args ...string) (status int, out string) {
	t.Helper()
	var stdout, stderr strings.Builder
	status = run(t.Context(), append([]string{"trigger"}, args...), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String() + stderr.String()
}

func TestTriggerSendsWhatAgoraWould(t *testing.T) {
	t.Parallel()
	var ids []string
	status := http.StatusOK
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		n, err := ncs.Builtin().Parse(body)
		if err != nil || r.Header.Get("Agora-Signature-V2") != signed(sha256.New, "s3cret-for-tests", body) || !strings.Contains(string(body), `"fileList":[{`) {
			status = http.StatusTeapot
		} else {
			ids = append(ids, n.Identify("x").ID.String())
		}
		w.WriteHeader(status)
		io.WriteString(w, "{}")
	}))
	defer far.Close()
	for range 2 {
		code, out := trigger(t, "cloud_recording.uploaded", "--url", far.URL, "--secret", "s3cret-for-tests")
		require.Equal(t, exitOK, code, out)
		require.Contains(t, out, "\n< 200 {}\n")
	}
	require.Len(t, ids, 2)
	require.NotEqual(t, ids[0], ids[1], "two events")

	status = http.StatusNoContent
	code, out := trigger(t, "3-31-uploaded-individual", "--url", far.URL, "--secret", "s3cret-for-tests")
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, out, "Agora knows only 200")
}

// What is not published has no sample: the body of a file goes out as it stands, by either way.
func TestTriggerSendsTheBodyOfAFile(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 2)
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies <- string(b)
	}))
	defer far.Close()
	dir := t.TempDir()
	config, file := filepath.Join(dir, "relay.yaml"), filepath.Join(dir, "body.json")
	body := `{ "noticeId":"n","productId":3,"eventType":34,"payload":{"sid":"s","new":[1]}}`
	require.NoError(t, os.WriteFile(config, []byte("sources: [{name: a, path: /a, secrets: [s3cret-for-tests]}]\nsinks: [{name: team, http: {url: \""+far.URL+"\"}}]\n"), 0o600))
	require.NoError(t, os.WriteFile(file, []byte(body), 0o600))
	for _, args := range [][]string{{"--body", file, "--url", far.URL, "--secret", "s3cret-for-tests"}, {"--body", file, "--sink", "team", "-c", config}} {
		code, out := trigger(t, args...)
		require.Equal(t, exitOK, code, out)
		require.Equal(t, body, <-bodies)
	}
	for _, args := range [][]string{{"--url", far.URL}, {"uploaded", "--body", file, "--url", far.URL}} {
		code, out := trigger(t, args...)
		require.Equal(t, exitUsage, code, out)
		require.Contains(t, out, "one of EVENT and --body is needed")
	}
}

func TestTriggerThroughASinkIsNoTest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, file := filepath.Join(dir, "relay.yaml"), filepath.Join(dir, "events.jsonl")
	require.NoError(t, os.WriteFile(config, []byte("sources: [{name: a, path: /a, secrets: [s3cret-for-tests]}]\nsinks: [{name: team, file: {path: events.jsonl}}]\n"), 0o600))
	code, out := trigger(t, "recorder_leave", "--sink", "team", "-c", config)
	require.Equal(t, exitOK, code, out)
	line, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(line), `"event":"recorder_leave"`)
	require.NotContains(t, string(line), `"test"`)
}

func TestTriggerUsage(t *testing.T) {
	t.Parallel()
	for says, args := range map[string][]string{
		"one of --url and --sink is needed":        {"uploaded"},
		"one of --url and --sink":                  {"uploaded", "--url", "http://127.0.0.1:1", "--sink", "a"},
		"uploaded is an event of several products": {"uploaded", "--url", "http://127.0.0.1:1", "--secret", "s"},
		`unknown event "nonsense"`:                 {"nonsense", "--url", "http://127.0.0.1:1", "--secret", "s"},
		"--sink cannot be combined with a secret":  {"cloud_recording.uploaded", "--sink", "a", "--secret", "s"},
		"a secret is needed":                       {"cloud_recording.uploaded", "--url", "http://127.0.0.1:1"},
		"sts_expired is not published":             {"sts_expired", "--url", "http://127.0.0.1:1", "--secret", "s"},
	} {
		code, out := trigger(t, args...)
		require.Equal(t, exitUsage, code, out)
		require.Contains(t, out, says)
	}
}
