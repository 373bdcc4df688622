package main

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// sinksTest runs ncs-relay sinks test with a sink of the given settings.
func sinksTest(t *testing.T, sink string, args ...string) (status int, out string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
  - {name: other, path: /other, secrets: [another-secret-for-tests]}
sinks:
  - {name: team, `+sink+`}
`), 0o600))
	var stdout, stderr strings.Builder
	status = run(t.Context(), append([]string{"sinks", "test", "-c", file}, args...), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String() + stderr.String()
}

func signed(h func() hash.Hash, secret string, body []byte) string {
	mac := hmac.New(h, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func TestSinksTestShowsAnHTTPExchange(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	var header http.Header
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		header = r.Header.Clone()
		verified := header.Get("Agora-Signature-V2") == signed(sha256.New, serveSecret, body) && header.Get("Agora-Signature") == signed(sha1.New, serveSecret, body)
		w.Header().Set("X-Echo", r.Header.Get("X-Key"))
		w.WriteHeader(status)
		fmt.Fprintf(w, "verified %v\n%s %s %s", verified, r.Header.Get("Authorization"), r.URL, r.Header.Get("X-Pin"))
	}))
	defer far.Close()
	sink := `http: {url: "` + far.URL + `/hooks/{entity}?token=canary-query", bearer_token: canary-bearer, headers: {X-Key: canary-key, X-Pin: "77"}}`

	code, out := sinksTest(t, sink, "team")
	require.Equal(t, exitOK, code, out)
	require.Equal(t, "true", header.Get("Ncs-Relay-Test"))
	for _, part := range []string{
		"event cloud_recording.uploaded ", "> POST " + far.URL + "/<secret>?<secret>\n", "> Authorization: <secret>\n", "> X-Key: <secret>\n", "> X-Pin: <secret>\n",
		"> Ncs-Relay-Test: true\n", `"fileList":[{"fileName":"xxx.mp4",`, "< HTTP/1.1 200 OK\n", "< X-Echo: <secret>\n", "< verified true\n", "\ndelivered\n",
	} {
		require.Contains(t, out, part)
	}
	require.NotContains(t, out, "canary")
	require.NotContains(t, out, serveSecret)

	for answer, says := range map[int]string{
		422: "it would become a dead letter: ", 410: "the sink would be paused", 503: "it would be tried again: ", 302: "redirects are not followed",
	} {
		status = answer
		code, out = sinksTest(t, sink, "team")
		require.Equal(t, exitFailed, code, out)
		require.Contains(t, out, says)
		require.NotContains(t, out, "canary")
	}
	status = 200
	_, out = sinksTest(t, sink, "team", "--source", "other")
	require.Contains(t, out, "< verified false\n", "signed with the other source's secret")
	far.Close()
	code, out = sinksTest(t, sink, "team")
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "connection refused")
}

func TestSinksTestMarksWhatItSends(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "events.jsonl")
	code, out := sinksTest(t, "file: {path: "+file+"}", "team", "--event", "rtc.channel_create")
	require.Equal(t, exitOK, code, out)
	line, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(line), `"test":true`)
	require.Contains(t, string(line), `"product":"rtc"`)
	require.Contains(t, out, `"payload":{"channelName":"`)

	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "ncs.cloud_recording"))
	require.NoError(t, err)
	defer cluster.Close()
	code, out = sinksTest(t, `kafka: {brokers: ["`+cluster.ListenAddrs()[0]+`"], topic: "ncs.{product}"}`, "team")
	require.Equal(t, exitOK, code, out)
	require.Regexp(t, `(?m)^> \{"noticeId":"[0-9a-f]{32}".*\n< topic ncs\.cloud_recording, partition [012]\ndelivered$`, out)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DisableFetchSessions(), kgo.ConsumeTopics("ncs.cloud_recording"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer client.Close()
	records := client.PollFetches(t.Context()).Records()
	require.Len(t, records, 1)
	require.Contains(t, records[0].Headers, kgo.RecordHeader{Key: "ncs-test", Value: []byte("true")})
}

func TestSinksTestUsage(t *testing.T) {
	t.Parallel()
	sink := "file: {path: events.jsonl}"
	for _, args := range [][]string{{}, {"nobody"}, {"team", "--event", "nonsense"}, {"team", "--event", "cloud_recording.unknown_9999"}, {"team", "--source", "nobody"}} {
		code, out := sinksTest(t, sink, args...)
		require.Equal(t, exitUsage, code, "%v: %s", args, out)
	}
}

func TestSinksTestSendsTheBodyOfAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, body := filepath.Join(dir, "events.jsonl"), filepath.Join(dir, "body.json")
	const text = `{"noticeId":"mine","productId":3,"eventType":34,"payload":{"sid":"s"}}`
	require.NoError(t, os.WriteFile(body, []byte(text), 0o600))
	code, out := sinksTest(t, "file: {path: "+file+"}", "team", "--body", body)
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "event cloud_recording.sts_expired ")
	require.Contains(t, out, "> "+text+"\n")
	code, out = sinksTest(t, "file: {path: "+file+"}", "team", "--body", body, "--event", "uploaded")
	require.Equal(t, exitUsage, code, out)
	require.NoError(t, os.WriteFile(body, []byte("no JSON"), 0o600))
	code, out = sinksTest(t, "file: {path: "+file+"}", "team", "--body", body)
	require.Equal(t, exitFailed, code, out)
	require.Contains(t, out, "the body is no notification: ")
	code, out = sinksTest(t, "file: {path: "+file+"}", "team", "--event", "sts_expired")
	require.Equal(t, exitUsage, code, out)
	require.Contains(t, out, "is not published, so there is no sample; --body FILE")
}
