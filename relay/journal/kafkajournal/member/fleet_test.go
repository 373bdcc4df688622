package member

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ncs-relay/relay/kafkaconn"
)

func TestMain(m *testing.M) {
	if actAsChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	patience = 60 * time.Second      // for what must happen at some time
	glance   = 2 * time.Millisecond  // how often the books look at a replica
	proof    = 20 * time.Millisecond // how often they note that nothing has changed
)

// fleet is a set of replicas, all of one group, and the books over who may act on what.
type fleet struct {
	brokers []string
	group   string
	shards  int32
	session time.Duration
	books   *books
	t       *testing.T
	logs    io.Writer

	mu      sync.Mutex
	spawned int
}

func newFleet(t *testing.T, brokers []string, group string, session time.Duration) *fleet {
	f := &fleet{brokers: brokers, group: group, shards: 24, session: session, books: new(books), t: t, logs: t.Output()}
	t.Cleanup(func() { f.books.check(t) }) // after all replicas have ended: those are cleaned up first
	return f
}

func (f *fleet) options(name, start string) Options {
	return Options{Group: f.group, Topic: topic, Shards: f.shards, Name: name, Start: start, Admin: start + ".example:9464", Version: "1", Session: f.session,
		Logger: slog.New(slog.NewTextHandler(f.logs, nil)).With("replica", name, "start", start)}
}

const topic = "ncs.inbox"

// replica is a member, and what a journal does about its shards.
type relayReplica struct {
	*Member
	way  *way
	end  context.CancelFunc
	done chan struct{}
	err  error // of Run, when done is closed

	stopBooks func() // the replica is not looked at any more
}

func (f *fleet) start(name string, change ...func(*Options)) *relayReplica {
	start := name + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	o := f.options(name, start)
	cluster := kafkaconn.New(kafkaconn.Config{Brokers: f.brokers, ClientID: start})
	r := &relayReplica{way: newWay(cluster), done: make(chan struct{})}
	o.Brokers = r.way
	for _, c := range change {
		c(&o)
	}
	r.Member = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	books, stopBooks := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { giveUpAtOnce(books, r.Member) })
	following.Go(func() { watch(books, r.Member, f.books.of(start)) })
	r.stopBooks = func() { stopBooks(); following.Wait() }
	go func() {
		defer close(r.done)
		r.err = r.Run(ctx)
	}()
	f.t.Cleanup(func() {
		cancel()
		<-r.done
		r.stopBooks()
		cluster.Close()
	})
	return r
}

// crash ends the replica without a word to anybody.
func (r *relayReplica) crash() {
	r.stopBooks()
	r.way.kill()
	r.end()
}

// stop ends the replica in order.
func (r *relayReplica) stop(t *testing.T) {
	t.Helper()
	r.end()
	r.await(t)
	require.NoError(t, r.err)
}

// await returns when the replica has ended.
func (r *relayReplica) await(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatal("the replica does not end")
	}
}

// giveUpAtOnce does what a journal does: it releases what was taken away.
func giveUpAtOnce(ctx context.Context, m *Member) {
	var had []int32
	for {
		owned, changed := m.Owned()
		for _, shard := range had {
			if !slices.Contains(owned, shard) {
				m.Released(shard)
			}
		}
		had = owned
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// watch notes, again and again, on what the replica may act: "<time> <shards>".
func watch(ctx context.Context, m *Member, w io.Writer) {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	last, noted := "", time.Time{}
	for ended := false; ; {
		owned := owned(m)
		if m.Lease() <= 0 {
			owned = nil
		}
		now := time.Now()
		if line := join(owned); line != last || now.Sub(noted) >= proof {
			fmt.Fprintf(w, "%d %s\n", now.UnixNano(), line)
			last, noted = line, now
		}
		if ended {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ended = true // after a last look
		}
	}
}

func join(shards []int32) string {
	words := make([]string, len(shards))
	for i, shard := range shards {
		words[i] = strconv.Itoa(int(shard))
	}
	return strings.Join(words, ",")
}

// books are kept outside the replicas: for each of their lives, when it might act on what.
type books struct {
	mu    sync.Mutex
	lives map[string]*strings.Builder
}

// life takes the notes of one process.
type life struct {
	b     *books
	start string
}

func (b *books) of(start string) life { return life{b, start} }

func (l life) Write(p []byte) (int, error) {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if l.b.lives == nil {
		l.b.lives = make(map[string]*strings.Builder)
	}
	if l.b.lives[l.start] == nil {
		l.b.lives[l.start] = new(strings.Builder)
	}
	return l.b.lives[l.start].Write(p)
}

// hold is a time in which one process might act on a shard: from the first note that says so to the last one in a row.
type hold struct {
	start    string
	from, to int64
}

// holds returns, by shard, who might act on it when.
func (b *books) holds(t *testing.T) map[int32][]hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[int32][]hold)
	for start, notes := range b.lives {
		running := make(map[int32]*hold)
		scanner := bufio.NewScanner(strings.NewReader(notes.String()))
		for scanner.Scan() {
			stamp, list, _ := strings.Cut(scanner.Text(), " ")
			at, err := strconv.ParseInt(stamp, 10, 64)
			require.NoError(t, err)
			now := make(map[int32]*hold)
			for word := range strings.SplitSeq(list, ",") {
				if word == "" {
					continue
				}
				shard, err := strconv.ParseInt(word, 10, 32)
				require.NoError(t, err)
				h := running[int32(shard)]
				if h == nil {
					h = &hold{start: start, from: at}
				}
				h.to = at
				now[int32(shard)] = h
			}
			for shard, h := range running {
				if now[shard] == nil {
					all[shard] = append(all[shard], *h)
				}
			}
			running = now
		}
		for shard, h := range running {
			all[shard] = append(all[shard], *h)
		}
	}
	return all
}

// check: at no instant might two act on one shard.
func (b *books) check(t *testing.T) {
	total := 0
	for shard, holds := range b.holds(t) {
		slices.SortFunc(holds, func(a, b hold) int { return int(a.from - b.from) })
		for i := 1; i < len(holds); i++ {
			require.LessOrEqual(t, holds[i-1].to, holds[i].from, "shard %d: %s might act on it until %s after %s might",
				shard, holds[i-1].start, time.Duration(holds[i-1].to-holds[i].from), holds[i].start)
			holds[i].to = max(holds[i].to, holds[i-1].to)
		}
		total += len(holds)
	}
	require.NotZero(t, total, "nobody ever had a shard")
}

// gap is the longest time in which a replica that is alive might not act on a shard that it had before and after, since a moment.
func (b *books) gap(t *testing.T, start string, since time.Time) (longest time.Duration) {
	for _, holds := range b.holds(t) {
		slices.SortFunc(holds, func(a, b hold) int { return int(a.from - b.from) })
		var last *hold
		for _, h := range holds {
			if h.start != start || h.to < since.UnixNano() {
				continue
			}
			if last != nil {
				longest = max(longest, time.Duration(h.from-last.to))
			}
			last = &h
		}
	}
	return longest
}

// way leads to the brokers, and can be blocked: then no request goes out, and no answer comes in.
type way struct {
	Brokers
	before func(protocol.Message) // called before a request goes out; may be nil

	mu   sync.Mutex
	open chan struct{} // closed = open
	dead chan struct{} // closed = for ever blocked
}

func newWay(b Brokers) *way {
	w := &way{Brokers: b, open: make(chan struct{}), dead: make(chan struct{})}
	close(w.open)
	return w
}

func (w *way) block() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = make(chan struct{})
}

func (w *way) unblock() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.open)
}

func (w *way) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.dead:
	default:
		close(w.dead)
	}
}

func (w *way) pass(ctx context.Context) error {
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	select {
	case <-w.dead:
		return silence(ctx)
	default:
	}
	select {
	case <-open:
		return nil
	case <-w.dead:
		return silence(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// silence is what a process that was killed sees of the network: nothing.
func silence(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (w *way) both(ctx context.Context, send func() (protocol.Message, error)) (protocol.Message, error) {
	if err := w.pass(ctx); err != nil {
		return nil, err
	}
	answer, err := send()
	if blocked := w.pass(ctx); blocked != nil {
		return nil, blocked
	}
	return answer, err
}

func (w *way) Ask(ctx context.Context, request protocol.Message) (protocol.Message, error) {
	return w.both(ctx, func() (protocol.Message, error) { return w.Brokers.Ask(ctx, request) })
}

func (w *way) To(ctx context.Context, address string, request protocol.Message) (protocol.Message, error) {
	if w.before != nil {
		w.before(request)
	}
	return w.both(ctx, func() (protocol.Message, error) { return w.Brokers.To(ctx, address, request) })
}

// await returns how long it took until ok.
func await(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-time.After(patience - time.Since(began)):
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
	return time.Since(began)
}

// awaitShares returns how long it took until each replica has as many shards as is fair, and may act on them.
func (f *fleet) awaitShares(t *testing.T, replicas ...*relayReplica) time.Duration {
	t.Helper()
	return await(t, "fair shares", func() bool {
		total := 0
		for _, r := range replicas {
			owned := owned(r.Member)
			if n := len(owned); r.Lease() <= 0 || f.books.last(r.Start) == "" || n < int(f.shards)/len(replicas) || n > (int(f.shards)+len(replicas)-1)/len(replicas) {
				return false
			}
			total += len(owned)
		}
		return total == int(f.shards)
	})
}

// owned are the shards that a replica may act on, as far as Owned has not been asked for them.
func owned(m *Member) []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holdings.shards()
}
