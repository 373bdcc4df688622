package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay/journal/kafkajournal/member"
	"ncs-relay/relay/journal/kafkajournal/topics"
)

var clusterUpgrade = []string{"cluster", "upgrade", "--yes"}

func TestClusterUpgradeMakesAConfigurationHoldForAll(t *testing.T) {
	t.Parallel()
	cluster, _ := fakeBrokers(t, 3)
	o := newOnKafka(t, cluster.ListenAddrs())
	o.fails(clusterUpgrade, "topic ncs.inbox: does not exist", "ncs-relay cluster init")
	o.works(clusterInit)
	const nothing = "all replicas share what this version and this configuration have: there is nothing to upgrade\n"
	o.prints(clusterUpgrade, nothing)
	o.works([]string{"cluster", "status"}, "dedup: on_conflict deliver, max_keys 1000000, window 24h0m0s; upgraded 0 times")

	o.write("cluster: production", "retention: 7d\ndedup: {on_conflict: drop, max_keys: 500, window: 1h}")
	o.fails(clusterCheck, "topic ncs.control: says that dedup.on_conflict is deliver, and this replica has drop (dedup.on_conflict: deliver here, or ncs-relay cluster upgrade to have drop everywhere)")
	const differences = "dedup.on_conflict is deliver, and becomes drop\ndedup.max_keys is 1000000, and becomes 500\ndedup.window is 24h0m0s, and becomes 1h0m0s\n"
	status, out, errs := o.run("cluster", "upgrade")
	require.Equal(t, exitUsage, status)
	require.Equal(t, differences, out)
	require.Contains(t, errs, "would change that for all replicas; --yes does it")

	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: "ncs.inbox", Partitions: []int32{3}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	o.fails(clusterUpgrade, "nothing was changed, because it is not known from where on it would hold", "ncs.inbox")
	fault.Remove()
	o.fails(clusterCheck, "dedup.on_conflict is deliver")
	o.prints(clusterUpgrade, differences+"changed for what is stored from now on: change 1 of what all replicas share\n")
	o.prints(clusterUpgrade, nothing)
	o.works(clusterCheck)
	o.works([]string{"cluster", "status"}, "dedup: on_conflict drop, max_keys 500, window 1h0m0s; upgraded 1 times", "ncs.control  1           3         2")

	o.write("cluster: staging", "retention: 7d")
	o.fails(clusterUpgrade, `the cluster is "production", and this replica has "staging"`, "another journal.kafka.prefix")
	o.write("cluster: production, create_topics: {shards: 7}", "retention: 7d")
	o.fails(clusterUpgrade, "has 6 partitions, must be 7", "the number never changes")
}

// prints runs a command that must print this.
func (o *onKafka) prints(args []string, out string) {
	o.t.Helper()
	status, printed, errs := o.run(args...)
	require.Equal(o.t, exitOK, status, errs)
	require.Equal(o.t, out, printed)
}

// upgradeTo upgrades to what another version of the program has.
func (o *onKafka) upgradeTo(change func(*topics.Meta)) (string, error) {
	cfg, report := loadConfig(o.file)
	require.NoError(o.t, report.Err())
	j := journalOf(cfg, nil)
	defer j.cluster.Close()
	change(&j.mine)
	var out strings.Builder
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := j.upgrade(o.t.Context(), cmd, true)
	return out.String(), err
}

// replica takes part in the group, as a program that reads a format does.
func (o *onKafka) replica(name string, format int) (stop func()) {
	cfg, report := loadConfig(o.file)
	require.NoError(o.t, report.Err())
	j := journalOf(cfg, nil)
	names := topics.NamesOf(j.Prefix)
	m := member.New(member.Options{Brokers: j.cluster, Group: names.Group, Topic: names.Inbox, Shards: 6, Name: name, Start: name, Admin: name + ":9464", Version: "1.2.3", Format: format, LeaveWithin: time.Millisecond})
	ended := make(chan error, 1)
	running, cancel := context.WithCancel(o.t.Context())
	go func() { ended <- m.Run(running) }()
	require.Eventually(o.t, func() bool {
		peers, err := m.Peers(o.t.Context())
		return err == nil && len(peers) == 1 && len(peers[0].Shards) == 6
	}, 30*time.Second, 50*time.Millisecond)
	return func() {
		cancel()
		require.NoError(o.t, <-ended)
		j.cluster.Close()
	}
}

func TestClusterUpgradeWaitsForReplicas(t *testing.T) {
	t.Parallel()
	cluster, _ := fakeBrokers(t, 3)
	o := newOnKafka(t, cluster.ListenAddrs())
	o.works(clusterInit)
	stop := o.replica("relay-1", topics.Format)
	identity := func(m *topics.Meta) { m.Identity++ }
	out, err := o.upgradeTo(identity)
	require.ErrorContains(t, err, "copies of events from before are not recognised then: stop all relays first; these run, or did until seconds ago: relay-1")
	require.Contains(t, out, "the version of what makes an event's id is 1, and becomes 2")
	format := func(m *topics.Meta) { m.Format = topics.Format + 1; m.Identity++ }
	_, err = o.upgradeTo(func(m *topics.Meta) { m.Format++ })
	require.EqualError(t, err, "format 2 cannot be read by relay-1 (version 1.2.3): install this version there first")
	stop()
	out, err = o.upgradeTo(identity)
	require.NoError(t, err, out)
	o.fails(clusterCheck, "event's id is 2, and this replica has 1", "install the version that the other replicas have")
	o.fails(clusterUpgrade, "install the version that the other replicas have")

	stop = o.replica("relay-2", topics.Format+1)
	defer stop()
	out, err = o.upgradeTo(format)
	require.NoError(t, err, out)
	require.Contains(t, out, "the format is 1, and becomes 2: older versions of ncs-relay cannot read the journal then\n")
	o.fails(clusterCheck, "topic ncs.control: has format 2, and this version of ncs-relay knows 1 (install the version that the other replicas have)")
}

// A running relay goes on when somebody else decides what to do about conflicts, and does it.
func TestARunningReplicaGoesThroughAnUpgrade(t *testing.T) {
	t.Parallel()
	brokers, _ := fakeBrokers(t, 3)
	team := startTeam(t)
	r := replicaOf(t, "r0", brokers, team)
	r.start()
	r.untilShared(1)
	conflict := func(n int) []byte {
		return []byte(strings.ReplaceAll(string(recording("s", 1, 1)), "1596555306257", fmt.Sprint(1596555306257+n)))
	}
	for n := range 2 {
		require.Equal(t, "accepted", r.post(conflict(n)))
	}
	r.eventually(func() bool { return len(team.calls()) == 2 }, "by the old rule both are delivered")

	text, err := os.ReadFile(r.config)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(r.config, append(text, "dedup: {on_conflict: drop}\n"...), 0o600))
	r.eventually(func() bool { return r.configStatus().Generation == 2 }, "reloaded")
	require.Equal(t, "accepted", r.post(conflict(2)))
	r.eventually(func() bool { return len(team.calls()) == 3 }, "the rule is that of all replicas, not of one's configuration")
	status, out, errs := (&onKafka{t: t, file: r.config}).run(clusterUpgrade...)
	require.Equal(t, exitOK, status, errs)
	require.Contains(t, out, "dedup.on_conflict is deliver, and becomes drop")

	late := replicaOf(t, "r1", brokers, team)
	late.launch()
	late.eventually(func() bool {
		_, _, errs := late.ask("health")
		return strings.Contains(errs, "dedup.on_conflict is drop, and this replica has deliver (dedup.on_conflict: drop here, or ncs-relay cluster upgrade to have deliver everywhere)")
	}, "it says what to do")
	late.terminate()

	require.Eventually(t, func() bool { // until it is followed, one may still pass
		before := len(team.calls())
		n := int(time.Now().UnixNano())
		require.Equal(t, "accepted", r.post(conflict(n)))
		require.Equal(t, "accepted", r.post(recording(fmt.Sprint("other", n), 1, 1)))
		r.settled()
		return len(team.calls()) == before+1
	}, 20*time.Second, 100*time.Millisecond, "by the new rule the second event of a key is dropped")
	require.Equal(t, 200, r.probe("/readyz"))

	r.terminate()
	r.start()
	r.terminate()
}

// A relay that is too old for what others have written does no harm, and says what to do: so does one that starts.
func TestAReplicaThatIsTooOldGivesItsShardsUp(t *testing.T) {
	t.Parallel()
	brokers, _ := fakeBrokers(t, 3)
	r := replicaOf(t, "r0", brokers, startTeam(t))
	r.start()
	r.untilShared(1)
	cfg, report := loadConfig(r.config)
	require.NoError(t, report.Err())
	j := journalOf(cfg, nil)
	defer j.cluster.Close()
	state, err := topics.ReadState(t.Context(), j.cluster, j.Prefix)
	require.NoError(t, err)
	newer := topics.Change{Meta: state.Meta, From: make([]int64, state.Meta.Shards)}
	newer.Format++
	require.NoError(t, state.Upgrade(t.Context(), j.cluster, j.Prefix, newer))
	const words = "install the version that the other replicas have"
	r.eventually(func() bool {
		_, _, errs := r.ask("health")
		values, _ := r.series()
		return strings.Contains(errs, words) && values["journal_held_shards{}"] == 0
	}, "it gives its shards up, and is not ready")
	r.eventually(func() bool {
		peers, err := j.members(t.Context())
		return err == nil && len(peers) == 1 && len(peers[0].Shards) == 0
	}, "whoever is newer can have them")

	late := replicaOf(t, "r1", brokers, startTeam(t))
	late.launch()
	require.Error(t, late.cmd.Wait())
	require.Contains(t, late.log.String(), words)
	r.terminate()
}

func TestADifferenceThatCanBeUpgradedStopsOnlyWhoStarts(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	j := &sharedJournal{kafka: &kafkaJournal{}, log: slog.New(slog.NewTextHandler(&log, nil))}
	problems := []topics.Problem{{Topic: "ncs.control", Found: "differs", Fatal: true, Upgradable: true}}
	require.ErrorContains(t, j.judge(problems, topics.State{}, false), "differs")
	require.Empty(t, log.String())
	require.NoError(t, j.judge(problems, topics.State{}, true))
	require.Contains(t, log.String(), "level=WARN")
	require.Contains(t, log.String(), "differs")
	said := log.String()
	require.NoError(t, j.judge(problems, topics.State{}, true))
	require.Equal(t, said, log.String(), "it is warned of again each minute")
	require.NoError(t, j.judge(nil, topics.State{}, true))
	require.NoError(t, j.judge(problems, topics.State{}, true))
	require.NotEqual(t, said, log.String(), "what is odd again is not warned of")
}
