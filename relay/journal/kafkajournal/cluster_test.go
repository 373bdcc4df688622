package kafkajournal

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// topicNames are those of a journal.
func topicNames(prefix string) (sharded []string, control string) {
	for _, name := range []string{"inbox", "events", "state", "dead"} {
		sharded = append(sharded, prefix+"."+name)
	}
	return sharded, prefix + ".control"
}

// onCluster are the options of a journal on a cluster.
func onCluster(t testing.TB, addresses []string, prefix string, shards int) Options {
	opts := testOptions(t, nil, shards)
	opts.Prefix = prefix
	opts.Cluster = kafkaconn.New(kafkaconn.Config{Brokers: addresses, ClientID: "test"})
	t.Cleanup(opts.Cluster.Close)
	return opts
}

func fakeCluster(t testing.TB, shards int) []string {
	sharded, control := topicNames("ncs")
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(int32(shards), sharded...), kfake.SeedTopics(1, control))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

func TestContractOnFakeCluster(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) journaltest.Opener {
		addresses := fakeCluster(t, 1)
		return func(t testing.TB) journal.Opened { return mustOpen(t, onCluster(t, addresses, "ncs", 1)) }
	})
}

func mustOpen(t testing.TB, opts Options) *Journal {
	j, err := Open(t.Context(), opts)
	require.NoError(t, err)
	return j
}

// createTopics makes the topics of a journal on a real cluster.
func createTopics(t testing.TB, c *kafkatest.Cluster, prefix string, shards int) {
	sharded, control := topicNames(prefix)
	for _, name := range sharded {
		c.CreateTopic(t, name, shards, map[string]string{"message.timestamp.type": "LogAppendTime"})
	}
	c.CreateTopic(t, control, 1, map[string]string{"message.timestamp.type": "LogAppendTime", "cleanup.policy": "compact"})
}

func TestContractOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	journaltest.Run(t, func(t *testing.T) journaltest.Opener {
		prefix := topicPrefix(t)
		createTopics(t, cluster, prefix, 1)
		return func(t testing.TB) journal.Opened { return mustOpen(t, onCluster(t, cluster.Addresses(), prefix, 1)) }
	})
}
