package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/porttest"
)

// fakeKafka is a broker in the process, and its address.
func fakeKafka(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, string) {
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster, cluster.ListenAddrs()[0]
}

// TestEverySinkThatFailsSaysSo has each kind of sink fail in the ways that wake people up, and holds status, sinks list, the
// API and the metrics against each other.
func TestEverySinkThatFailsSaysSo(t *testing.T) {
	t.Parallel()
	fine, broken, refuses, partly := startTeam(t), startTeam(t), startTeam(t), startTeam(t)
	broken.answers(always(http.StatusBadGateway))
	refuses.answers(always(http.StatusUnprocessableEntity))
	partly.answers(func(body string) int {
		if strings.Contains(body, `"sid":"bad"`) {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	_, empty := fakeKafka(t)
	locked, lockedAt := fakeKafka(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "relay", "right-password"))
	locked.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		locked.KeepControl()
		no := r.ResponseKind().(*kmsg.SASLAuthenticateResponse) // as Apache Kafka says it; this one would hang up
		no.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return no, nil, true
	})
	r := newRelay(t, oneSource+`
sinks:
  - {name: fine, owner: fine-team, http: {url: "http://`+fine.address+`"}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: broken, owner: media-team, http: {url: "http://`+broken.address+`"}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: refuses, http: {url: "http://`+refuses.address+`"}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: partly, http: {url: "http://`+partly.address+`"}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: gone, http: {url: "http://`+porttest.Free()+`"}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: kafka-down, owner: data-team, kafka: {brokers: ["`+porttest.Free()+`"], topic: t}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: kafka-locked, kafka: {brokers: ["`+lockedAt+`"], topic: t, sasl: {mechanism: scram-sha-256, username: relay, password: wrong-password}}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: kafka-topic, kafka: {brokers: ["`+empty+`"], topic: missing}, retry: {initial: 50ms, max_interval: 200ms}}
  - {name: archive, file: {path: %DIR%/archive.jsonl}, retry: {initial: 50ms, max_interval: 200ms}}
routes: [{to: [fine, broken, refuses, partly, gone, kafka-down, kafka-locked, kafka-topic, archive]}]
`)
	require.NoError(t, os.Symlink(filepath.Join(r.dir, "no-volume", "archive.jsonl"), filepath.Join(r.dir, "archive.jsonl")))
	r.start()
	for _, s := range askLines[gateway.SinkStatus](r, "sinks", "list") {
		if s.Name != relay.Unroutable {
			require.Equal(t, deliver.StateDelivering, s.State, s.Name)
		}
	}
	require.Equal(t, "accepted", r.post(recording("bad", 1, 1)))
	for i := range 10 {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i), 1, 1)))
	}

	type want struct{ reason, text, owner string }
	failing := map[string]want{
		"broken":       {"5xx", "answered 502 Bad Gateway", "media-team"},
		"refuses":      {"4xx", "answered 422 Unprocessable Entity", ""},
		"gone":         {"connection", "connection refused", ""},
		"kafka-down":   {"connection", "connection refused", "data-team"},
		"kafka-locked": {"auth", "SASL", ""},
		"kafka-topic":  {"broker", "topic missing does not exist", ""},
		"archive":      {"disk", "no such file or directory", ""},
	}
	for name, want := range failing {
		r.eventually(func() bool {
			s := r.sinkStatus(name)
			return s.State == deliver.StateFailing && string(s.Trouble.Reason) == want.reason
		}, name+" does not say that it fails")
		s := r.sinkStatus(name)
		require.Contains(t, s.Trouble.Error, want.text)
		require.Equal(t, want.owner, s.Owner)
		require.WithinRange(t, s.Trouble.Since, time.Now().Add(-time.Minute), s.Trouble.At)
	}
	r.eventually(func() bool { return r.sinkStatus("partly").State == deliver.StateRetrying }, "one entity fails, others are taken")
	require.Equal(t, 1, r.sinkStatus("partly").Trouble.Lanes)
	require.Equal(t, deliver.StateDelivering, r.sinkStatus("fine").State)
	require.Equal(t, deliver.StateQuarantine, r.sinkStatus(relay.Unroutable).State)

	text, list, page := r.mustAsk("status"), r.mustAsk("sinks", "list"), r.page()
	t.Logf("\n%s\n%s", text, list)
	for name, want := range failing {
		for _, out := range []string{text, list} {
			require.Regexp(t, `(?m)^`+name+` .* failing since \d+s \(`+want.reason+`\)$`, out)
			require.Regexp(t, `(?m)^`+name+`: last error \d+s ago: .*`+want.text, out, "in full words")
			require.Contains(t, out, "\n  owner: "+want.owner)
		}
		require.Regexp(t, `(?m)^`+name+` +`+regexp.QuoteMeta(dash(want.owner))+` `, list)
		require.Contains(t, page, `ncs_relay_sink_state{sink="`+name+`",state="failing"} 1`)
		require.Contains(t, page, `ncs_relay_sink_state{sink="`+name+`",state="delivering"} 0`)
		require.Regexp(t, `ncs_relay_sink_failing_seconds\{owner="`+want.owner+`",reason="`+want.reason+`",sink="`+name+`"\} [0-9.e-]+\n`, page)
	}
	for _, out := range []string{text, list} {
		require.Regexp(t, `(?m)^partly .* retrying since \d+s \(5xx\)$`, out)
		require.Contains(t, out, "1 lanes wait for a retry; others are taken")
		require.Regexp(t, `(?m)^fine .* delivering$`, out)
		require.Regexp(t, `(?m)^unroutable .* quarantine$`, out)
	}
	require.Contains(t, page, `ncs_relay_sink_state{sink="partly",state="retrying"} 1`)
	require.Contains(t, page, `ncs_relay_sink_failing_seconds{owner="fine-team",reason="",sink="fine"} 0`)
	require.Regexp(t, `(?m)^ *11 +refuses +cloud_recording\.uploaded +4xx +\d+s +\d+s +\S+ answered 422 Unprocessable Entity$`, text, "grouped by event and reason")

	// In a pipe no error is cut.
	pending := askLines[gateway.Delivery](r, "pending", "list", "--sink", "kafka-topic")
	require.NotEmpty(t, pending)
	require.Contains(t, r.mustAsk("pending", "list", "--sink", "kafka-topic"), pending[0].LastError)
	require.Greater(t, len(pending[0].LastError), 80, "longer than a cell: %s", pending[0].LastError)

	// It is known after a restart, before anything is tried again.
	r.terminate()
	r.start()
	require.Equal(t, deliver.StateFailing, r.sinkStatus("kafka-down").State)
	broken.answers(always(http.StatusOK))
	r.eventually(func() bool { return r.sinkStatus("broken").State == deliver.StateDelivering }, "it is mended")
	require.Nil(t, r.sinkStatus("broken").Trouble)
	require.NotContains(t, r.mustAsk("status"), "\nbroken: last error")
	r.terminate()
}
