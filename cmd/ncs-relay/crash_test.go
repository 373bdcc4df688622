package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/simulate"
)

var (
	crashFor   = flag.Duration("crash.for", time.Minute, "how long the crash test kills the relay, again and again")
	crashKills = flag.Int("crash.kills", 0, "how often the crash test kills the relay; 0 = as often as crash.for allows")
	crashSeed  = flag.Int64("crash.seed", 0, "of the crash test's random instants; 0 = from the clock, and logged")
	crashRate  = flag.Float64("crash.rate", 600, "calls a second in the crash test")
)

const (
	// repeatWindow is how long before a kill an event that is delivered again was delivered the first time, at most: the
	// checkpoint interval of 250 ms, and what a loaded machine may add to it until a checkpoint is on disk. What was
	// measured is logged and is what to look at; this bound only has to tell a late checkpoint from none.
	repeatWindow = 2500 * time.Millisecond

	// noticeLag is how late the books may notice an arrival, because the file and the topics are polled.
	noticeLag = 500 * time.Millisecond
)

// Nothing that was answered 200 may be lost, whatever the instant at which the process dies. The real program runs as a child, plays with NCS (copies, resends, retries, forged calls), a file, an HTTP service and a Kafka broker
// which all outlive it, and is killed with SIGKILL at random instants, also while it starts. The HTTP service and the broker
// refuse for a while now and then. The books are kept here. It takes a minute; a long run:
//
//	go test ./cmd/ncs-relay -run TestCrash -crash.kills=300 -timeout 30m -v
func TestCrashLosesNothing(t *testing.T) {
	t.Parallel()
	seed := *crashSeed
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("-crash.seed=%d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 0))

	h := newCrashHarness(t)
	load, stopLoad := context.WithCancel(t.Context())
	defer stopLoad()
	tally := h.play(load, seed)

	h.spawn()
	kills := 0
	for began := time.Now(); kills < *crashKills || (*crashKills == 0 && time.Since(began) < *crashFor); kills++ {
		h.service.trouble(rng)
		h.broker.trouble(rng)
		if rng.IntN(4) > 0 { // the others are killed at any instant of their start
			h.serving()
		}
		h.child.waitFor(time.Duration(rng.Int64N(int64(700 * time.Millisecond))))
		h.books.killed(h.child.kill())
		if rng.IntN(5) == 0 {
			h.verify()
		}
		h.spawn()
	}
	h.service.failing.Store(false)
	h.broker.failing.Store(false)
	h.ready()
	time.AfterFunc(300*time.Millisecond, stopLoad) // some load after the last kill as well
	sum := <-tally
	status := h.settled()
	h.awaitSinks(status)
	h.child.terminate()

	t.Logf("%d kills; %d calls, statuses %v, outcomes %v, %d events never acknowledged", kills, sum.Calls, sum.Statuses, sum.Outcomes, sum.Unacknowledged)
	require.Empty(t, sum.Wrong)
	for _, s := range status.Sinks {
		require.Zero(t, s.Dead+s.Skipped+s.Dropped, "%+v", s)
		require.Equal(t, s.Owed, s.Delivered, "%+v", s)
		if s.Name == relay.Unroutable {
			continue
		}
		v := h.books.judge(s.Name, repeatWindow, noticeLag)
		t.Logf("%s: %s", s.Name, v)
		require.Zero(t, v.faults(), "%s: %s", s.Name, v)
		require.NotZero(t, v.Acknowledged)
		require.EqualValues(t, s.Delivered, v.Events, "the relay's own account is right over all lives")
	}
}

// crashHarness is the relay as a child, and the world around it, which outlives it.
type crashHarness struct {
	*relayUnderTest
	books   *books
	service *shakyService
	broker  *shakyBroker
	archive *tail
	child   *crashChild
}

func newCrashHarness(t *testing.T) *crashHarness {
	h := &crashHarness{books: newBooks()}
	h.service = &shakyService{books: h.books}
	service := listenAt(t, "127.0.0.1:0", h.service)
	h.broker = startShakyBroker(t, h.books)
	h.relayUnderTest = newRelay(t, `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: %DIR%/data
journal: {min_free: 1MiB}
shutdown: {delay: 0s, timeout: 20s}
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - name: service
    http: {url: "http://`+service+`/hooks"}
    retry: {initial: 20ms, max_interval: 200ms}
  - name: kafka
    kafka: {brokers: ["`+h.broker.address()+`"], topic: "ncs.{product}.{category}"}
    retry: {initial: 20ms, max_interval: 200ms}
  - name: archive
    file: {path: %DIR%/events.jsonl}
routes:
  - to: [service, kafka, archive]
`)
	h.archive = startTail(t, h.books, filepath.Join(h.dir, "events.jsonl"))
	return h
}

// play sends until ctx ends and gives the tally then.
func (h *crashHarness) play(ctx context.Context, seed int64) <-chan simulate.Tally {
	// No connection is kept: each call meets the process of the moment, and several reach it at the same time.
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
	c := simulate.Config{
		Secret: serveSecret, Recordings: 1_000_000, Concurrency: 24, Rate: *crashRate,
		CopyRate: 0.2, ResendRate: 0.1, ShuffleRate: 0.1, BadSignatureRate: 0.02, FailoverRate: 0.1,
		Seed: seed, RetryInterval: 100 * time.Millisecond, OnAnswer: h.books.end,
		Send: func(ctx context.Context, body []byte, header http.Header) (int, []byte, error) {
			h.books.begin(body)
			return h.send(ctx, client, body, header)
		},
	}
	done := make(chan simulate.Tally, 1)
	go func() {
		sum, _ := simulate.Run(ctx, c, nil)
		client.CloseIdleConnections()
		done <- sum
	}()
	return done
}

func (h *crashHarness) send(ctx context.Context, client *http.Client, body []byte, header http.Header) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = header
	// Without this the transport makes a call again by itself when a kept connection breaks.
	req.GetBody = nil
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// spawn starts the relay. Ports of tests are borrowed: a client of somebody else may have taken ours between two lives.
func (h *crashHarness) spawn() {
	h.child = startCrashChild(h.t, h.config)
	h.t.Cleanup(h.child.end)
}

// serving waits until a call was answered 200 by the present life of the relay.
func (h *crashHarness) serving() {
	h.t.Helper()
	before := h.books.answered.Load()
	h.eventually(func() bool { return h.child.ended() || h.books.answered.Load() > before }, "no call answered")
}

// verify reads what a kill has left, and all of it must be sound.
func (h *crashHarness) verify() {
	h.t.Helper()
	segments, err := filepath.Glob(filepath.Join(h.dir, "data", "log", "*.seg"))
	require.NoError(h.t, err)
	if len(segments) == 0 {
		return // killed before there was a journal
	}
	out, err := exec.CommandContext(h.t.Context(), "ncs-relay", "journal", "verify", filepath.Join(h.dir, "data")).CombinedOutput()
	require.NoError(h.t, err, "%s", out)
}

// ready waits for the relay, and starts it again if somebody else had its port.
func (h *crashHarness) ready() {
	h.t.Helper()
	h.eventually(func() bool {
		if h.child.ended() {
			h.spawn()
			return false
		}
		resp, err := http.Get(h.admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, "never ready")
}

func (r *relayUnderTest) status() (status gateway.Status, err error) {
	resp, err := http.Get(r.admin + "/api/v1/status")
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	return status, json.NewDecoder(resp.Body).Decode(&status)
}

// settled waits until nothing is pending, and nothing can become so: a call whose caller has gone is still stored.
func (r *relayUnderTest) settled() (status gateway.Status) {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		var err error
		if status, err = r.status(); err != nil {
			return false
		}
		for _, s := range status.Sources {
			if s.InFlight > 0 {
				return false
			}
		}
		for _, s := range status.Sinks {
			if s.Pending > 0 {
				return false
			}
		}
		return true
	}, 2*time.Minute, 50*time.Millisecond, "deliveries stay pending: %+v", &status)
	return status
}

// awaitSinks waits until the polled sinks have been read to their ends: no sink has fewer events than it was delivered.
func (h *crashHarness) awaitSinks(status gateway.Status) {
	h.t.Helper()
	for _, s := range status.Sinks {
		h.eventually(func() bool { return s.Delivered <= uint64(h.books.distinct(s.Name)) }, "arrivals missing at "+s.Name)
	}
}

func (b *books) distinct(sink string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := make(map[[32]byte]bool)
	for _, a := range b.sinks[sink] {
		seen[a.body] = true
	}
	return len(seen)
}

// crashChild is one life of the relay.
type crashChild struct {
	t   *testing.T
	cmd *exec.Cmd
	log *lockedBuffer
	out chan struct{} // closed when it ended
	err error
}

// startCrashChild starts the relay, by way of another program if given.
func startCrashChild(t *testing.T, config string, by ...string) *crashChild {
	t.Helper()
	c := &crashChild{t: t, log: &lockedBuffer{}, out: make(chan struct{})}
	args := append(by, "ncs-relay", "serve", "-c", config)
	c.cmd = exec.Command(args[0], args[1:]...)
	c.cmd.Stderr = c.log
	require.NoError(t, c.cmd.Start())
	go func() {
		c.err = c.cmd.Wait()
		close(c.out)
	}()
	return c
}

// lockedBuffer can be read while the child writes.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// waitFor lets the relay live for a while. If it ends by itself it must be for a port that is taken.
func (c *crashChild) waitFor(d time.Duration) {
	c.t.Helper()
	select {
	case <-c.out:
		require.Contains(c.t, c.log.String(), "address already in use", "ended by itself: %v", c.err)
	case <-time.After(d):
	}
}

func (c *crashChild) ended() bool {
	select {
	case <-c.out:
		require.Contains(c.t, c.log.String(), "address already in use", "ended by itself: %v", c.err)
		return true
	default:
		return false
	}
}

// kill tells when nothing more could be done by the process.
func (c *crashChild) kill() time.Time {
	c.end()
	return time.Now()
}

func (c *crashChild) end() {
	c.cmd.Process.Kill() // an error says that it has ended
	<-c.out
}

func (c *crashChild) terminate() {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Process.Signal(os.Interrupt))
	<-c.out
	require.NoError(c.t, c.err, "log: %s", c.log)
}

// shakyService is the HTTP sink: it books what it takes, and refuses for a while when told to.
type shakyService struct {
	books   *books
	failing atomic.Bool
}

// trouble begins or ends a time of refusals, most often ends.
func (s *shakyService) trouble(rng *rand.Rand) { s.failing.Store(rng.IntN(4) == 0) }

func (s *shakyService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil: // the relay died in the middle
	case s.failing.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		s.books.arrived("service", "", body)
	}
}

// shakyBroker is the Kafka sink, and a consumer of its topics.
type shakyBroker struct {
	cluster *kfake.Cluster
	failing atomic.Bool
}

var errShaky = errors.New("the broker is down")

func startShakyBroker(t *testing.T, b *books) *shakyBroker {
	t.Helper()
	var topics []string
	for _, category := range []string{"service", "recorder", "uploader", "extension", "web_recorder", "transcoder", "download"} {
		topics = append(topics, "ncs.cloud_recording."+category)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, topics...))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	s := &shakyBroker{cluster: cluster}
	for _, kind := range []kmsg.Key{kmsg.Produce, kmsg.InitProducerID} {
		cluster.ControlKey(int16(kind), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			return nil, errShaky, s.failing.Load() // an error closes the connection
		})
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address()), kgo.DisableFetchSessions(), kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(100*time.Millisecond))
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			fetches := client.PollFetches(t.Context()) // ends before the clean-up
			if t.Context().Err() != nil {
				return
			}
			fetches.EachRecord(func(r *kgo.Record) { b.arrived("kafka", r.Topic, r.Value) })
		}
	})
	t.Cleanup(func() { wg.Wait(); client.Close() })
	return s
}

func (s *shakyBroker) address() string        { return s.cluster.ListenAddrs()[0] }
func (s *shakyBroker) trouble(rng *rand.Rand) { s.failing.Store(rng.IntN(4) == 0) }

// tail books the lines of the file sink as they are written.
type tail struct {
	books *books
	path  string
	at    int64
}

func startTail(t *testing.T, b *books, path string) *tail {
	s := &tail{books: b, path: path}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				s.read()
			case <-t.Context().Done():
				return
			}
		}
	}()
	t.Cleanup(func() { <-done })
	return s
}

// read books the whole lines that are new. What has no line end yet is read again: a torn line is cut off by the relay.
func (s *tail) read() {
	f, err := os.Open(s.path)
	if err != nil {
		return // not there yet
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, s.at, 64<<20))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			return
		}
		s.at += int64(len(line))
		var event struct{ Body string }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			event.Body = fmt.Sprintf("unreadable line: %s", line) // foreign to the books
		}
		s.books.arrived("archive", "", []byte(event.Body))
	}
}
