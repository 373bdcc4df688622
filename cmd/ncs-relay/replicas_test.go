package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay/admin"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/gateway"
)

// twoReplicas are two relays that share a journal, each with some of the shards, and a team that always answers with a status.
func twoReplicas(t *testing.T, status int) (brokers *kfake.Cluster, billing *team, one, two *relayUnderTest) {
	brokers, _ = fakeBrokers(t, 3)
	billing = startTeam(t)
	billing.answers(always(status))
	one, two = replicaOf(t, "r0", brokers, billing), replicaOf(t, "r1", brokers, billing)
	one.start()
	two.start()
	one.untilShared(2)
	return brokers, billing, one, two
}

// replicaOf is a relay, not started, of those that share a journal on brokers.
func replicaOf(t *testing.T, name string, brokers *kfake.Cluster, team *team) *relayUnderTest {
	return newRelay(t, fmt.Sprintf(`
listen: "%%LISTEN%%"
admin: {listen: "%%ADMIN%%"}
replica: %s
shutdown: {delay: 0s, timeout: 10s}
journal: {kafka: {brokers: ["%s"], cluster: test, create_topics: {shards: 6, replication: 3}}}
sources:
  - {name: recording, path: /ncs, secrets: [`+serveSecret+`]}
sinks:
  - {name: billing, http: {url: "http://%s/"}, retry: {initial: 50ms, max_interval: 200ms}}
routes: [{to: [billing]}]
`, name, strings.Join(brokers.ListenAddrs(), `", "`), team.address))
}

// own is what a replica says of itself.
func (r *relayUnderTest) own() (s gateway.Status) {
	r.t.Helper()
	req, err := http.NewRequest("GET", r.admin+"/api/v1/status", nil)
	require.NoError(r.t, err)
	req.Header.Set("Ncs-Relay-Replica", "test")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(r.t, err)
	defer resp.Body.Close()
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&s))
	return s
}

func (r *relayUnderTest) untilBillingIs(state string) {
	r.t.Helper()
	r.eventually(func() bool {
		return slices.ContainsFunc(r.own().Sinks, func(s gateway.SinkStatus) bool { return s.Name == "billing" && s.State == state })
	}, "billing is "+state)
}

// untilShared waits until so many replicas have all shards.
func (r *relayUnderTest) untilShared(replicas int) {
	r.t.Helper()
	r.eventually(func() bool {
		var s status
		_, out, _ := r.ask("status", "--json")
		return json.Unmarshal([]byte(out), &s) == nil && len(s.Replicas) == replicas && len(s.Unanswered) == 0 &&
			!slices.ContainsFunc(s.Replicas, func(o admin.ReplicaStatus) bool { return len(o.Shards) == 0 })
	}, "the shards are shared out")
}

// An owner notices that a topic is another one, and the other replicas soon after: what they took would have nobody to judge it. When it
// ends nobody takes its shards: it has written to the topic before it noticed.
func TestNoReplicaTakesEventsWhenATopicWasMadeAgain(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{"ncs.events", "ncs.state"} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			testTopicMadeAgain(t, topic)
		})
	}
}

func testTopicMadeAgain(t *testing.T, topic string) {
	brokers, billing, one, two := twoReplicas(t, http.StatusOK)
	posted := 0
	post := func(r *relayUnderTest) int {
		posted++
		a, err := r.call(recording(fmt.Sprint("s", posted), 1, 1))
		require.NoError(t, err)
		return a.code
	}
	for range 60 { // of each shard some
		require.Equal(t, http.StatusOK, post(one))
	}
	one.eventually(func() bool { return len(billing.calls()) == 60 }, "delivered")
	require.NoError(t, brokers.DeleteTopic(topic))
	var said bytes.Buffer
	require.Equal(t, exitFailed, run(t.Context(), []string{"cluster", "init", "-c", one.config}, strings.NewReader(""), &said, &said))
	require.Contains(t, said.String(), "made topic "+topic)
	for _, r := range []*relayUnderTest{one, two} {
		r.eventually(func() bool { return post(r) == http.StatusServiceUnavailable }, "is refused")
		require.Contains(t, r.log.String(), "topic "+topic+": is not the one that was known, in 6 shards")
		require.Equal(t, http.StatusServiceUnavailable, r.probe("/readyz"))
	}
	require.Equal(t, 1, strings.Count(one.log.String(), "notifications are answered 503"))
	one.terminate()
	two.eventually(func() bool {
		return strings.Count(two.log.String(), `"a shard cannot be taken over, or not be judged"`) >= 3 && strings.Contains(two.log.String(), "was deleted and made again, and what was in it is gone")
	}, "does not take its shards")
	values, _ := two.series()
	require.LessOrEqual(t, values["journal_held_shards{}"], 3.0)
}

// What one replica pauses, resumes, replays or cancels, all do, also those that start or take shards later.
func TestLeversReachAllReplicas(t *testing.T) {
	t.Parallel()
	brokers, _ := fakeBrokers(t, 3)
	team := startTeam(t)
	var replicas []*relayUnderTest
	for i := range 3 {
		r := replicaOf(t, fmt.Sprint("r", i), brokers, team)
		r.start()
		replicas = append(replicas, r)
	}
	defer func() {
		if t.Failed() {
			for _, r := range replicas {
				os.Stderr.WriteString(r.log.String())
			}
		}
	}()
	replicas[0].untilShared(3)
	held, hashes := 0.0, make(map[string]bool)
	for _, r := range replicas {
		values, families := r.series()
		require.EqualValues(t, 6, values["journal_shards{}"], values)
		require.EqualValues(t, 1, values["journal_ready{}"])
		require.Positive(t, values["journal_takeovers_total{}"])
		held += values["journal_held_shards{}"]
		hashes[families["ncs_relay_config_info"].Metric[0].Label[0].GetValue()] = true
	}
	require.EqualValues(t, 6, held)
	require.Len(t, hashes, 1, "the configurations differ in names and addresses only")
	posted := 0
	post := func(n int) {
		for range n {
			require.Equal(t, "accepted", replicas[posted%len(replicas)].post(recording(fmt.Sprint("s", posted), 1, 1)))
			posted++
		}
	}
	delivered := func() bool { return len(team.calls())-len(team.replays()) == posted }
	post(60)
	replicas[0].eventually(delivered, "delivered")

	// The far side is gone, as one of them learns.
	team.answers(always(http.StatusGone))
	post(1)
	for _, r := range replicas {
		r.untilBillingIs(deliver.StatePaused)
	}
	team.answers(always(http.StatusOK))
	late := replicaOf(t, "late", brokers, team)
	late.start()
	late.untilBillingIs(deliver.StatePaused)
	replicas = append(replicas, late)
	late.untilShared(4)
	replicas[0].terminate() // perhaps the one that was told so
	replicas = replicas[1:]
	late.untilShared(3)
	post(30)
	require.Never(t, func() bool { return len(team.calls()) > 60 }, time.Second, 50*time.Millisecond, "whoever took the shards over obeys")
	late.mustAsk("sinks", "resume", "billing")
	late.eventually(delivered, "delivered when resumed")
	for _, r := range replicas {
		r.untilBillingIs(deliver.StateDelivering)
	}

	late.settled()
	require.Contains(t, late.mustAsk("replay", "--sink", "billing", "--yes", "--wait"), ": 91 delivered, 0 failed, 0 skipped\n")
	again := make(map[string]bool)
	for _, c := range team.replays() {
		again[c.body] = true
	}
	require.Len(t, again, 91)
	require.Len(t, team.replays(), 91)
	list := askLines[gateway.ReplayStatus](replicas[0], "replay", "list")
	require.Len(t, list, 1)
	require.Equal(t, []any{uint64(91), uint64(91), true}, []any{list[0].Matched, list[0].Delivered, list[0].Finished})

	// One that cannot be delivered is begun at one and cancelled at another.
	team.answers(always(http.StatusServiceUnavailable))
	late.mustAsk("replay", "--sink", "billing", "--yes")
	for _, r := range replicas {
		r.untilBillingIs(deliver.StateFailing)
	}
	list = askLines[gateway.ReplayStatus](replicas[0], "replay", "list")
	require.False(t, list[1].Finished)
	replicas[0].mustAsk("replay", "cancel", fmt.Sprint(list[1].ID))
	for _, r := range replicas {
		r.untilBillingIs(deliver.StateDelivering)
	}
	team.answers(always(http.StatusOK))
	post(10)
	late.eventually(delivered, "delivered")
	require.Len(t, team.replays(), 91)
	list = askLines[gateway.ReplayStatus](late, "replay", "list")
	require.True(t, list[1].Finished)
}

// A rolling restart ends the next replica when this one is ready: so it is not before it has joined. Later it takes notifications
// without the group, as they need none.
func TestAReplicaIsReadyWhenItHasJoined(t *testing.T) {
	t.Parallel()
	brokers, _ := fakeBrokers(t, 3)
	away := func(keys ...kmsg.Key) *kfake.FaultHandle {
		return brokers.Fault(kfake.Fault{Keys: keys, TopLevel: true, Err: kerr.CoordinatorNotAvailable, Count: -1})
	}
	joining := away(kmsg.JoinGroup)
	r := replicaOf(t, "r0", brokers, startTeam(t))
	r.launch()
	r.eventually(func() bool {
		_, _, errs := r.ask("health")
		return strings.Contains(errs, "this replica has no part in consumer group ncs.relay yet: ")
	}, "it says why it is not ready")
	require.Equal(t, "accepted", r.post(recording("a", 1, 1)))
	joining.Remove()
	r.untilReady()
	r.untilShared(1)

	away(kmsg.JoinGroup)
	brokers.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, TopLevel: true, Err: kerr.UnknownMemberID, Count: -1})
	r.eventually(func() bool { values, _ := r.series(); return values["journal_held_shards{}"] == 0 }, "thrown out")
	require.Equal(t, http.StatusOK, r.probe("/readyz"))
	require.Equal(t, "accepted", r.post(recording("b", 1, 1)))
}

// Who looks at the status while the brokers hang hears that they do, and waits no longer than anybody watches.
func TestStatusTellsThatBrokersHang(t *testing.T) {
	t.Parallel()
	brokers, _, one, _ := twoReplicas(t, http.StatusOK)
	release := make(chan struct{})
	defer close(release)
	brokers.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		brokers.KeepControl()
		brokers.SleepControl(func() { <-release })
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var page, errs strings.Builder
	shown := writerFunc(func(p []byte) (int, error) { cancel(); return page.Write(p) })
	require.Equal(t, exitOK, run(ctx, []string{"status", "--watch", "--admin", one.admin}, nil, shown, &errs), errs.String())
	require.Contains(t, page.String(), "MORE MAY BE STORED AND NOT JUDGED: the ends of topic ncs.inbox: ")
	require.Contains(t, page.String(), "journal on Kafka; ")
	require.Contains(t, page.String(), "WITHOUT what other replicas have: find the coordinator of consumer group ncs.relay: ")
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// What a journal on Kafka cannot move is brought to the other sink, and then given up, by the commands that it says.
func TestWhatCannotBeMovedIsReplayed(t *testing.T) {
	t.Parallel()
	brokers, team, one, two := twoReplicas(t, http.StatusServiceUnavailable)
	for i := range 12 {
		require.Equal(t, "accepted", []*relayUnderTest{one, two}[i%2].post(recording(fmt.Sprint("s", i), 1, 1)))
	}
	renamed := func(from, to string) {
		for _, r := range []*relayUnderTest{one, two} {
			text, err := os.ReadFile(r.config)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(r.config, []byte(strings.ReplaceAll(string(text), from, to)), 0o600))
		}
	}
	one.untilBillingIs(deliver.StateFailing)
	two.untilBillingIs(deliver.StateFailing)
	one.eventually(func() bool { return lagOf(t, brokers, "ncs.sink.billing") == 12 }, "Kafka's own tools show what is owed")
	renamed("billing", "finance")
	one.untilBillingIs(deliver.StateRemoved)
	two.untilBillingIs(deliver.StateRemoved)

	status, out, errs := one.ask("sinks", "move", "billing", "--to", "finance")
	require.Equal(t, exitFailed, status)
	require.Empty(t, out)
	require.Contains(t, errs, "ncs-relay replay --sink billing --to finance --pending, and give it up when that replay has ended: ncs-relay sinks drop billing --after REPLAY\n")
	require.Contains(t, one.mustAsk("replay", "--sink", "billing", "--to", "finance", "--pending", "--yes"), " to finance: 12 events")
	number := fmt.Sprint(askLines[gateway.ReplayStatus](two, "replay", "list")[0].ID)
	for after, why := range map[string]string{number: "nothing was dropped: replay " + number + " has not ended", "7777": "replay 7777: not found"} {
		status, _, errs = two.ask("sinks", "drop", "billing", "--after", after, "--yes")
		require.Equal(t, exitFailed, status)
		require.Contains(t, errs, why)
	}
	team.answers(always(http.StatusOK))
	two.eventually(func() bool { return askLines[gateway.ReplayStatus](two, "replay", "list")[0].Finished }, "the replay has ended")
	brought := make(map[string]bool)
	for _, c := range team.replays() {
		brought[c.body] = true
	}
	require.Len(t, brought, 12)
	tried := len(team.calls())
	require.Equal(t, "12 deliveries given up\n", two.mustAsk("sinks", "drop", "billing", "--after", number, "--yes"))
	require.Equal(t, "0 deliveries given up\n", one.mustAsk("sinks", "drop", "billing", "--after", number, "--yes"))
	status, _, errs = one.ask("replay", "--pending", "--yes", "--all")
	require.Equal(t, exitUsage, status, errs)

	renamed("finance", "billing")
	for i, r := range []*relayUnderTest{one, two} {
		r.untilBillingIs(deliver.StateDelivering)
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("later", i), 1, 1)))
	}
	one.eventually(func() bool { return len(team.calls()) >= tried+2 }, "what came later is delivered")
	one.settled()
	one.eventually(func() bool { return lagOf(t, brokers, "ncs.sink.billing") == 0 }, "Kafka's own tools show that nothing is owed")
	require.Len(t, team.calls(), tried+2, "and nothing of what was brought to the other")
	one.terminate()
	two.terminate()
}

// lagOf is the lag of a consumer group in the events, as Kafka's own tools work it out; -1 = it has not committed in every partition.
func lagOf(t *testing.T, brokers *kfake.Cluster, group string) (lag int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Group = group
	list := kmsg.NewPtrListOffsetsRequest()
	ends, committed := kmsg.NewListOffsetsRequestTopic(), kmsg.NewOffsetFetchRequestTopic()
	ends.Topic, committed.Topic = "ncs.events", "ncs.events"
	for p := range int32(6) {
		end := kmsg.NewListOffsetsRequestTopicPartition()
		end.Partition, end.Timestamp = p, -1
		ends.Partitions = append(ends.Partitions, end)
		committed.Partitions = append(committed.Partitions, p)
	}
	fetch.Topics = append(fetch.Topics, committed)
	list.Topics = append(list.Topics, ends)
	at := make(map[int32]int64)
	listed, err := list.RequestWith(t.Context(), client)
	require.NoError(t, err)
	for _, p := range listed.Topics[0].Partitions {
		at[p.Partition] = p.Offset
	}
	fetched, err := fetch.RequestWith(t.Context(), client)
	require.NoError(t, err)
	for _, topic := range fetched.Topics {
		for _, p := range topic.Partitions {
			if p.Offset < 0 {
				return -1
			}
			lag += at[p.Partition] - p.Offset
			delete(at, p.Partition)
		}
	}
	if len(at) > 0 {
		return -1
	}
	return lag
}

// A command that is given while shards change their owner is carried out in all of them.
func TestACommandDuringATakeOverReachesAllShards(t *testing.T) {
	t.Parallel()
	_, _, one, two := twoReplicas(t, http.StatusServiceUnavailable)
	for i := range 24 {
		require.Equal(t, "accepted", one.post(recording(fmt.Sprint("s", i), 1, 1)))
	}
	for _, r := range []*relayUnderTest{one, two} {
		r.untilBillingIs(deliver.StateFailing)
		text, err := os.ReadFile(r.config)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(r.config, []byte(strings.ReplaceAll(string(text), "billing", "finance")), 0o600))
	}
	one.untilBillingIs(deliver.StateRemoved)
	two.untilBillingIs(deliver.StateRemoved)
	gone := make(chan struct{})
	go func() { two.terminate(); close(gone) }()
	time.Sleep(100 * time.Millisecond) // it is on its way out
	require.Equal(t, "24 deliveries given up\n", one.mustAsk("sinks", "drop", "billing", "--yes"))
	<-gone
	one.terminate()
}

// What became of events any replica tells, each once, whoever has their shards and whoever took them.
func TestInspectTellsOfAllShards(t *testing.T) {
	t.Parallel()
	_, team, one, two := twoReplicas(t, http.StatusOK)
	for i := range 12 {
		require.Equal(t, "accepted", one.post(recording(fmt.Sprint("s", i), 1, 1)))
	}
	one.eventually(func() bool { return len(team.calls()) == 12 }, "delivered")
	one.settled()
	inspect := func(r *relayUnderTest, what ...string) []gateway.Life {
		var answer struct{ Events []gateway.Life }
		require.NoError(t, json.Unmarshal([]byte(r.mustAsk(append([]string{"inspect", "--json"}, what...)...)), &answer))
		return answer.Events
	}
	for i := range 12 {
		for _, r := range []*relayUnderTest{one, two} {
			lives := inspect(r, "--entity", fmt.Sprint("s", i))
			require.Len(t, lives, 1, "s%d", i)
			require.Equal(t, "settled", lives[0].Deliveries[0].State, "without data_dir there is no trail that tells more")
			byID := inspect(r, lives[0].ID.String())
			require.Len(t, byID, 1)
			require.Equal(t, lives[0].Position, byID[0].Position)
		}
	}
	one.terminate()
	two.terminate()
}
