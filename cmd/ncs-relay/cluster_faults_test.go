package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/simulate"
)

var (
	clusterFaults  = flag.Bool("cluster.faults", false, "every fault of a cluster of relays, not only a few")
	clusterOnly    = flag.String("cluster.fault", "", "only faults whose name this regular expression finds, with -cluster.faults")
	clusterRun     = flag.Duration("cluster.run", 0, "how long replicas and brokers are killed, frozen and stopped at random")
	clusterSeed    = flag.Int64("cluster.seed", 0, "of that; 0 = from the clock, and logged")
	clusterSession = flag.Duration("cluster.session", 6*time.Second, "broker.session.timeout.ms of the brokers")
	clusterRate    = flag.Float64("cluster.rate", 40, "calls a second in the tests of a cluster's faults")
)

// clusterFault is what happens to three replicas and three brokers under load. It returns the shards whose deliveries it delays.
type clusterFault struct {
	name  string
	short bool // also without -cluster.faults
	do    func(f *fleet) (struck []uint32)
}

var faultsOfClusters = []clusterFault{
	{"nothing happens", false, func(f *fleet) []uint32 {
		time.Sleep(5 * time.Second)
		return nil
	}},
	{"copies reach two replicas at the same instant", true, copiesAtOnce},
	{"a second replica of one name", true, secondOfOneName},
	{"a replica is killed, and is back at once", false, func(f *fleet) []uint32 {
		r := f.richest()
		shards := r.kill()
		r.again()
		f.shared(3)
		return shards
	}},
	{"a replica is killed", true, func(f *fleet) []uint32 {
		r := f.richest()
		shards := r.kill()
		f.shared(2)
		f.caughtUp()
		r.again()
		f.shared(3)
		return shards
	}},
	{"a replica is frozen for 30 s", false, func(f *fleet) []uint32 {
		r := f.richest()
		shards := r.freeze()
		time.Sleep(30 * time.Second)
		r.thaw()
		f.shared(3)
		return shards
	}},
	{"the broker that coordinates the group is killed", false, func(f *fleet) []uint32 {
		return killBroker(f, f.kafka.Leader(f.t, "__consumer_offsets", 0))
	}},
	{"broker 1 is killed", false, func(f *fleet) []uint32 { return killBroker(f, 1) }},
	{"broker 2 is killed", false, func(f *fleet) []uint32 { return killBroker(f, 2) }},
	{"broker 3 is killed", false, func(f *fleet) []uint32 { return killBroker(f, 3) }},
	{"a replica is cut off from Kafka", false, cutOffFrom(13*time.Second, everyBroker)},
	{"a replica is cut off from the broker that coordinates the group", false, cutOffFrom(13*time.Second, coordinator)},
	{"a replica is cut off from another broker", false, cutOffFrom(45*time.Second, noCoordinator)},
	{"a replica is killed before what it takes is in the inbox", false, killedAt(func(n topics.Names) string { return n.Inbox }, false)},
	{"a replica is killed between inbox and answer", false, killedAt(func(n topics.Names) string { return n.Inbox }, true)},
	{"a replica is killed between inbox and events", false, killedAt(func(n topics.Names) string { return n.Events }, false)},
	{"a replica is killed before it knows of its events", false, killedAt(func(n topics.Names) string { return n.Events }, true)},
	{"a replica is killed between send and state", false, killedAt(func(n topics.Names) string { return n.State }, false)},
	{"a replica is killed before it knows of its state", false, killedAt(func(n topics.Names) string { return n.State }, true)},
	{"a replica's clock is an hour ahead", false, clockSet(time.Hour)},
	{"a replica's clock is an hour behind", false, clockSet(-time.Hour)},
	{"all brokers are away for a minute", false, func(f *fleet) []uint32 {
		over := f.books.trouble("all brokers killed", nil)
		for id := range 3 {
			f.kafka.Kill(f.t, id+1)
		}
		time.Sleep(time.Minute)
		for id := range 3 {
			f.kafka.Run(f.t, id+1)
		}
		f.brokersBack()
		over()
		f.shared(3)
		return nil
	}},
	{"rolling restart", false, func(f *fleet) []uint32 {
		for _, r := range f.all() {
			if !r.alive() {
				continue
			}
			r.stop()
			r.launch()
			r.untilReady()
			f.shared(3)
		}
		return nil
	}},
	{"three replicas become five, then two, then three", false, func(f *fleet) []uint32 {
		f.add("relay-4")
		f.add("relay-5")
		f.shared(5)
		f.caughtUp()
		for _, name := range []string{"relay-1", "relay-4", "relay-5"} {
			f.named(name).stop()
		}
		f.shared(2)
		f.named("relay-1").launch()
		f.named("relay-1").untilReady()
		f.shared(3)
		return nil
	}},
	{"a sink is down while its shards are taken over", false, func(f *fleet) []uint32 {
		f.refusing.Store(true)
		time.Sleep(3 * time.Second)
		r := f.richest()
		shards := r.kill()
		f.shared(2)
		time.Sleep(3 * time.Second)
		f.refusing.Store(false)
		r.again()
		f.shared(3)
		return shards
	}},
	{"a pause and a resume while shards are taken over", false, leversDuringTakeOver},
	{"commands while shards are taken over, and again", false, commandsDuringTakeOver},
	{"three configurations at once", false, twoConfigurations},
	{"a body of max_body, and its letter, when the owner is killed", false, largeBody},
}

// TestClusterFaults does everything that can happen to replicas with one journal on a real Kafka, under load. All of it:
//
//	go test ./cmd/ncs-relay -run TestClusterFaults -cluster.faults -timeout 30m -v
//
// It is not parallel: what it waits for takes as long as others let it, and its load would slow them.
func TestClusterFaults(t *testing.T) {
	f := newFleet(t, startFleetKafka(t), "ncs")
	for i := range 3 {
		f.add(fmt.Sprint("relay-", i+1))
	}
	f.play(1, *clusterRate)
	f.shared(3)
	for _, fault := range faultsOfClusters {
		if chosen := regexp.MustCompile(*clusterOnly).MatchString(fault.name); chosen && (fault.short || *clusterFaults) {
			f.phase(fault.name, func() []uint32 { return fault.do(f) })
		}
	}
	f.rest()
}

func killBroker(f *fleet, id int) []uint32 {
	over := f.books.trouble("broker killed", nil)
	before := f.shared(3)
	f.t.Logf("broker %d is killed; the active controller is %d", id, f.kafka.Controller(f.t))
	f.kafka.Kill(f.t, id)
	time.Sleep(12 * time.Second)
	f.kafka.Run(f.t, id)
	f.brokersBack()
	over()
	require.Equal(f.t, before, f.shared(3), "shards moved")
	return nil
}

// brokersBack waits until all brokers have everything.
func (f *fleet) brokersBack() {
	f.t.Helper()
	f.kafka.AwaitAll(f.t)
	for _, topic := range append(topics.NamesOf(f.prefix).All(), "__consumer_offsets", fleetTopic) {
		f.kafka.AwaitInSync(f.t, topic)
	}
}

// copiesAtOnce sends copies of events to all replicas at the same instant.
func copiesAtOnce(f *fleet) []uint32 {
	for i := range 30 {
		var calls sync.WaitGroup
		for at, r := range f.all()[:3] {
			calls.Go(func() {
				entity := fmt.Sprint("copied-", i)
				if status, _ := f.one(r, recording(entity, 1, int64(1000+at)), eventRef{entity, 0}); status != http.StatusOK && timely() {
					f.t.Errorf("%s: %d", r.name, status)
				}
			})
		}
		calls.Wait()
	}
	return nil
}

// secondOfOneName starts a replica with the name of another one, which must end and say why, and disturb nobody.
func secondOfOneName(f *fleet) []uint32 {
	before := f.shared(3)
	second := f.make("relay-1")
	second.launch()
	select {
	case <-second.ended:
	case <-time.After(2 * time.Minute): // on a busy machine its start alone may take half of one
		require.FailNow(f.t, "the second relay-1 goes on", "%s", second.tail())
	}
	require.Error(f.t, second.err)
	require.Contains(f.t, second.tail(), "relay-1")
	if after := f.shared(3); timely() {
		require.Equal(f.t, before, after)
	}
	return nil
}

// leversDuringTakeOver pauses a sink while nobody has some of the shards. It must be paused in all of them once they are taken over.
func leversDuringTakeOver(f *fleet) []uint32 {
	killed := f.richest()
	other := f.besides(killed)
	shards := killed.kill()
	_, err := f.call("POST", other, "/api/v1/sinks/shaky/pause", `{"reason": "during a take-over"}`)
	f.t.Logf("a pause during a take-over: %v", err)
	f.shared(2)
	for _, r := range f.all() {
		if !r.alive() {
			continue
		}
		answer, err := f.call("GET", r, "/api/v1/sinks", "")
		require.NoError(f.t, err)
		require.Contains(f.t, string(answer), "during a take-over", "%s does not know of the pause", r.name)
	}
	time.Sleep(time.Second) // what was in flight
	before := f.books.count("shaky")
	time.Sleep(2 * time.Second)
	require.Equal(f.t, before, f.books.count("shaky"), "a paused sink gets events")
	_, err = f.call("POST", other, "/api/v1/sinks/shaky/resume", "")
	require.NoError(f.t, err)
	killed.again()
	f.shared(3)
	return shards
}

func (b *fleetBooks) count(sink string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.arrivals[sink])
}

// largeBody sends the largest body that is taken, which the topic of the sink kafka does not take. Its letter must outlive its owner.
func largeBody(f *fleet) []uint32 {
	body := recording("large", 1, 1)
	body = bytes.Replace(body, []byte(`"status":0`), []byte(`"status":0,"fileList":"`+strings.Repeat("x", 2<<20-len(body)-len(`,"fileList":""`))+`"`), 1)
	require.Len(f.t, body, 2<<20)
	status, _ := f.one(f.next(), body, eventRef{"large", 0})
	require.Equal(f.t, http.StatusOK, status)
	f.books.except(eventRef{"large", 0}, "kafka")
	letters := func() string {
		r := f.all()[slices.IndexFunc(f.all(), (*replica).look)]
		answer, err := f.call("GET", r, "/api/v1/dead-letters?sink=kafka", "")
		if err != nil {
			return err.Error()
		}
		return string(answer)
	}
	f.until(30*time.Second, "no letter", func() bool { return strings.Contains(letters(), `"large"`) })
	var owner string
	for name, shards := range f.shared(3) {
		if slices.Contains(shards, shardOfID("large", "")) {
			owner = name
		}
	}
	shards := f.named(owner).kill()
	f.shared(2)
	f.until(10*time.Second, "the letter is gone", func() bool { return strings.Contains(letters(), `"large"`) })
	f.named(owner).again()
	f.shared(3)
	return shards
}

func signedBy(body []byte) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("Agora-Signature-V2", signed(sha256.New, serveSecret, body))
	return h
}

// sentOf is a call of ours that was answered 200.
func sentOf(entity string, body, answer []byte) simulate.Sent {
	var said struct{ Status, Event string }
	_ = json.Unmarshal(answer, &said) // what is missing is found by the books
	return simulate.Sent{Entity: entity, Body: body, Status: http.StatusOK, Outcome: said.Status, EventID: said.Event}
}

// TestClusterAtRandom kills, freezes and stops replicas, and kills and pauses brokers, at random, for as long as -cluster.run says:
//
//	go test ./cmd/ncs-relay -run TestClusterAtRandom -cluster.run 20m -timeout 40m -v
func TestClusterAtRandom(t *testing.T) {
	if *clusterRun == 0 {
		t.Skip("runs for as long as -cluster.run says")
	}
	seed := *clusterSeed
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("-cluster.seed=%d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	f := newFleet(t, startFleetKafka(t), "ncs")
	for i := range 4 {
		f.add(fmt.Sprint("relay-", i+1))
	}
	f.play(seed, *clusterRate)
	f.shared(4)
	r := &randomFaults{fleet: f, rng: rng, done: map[string]int{}}
	began := time.Now()
	for time.Since(began) < *clusterRun {
		r.step()
	}
	for len(r.pending) > 0 {
		r.mend()
	}
	f.brokersBack()
	f.shared(4)
	t.Logf("done: %v; %s", r.done, f.books.figures("service", began, time.Now(), nil))
	f.rest()
}

// randomFaults keeps what is in trouble. At each instant this is at most one broker, and two of four replicas.
type randomFaults struct {
	*fleet
	rng     *rand.Rand
	pending []mending
	done    map[string]int
}

// mending ends a trouble.
type mending struct {
	what string // replica or broker in trouble
	at   time.Time
	do   func()
}

// step waits until the next thing is to be done, and does it.
func (r *randomFaults) step() {
	next := time.Now().Add(time.Duration(r.rng.Int64N(int64(6 * time.Second))))
	for len(r.pending) > 0 && r.pending[0].at.Before(next) {
		r.mend()
	}
	time.Sleep(time.Until(next))
	if r.rng.IntN(4) == 0 {
		r.strikeBroker()
	} else {
		r.strikeReplica()
	}
	slices.SortFunc(r.pending, func(a, b mending) int { return a.at.Compare(b.at) })
}

func (r *randomFaults) mend() {
	m := r.pending[0]
	r.pending = r.pending[1:]
	time.Sleep(time.Until(m.at))
	m.do()
}

func (r *randomFaults) troubled(kind string) (count int) {
	for _, m := range r.pending {
		if strings.HasPrefix(m.what, kind) {
			count++
		}
	}
	return count
}

func (r *randomFaults) within(least, most time.Duration) time.Time {
	return time.Now().Add(least + time.Duration(r.rng.Int64N(int64(most-least))))
}

func (r *randomFaults) strikeReplica() {
	if r.troubled("relay") > 1 {
		return
	}
	one := r.all()[r.rng.IntN(4)]
	if slices.ContainsFunc(r.pending, func(m mending) bool { return m.what == one.name }) {
		return
	}
	kinds := []string{"replica killed and back at once", "replica killed", "replica frozen", "replica stopped"}
	if one.name == cutOff {
		kinds = append(kinds, "replica cut off", "replica cut off from one broker")
	}
	what := kinds[r.rng.IntN(len(kinds))]
	r.done[what]++
	r.t.Logf("%s %s: %s", clock(time.Now()), one.name, what)
	switch what {
	case "replica frozen":
		one.freeze()
		r.pending = append(r.pending, mending{one.name, r.within(time.Second, 30*time.Second), one.thaw})
	case "replica stopped":
		over := r.books.trouble(what, nil)
		one.stop()
		one.over = over
		r.pending = append(r.pending, mending{one.name, r.within(0, 5*time.Second), func() { one.launch(); one.over() }})
	case "replica cut off", "replica cut off from one broker":
		var brokers []int // all
		if what != "replica cut off" {
			brokers = []int{1 + r.rng.IntN(3)}
		}
		over := r.books.trouble(what, nil) // it may get others for those that it does not reach
		mend := r.kafka.Cut(r.t, cutListener, brokers...)
		r.pending = append(r.pending, mending{one.name, r.within(time.Second, 30*time.Second), func() { mend(); over() }})
	case "replica killed":
		one.kill()
		r.pending = append(r.pending, mending{one.name, r.within(time.Second, 25*time.Second), func() { one.launch(); one.over() }})
	default:
		one.kill()
		one.launch()
		one.over()
	}
}

func (r *randomFaults) strikeBroker() {
	if r.troubled("broker") > 0 || !r.inSync() {
		return
	}
	id := 1 + r.rng.IntN(3)
	what := []string{"broker killed", "broker paused"}[r.rng.IntN(2)]
	r.done[what]++
	r.t.Logf("%s broker %d: %s", clock(time.Now()), id, what)
	over := r.books.trouble(what, nil)
	back := r.kafka.Resume
	if what == "broker killed" {
		r.kafka.Kill(r.t, id)
		back = r.kafka.Run
	} else {
		r.kafka.Pause(r.t, id)
	}
	r.pending = append(r.pending, mending{fmt.Sprint("broker ", id), r.within(time.Second, 20*time.Second), func() { back(r.t, id); over() }})
}

// inSync reports whether a broker can be lost without losing what was acknowledged, or the right to write.
func (r *randomFaults) inSync() bool {
	for _, topic := range append(topics.NamesOf(r.prefix).All(), "__consumer_offsets") {
		if !r.kafka.InSync(r.t, topic) {
			return false
		}
	}
	return true
}
