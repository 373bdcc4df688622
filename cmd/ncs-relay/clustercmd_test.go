package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay/journal/kafkajournal/member"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/kafkaconn/kafkatest"
)

// onKafka is a configuration with its journal on a cluster.
type onKafka struct {
	t       *testing.T
	brokers []string
	file    string
}

func newOnKafka(t *testing.T, brokers []string) *onKafka {
	o := &onKafka{t, brokers, filepath.Join(t.TempDir(), "relay.yaml")}
	o.write("cluster: production, create_topics: {shards: 6}", "retention: 7d")
	return o
}

// write writes the configuration, with more in journal.kafka and in journal.
func (o *onKafka) write(kafka, journal string) {
	require.NoError(o.t, os.WriteFile(o.file, []byte(`
journal:
  kafka: {brokers: ["`+strings.Join(o.brokers, `","`)+`"], `+kafka+`}
  `+journal+`
sources:
  - {name: recording, path: /ncs, secrets: [0123456789abcdef]}
sinks:
  - {name: archive, file: {path: "./{replica}.jsonl"}}
routes:
  - to: [archive]
`), 0o600))
}

// run runs a command and returns its exit status, and what it printed.
func (o *onKafka) run(args ...string) (status int, out, errs string) {
	var stdout, stderr strings.Builder
	status = run(o.t.Context(), append(args, "-c", o.file), strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

// fails runs a command that must fail, saying all the words.
func (o *onKafka) fails(args []string, words ...string) {
	o.t.Helper()
	status, out, errs := o.run(args...)
	require.Equal(o.t, exitFailed, status, out+errs)
	for _, w := range words {
		require.Contains(o.t, errs, w)
	}
}

func (o *onKafka) works(args []string, words ...string) {
	o.t.Helper()
	status, out, errs := o.run(args...)
	require.Equal(o.t, exitOK, status, out+errs)
	for _, w := range words {
		require.Contains(o.t, out, w)
	}
}

var (
	clusterInit  = []string{"cluster", "init"}
	clusterCheck = []string{"cluster", "check"}
)

func fakeBrokers(t *testing.T, brokers int) (*kfake.Cluster, *kgo.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(brokers))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return cluster, client
}

func alterTopic(t *testing.T, client *kgo.Client, topic, name, value string) {
	t.Helper()
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = name, &value
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	resource.Configs = append(resource.Configs, config)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	response, err := request.RequestWith(t.Context(), client)
	require.NoError(t, err)
	require.Zero(t, response.Resources[0].ErrorCode)
}

func TestClusterInitMakesTheTopicsOnce(t *testing.T) {
	t.Parallel()
	cluster, client := fakeBrokers(t, 3)
	o := newOnKafka(t, cluster.ListenAddrs())
	o.works([]string{"check"}, "Kafka clusters (--connect)")
	o.works([]string{"check", "--connect"}, "journal: topics that will be made: ncs.inbox, ncs.events, ncs.state, ncs.dead, ncs.control")
	o.fails(clusterCheck, "topic ncs.inbox: does not exist", "topic ncs.control: does not exist", "ncs-relay cluster init")
	o.works(clusterInit, "made topic ncs.inbox", "made topic ncs.control", "wrote what all replicas share to ncs.control: cluster production, format 1, 6 shards", "the topics of cluster production are ready: 6 shards")
	status, out, _ := o.run(clusterInit...)
	require.Equal(t, exitOK, status)
	require.Equal(t, "the topics of cluster production are ready: 6 shards\n", out)
	o.works(clusterCheck, "the topics of cluster production are as they must be: 6 shards")
	o.works([]string{"check", "--connect"}, "journal: the cluster answers")

	status, out, errs := o.run("cluster", "status", "--json")
	require.Equal(t, exitOK, status, errs)
	var s clusterStatus
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	require.Equal(t, "production", s.Cluster)
	require.Len(t, s.Topics, 5)
	require.Len(t, s.Shards, 6)
	require.Empty(t, s.Problems)
	require.EqualValues(t, 1, s.Topics[4].Records)
	o.works([]string{"cluster", "status"}, "cluster production, prefix ncs, format 1", "ncs.inbox    6           3         0", "0      none")

	// Without create_topics the topics that are there do.
	o.write("cluster: production", "retention: 7d")
	o.works(clusterInit, "the topics of cluster production are ready: 6 shards")
	alterTopic(t, client, "ncs.state", "segment.ms", "600001")
	o.works(clusterCheck, "warning: topic ncs.state: segment.ms is 600001")
	o.works([]string{"cluster", "status"}, "PROBLEM: topic ncs.state: segment.ms is 600001")
}

func TestClusterSaysWhatIsNotAsItMustBe(t *testing.T) {
	t.Parallel()
	cluster, client := fakeBrokers(t, 3)
	o := newOnKafka(t, cluster.ListenAddrs())
	o.write("cluster: production", "retention: 7d")
	o.fails(clusterInit, "topic ncs.inbox: does not exist", "kafka-topics.sh --bootstrap-server "+strings.Join(o.brokers, ",")+" --create --topic ncs.inbox")
	o.write("cluster: production, create_topics: {shards: 6}", "retention: 7d")
	o.works(clusterInit)

	for name, test := range map[string]struct{ kafka, journal, words string }{
		"another number of shards": {"cluster: production, create_topics: {shards: 4}", "retention: 7d", "topic ncs.events: has 6 partitions, must be 4"},
		"a longer retention":       {"cluster: production", "retention: 8d", "topic ncs.inbox: retention.ms is 604800000, must be 691200000"},
		"another cluster":          {"cluster: staging", "retention: 7d", `topic ncs.control: says that the cluster is "production", and this replica has "staging"`},
	} {
		o.write(test.kafka, test.journal)
		o.fails(clusterCheck, test.words)
		o.fails(clusterInit, test.words)
		o.fails([]string{"check", "--connect"}, o.file+":3:3: journal.kafka: "+test.words)
		t.Log(name)
	}
	o.write("cluster: production", "retention: 7d")
	alterTopic(t, client, "ncs.dead", "cleanup.policy", "compact,delete")
	alterTopic(t, client, "ncs.inbox", "min.insync.replicas", "1")
	o.fails(clusterCheck, "topic ncs.dead: cleanup.policy is compact,delete, must be compact", "topic ncs.inbox: min.insync.replicas is 1, must be 2", "--entity-name ncs.inbox --add-config min.insync.replicas=2")
}

func TestClusterMeetsAnotherFormat(t *testing.T) {
	t.Parallel()
	for words, meta := range map[string]string{
		"topic ncs.control: has format 2, and this version of ncs-relay knows 1": `{"cluster":"production","format":2,"shards":6}`,
		"the constants of the journal cannot be read: they have no format":       `{"cluster":"production","shards":6}`,
		"the constants of the journal cannot be read":                            `{`,
	} {
		cluster, client := fakeBrokers(t, 3)
		o := newOnKafka(t, cluster.ListenAddrs())
		o.works(clusterInit)
		require.NoError(t, cluster.DeleteTopic("ncs.control"))
		require.NoError(t, cluster.CreateTopic("ncs.control", 1, map[string]string{"cleanup.policy": "compact"}))
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: "ncs.control", Key: []byte("meta/1"), Value: []byte(meta)}).FirstErr())
		o.fails(clusterCheck, words)
		o.fails(clusterInit, words)
	}
}

func TestClusterOfOneBrokerIsForTests(t *testing.T) {
	t.Parallel()
	cluster, _ := fakeBrokers(t, 1)
	o := newOnKafka(t, cluster.ListenAddrs())
	o.write("cluster: production, unsafe: true, create_topics: {shards: 2, replication: 1}", "retention: 7d")
	o.works(clusterInit, "ready: 2 shards")
	o.write("cluster: production, create_topics: {shards: 2}", "retention: 7d")
	o.fails(clusterCheck, "topic ncs.inbox: has 1 replicas, must be 3 or more", "topic ncs.inbox: min.insync.replicas is 1, must be 2")
}

func TestClusterConfirmsATopicThatWasMadeAgain(t *testing.T) {
	t.Parallel()
	cluster, _ := fakeBrokers(t, 3)
	o := newOnKafka(t, cluster.ListenAddrs())
	o.fails([]string{"cluster", "confirm", "--unknown", "--yes"}, "cluster init comes first")
	o.works(clusterInit)
	o.fails([]string{"cluster", "confirm", "--unknown", "--yes"}, "there is nothing to confirm")
	require.NoError(t, cluster.DeleteTopic("ncs.events"))
	o.works([]string{"cluster", "status"}, "PROBLEM: topic ncs.events: does not exist")
	o.fails(clusterInit, "topic ncs.events: is not the one that was known, in 6 shards", "ncs-relay cluster confirm")
	status, _, errs := o.run("cluster", "confirm", "--shard", "6", "--yes")
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "there is no shard 6: they are 0 to 5")
	status, _, errs = o.run("cluster", "confirm", "--unknown")
	require.Equal(t, exitUsage, status)
	require.Contains(t, errs, "--yes does it")
	o.works([]string{"cluster", "confirm", "--shard", "2", "--yes"}, "shard 2: epoch 1")
	o.works([]string{"cluster", "confirm", "--unknown", "--yes"}, "shard 0: epoch 1", "shard 5: epoch 1")
	o.works(clusterCheck, "as they must be")
	o.works([]string{"cluster", "status"}, "2      none   1")
}

func TestAJournalOnKafkaIsNotLookedForOnDisk(t *testing.T) {
	t.Parallel()
	o := newOnKafka(t, []string{"127.0.0.1:1"})
	o.fails([]string{"journal", "verify"}, "the journal of this configuration is on Kafka")
	o.fails(clusterCheck, "127.0.0.1:1", "connection refused")
	require.NoError(t, os.WriteFile(o.file, []byte("sources: [{name: a, path: /a, secrets: [0123456789abcdef]}]\n"), 0o600))
	o.fails(clusterInit, "has no journal.kafka: its journal is in ")
}

// TestRealKafkaCluster makes the topics on real brokers, where a replica has joined the group.
func TestRealKafkaCluster(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	o := newOnKafka(t, cluster.Addresses())
	o.works(clusterInit, "made topic ncs.inbox", "ready: 6 shards")
	o.works(clusterInit)
	o.works(clusterCheck, "as they must be: 6 shards", "warning: broker.session.timeout.ms is 9000 at broker 1 (127.0.0.1), 2 (127.0.0.1), 3 (127.0.0.1), must be 4000")

	stop := o.replica("relay-1", topics.Format)
	o.works([]string{"cluster", "status"}, "relay-1  0,1,2,3,4,5  relay-1:9464  1.2.3", "5      relay-1")

	cluster.DeleteTopic(t, "ncs.dead")
	o.fails(clusterInit, "topic ncs.dead: is not the one that was known, in 6 shards")
	o.fails([]string{"cluster", "confirm", "--unknown", "--yes"}, "stop all relays first", "relay-1")
	stop()
	o.works([]string{"cluster", "confirm", "--unknown", "--yes"}, "shard 0: its topics are those that its state speaks of")
	o.works(clusterCheck)
}

// TestRealKafkaClusterWithRights is what README.md says of the rights that a relay needs.
func TestRealKafkaClusterWithRights(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{
		Config: map[string]string{
			"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users":           "User:ANONYMOUS", // of the plain listener: the administrator
			"listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
			"listener.name.sasl.plain.sasl.jaas.config":  `org.apache.kafka.common.security.plain.PlainLoginModule required user_relay="secret" user_guest="secret";`,
		},
		Listeners: []kafkatest.Listener{{Name: "SASL", Protocol: "SASL_PLAINTEXT"}},
	})
	as := func(user string) *onKafka {
		o := newOnKafka(t, cluster.AddressesOf("SASL"))
		o.write("cluster: production, unsafe: true, create_topics: {shards: 2, replication: 1}, sasl: {mechanism: plain, username: "+user+", password: secret}", "retention: 7d")
		return o
	}
	names := topics.NamesOf("ncs")
	guest, relay := as("guest"), as("relay")
	guest.fails(clusterCheck, "topic ncs.inbox: ", "access rules of the cluster do not let this user do that with the topic")
	for _, name := range names.All() {
		cluster.Allow(t, "relay", kmsg.ACLResourceTypeTopic, name, kmsg.ACLOperationRead) // and with it to describe
		cluster.Allow(t, "relay", kmsg.ACLResourceTypeTopic, name, kmsg.ACLOperationWrite)
	}
	relay.fails(clusterInit, "create topic ncs.inbox", "let an administrator type what ncs-relay cluster check suggests")
	for _, name := range names.All() {
		cluster.Allow(t, "relay", kmsg.ACLResourceTypeTopic, name, kmsg.ACLOperationCreate)
	}
	relay.works(clusterInit, "made topic ncs.control", "warning: topic ncs.inbox: does not tell its settings (allow this user to DescribeConfigs of the topic)", "ready: 2 shards")
	relay.works([]string{"cluster", "status"}, "not known: ", "Group Authorization Failed")
	for _, name := range names.All() {
		cluster.Allow(t, "relay", kmsg.ACLResourceTypeTopic, name, kmsg.ACLOperationDescribeConfigs)
	}
	cluster.Allow(t, "relay", kmsg.ACLResourceTypeGroup, names.Group, kmsg.ACLOperationRead)
	status, out, errs := relay.run(clusterCheck...)
	require.Equal(t, exitOK, status, errs)
	require.Equal(t, "the topics of cluster production are as they must be: 2 shards\n", out)
	relay.works([]string{"cluster", "status"}, "0      none")

	cfg, report := loadConfig(relay.file)
	require.NoError(t, report.Err())
	j := journalOf(cfg, nil)
	defer j.cluster.Close()
	show := func() string {
		var log bytes.Buffer
		lags := &member.Lags{Brokers: j.cluster, Prefix: names.SinkGroups, Topic: names.Events, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Owed: func() []member.Backlog { return []member.Backlog{{Sink: "archive", Shard: 1, End: 9, Owed: 2}} }}
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		lags.Run(ctx)
		return log.String()
	}
	require.Contains(t, show(), "allow this user Read on the consumer group")
	cluster.Allow(t, "relay", kmsg.ACLResourceTypeGroup, names.SinkGroups+"archive", kmsg.ACLOperationRead)
	require.Empty(t, show())
}
