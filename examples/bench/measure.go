package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// figures are what one measurement found, by name: "rate" is events a second, "cpu X" microseconds of process X an event,
// "p50", "p99" milliseconds; others say their unit.
type figures map[string]float64

// bench is what all measurements share.
type bench struct {
	settings
	dir      string
	binary   string
	clusters map[int]*cluster // by their number of brokers

	used   int // events made, so that each measurement has its own
	topics int
}

// cluster returns the one that has so many brokers, which may have to be started.
func (b *bench) cluster(ctx context.Context, brokers int) (*cluster, error) {
	if c := b.clusters[brokers]; c != nil {
		return c, nil
	}
	c, err := startCluster(ctx, filepath.Join(b.dir, fmt.Sprint("kafka-", brokers)), brokers)
	if c != nil {
		b.clusters[brokers] = c
	}
	return c, err
}

func (b *bench) end() {
	for _, c := range b.clusters {
		c.end()
	}
}

// fixture is one system under test with all that belongs to it.
type fixture struct {
	*bench
	dir   string
	kafka *cluster
	topic string
	sink  string              // YAML of where events go, if not to the topic
	pids  map[string][]int    // whose processor time is told
	out   func() (int, error) // events that reached the destination; nil: none is to
	relay *relay              // the first, which answers for all
	ends  []func()
	load  *load
}

func (f *fixture) end() {
	for i := len(f.ends) - 1; i >= 0; i-- {
		f.ends[i]()
	}
	_ = os.RemoveAll(f.dir)
}

func (b *bench) fixture(size, n int, copies bool) (*fixture, error) {
	dir, err := os.MkdirTemp(b.dir, "round")
	if err != nil {
		return nil, err
	}
	f := &fixture{bench: b, dir: dir, kafka: b.clusters[1], pids: map[string][]int{}}
	f.load = &load{connections: b.connections, calls: prepare(b.used, n, size, copies)}
	b.used += n
	return f, nil
}

// startRole adds a process of this program.
func (f *fixture) startRole(ctx context.Context, name string, args ...string) (address string, err error) {
	p, address, err := role(ctx, f.dir, name, args...)
	if p != nil {
		f.ends = append(f.ends, p.kill)
		f.pids[name] = []int{p.cmd.Process.Pid}
	}
	return address, err
}

// startRelay adds a relay.
func (f *fixture) startRelay(ctx context.Context, opts relayOptions) error {
	dir, err := os.MkdirTemp(f.dir, "relay")
	if err != nil {
		return err
	}
	r, err := newRelay(f.binary, dir, opts)
	if err != nil {
		return err
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	f.ends = append(f.ends, func() { r.kill() })
	f.load.addresses, f.pids["relay"] = append(f.load.addresses, r.address), append(f.pids["relay"], r.cmd.Process.Pid)
	if f.relay == nil {
		f.relay = r
	}
	return nil
}

// startTopic makes a topic, which the fixture's output counts.
func (f *fixture) startTopic(ctx context.Context) error {
	f.topics++
	f.topic = fmt.Sprint("bench-", f.topics)
	if _, err := f.kafka.admin.CreateTopic(ctx, 12, int16(len(f.kafka.brokers)), nil, f.topic); err != nil {
		return err
	}
	f.ends = append(f.ends, func() { _, _ = f.kafka.admin.DeleteTopics(context.WithoutCancel(ctx), f.topic) })
	f.pids["broker"] = f.kafka.brokers
	f.out = func() (n int, err error) {
		ends, err := f.kafka.admin.ListEndOffsets(ctx, f.topic)
		if err != nil {
			return 0, err
		}
		ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
		return n, ends.Error()
	}
	return nil
}

// A subject builds a system to be measured.
type subject func(ctx context.Context, f *fixture) error

func bareServer(ctx context.Context, f *fixture) error {
	address, err := f.startRole(ctx, "bare")
	f.load.addresses = []string{address}
	return err
}

// onThree builds on a cluster of three brokers.
func onThree(build subject) subject {
	return func(ctx context.Context, f *fixture) (err error) {
		if f.kafka, err = f.cluster(ctx, 3); err != nil {
			return err
		}
		return build(ctx, f)
	}
}

func relayOwing(opts relayOptions) subject {
	return func(ctx context.Context, f *fixture) error { return f.startRelay(ctx, opts) }
}

func relayToFile(ctx context.Context, f *fixture) error {
	err := f.startRelay(ctx, relayOptions{sink: "file: {path: out/events.jsonl, max_size: 10GiB}"})
	f.out = f.delivered
	return err
}

func (f *fixture) delivered() (int, error) {
	b, err := f.relay.books()
	if err != nil {
		return 0, err
	}
	n, _, err := b.sink()
	return n, err
}

func relayToHTTP(ctx context.Context, f *fixture) error {
	address, err := f.startRole(ctx, "receiver")
	if err != nil {
		return err
	}
	f.out = func() (int, error) {
		resp, err := http.Get("http://" + address + "/count")
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(string(text))
	}
	return f.startRelay(ctx, relayOptions{sink: fmt.Sprintf("http: {url: \"http://%s/\", concurrency: 64}", address)})
}

func relayToKafka(opts relayOptions) subject {
	return func(ctx context.Context, f *fixture) error {
		if err := f.startTopic(ctx); err != nil {
			return err
		}
		opts.sink = f.destination()
		return f.startRelay(ctx, opts)
	}
}

func (f *fixture) destination() string {
	return cmp.Or(f.sink, fmt.Sprintf("kafka: {brokers: %s, topic: %q}", f.kafka.list(), f.topic))
}

// relaysOnKafka have their journal, of six shards, on the cluster that they deliver to.
func relaysOnKafka(replicas int) subject {
	return func(ctx context.Context, f *fixture) error {
		if err := f.startTopic(ctx); err != nil {
			return err
		}
		brokers := len(f.kafka.brokers)
		for i := range replicas {
			err := f.startRelay(ctx, relayOptions{sink: f.destination(), journal: fmt.Sprintf("replica: bench-%d\n"+
				"journal:\n  kafka: {brokers: %s, cluster: bench, prefix: %q, create_topics: {shards: 6, replication: %d}, unsafe: %t}\n",
				i+1, f.kafka.list(), "journal-of-"+f.topic, brokers, brokers == 1)})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

func benthosToKafka(ctx context.Context, f *fixture) error {
	if err := f.startTopic(ctx); err != nil {
		return err
	}
	address, err := f.startRole(ctx, "benthos", f.kafka.addresses[0], f.topic)
	f.load.addresses = []string{address}
	return err
}

// meter notes what the processes have used at one moment.
type meter struct {
	at  time.Time
	own time.Duration
	cpu map[string]time.Duration
	out int
}

func (f *fixture) meter() (m meter, err error) {
	m = meter{cpu: map[string]time.Duration{}}
	for name, pids := range f.pids {
		if m.cpu[name], err = cpu(pids...); err != nil {
			return m, err
		}
	}
	if f.out != nil {
		if m.out, err = f.out(); err != nil {
			return m, err
		}
	}
	m.at, m.own = time.Now(), ownCPU()
	return m, nil
}

// run measures a subject under send, after a second for warming up. Where events go somewhere, the clock stops when the last
// of them is there: what was only taken and piled up counts for nothing.
func (f *fixture) run(ctx context.Context, warmUp, send func() (*answers, error)) (figures, error) {
	if _, err := warmUp(); err != nil {
		return nil, err
	}
	if err := f.settled(ctx); err != nil {
		return nil, err
	}
	before, err := f.meter()
	if err != nil {
		return nil, err
	}
	got, err := send()
	if err != nil {
		return nil, err
	}
	sent := time.Since(before.at)
	left, err := f.left(before, got.ok)
	if err != nil {
		return nil, err
	}
	if err := f.settled(ctx); err != nil {
		return nil, err
	}
	after, err := f.meter()
	if err != nil {
		return nil, err
	}
	n, took := float64(got.ok), after.at.Sub(before.at)
	if f.out == nil {
		took = sent
	} else if !f.load.calls.copies && after.out-before.out < got.ok {
		return nil, fmt.Errorf("%d events were answered 200 and %d arrived", got.ok, after.out-before.out)
	}
	found := figures{
		"rate": n / took.Seconds(), "rate in": n / sent.Seconds(), "left %": 100 * float64(left) / n,
		"p50": ms(got.percentile(50)), "p99": ms(got.percentile(99)), "p99.9": ms(got.percentile(99.9)),
		"cpu generator": us(after.own-before.own) / n,
	}
	for name := range f.pids {
		found["cpu "+name] = us(after.cpu[name]-before.cpu[name]) / n
	}
	if receiver, ok := found["cpu receiver"]; ok { // the rate if what it takes of the processors were left to relay and generator
		rest := found["cpu relay"] + found["cpu generator"]
		found["rate apart"] = found["rate"] * (rest + receiver) / rest
	}
	return found, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
func us(d time.Duration) float64 { return float64(d.Microseconds()) }

// left returns how much of n events has not arrived yet.
func (f *fixture) left(before meter, n int) (int, error) {
	if f.out == nil || f.load.calls.copies {
		return 0, nil
	}
	out, err := f.out()
	return max(0, n-(out-before.out)), err
}

// settled returns when all that was taken is delivered.
func (f *fixture) settled(ctx context.Context) error {
	if f.relay == nil || f.out == nil {
		return nil
	}
	return f.relay.drained(ctx, 5*time.Minute)
}

// full measures at full load, from as many connections as there are.
func (b *bench) full(size int, copies bool, build subject) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) {
		f, err := b.fixture(size, int(b.most(size)*(b.duration+time.Second).Seconds()), copies)
		if err != nil {
			return nil, err
		}
		defer f.end()
		if err := build(ctx, f); err != nil {
			return nil, err
		}
		return f.run(ctx,
			func() (*answers, error) { return f.load.closed(ctx, min(b.duration, time.Second)) },
			func() (*answers, error) { return f.load.closed(ctx, b.duration) })
	}
}

// most is more calls a second than anybody answers here.
func (b *bench) most(size int) float64 {
	if size > 10_000 {
		return 20_000
	}
	return 80_000
}

// steady measures at a rate. The latencies count from when a call was due.
func (b *bench) steady(rate func() float64, build subject) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) {
		rate := rate()
		if rate == 0 {
			return nil, fmt.Errorf("no rate known: measure e as well")
		}
		f, err := b.fixture(b.size, int(rate*(b.duration+2*time.Second).Seconds()), false)
		if err != nil {
			return nil, err
		}
		defer f.end()
		if err := build(ctx, f); err != nil {
			return nil, err
		}
		return f.run(ctx,
			func() (*answers, error) { return f.load.open(ctx, rate, time.Second) },
			func() (*answers, error) { return f.load.open(ctx, rate, b.duration) })
	}
}

// rest measures how long a lone event takes from its answer to its destination, of which build returns what waits for the next.
func (b *bench) rest(build func(context.Context, *fixture) (arrives func(context.Context) error, err error)) func(context.Context) (figures, error) {
	const first = 20 // not told: they find the topic, its partitions and the consumer's place in each
	return func(ctx context.Context) (figures, error) {
		f, err := b.fixture(b.size, b.lone+first, false)
		if err != nil {
			return nil, err
		}
		defer f.end()
		arrives, err := build(ctx, f)
		if err != nil {
			return nil, err
		}
		f.load.connections = 1
		all := &answers{}
		for i := range b.lone + first {
			if _, err := f.load.count(ctx, 1); err != nil {
				return nil, err
			}
			answered := time.Now()
			if err := arrives(ctx); err != nil {
				return nil, err
			}
			if i >= first {
				all.latencies = append(all.latencies, time.Since(answered))
			}
			time.Sleep(b.pause)
		}
		slices.Sort(all.latencies)
		return figures{"p50": ms(all.percentile(50)), "p99": ms(all.percentile(99))}, nil
	}
}

// toConsumer waits at a consumer of the topic.
func toConsumer(ctx context.Context, f *fixture) (func(context.Context) error, error) {
	if err := relayToKafka(relayOptions{})(ctx, f); err != nil {
		return nil, err
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(f.kafka.addresses...), kgo.ConsumeTopics(f.topic), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	f.ends = append(f.ends, consumer.Close)
	return func(ctx context.Context) error {
		fetches := consumer.PollFetches(ctx)
		return fetches.Err()
	}, nil
}

// toReceiver waits at an HTTP service, to which a subject delivers instead of its topic.
func toReceiver(build subject) func(context.Context, *fixture) (func(context.Context) error, error) {
	return func(ctx context.Context, f *fixture) (func(context.Context) error, error) {
		arrived := make(chan struct{}, f.load.calls.len())
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived <- struct{}{} }))
		f.ends = append(f.ends, receiver.Close)
		f.sink = fmt.Sprintf("http: {url: %q}", receiver.URL)
		return func(ctx context.Context) error {
			select {
			case <-arrived:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, build(ctx, f)
	}
}

// backlog measures a start with many undelivered events: when the first call is answered, and how fast they go.
func (b *bench) backlog(build subject) func(context.Context) (figures, error) {
	return func(ctx context.Context) (figures, error) {
		f, err := b.fixture(b.size, b.events+1, false)
		if err != nil {
			return nil, err
		}
		defer f.end()
		if err := build(ctx, f); err != nil {
			return nil, err
		}
		if err := f.relay.lever(ctx, "pause"); err != nil {
			return nil, err
		}
		if _, err := f.load.count(ctx, b.events); err != nil {
			return nil, err
		}
		f.relay.kill()
		begin := time.Now()
		if err := f.first(ctx); err != nil {
			return nil, err
		}
		first := time.Since(begin)
		if err := f.relay.lever(ctx, "resume"); err != nil {
			return nil, err
		}
		begin = time.Now()
		if err := f.relay.drained(ctx, 10*time.Minute); err != nil {
			return nil, err
		}
		took := time.Since(begin)
		out, err := f.out()
		if err != nil {
			return nil, err
		}
		if out < b.events {
			return nil, fmt.Errorf("%d events of %d arrived", out, b.events)
		}
		return figures{"first 200 ms": ms(first), "rate": float64(b.events) / took.Seconds()}, nil
	}
}

// first starts the relay again and returns when it has answered a call with 200.
func (f *fixture) first(ctx context.Context) error {
	p, err := spawn(ctx, filepath.Join(f.relay.dir, "relay.log"), nil, f.relay.binary, "serve", "-c", filepath.Join(f.relay.dir, "relay.yaml"))
	if err != nil {
		return err
	}
	f.relay.process = p
	request := f.load.calls.appendRequest(nil, f.events)
	return p.await(ctx, func() bool { return answered(f.relay.address, request) })
}

// keys measures what a known key costs in memory.
func (b *bench) keys(ctx context.Context) (figures, error) {
	f, err := b.fixture(b.size, b.events, false)
	if err != nil {
		return nil, err
	}
	defer f.end()
	if err := f.startRelay(ctx, relayOptions{}); err != nil {
		return nil, err
	}
	before, err := memory(f.relay.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	if _, err := f.load.count(ctx, b.events); err != nil {
		return nil, err
	}
	loaded, err := memory(f.relay.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	f.relay.kill()
	if err := f.relay.start(ctx); err != nil {
		return nil, err
	}
	time.Sleep(b.pause * 10) // for the keys, which are read while notifications are taken
	idle, err := memory(f.relay.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	n := float64(b.events)
	return figures{"empty MB": mb(before), "loaded MB": mb(loaded), "after a restart MB": mb(idle),
		"loaded B/key": float64(loaded-before) / n, "after a restart B/key": float64(idle-before) / n}, nil
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// answered reports whether a call is answered 200 now.
func answered(address string, request []byte) bool {
	status, err := callOnce(address, request)
	return err == nil && status == http.StatusOK
}
