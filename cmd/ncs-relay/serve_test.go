package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"ncs-relay/relay/porttest"
)

const serveSecret = "secret-for-tests"

// relayUnderTest is the real program as a child process.
type relayUnderTest struct {
	t           *testing.T
	dir         string
	config      string
	program     string
	url, admin  string
	environment []string
	cmd         *exec.Cmd
	log         *lockedBuffer
}

// relayBase is what the configurations of most tests begin with; newRelay fills in the places.
const relayBase = `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: %DIR%/data
journal: {min_free: 1MiB}
shutdown: {delay: 0s, timeout: 10s}
`

// oneSource adds the source that most tests post to.
const oneSource = relayBase + `sources:
  - {name: recording, path: /ncs, secrets: [` + serveSecret + `]}
`

// newRelay writes a configuration; %LISTEN%, %ADMIN% and %DIR% are filled in.
func newRelay(t *testing.T, config string) *relayUnderTest {
	t.Helper()
	r := &relayUnderTest{t: t, dir: t.TempDir(), program: "ncs-relay"}
	listen, admin := porttest.Free(), porttest.Free()
	r.url, r.admin = "http://"+listen+"/ncs", "http://"+admin
	r.config = filepath.Join(r.dir, "relay.yaml")
	text := strings.NewReplacer("%LISTEN%", listen, "%ADMIN%", admin, "%DIR%", r.dir).Replace(config)
	require.NoError(t, os.WriteFile(r.config, []byte(text), 0o600))
	return r
}

func (r *relayUnderTest) start() {
	r.t.Helper()
	r.launch()
	r.untilReady()
}

func (r *relayUnderTest) launch() {
	r.t.Helper()
	r.log = &lockedBuffer{}
	r.cmd = exec.Command(r.program, "serve", "-c", r.config)
	r.cmd.Stderr = r.log
	r.cmd.Env = append(os.Environ(), r.environment...)
	require.NoError(r.t, r.cmd.Start())
	cmd := r.cmd
	r.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

func (r *relayUnderTest) untilReady() {
	r.t.Helper()
	r.eventually(func() bool {
		resp, err := http.Get(r.admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, "never ready")
}

func (r *relayUnderTest) kill() {
	require.NoError(r.t, r.cmd.Process.Kill())
	r.cmd.Wait()
}

func (r *relayUnderTest) terminate() {
	r.t.Helper()
	require.NoError(r.t, r.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(r.t, r.cmd.Wait(), "log: %s", r.log)
}

func (r *relayUnderTest) eventually(done func() bool, otherwise string) {
	r.t.Helper()
	require.Eventually(r.t, done, 30*time.Second, 20*time.Millisecond, otherwise)
}

// post makes a call signed here, independently of the code under test, and gives what the answer says of it.
func (r *relayUnderTest) post(body []byte) string {
	r.t.Helper()
	mac := hmac.New(sha256.New, []byte(serveSecret))
	mac.Write(body)
	req, err := http.NewRequest("POST", r.url, bytes.NewReader(body))
	require.NoError(r.t, err)
	req.Header.Set("Agora-Signature-V2", hex.EncodeToString(mac.Sum(nil)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	var answer struct{ Status string }
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&answer))
	require.Equal(r.t, 200, resp.StatusCode)
	return answer.Status
}

func recording(sid string, sequence int, notifyMs int64) []byte {
	return fmt.Appendf(nil, `{"noticeId":"n-%[1]s-%[2]d","notifyMs":%[3]d,"eventType":31,"sid":"%[1]s","payload":{"serviceType":2,"uid":"1001","sequence":%[2]d,"sendts":1596555306257,"cname":"channel ü","details":{"msgName":"uploaded","status":0},"sid":"%[1]s"},"productId":3}`,
		sid, sequence, notifyMs)
}

// receiver keeps the bodies it took.
type receiver struct {
	mu     sync.Mutex
	bodies []string
}

func (s *receiver) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, string(b))
}

func (s *receiver) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.bodies...)
}

// listenAt serves h, and gives the address, which the system chooses where the port is 0.
func listenAt(t *testing.T, address string, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	server := &http.Server{Handler: h}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

func TestKilledRightAfterTheAnswerNothingIsLost(t *testing.T) {
	t.Parallel()
	service, kafka := porttest.Free(), porttest.Free() // nobody is there yet: the sinks are down
	r := newRelay(t, oneSource+`sinks:
  - name: service
    http: {url: "http://`+service+`/hooks"}
    retry: {initial: 50ms, max_interval: 500ms}
  - name: kafka
    kafka: {brokers: ["`+kafka+`"], topic: "ncs.{product}.{category}"}
    retry: {initial: 50ms, max_interval: 500ms}
  - name: archive
    file: {path: %DIR%/events.jsonl}
routes:
  - to: [service, kafka, archive]
`)
	r.start()
	var sent []string
	for i := range 25 {
		body := recording(fmt.Sprint("s", i%4), i, 1)
		sent = append(sent, string(body))
		require.Equal(t, "accepted", r.post(body))
	}
	r.kill()

	far := &receiver{}
	listenAt(t, service, far)
	var port int
	_, err := fmt.Sscanf(kafka[strings.LastIndexByte(kafka, ':')+1:], "%d", &port)
	require.NoError(t, err)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.SeedTopics(3, "ncs.cloud_recording.uploader"))
	require.NoError(t, err)
	defer cluster.Close()
	r.start()

	for i := range 25 {
		require.Equal(t, "duplicate", r.post(recording(fmt.Sprint("s", i%4), i, 2)), "sent again with another notifyMs")
	}
	r.eventually(func() bool { return len(far.got()) >= len(sent) }, "HTTP")
	require.ElementsMatch(t, sent, far.got())
	require.ElementsMatch(t, sent, consume(t, kafka, "ncs.cloud_recording.uploader", len(sent)))
	var lines []string
	r.eventually(func() bool {
		lines = fileBodies(t, filepath.Join(r.dir, "events.jsonl"))
		return len(lines) >= len(sent)
	}, "file")
	require.Subset(t, lines, sent)
	r.terminate()
}

func consume(t *testing.T, broker, topic string, n int) (values []string) {
	t.Helper()
	for _, r := range consumeRecords(t, broker, topic, n) {
		values = append(values, string(r.Value))
	}
	return values
}

func consumeRecords(t *testing.T, broker, topic string, n int) (records []*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DisableFetchSessions(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		records = append(records, fetches.Records()...)
	}
	return records
}

func fileBodies(t *testing.T, name string) (bodies []string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	for line := range bytes.Lines(b) {
		var l struct{ Body string }
		if json.Unmarshal(line, &l) == nil { // the last line may be half written at this moment
			bodies = append(bodies, l.Body)
		}
	}
	return bodies
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	r := newRelay(t, oneSource)
	r.start()
	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	elsewhere := filepath.Join(r.dir, "elsewhere.yaml")
	moved := strings.NewReplacer(r.address(), porttest.Free(), strings.TrimPrefix(r.admin, "http://"), porttest.Free()).Replace(string(text))
	require.NoError(t, os.WriteFile(elsewhere, []byte(moved), 0o600))
	for config, says := range map[string]string{r.config: "listen tcp " + r.address() + ": bind: address already in use", elsewhere: "in use by another process"} {
		out, err := exec.Command("ncs-relay", "serve", "-c", config).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, exitFailed, exit.ExitCode())
		require.Contains(t, string(out), says)
	}
	require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
	r.terminate()
}

func TestSinkThatCannotBeBuiltIsAnErrorAtStart(t *testing.T) {
	t.Parallel()
	r := newRelay(t, `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: %DIR%/data
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - name: archive
    file: {path: %DIR%}
`)
	out, err := exec.Command("ncs-relay", "serve", "-c", r.config).CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, exitFailed, exit.ExitCode())
	require.Contains(t, string(out), "sink archive")
}

func TestTracesLeaveOnlyWhenAskedFor(t *testing.T) {
	t.Parallel()
	collector := &receiver{}
	address := porttest.Free()
	listenAt(t, address, collector)
	far := &headerReceiver{}
	service := porttest.Free()
	listenAt(t, service, far)
	for _, environment := range [][]string{nil, {"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + address, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_METRICS_EXPORTER=none"}} {
		r := newRelay(t, oneSource+`sinks:
  - {name: service, http: {url: "http://`+service+`/"}}
routes: [{to: [service]}]
`)
		r.environment = environment
		r.start()
		require.Equal(t, "accepted", r.post(recording("s", 1, 1)))
		r.eventually(func() bool { return far.last() != nil }, "delivery")
		header := far.take()
		r.terminate()
		if environment == nil {
			require.Empty(t, header.Get("Traceparent"))
			require.Empty(t, collector.got())
		} else {
			require.Contains(t, header.Get("Traceparent"), "00-"+header.Get("Ncs-Relay-Event-Id")+"-", "the trace id is the event id")
			spans := strings.Join(collector.got(), "")
			require.Contains(t, spans, "ncs-relay")
			require.Contains(t, spans, "/ncs", "the span of the call")
			require.Contains(t, spans, "service", "the span of the delivery")
		}
	}
}

// headerReceiver keeps the headers of the last call.
type headerReceiver struct {
	mu     sync.Mutex
	header http.Header
}

func (s *headerReceiver) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header = r.Header.Clone()
}

func (s *headerReceiver) last() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.header
}

func (s *headerReceiver) take() http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.header
	s.header = nil
	return h
}
