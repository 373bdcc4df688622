package main

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal/kafkajournal/topics"
)

// topicFault is what is done to a topic of a journal under load. The relays must stop, say why, and say what to type.
type topicFault struct {
	name string
	do   func(f *fleet)
	says string // where a replica says that it is not ready
	ends string // what cluster confirm says; "" = that there is nothing to go on with
}

func remake(topic func(topics.Names) string) func(f *fleet) {
	return func(f *fleet) {
		f.kafka.DeleteTopic(f.t, topic(topics.NamesOf(f.prefix)))
		f.t.Logf("cluster init: %s", f.command("init"))
	}
}

var faultsOfTopics = []topicFault{
	{"the events topic is made again", remake(func(n topics.Names) string { return n.Events }), "cluster confirm", "made again from the inbox"},
	{"the state topic is made again", remake(func(n topics.Names) string { return n.State }), "cluster confirm", "delivered again"},
	{"the topic of dead letters is made again", remake(func(n topics.Names) string { return n.Dead }), "cluster confirm", "epoch"},
	{"the inbox is made again", remake(func(n topics.Names) string { return n.Inbox }), "another journal.kafka.prefix", ""},
	{"partitions are added to the inbox", func(f *fleet) {
		f.kafka.AddPartitions(f.t, topics.NamesOf(f.prefix).Inbox, fleetShards+1)
	}, "the number never changes", ""},
}

// TestClusterTopics does to topics what nobody should, under load. All of it is in the long form:
//
//	go test ./cmd/ncs-relay -run TestClusterTopics -cluster.faults -timeout 30m -v
func TestClusterTopics(t *testing.T) {
	if !*clusterFaults {
		t.Skip("with -cluster.faults")
	}
	kafka := startFleetKafka(t)
	for i, fault := range faultsOfTopics {
		if !regexp.MustCompile(*clusterOnly).MatchString(fault.name) {
			continue
		}
		t.Run(fault.name, func(t *testing.T) {
			f := newFleet(t, kafka, fmt.Sprint("topics-", i))
			f.add("a")
			f.add("b")
			f.play(1, *clusterRate)
			f.shared(2)
			time.Sleep(3 * time.Second)
			f.caughtUp()
			fault.run(f)
		})
	}
}

func (fault topicFault) run(f *fleet) {
	f.books.afresh(fault.name)
	began := time.Now()
	fault.do(f)
	made := time.Now()
	for _, r := range f.all() {
		f.until(2*time.Minute, r.name+" does not say what to do", func() bool { return !r.look() && strings.Contains(f.why(r), fault.says) })
		f.t.Logf("%s says so %.1f s after: %s", r.name, time.Since(made).Seconds(), f.why(r))
		calls := 0
		f.until(15*time.Second, r.name+" goes on taking events", func() bool { // and what it takes must arrive in the end, as all others
			calls++
			entity := fmt.Sprint("refused-", r.name, calls)
			status, took := f.one(r, recording(entity, 1, 1), eventRef{entity, 0})
			require.Less(f.t, took, 8*time.Second)
			return status == http.StatusServiceUnavailable
		})
		f.t.Logf("calls that are made all the same are answered 503 after %d, %.1f s after", calls, time.Since(made).Seconds())
	}
	f.stopLoad()
	<-f.tally
	f.t.Log(f.books.figures("service", began, time.Now(), nil))
	for _, r := range f.all() {
		require.True(f.t, r.alive(), "%s", r.tail())
		r.signal(syscall.SIGTERM)
		<-r.ended
		f.t.Logf("%s ends: %v", r.name, r.err)
	}
	said := ""
	f.until(time.Minute, "the group is never empty", func() bool {
		said = f.command("confirm", "--unknown", "--yes")
		return !strings.Contains(said, "stop all relays")
	})
	f.t.Logf("cluster confirm: %s", said)
	require.Contains(f.t, said, fault.ends)
	for _, r := range f.all() {
		r.launch()
	}
	if fault.ends == "" {
		for _, r := range f.all() {
			f.until(time.Minute, r.name+" runs", func() bool { return !r.alive() || strings.Contains(r.tail(), fault.says) })
			require.False(f.t, r.look())
		}
		return
	}
	for _, r := range f.all() {
		r.untilReady()
	}
	f.play(2, *clusterRate)
	f.shared(2)
	f.caughtUp()
	f.stopLoad()
	<-f.tally
	f.caughtUp()
	for _, sink := range []string{"service", "shaky"} {
		v := f.books.judge(sink)
		if fault.name == "the events topic is made again" { // without the ids that were in it a later copy may be judged, which has its own bytes
			v.OtherBytes = 0
		}
		f.t.Logf("%s: %s", sink, v)
		require.Zero(f.t, v.faults(), sink)
	}
}

// why is what a replica says of not being ready.
func (f *fleet) why(r *replica) string {
	resp, err := quickClient.Get("http://" + r.admin + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	return string(text)
}

// command is ncs-relay cluster, and returns what it says.
func (f *fleet) command(args ...string) string {
	args = append([]string{"cluster", args[0], "-c", f.all()[0].config}, args[1:]...)
	out, err := exec.CommandContext(f.t.Context(), "ncs-relay", args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v", out, err)
	}
	return string(out)
}
