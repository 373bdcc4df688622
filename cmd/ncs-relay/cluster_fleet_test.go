package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/kafkatest"
	"ncs-relay/relay/porttest"
	"ncs-relay/relay/simulate"
)

// fleet are replicas as child processes that share a journal on a real Kafka, the load on them, and the books.
type fleet struct {
	t        *testing.T
	kafka    *kafkatest.Cluster
	prefix   string
	replaced []string // in all configurations, and by what
	dir      string
	books    *fleetBooks
	receiver string
	refusing atomic.Bool // sinks shaky and extra

	mu       sync.Mutex // guards replicas
	replicas []*replica
	turn     atomic.Uint64
	client   *http.Client

	stopLoad context.CancelFunc
	tally    <-chan simulate.Tally
}

// replica is one of a fleet, over all its lives.
type replica struct {
	f             *fleet
	name          string
	config        string
	listen, admin string
	log           string
	program       string   // "" = this one
	env           []string // besides this one's
	cmd           *exec.Cmd
	ended         chan struct{}
	err           error // once it has ended
	ready         atomic.Bool
	over          func() // of the trouble
}

// fleetTopic is what the sink kafka writes.
const fleetTopic = "out.cloud_recording"

// What the replica cutOff knows of Kafka goes through the proxy of a listener of its own.
const (
	cutOff      = "relay-1"
	cutListener = "CUT"
)

func startFleetKafka(t *testing.T) *kafkatest.Cluster {
	kafka := kafkatest.Start(t, kafkatest.Options{Brokers: 3, Listeners: []kafkatest.Listener{{Name: cutListener, Protocol: "PLAINTEXT", Proxied: true}}, Config: map[string]string{
		"min.insync.replicas":          "2",
		"broker.session.timeout.ms":    fmt.Sprint(clusterSession.Milliseconds()),
		"broker.heartbeat.interval.ms": "1000",
	}})
	kafka.CreateTopic(t, fleetTopic, 6, map[string]string{"message.timestamp.type": "LogAppendTime"})
	return kafka
}

func newFleet(t *testing.T, kafka *kafkatest.Cluster, prefix string) *fleet {
	f := &fleet{t: t, kafka: kafka, prefix: prefix, dir: t.TempDir(), books: newFleetBooks()}
	f.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 10 * time.Second}
	t.Cleanup(f.client.CloseIdleConnections)
	t.Cleanup(func() {
		for _, r := range f.all() {
			if t.Failed() {
				t.Logf("%s (alive %v):\n%s", r.name, r.alive(), r.tail())
			}
		}
	})
	f.receiver = listenAt(t, "127.0.0.1:0", http.HandlerFunc(f.receive))
	return f
}

func (f *fleet) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller has gone: it counts as nothing
	}
	sink := strings.TrimPrefix(r.URL.Path, "/")
	if replay := r.Header.Get("Ncs-Relay-Replay"); replay != "" {
		sink += ", replay " + replay
	}
	if (sink == "shaky" || sink == "extra") && f.refusing.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	f.books.arrived(sink, "", r.Header.Get("Ncs-Relay-Event-Id"), body, time.Now())
}

// add starts a replica and waits until it is ready.
func (f *fleet) add(name string) *replica {
	r := f.make(name)
	r.launch()
	r.untilReady()
	return r
}

func (f *fleet) make(name string) *replica {
	f.t.Helper()
	r := &replica{f: f, name: name, listen: porttest.Free(), admin: porttest.Free()}
	base := filepath.Join(f.dir, fmt.Sprintf("%s-%d", name, len(f.replicas)))
	r.config, r.log = base+".yaml", base+".log"
	r.configure()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replicas = append(f.replicas, r)
	return r
}

// configure writes the replica's configuration, with some text replaced by other text.
func (r *replica) configure(replaced ...string) {
	r.f.t.Helper()
	addresses := r.f.kafka.Addresses()
	if r.name == cutOff {
		addresses = r.f.kafka.AddressesOf(cutListener)
	}
	brokers := `["` + strings.Join(addresses, `","`) + `"]`
	require.NoError(r.f.t, os.WriteFile(r.config, []byte(strings.NewReplacer(append(replaced, r.f.replaced...)...).Replace(`
listen: "`+r.listen+`"
admin: {listen: "`+r.admin+`"}
replica: `+r.name+`
shutdown: {delay: 1s, timeout: 20s}
journal:
  kafka:
    brokers: `+brokers+`
    cluster: faults
    prefix: `+r.f.prefix+`
    create_topics: {shards: `+fmt.Sprint(fleetShards)+`, replication: 3}
  retention: 2h
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`], max_body: 2MiB}
sinks:
  - name: service
    http: {url: "http://`+r.f.receiver+`/service", concurrency: 48, timeout: 5s}
    retry: {initial: 50ms, max_interval: 1s}
  - name: shaky
    http: {url: "http://`+r.f.receiver+`/shaky", concurrency: 48, timeout: 5s}
    retry: {initial: 50ms, max_interval: 1s, max_age: 30m}
  - name: kafka
    kafka: {brokers: `+brokers+`, topic: "out.{product}"}
    retry: {initial: 50ms, max_interval: 1s}
routes:
  - to: [service, shaky, kafka]
`)), 0o600))
}

func (r *replica) launch() {
	r.f.t.Helper()
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(r.f.t, err)
	defer log.Close() // the process has its own
	r.cmd = exec.Command(cmp.Or(r.program, "ncs-relay"), "serve", "-c", r.config)
	r.cmd.Env = append(os.Environ(), r.env...)
	r.cmd.Stderr = log
	require.NoError(r.f.t, r.cmd.Start())
	cmd, ended := r.cmd, make(chan struct{})
	r.ended = ended
	go func() {
		r.err = cmd.Wait()
		close(ended)
	}()
	r.f.t.Cleanup(func() { cmd.Process.Kill(); <-ended })
}

func (r *replica) alive() bool {
	if r.cmd == nil {
		return false
	}
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

var quickClient = &http.Client{Timeout: 500 * time.Millisecond}

// look asks the replica whether it is ready.
func (r *replica) look() bool {
	resp, err := quickClient.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (r *replica) untilReady() {
	r.f.t.Helper()
	r.f.until(60*time.Second, r.name+" is never ready", func() bool {
		if !r.alive() {
			require.FailNow(r.f.t, r.name+" ended by itself", "%v\n%s", r.err, r.tail())
		}
		return r.look()
	})
}

// tail is the end of the log.
func (r *replica) tail() string {
	text, _ := os.ReadFile(r.log)
	lines := strings.Split(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

func (r *replica) signal(s syscall.Signal) {
	r.f.t.Helper()
	require.NoError(r.f.t, r.cmd.Process.Signal(s), r.name)
}

// kill ends the replica as a power cut would.
func (r *replica) kill() (shards []uint32) {
	r.f.t.Helper()
	require.True(r.f.t, r.alive(), "%s ended by itself: %v\n%s", r.name, r.err, r.tail())
	shards = r.trouble("replica killed")
	r.signal(syscall.SIGKILL)
	<-r.ended
	return shards
}

func (r *replica) freeze() (shards []uint32) {
	r.f.t.Helper()
	shards = r.f.owners()[r.name]
	r.over = r.f.books.frozen(r.name, shards)
	r.signal(syscall.SIGSTOP)
	return shards
}

func (r *replica) thaw() {
	r.f.t.Helper()
	r.signal(syscall.SIGCONT)
	r.over()
}

// trouble notes that something is done to the replica, until over.
func (r *replica) trouble(what string) []uint32 {
	shards := r.f.owners()[r.name] // nil if it is not known
	r.over = r.f.books.trouble(what, shards)
	return shards
}

// again starts a replica that was killed.
func (r *replica) again() {
	r.f.t.Helper()
	r.launch()
	r.untilReady()
	r.over()
}

// stop ends the replica as an orchestrator does, and it must end well.
func (r *replica) stop() {
	r.f.t.Helper()
	r.signal(syscall.SIGTERM)
	<-r.ended
	require.NoError(r.f.t, r.err, "%s\n%s", r.name, r.tail())
}

// timely reports whether it is asserted when something happens, and why. In the short form only what must hold on a machine that
// starves beside other tests is: nothing lost, in order, ids.
func timely() bool { return *clusterFaults || *clusterRun > 0 }

func (f *fleet) until(most time.Duration, otherwise string, done func() bool) {
	f.t.Helper()
	if !timely() {
		most *= 3
	}
	for deadline := time.Now().Add(most); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.FailNow(f.t, otherwise)
		}
	}
}

func (f *fleet) all() []*replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.replicas)
}

// fleetStatus is what a replica says of all.
type fleetStatus struct {
	Replicas []struct {
		Name   string
		Shards []uint32
	}
	Sinks []struct {
		Name    string
		Paused  string
		Pending uint64
		Dead    uint64
	}
	Unjudged   uint64
	Unsure     string `json:"unjudged_error"`
	Unanswered []struct{ Error string }
}

// status asks the replicas until one answers.
func (f *fleet) status() (s fleetStatus, ok bool) {
	for _, r := range f.all() {
		if !r.alive() || !r.ready.Load() {
			continue
		}
		if answer, err := f.call("GET", r, "/api/v1/status", ""); err == nil && json.Unmarshal(answer, &s) == nil {
			return s, true
		}
	}
	return s, false
}

// call asks the admin API of a replica.
func (f *fleet) call(method string, r *replica, path, body string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.admin+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return answer, err
}

func (f *fleet) owners() map[string][]uint32 {
	s, _ := f.status()
	owners := map[string][]uint32{}
	for _, r := range s.Replicas {
		owners[r.Name] = r.Shards
	}
	return owners
}

// shared waits until so many replicas have all shards, each about as many, and all answer for theirs.
func (f *fleet) shared(count int) map[string][]uint32 {
	f.t.Helper()
	owners := map[string][]uint32{}
	f.until(90*time.Second, fmt.Sprintf("the shards are not shared out among %d", count), func() bool {
		s, ok := f.status()
		clear(owners)
		sum := 0
		for _, r := range s.Replicas {
			owners[r.Name] = r.Shards
			sum += len(r.Shards)
			ok = ok && len(r.Shards) >= fleetShards/count
		}
		return ok && len(s.Unanswered) == 0 && len(owners) == count && sum == fleetShards
	})
	return owners
}

// play sends until rest.
func (f *fleet) play(seed int64, rate float64) {
	ctx, stop := context.WithCancel(f.t.Context())
	f.stopLoad = stop
	f.watch(ctx)
	c := simulate.Config{
		Secret: serveSecret, Recordings: 1_000_000, Concurrency: 40, Rate: rate,
		CopyRate: 0.2, ResendRate: 0.1, ShuffleRate: 0.1, BadSignatureRate: 0.02, FailoverRate: 0.1,
		Seed: seed, RetryInterval: 500 * time.Millisecond, OnAnswer: f.books.end, Send: f.send,
	}
	done := make(chan simulate.Tally, 1)
	f.tally = done
	go func() {
		sum, _ := simulate.Run(ctx, c, nil)
		done <- sum
	}()
}

// watch asks all replicas whether they are ready, ten times a second.
func (f *fleet) watch(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for ctx.Err() == nil {
			for _, r := range f.all() {
				go func() { r.ready.Store(r.look()) }()
			}
			<-tick.C
		}
	}()
}

// send makes a call to the next replica that says it is ready, as a balancer would. What a replica that dies leaves unanswered
// is for the sender to send again.
func (f *fleet) send(ctx context.Context, body []byte, header http.Header) (int, []byte, error) {
	f.books.begin(body)
	r := f.next()
	if r == nil {
		f.books.answered(fleetAnswer{time.Now(), "", http.StatusBadGateway, 0})
		return http.StatusBadGateway, nil, nil
	}
	f.books.goesTo(body, r.name)
	began := time.Now()
	status, answer, err := f.post(ctx, r, body, header)
	if ctx.Err() == nil {
		f.books.answered(fleetAnswer{time.Now(), r.name, status, time.Since(began)})
	}
	return status, answer, err
}

func (f *fleet) next() *replica {
	replicas := f.all()
	for range replicas {
		if r := replicas[f.turn.Add(1)%uint64(len(replicas))]; r.ready.Load() {
			return r
		}
	}
	return nil
}

func (f *fleet) post(ctx context.Context, r *replica, body []byte, header http.Header) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.listen+"/ncs", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header = header
	req.GetBody = nil // or the transport makes a call again by itself when a kept connection breaks
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// caughtUp waits until everything that was answered 200 until now has arrived.
func (f *fleet) caughtUp() {
	f.t.Helper()
	now := time.Now()
	f.until(90*time.Second, "what was answered does not arrive", func() bool {
		return f.books.missing("service", now) == 0 && f.books.missing("shaky", now) == 0
	})
}

// phase does something to the fleet under load, and logs what it cost. It ends when everything has arrived.
func (f *fleet) phase(name string, do func() (struck []uint32)) {
	f.t.Helper()
	began := time.Now()
	struck := do()
	f.caughtUp()
	f.t.Logf("%s, %.0f s: %s", name, time.Since(began).Seconds(), f.books.figures("service", began, time.Now(), struck))
}

// rest ends the load, and judges.
func (f *fleet) rest() {
	f.t.Helper()
	f.stopLoad()
	sum := <-f.tally
	f.caughtUp()
	live := slices.IndexFunc(f.all(), (*replica).look)
	require.NotEqual(f.t, -1, live, "no replica is ready")
	f.all()[live].ready.Store(true)
	f.until(60*time.Second, "something is still pending", func() bool {
		s, ok := f.status()
		for _, sink := range s.Sinks {
			ok = ok && sink.Pending == 0
		}
		return ok && s.Unjudged == 0 && s.Unsure == "" && len(s.Unanswered) == 0
	})
	for _, r := range f.kafka.Read(f.t, fleetTopic) {
		id := ""
		for _, h := range r.Headers {
			if h.Key == "ncs-event-id" {
				id = string(h.Value)
			}
		}
		f.books.arrived("kafka", fmt.Sprint(r.Partition), id, r.Value, r.Timestamp)
	}
	f.t.Logf("%d calls, statuses %v, %d events given up by their sender", sum.Calls, sum.Statuses, sum.Unacknowledged)
	for _, sink := range []string{"service", "shaky", "kafka"} {
		v := f.books.judge(sink)
		f.t.Logf("%s: %s", sink, v)
		faults := v.faults()
		if !timely() { // a replica may starve until its lease ends, which the books do not know
			faults -= len(v.Unexplained)
		}
		require.Zero(f.t, faults, sink)
		require.NotZero(f.t, v.Answered)
	}
}

// named returns the replica.
func (f *fleet) named(name string) *replica {
	all := f.all()
	return all[slices.IndexFunc(all, func(r *replica) bool { return r.name == name })]
}

// richest is a replica with most shards.
func (f *fleet) richest() *replica {
	owners := f.owners()
	names := slices.Collect(maps.Keys(owners))
	require.NotEmpty(f.t, names)
	return f.named(slices.MaxFunc(names, func(a, b string) int { return len(owners[a]) - len(owners[b]) }))
}
