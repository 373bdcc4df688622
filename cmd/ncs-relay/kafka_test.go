package main

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"ncs-relay/relay/gateway"
	"ncs-relay/relay/kafkaconn/kafkatest"
)

var (
	kafkaRounds = flag.Int("kafka.rounds", 1, "how often the test of Kafka's faults strikes each broker: 3 = each in each way")
	kafkaAway   = flag.Duration("kafka.away", 15*time.Second, "how long all brokers are away in the test of Kafka's faults")
)

const kafkaTopic = "ncs.cloud_recording"

// TestRealKafkaFaults sends through the program to three brokers while they fail, one by one and all at once. The time that
// the brokers note for a record, less that of its arrival at the relay, is how long it was on its way. How long the cluster
// itself was without a leader is noted beside it.
func TestRealKafkaFaults(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3, Config: map[string]string{
		"min.insync.replicas": "2",
		// A broker that falls silent is replaced after this; the default of 9 s would only make the test longer.
		"broker.session.timeout.ms":    "4000",
		"broker.heartbeat.interval.ms": "1000",
	}})
	cluster.CreateTopic(t, kafkaTopic, 6, map[string]string{
		"max.message.bytes":      "1000000",
		"message.timestamp.type": "LogAppendTime",
	})
	r := newRelay(t, relayBase+`
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`], max_body: 4MiB}
sinks:
  - name: kafka
    kafka: {brokers: ["`+strings.Join(cluster.Addresses(), `","`)+`"], topic: "ncs.{product}"}
    retry: {initial: 100ms, max_interval: 2s}
routes:
  - to: [kafka]
`)
	r.start()
	load := startLoad(r, 20)

	load.phase("one event of 2 MB", func() {
		load.await(1000)
		big := strings.Replace(string(recording("big", 1, 1)), `"status":0`, `"status":0,"fileList":"`+strings.Repeat("x", 2<<20)+`"`, 1)
		require.Equal(t, "accepted", r.post([]byte(big)))
		r.eventually(func() bool { return r.sinkStatus("kafka").Dead == 1 }, "the large event is no dead letter")
	})
	load.phase("partitions are added", func() {
		load.await(200)
		cluster.AddPartitions(t, kafkaTopic, 12)
		load.await(1000) // for longer than they go unnoticed
	})
	ways := []struct {
		name          string
		strike, mends func(t testing.TB, id int)
	}{
		{"stopped", cluster.Stop, cluster.Run},
		{"killed", cluster.Kill, cluster.Run},
		{"paused", cluster.Pause, cluster.Resume},
	}
	for round := range *kafkaRounds {
		for id := 1; id <= 3; id++ {
			way := ways[(round+id-1)%len(ways)]
			load.phase(fmt.Sprintf("broker %d is %s", id, way.name), func() {
				leads := cluster.Leads(t, kafkaTopic, id)
				require.NotZero(t, leads)
				began := time.Now()
				way.strike(t, id)
				cluster.AwaitLeaderOtherThan(t, kafkaTopic, id)
				load.leaderless(time.Since(began))
				load.await(200)
				load.arrived() // while the broker is away
				way.mends(t, id)
				cluster.AwaitInSync(t, kafkaTopic)
				cluster.ElectPreferred(t, kafkaTopic)
			})
		}
	}
	load.phase(fmt.Sprintf("all brokers are away for %s", *kafkaAway), func() {
		away := time.Now()
		for id := 1; id <= 3; id++ {
			cluster.Kill(t, id)
		}
		for began := time.Now(); time.Since(began) < *kafkaAway; {
			load.await(20) // each was answered 200
		}
		for id := 1; id <= 3; id++ {
			cluster.Run(t, id)
		}
		cluster.AwaitLeaderOtherThan(t, kafkaTopic, 0)
		load.leaderless(time.Since(away))
		cluster.AwaitInSync(t, kafkaTopic)
	})
	load.stop()
	r.settled()
	load.judge(cluster)

	letters := askLines[gateway.DeadLetter](r, "deadletters", "list")
	require.Len(t, letters, 1)
	require.Contains(t, letters[0].Reason, "Message Size Too Large", "the broker's words")
	require.Contains(t, letters[0].Reason, "the topic takes 1000000")
	require.Equal(t, "big", letters[0].Entity)
	r.terminate()
}

// load posts events of some recordings, each recording's in order, and keeps what was accepted.
type load struct {
	r        *relayUnderTest
	sent     []int // per recording: sequences 1 to n were accepted
	accepted atomic.Int64
	slowest  atomic.Int64 // answer, in ns
	end      context.CancelFunc
	senders  sync.WaitGroup
	phases   []loadPhase
}

type loadPhase struct {
	name       string
	began      time.Time
	leaderless time.Duration // from the strike until the cluster named other leaders
}

func startLoad(r *relayUnderTest, recordings int) *load {
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{r: r, sent: make([]int, recordings), end: cancel}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: recordings}, Timeout: 10 * time.Second}
	r.t.Cleanup(func() { l.stop(); client.CloseIdleConnections() })
	for i := range recordings {
		l.senders.Go(func() {
			pace := time.NewTicker(50 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-pace.C:
				case <-ctx.Done():
					return
				}
				answer, err := r.callBy(client, recording(fmt.Sprintf("sid-%d", i), l.sent[i]+1, 1))
				if err != nil || answer.code != http.StatusOK || answer.status != "accepted" {
					r.t.Errorf("ingress: %+v, %v", answer, err)
					return
				}
				l.sent[i]++
				l.accepted.Add(1)
				for slowest := l.slowest.Load(); int64(answer.took) > slowest && !l.slowest.CompareAndSwap(slowest, int64(answer.took)); {
					slowest = l.slowest.Load()
				}
			}
		})
	}
	return l
}

func (l *load) stop() {
	l.end()
	l.senders.Wait()
}

// await returns after n more events were accepted.
func (l *load) await(n int64) {
	l.r.t.Helper()
	want := l.accepted.Load() + n
	l.r.eventually(func() bool { return l.accepted.Load() >= want }, "events are not accepted any more")
}

// arrived returns when all that was accepted before is in the topic.
func (l *load) arrived() {
	l.r.t.Helper()
	since := time.Now()
	l.r.eventually(func() bool {
		status := l.r.sinkStatus("kafka")
		return status.Pending == 0 || status.Oldest.After(since)
	}, "events do not arrive any more")
}

// phase runs what happens to the brokers, and ends when what was accepted meanwhile has arrived.
func (l *load) phase(name string, run func()) {
	l.phases = append(l.phases, loadPhase{name: name, began: time.Now()})
	run()
	l.arrived()
}

func (l *load) leaderless(d time.Duration) { l.phases[len(l.phases)-1].leaderless = d }

// span is what a partition has of an entity's sequences. An entity may move when partitions are added, once and for good.
type span struct{ first, last int }

// judge reads the topic with another client and compares.
func (l *load) judge(cluster *kafkatest.Cluster) {
	t := l.r.t
	records := cluster.Read(t, kafkaTopic)
	ids := make(map[string]bool)
	last := make(map[string]int)
	spans := make(map[string]map[int32]*span)
	duplicates, inversions := 0, 0
	longest := make([]time.Duration, len(l.phases))
	for _, record := range records {
		id, received := header(t, record, "ncs-event-id"), header(t, record, "ncs-received-at")
		if ids[id] {
			duplicates++
		}
		ids[id] = true
		var sequence int
		_, rest, _ := strings.Cut(string(record.Value), `"sequence":`)
		_, err := fmt.Sscanf(rest, "%d", &sequence)
		require.NoError(t, err)
		key := string(record.Key)
		if spans[key] == nil {
			spans[key] = make(map[int32]*span)
		}
		if here := spans[key][record.Partition]; here == nil {
			spans[key][record.Partition] = &span{sequence, sequence}
		} else {
			if sequence <= here.last {
				inversions++
			}
			here.last = max(sequence, here.last)
		}
		last[key] = max(sequence, last[key])
		at, err := time.Parse(time.RFC3339, received)
		require.NoError(t, err)
		phase := 0
		for phase+1 < len(l.phases) && record.Timestamp.After(l.phases[phase+1].began) {
			phase++
		}
		longest[phase] = max(longest[phase], record.Timestamp.Sub(at))
	}
	moved := 0
	for _, byPartition := range spans {
		inOrder := slices.SortedFunc(maps.Values(byPartition), func(a, b *span) int { return a.first - b.first })
		moved += len(inOrder) - 1
		for i := 1; i < len(inOrder); i++ {
			if inOrder[i].first <= inOrder[i-1].last {
				inversions++
			}
		}
	}
	require.Positive(t, moved, "no entity has another partition since some were added")
	missing := 0
	for i, n := range l.sent {
		missing += n - last[fmt.Sprintf("sid-%d", i)]
	}
	missing += int(l.accepted.Load()) - len(ids) - missing // holes in the middle
	for i, phase := range l.phases {
		t.Logf("%-35s the cluster needed %s, longest way of an event to the topic: %s", phase.name,
			phase.leaderless.Round(time.Millisecond), longest[i].Round(time.Millisecond))
	}
	t.Logf("%d events accepted, slowest answer %s; %d records in the topic: %d duplicates, %d out of order, %d missing",
		l.accepted.Load(), time.Duration(l.slowest.Load()).Round(time.Millisecond), len(records), duplicates, inversions, missing)
	require.Zero(t, duplicates)
	require.Zero(t, inversions)
	require.Zero(t, missing)
	require.Less(t, time.Duration(l.slowest.Load()), 8*time.Second)
}

func header(t *testing.T, record *kgo.Record, key string) string {
	for _, h := range record.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	require.FailNow(t, "no header "+key)
	return ""
}

func TestCheckConnectSaysForEachSinkWhatWouldFail(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.SeedTopics(3, "there"))
	require.NoError(t, err)
	defer cluster.Close()
	check := func(others ...string) (status int, out, errs string) {
		file := filepath.Join(t.TempDir(), "relay.yaml")
		require.NoError(t, os.WriteFile(file, []byte(`
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - {name: archive, file: {path: archive.jsonl}}
  - `+strings.Join(others, "\n  - ")+`
routes:
  - to: [archive, good, bad]
`), 0o600))
		var stdout, stderr strings.Builder
		status = run(t.Context(), []string{"check", "--connect", "-c", file}, strings.NewReader(""), &stdout, &stderr)
		return status, stdout.String(), stderr.String()
	}
	broker := cluster.ListenAddrs()[0]
	good := `{name: good, kafka: {brokers: ["` + broker + `"], topic: there}}`

	status, out, errs := check(good, `{name: bad, file: {path: other.jsonl}}`)
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "sink good: the cluster answers and takes its 1 topics")

	status, out, errs = check(good, `{name: bad, kafka: {brokers: ["`+broker+`"], topic: not-there}}`)
	require.NotEqual(t, exitOK, status)
	require.Contains(t, out, "sink good: the cluster answers")
	require.Contains(t, errs, "sink bad: topic not-there does not exist on the cluster")
	require.NotContains(t, errs, "sink good")

	status, _, errs = check(good, `{name: bad, kafka: {brokers: ["127.0.0.1:1"], topic: there}}`)
	require.NotEqual(t, exitOK, status)
	require.Contains(t, errs, "sink bad: connect to broker 127.0.0.1:1")
	require.Contains(t, errs, "(connection)")
}

// TestADeadKafkaCostsDiskAndNotMemory: brokers that hang, which costs more than brokers that are gone, while events keep
// coming. It is not parallel, because it measures.
func TestADeadKafkaCostsDiskAndNotMemory(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // its connections are taken by the system, and nothing is answered
	require.NoError(t, err)
	defer hung.Close()
	r := newRelay(t, `
listen: "%LISTEN%"
admin: {listen: "%ADMIN%"}
data_dir: %DIR%/data
journal: {min_free: 1MiB}
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - name: kafka
    kafka: {brokers: ["`+hung.Addr().String()+`"], topic: "ncs.{product}.{category}"}
    retry: {max_interval: 1s}
routes:
  - to: [kafka]
`)
	r.start()
	padding := strings.Repeat("x", 20<<10)
	post := func(from, events int) {
		for i := range events {
			body := strings.Replace(string(recording(fmt.Sprint("sid-", i%50), from+i+1, 1)), `"status":0`, `"status":0,"fileList":"`+padding+`"`, 1)
			require.Equal(t, "accepted", r.post([]byte(body)))
		}
	}
	post(0, 1000) // 20 MiB: what it holds in memory is held by now
	before := r.memory()
	post(1000, 3000)
	after := r.memory()
	status := r.sinkStatus("kafka")
	require.EqualValues(t, 4000, status.Pending)
	t.Logf("%d events owed, %d MiB of bodies; memory %d MiB, before the last 60 MiB %d MiB", status.Pending, status.PendingBytes>>20, after>>10, before>>10)
	require.Less(t, after-before, 48<<10, "KiB of memory for 60 MiB of bodies")
}
