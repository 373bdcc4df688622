package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/porttest"
)

// TestRestoredCopyOfAStoppedRelay: what the document on back-up says of a copy of data_dir, with the real program.
func TestRestoredCopyOfAStoppedRelay(t *testing.T) {
	t.Parallel()
	service := porttest.Free() // nobody is there yet
	r := newRelay(t, oneSource+`sinks:
  - name: service
    http: {url: "http://`+service+`/"}
    retry: {initial: 50ms, max_interval: 200ms}
routes: [{to: [service]}]
`)
	r.start()
	require.Equal(t, "accepted", r.post(recording("before", 1, 1)))
	r.terminate()
	data, copied := filepath.Join(r.dir, "data"), filepath.Join(r.dir, "copied")
	require.NoError(t, os.CopyFS(copied, os.DirFS(data)))

	first := &receiver{}
	listenAt(t, service, first)
	r.start()
	r.eventually(func() bool { return len(first.got()) == 1 }, "not delivered")
	require.Equal(t, "accepted", r.post(recording("since", 1, 1)))
	r.eventually(func() bool { return len(first.got()) == 2 }, "not delivered")
	r.terminate()

	require.NoError(t, os.Rename(data, filepath.Join(r.dir, "lost")))
	require.NoError(t, os.Rename(copied, data))
	out, err := exec.Command("ncs-relay", "journal", "verify", data).CombinedOutput()
	require.NoError(t, err, string(out))
	r.start()
	r.eventually(func() bool { return len(first.got()) == 3 }, "what was owed when the copy was made is delivered again")
	require.Equal(t, "duplicate", r.post(recording("before", 1, 2)), "is known")
	require.Equal(t, "accepted", r.post(recording("since", 1, 2)), "came after the copy")
	r.eventually(func() bool { return len(first.got()) == 4 }, "not delivered")
	r.terminate()
	require.Equal(t, first.got()[0], first.got()[2])
}

// TestTwoConfigurationsOfTheConsole: while two send the same events, with a secret and a notice id each, one of both is
// delivered where they send to one source, and both where each has a source of its own.
func TestTwoConfigurationsOfTheConsole(t *testing.T) {
	t.Parallel()
	r := newRelay(t, relayBase+`sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`, the-second-secret]}
  - {name: apart, path: /apart, secrets: [the-second-secret]}
sinks:
  - {name: archive, file: {path: %DIR%/events.jsonl}}
routes: [{to: [archive]}]
`)
	r.start()
	body := recording("s", 1, 1)
	require.Equal(t, "accepted", r.post(body))
	again := []byte(strings.Replace(string(body), `"noticeId":"n-s-1"`, `"noticeId":"another"`, 1))
	require.NotEqual(t, string(body), string(again))
	mac := hmac.New(sha256.New, []byte("the-second-secret"))
	mac.Write(again)
	delivered := func() int { return len(fileBodies(t, filepath.Join(r.dir, "events.jsonl"))) }
	for _, path := range []string{"/ncs?second", "/apart"} { // two URLs of one source differ in their query
		require.Equal(t, 200, r.request("POST", path, "Agora-Signature-V2", hex.EncodeToString(mac.Sum(nil)), again))
	}
	require.Equal(t, "1", r.metric(`ncs_relay_dedup_hits_total{kind="known",source="recording"}`))
	require.Equal(t, "0", r.metric(`ncs_relay_dedup_hits_total{kind="known",source="apart"}`))
	r.eventually(func() bool { return delivered() == 2 }, "one of each source")
	r.terminate()
}
