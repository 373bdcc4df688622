package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/deliver"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/porttest"
)

const httpSinkHead = `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%", token: canary-admin-token}
data_dir: %DIR%/data
journal: {min_free: 1MiB}
shutdown: {delay: 0s, timeout: 10s}
`

const httpSinkSource = `
sources:
  - {name: recording, path: /ncs, secrets: [` + serveSecret + `]}
`

// flakyReceiver fails 3 calls of 10 at random, in different ways, and keeps books of what it took.
type flakyReceiver struct {
	mu         sync.Mutex
	rng        *rand.Rand
	taken      map[string]map[int]int // sid, sequence: how often
	events     int                    // taken at least once
	copies     int                    // taken again
	lost       int                    // taken, and the answer was cut off
	calls      int
	overtaking []string
}

func (f *flakyReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var n struct {
		Payload struct {
			SID      string
			Sequence int
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	status, cut := f.judge(n.Payload.SID, n.Payload.Sequence)
	if cut {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
}

func (f *flakyReceiver) judge(sid string, sequence int) (status int, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	taken := f.taken[sid]
	if taken == nil {
		taken = map[int]int{}
		f.taken[sid] = taken
	}
	for earlier := range sequence {
		if taken[earlier] == 0 {
			f.overtaking = append(f.overtaking, fmt.Sprintf("%s: %d came before %d was taken", sid, sequence, earlier))
			break
		}
	}
	switch chance := f.rng.IntN(100); {
	case chance < 10:
		return http.StatusInternalServerError, false
	case chance < 20:
		return http.StatusBadGateway, false
	case chance < 25:
		return http.StatusForbidden, false
	case chance < 28:
		return 0, true // not taken, and no answer
	case chance < 30:
		f.lost++
		cut = true // taken, and no answer
	}
	if taken[sequence]++; taken[sequence] == 1 {
		f.events++
	} else {
		f.copies++
	}
	return http.StatusOK, cut
}

func (f *flakyReceiver) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events
}

var flakyRecordings = flag.Int("flaky.recordings", 20, "recordings of 50 events that are sent to a receiver that fails 30 % of the calls")

// TestFailingReceiverAcrossRestarts: events to a receiver that fails 30 % of the calls, with a kill -9 and a restart of
// the relay on the way: each at least once, in order per recording. 10,000 events:
//
//	go test ./cmd/ncs-relay -run TestFailingReceiver -flaky.recordings=200 -v
func TestFailingReceiverAcrossRestarts(t *testing.T) {
	t.Parallel()
	recordings, each := *flakyRecordings, 50
	far := &flakyReceiver{rng: rand.New(rand.NewPCG(1, 2)), taken: map[string]map[int]int{}}
	service := httptest.NewUnstartedServer(far)
	service.Start()
	defer service.Close()
	r := newRelay(t, httpSinkHead+httpSinkSource+`
sinks:
  - name: service
    http: {url: "`+service.URL+`", concurrency: 32}
    retry: {initial: 10ms, max_interval: 100ms}
routes: [{to: [service]}]
`)
	r.start()
	var posters sync.WaitGroup
	for p := range 8 {
		posters.Go(func() {
			for sequence := range each {
				for i := p; i < recordings; i += 8 {
					if !r.insist(recording(fmt.Sprintf("s%03d", i), sequence, 1)) {
						t.Error("never answered 200")
						return
					}
				}
			}
		})
	}
	all := recordings * each
	r.eventually(func() bool { return far.count() > all/4 }, "a quarter")
	r.kill()
	r.start()
	r.eventually(func() bool { return far.count() > all/2 }, "half")
	r.terminate()
	r.start()
	posters.Wait()
	require.Eventually(t, func() bool { return far.count() == all }, 3*time.Minute, 20*time.Millisecond, "not all came")
	r.terminate()
	require.Empty(t, far.overtaking)
	t.Logf("%d events, each at least once and in order, in %d calls; %d copies: %d after an answer that was cut off, %d after the restarts",
		far.events, far.calls, far.copies, far.lost, far.copies-far.lost)
}

// insist posts until the answer is 200, as long as a restart may take.
func (r *relayUnderTest) insist(body []byte) bool {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		req, err := http.NewRequest("POST", r.url, bytes.NewReader(body))
		if err != nil {
			return false
		}
		req.Header.Set("Agora-Signature-V2", signed(sha256.New, serveSecret, body))
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-r.t.Context().Done():
			return false
		}
	}
	return false
}

// misbehaviours are servers that make trouble after they have read a call.
var misbehaviours = map[string]func(net.Conn){
	"silent":        hold,
	"head-trickles": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX-"); trickle(c) },
	"body-trickles": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n"); trickle(c) },
	"body-promised": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 99\r\n\r\na"); hold(c) },
	"endless-1xx":   func(c net.Conn) { forever(c, []byte("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")) },
	"endless-head": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		forever(c, []byte("X-A: "+strings.Repeat("a", 4000)+"\r\n"))
	},
	"endless-body": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n")
		forever(c, bytes.Repeat([]byte("a"), 8000))
	},
	"compressed-bomb": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\n\r\n")
		forever(c, bomb())
	},
	"hangs-up":  func(net.Conn) {},
	"no-http":   func(c net.Conn) { io.WriteString(c, "SSH-2.0-x\r\n") },
	"redirects": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 307 No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n") },
	"switches": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		hold(c)
	},
	"retry-after-1000": func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 503 No\r\nRetry-After: 1000\r\nContent-Length: 0\r\n\r\n")
	},
}

func hold(c net.Conn) { io.Copy(io.Discard, c) }

func forever(c net.Conn, text []byte) {
	for _, err := c.Write(text); err == nil; _, err = c.Write(text) {
	}
}

// trickle sends a byte at a time for as long as somebody listens.
func trickle(c net.Conn) {
	for _, err := c.Write([]byte("a")); err == nil; _, err = c.Write([]byte("a")) {
		time.Sleep(20 * time.Millisecond) // is the fault, not a wait for something
	}
}

var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 8<<20))
	z.Close()
	return b.Bytes()
})

func misbehaving(t *testing.T, serve func(net.Conn, *http.Request)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if call, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.Copy(io.Discard, call.Body)
					serve(c, call)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// clockedReceiver notes when each event arrives.
type clockedReceiver struct{ arrived chan time.Time }

func (c *clockedReceiver) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	c.arrived <- time.Now()
}

// TestMisbehavingReceiversDisturbNoOther compares how long an event takes to a healthy receiver, beside others of its kind and beside
// receivers that misbehave in every way, and looks at the memory of the relay meanwhile.
//
// It is not parallel, because it measures.
func TestMisbehavingReceiversDisturbNoOther(t *testing.T) {
	events := 600
	if testing.Short() {
		events = 150
	}
	const timeout = 2 * time.Second
	healthy := &clockedReceiver{arrived: make(chan time.Time, events)}
	far := httptest.NewServer(healthy)
	defer far.Close()
	measure := func(sinks, to string) (took []time.Duration, before, after int) {
		r := newRelay(t, httpSinkHead+httpSinkSource+"sinks:\n  - {name: healthy, http: {url: \""+far.URL+"\"}}\n"+sinks+"routes: [{to: ["+to+"]}]\n")
		r.start()
		for i := range events {
			began := time.Now()
			require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i%50), i/50, 1)))
			select {
			case at := <-healthy.arrived:
				took = append(took, at.Sub(began))
			case <-time.After(30 * time.Second):
				require.Fail(t, "the healthy receiver waits")
			}
			if i == events/3 {
				before = r.memory()
			}
		}
		after = r.memory()
		r.terminate()
		slices.Sort(took)
		return took, before, after
	}
	// Both have as many sinks, because each costs the time of its own deliveries.
	others := func(address func(serve func(net.Conn)) string) (sinks, to string) {
		to = "healthy"
		for name, serve := range misbehaviours {
			sinks += fmt.Sprintf("  - {name: %s, http: {url: \"http://%s\", timeout: %s}, retry: {initial: 10ms, max_interval: 200ms}}\n", name, address(serve), timeout)
			to += ", " + name
		}
		return sinks, to
	}
	good := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	defer good.Close()
	reference, _, _ := measure(others(func(func(net.Conn)) string { return good.Listener.Addr().String() }))
	beside, before, after := measure(others(func(serve func(net.Conn)) string {
		return misbehaving(t, func(c net.Conn, _ *http.Request) { serve(c) })
	}))
	require.Less(t, beside[events/2], timeout, "an event that waits for another sink waits for its time-out")
	require.Less(t, after-before, 64<<10, "KiB of memory grown")
	t.Logf("to a healthy receiver beside %d others: median %s, p99 %s; when these misbehave: median %s (x%.2f), p99 %s; memory %d KiB after a third, %d KiB at the end",
		len(misbehaviours), reference[events/2], reference[events*99/100], beside[events/2], float64(beside[events/2])/float64(reference[events/2]), beside[events*99/100], before, after)
}

// memory is what the process holds, in KiB.
func (r *relayUnderTest) memory() (kib int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		r.t.Skip("needs /proc")
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	_, err = fmt.Sscan(rest, &kib)
	require.NoError(r.t, err)
	return kib
}

// TestNoSecretComesOut runs the program with a secret in every place that takes one, against receivers that repeat all they
// were sent, and looks for the secrets in all that comes out.
func TestNoSecretComesOut(t *testing.T) {
	t.Parallel()
	refused := &repeater{}
	far := httptest.NewServer(refused)
	defer far.Close()
	// chatty goes on after its answer, which net/http has words for.
	chatty := misbehaving(t, func(c net.Conn, call *http.Request) {
		io.WriteString(c, "HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n"+call.Header.Get("Authorization"))
	})
	collector := &receiver{}
	collectorAddress := porttest.Free()
	listenAt(t, collectorAddress, collector)
	r := newRelay(t, httpSinkHead+`
log: {level: debug, format: json}
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`, canary-source], secret_files: [%DIR%/canary]}
sinks:
  - name: bearer
    http:
      url: "`+far.URL+`/services/canary-path-token/{entity}?token=canary-query&e={event}&x=canary%2Fencoded"
      bearer_token: canary-bearer
      headers: {X-Key: 'canary-header"with quotes&+'}
      header_files: {X-Other: %DIR%/canary}
      standard_webhooks: {secrets: [whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5]}
    retry: {initial: 10ms, max_interval: 50ms, max_attempts: 3}
  - name: basic
    http:
      url: "`+far.URL+`/422"
      basic_auth: {username: relay, password_file: %DIR%/canary}
  - name: proxied
    http: {url: "http://billing.internal/", proxy: "http://user:canary-proxy@`+far.Listener.Addr().String()+`"}
    retry: {initial: 10ms, max_interval: 50ms, max_attempts: 3}
  - name: through
    http: {url: "http://billing.internal/422", bearer_token: canary-bearer}
  - name: tunnelled
    http: {url: "https://billing.internal/", bearer_token: canary-bearer}
    retry: {initial: 10ms, max_interval: 50ms, max_attempts: 3}
  - name: chatty
    http: {url: "http://`+chatty+`/", bearer_token: canary-bearer}
routes: [{to: [bearer, basic, proxied, through, tunnelled, chatty]}]
`)
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "canary"), []byte("canary-file\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "token"), []byte("canary-admin-token\n"), 0o600))
	proxy := "@" + far.Listener.Addr().String()
	r.environment = []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + collectorAddress, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "HTTP_PROXY=envuser:canary-plain" + proxy, "HTTPS_PROXY=http://envuser:canary-environment" + proxy,
	}
	r.start()
	for i := range 5 {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i), i, 1)))
	}
	get := func(path, token string) string {
		req, err := http.NewRequest("GET", r.admin+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return string(b)
	}
	sinks := []string{"bearer", "basic", "proxied", "through", "tunnelled", "chatty"}
	r.eventually(func() bool {
		return !slices.ContainsFunc(sinks, func(sink string) bool {
			return !strings.Contains(get("/metrics", ""), `ncs_relay_dead_letters{sink="`+sink+`"} 5`)
		})
	}, "dead letters")
	outputs := map[string]string{"metrics": get("/metrics", ""), "status": get("/api/v1/status", "canary-admin-token"), "refused": get("/api/v1/status", "canary-wrong")}
	token := filepath.Join(r.dir, "token")
	for _, command := range []string{
		"status", "status --json", "sinks list", "pending list --all", "deadletters list --all", "deadletters list --all --json", "deadletters show tunnelled 1",
		"deadletters show bearer 1 --json", "inspect --entity s0", "inspect --entity s0 --json", "replay list",
	} {
		outputs[command] = r.mustAsk(append(strings.Fields(command), "--token-file", token)...)
	}
	r.terminate()
	outputs["log"] = r.log.String()
	outputs["traces"] = strings.Join(collector.got(), "\n")
	commands := []string{"check -c " + r.config, "config schema", "journal verify -c " + r.config, "journal export -c " + r.config}
	for _, sink := range sinks {
		commands = append(commands, "sinks test "+sink+" -c "+r.config)
	}
	for _, command := range commands {
		cmd := exec.Command("ncs-relay", strings.Fields(command)...)
		cmd.Env = append(os.Environ(), r.environment...)
		out, _ := cmd.CombinedOutput()
		outputs[command] = string(out)
	}
	require.NoError(t, filepath.WalkDir(filepath.Join(r.dir, "data"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			if len(b) > 0 { // the lock is empty
				outputs[path] = string(b)
			}
		}
		return err
	}))

	require.True(t, refused.sawAll(), "the receivers were not sent the secrets, so that nothing is proven")
	require.Contains(t, outputs["log"], "403 Forbidden", "the answers were not shown, so that nothing is proven")
	require.Contains(t, outputs["log"], "the proxy answered 407", "the tunnel was not refused, so that nothing is proven")
	require.Contains(t, outputs["traces"], "service.name")
	require.Contains(t, outputs["inspect --entity s0"], "403 Forbidden")
	require.Contains(t, outputs["deadletters list --all"], "<secret>")
	for name, out := range outputs {
		require.NotEmpty(t, out, name)
		for _, secret := range []string{"canary", serveSecret, "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5", "cmVsYXk6Y2FuYXJ5", "dXNlcjpjYW5hcnk", "ZW52dXNlcjpj"} {
			out := strings.ReplaceAll(out, r.dir+"/canary", "") // the name of a file is no secret
			require.NotContains(t, out, secret, name)
		}
	}
}

// repeater refuses each call and repeats it, in several forms.
type repeater struct {
	mu   sync.Mutex
	seen string
}

func (f *repeater) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, password, _ := r.BasicAuth()
	said := []string{
		r.Header.Get("X-Key"), r.Header.Get("X-Other"), r.URL.Query().Get("token"), r.URL.Query().Get("x"), password, r.Header.Get("Authorization"),
		r.Header.Get("Proxy-Authorization"), r.RequestURI,
	}
	f.mu.Lock()
	f.seen += strings.Join(said, "\n")
	f.mu.Unlock()
	if r.Method == http.MethodConnect { // of such an answer net/http would show the words of its first line
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 407 %s\r\n\r\n", r.Header.Get("Proxy-Authorization"))
			conn.Close()
		}
		return
	}
	status := http.StatusForbidden
	if strings.Contains(r.URL.Path, "422") {
		status = http.StatusUnprocessableEntity
	}
	w.Header().Set("Location", r.RequestURI)
	w.WriteHeader(status)
	if rand.IntN(2) == 0 {
		slices.Reverse(said)
	}
	json.NewEncoder(w).Encode(said[0])
	for _, text := range said {
		fmt.Fprintf(w, "%s %q", text, text)
	}
}

func (f *repeater) sawAll() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !slices.ContainsFunc([]string{"canary-bearer", "canary-header", "canary-file", "canary-query", "canary-path-token", "dXNlcjpjYW5hcnk", "ZW52dXNlcjpj"},
		func(s string) bool { return !strings.Contains(f.seen, s) })
}

// statusReceiver answers as it is told to and notes when it was called.
type statusReceiver struct {
	mu     sync.Mutex
	answer func(call int) (status int, retryAfter string)
	calls  []time.Time
	taken  int
}

func (s *statusReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	status, after := s.answer(len(s.calls))
	s.calls = append(s.calls, time.Now())
	if after != "" {
		w.Header().Set("Retry-After", after)
	}
	if status == http.StatusOK {
		s.taken++
	}
	w.WriteHeader(status)
}

func (s *statusReceiver) set(answer func(call int) (int, string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *statusReceiver) seen() (calls []time.Time, taken int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls), s.taken
}

// TestGoneReceiverIsLeftAlone: after a 410 nothing is sent, also after a restart, until an operator resumes the sink. Nothing is
// given up, and nobody else waits.
func TestGoneReceiverIsLeftAlone(t *testing.T) {
	t.Parallel()
	gone := &statusReceiver{answer: func(int) (int, string) { return http.StatusGone, "" }}
	other := &statusReceiver{answer: func(int) (int, string) { return http.StatusOK, "" }}
	goneAt, otherAt := httptest.NewServer(gone), httptest.NewServer(other)
	defer goneAt.Close()
	defer otherAt.Close()
	r := newRelay(t, strings.Replace(httpSinkHead, ", token: canary-admin-token", "", 1)+httpSinkSource+`
sinks:
  - {name: gone, http: {url: "`+goneAt.URL+`"}, retry: {initial: 10ms, max_interval: 20ms}}
  - {name: other, http: {url: "`+otherAt.URL+`"}}
routes: [{to: [gone, other]}]
`)
	r.start()
	paused := func() bool { return strings.Contains(r.page(), `ncs_relay_sink_state{sink="gone",state="paused"} 1`) }
	require.Equal(t, "accepted", r.post(recording("s0", 1, 1)))
	r.eventually(paused, "not paused")
	require.Contains(t, r.mustAsk("sinks", "list"), "410 Gone")
	r.terminate()
	r.start()
	require.True(t, paused(), "the restart forgot the pause")
	for i := 1; i < 5; i++ {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i), 1, 1)))
	}
	r.eventually(func() bool { _, taken := other.seen(); return taken == 5 }, "others wait")
	calls, _ := gone.seen()
	require.Len(t, calls, 1)

	gone.set(func(int) (int, string) { return http.StatusOK, "" })
	r.mustAsk("sinks", "resume", "gone")
	r.eventually(func() bool { _, taken := gone.seen(); return taken == 5 }, "what was owed does not come")
	require.Contains(t, r.page(), `ncs_relay_dead_letters{sink="gone"} 0`)
	r.terminate()
}

// TestThrottlingReceiverPacesTheSink: the Retry-After of a 429 holds for other entities too. It measures the least time that may
// pass.
func TestThrottlingReceiverPacesTheSink(t *testing.T) {
	t.Parallel()
	far := &statusReceiver{answer: func(call int) (int, string) {
		if call == 0 {
			return http.StatusTooManyRequests, "2"
		}
		return http.StatusOK, ""
	}}
	service := httptest.NewServer(far)
	defer service.Close()
	r := newRelay(t, httpSinkHead+httpSinkSource+`
sinks:
  - {name: service, http: {url: "`+service.URL+`"}, retry: {initial: 10ms, max_interval: 20ms}}
routes: [{to: [service]}]
`)
	r.start()
	require.Equal(t, "accepted", r.post(recording("s0", 1, 1)))
	r.eventually(func() bool { calls, _ := far.seen(); return len(calls) == 1 }, "no call")
	r.eventually(func() bool { return strings.Contains(r.page(), `reason="throttled",sink="service"} 1`) }, "the answer was not read")
	for i := 1; i < 5; i++ {
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("s", i), 1, 1)))
	}
	r.eventually(func() bool { _, taken := far.seen(); return taken == 5 }, "not delivered")
	calls, _ := far.seen()
	require.GreaterOrEqual(t, calls[1].Sub(calls[0]), 1900*time.Millisecond, "another entity was sent meanwhile")
	r.terminate()
}

// TestABugInOneEventTypeDelaysNoOther: a receiver answers 500 to one event type and takes all others.
func TestABugInOneEventTypeDelaysNoOther(t *testing.T) {
	t.Parallel()
	far := startTeam(t)
	far.answers(func(body string) int {
		if strings.Contains(body, `"eventType":40,`) {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	r := newRelay(t, oneSource+`
sinks:
  - {name: service, http: {url: "http://`+far.address+`"}, retry: {initial: 100ms, max_interval: 30s}}
routes: [{to: [service]}]
`)
	r.start()
	require.Equal(t, "accepted", r.post(recording("first", 1, 1)))
	r.eventually(func() bool { return len(far.calls()) == 1 }, "not delivered")
	for i := range 9 {
		bad := bytes.Replace(recording(fmt.Sprint("bad", i), 1, 1), []byte(`"eventType":31,`), []byte(`"eventType":40,`), 1)
		require.Equal(t, "accepted", r.post(bad))
	}
	r.eventually(func() bool {
		return r.sinkStatus("service").Trouble != nil && r.sinkStatus("service").Trouble.Lanes == 9
	}, "not all have failed")
	require.Equal(t, "accepted", r.post(recording("second", 1, 1)))
	r.eventually(func() bool { return r.sinkStatus("service").State == deliver.StateRetrying }, "one is taken and others are not")
	var longest time.Duration
	for i := range 150 {
		posted := time.Now()
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("good", i), 1, 1)))
		require.Eventually(t, func() bool { return len(far.calls()) == 3+i }, 40*time.Second, time.Millisecond, "event %d is not delivered", i)
		longest = max(longest, far.calls()[2+i].at.Sub(posted))
		require.Equal(t, deliver.StateRetrying, r.sinkStatus("service").State, "it does not flap")
	}
	t.Logf("at most %s from the post to the receiver", longest)
	require.Less(t, longest, 2*time.Second)
	require.Len(t, askLines[gateway.Delivery](r, "pending", "list", "--sink", "service"), 9, "nothing is given up")
	r.terminate()
}
