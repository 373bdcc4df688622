package consumers_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay/kafkaconn/kafkatest"
)

func TestRealKafkaConsumers(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	consumers := []*consumer{
		{name: "go", command: goCommand("./kafka")},
		{name: "python", command: python("kafka-python", "consumer.py")},
		{name: "node", command: node("kafka-node", "consumer.mjs")},
		{name: "java", command: java("kafka-java", "Consumer")},
	}
	for _, c := range consumers {
		cluster.CreateTopic(t, "ncs."+c.name, 3, nil)
		c.settings = []string{"BROKERS=" + cluster.Addresses()[0], "TOPIC=ncs." + c.name}
	}
	r := startRelay(t, consumers, func(c *consumer) string {
		return fmt.Sprintf(`kafka: {brokers: [%q], topic: ncs.%s, compression: lz4, cloudevents: true}`, cluster.Addresses()[0], c.name)
	})
	t.Run("each", func(t *testing.T) { // the relay and the cluster outlive the parallel ones
		for _, c := range consumers {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				readsKafka(t, cluster, r, c)
			})
		}
	})
}

func readsKafka(t *testing.T, cluster *kafkatest.Cluster, r *relay, c *consumer) {
	c.start(t, "GROUP="+c.name+"-one")
	r.postAll(t, c)
	keys := requireAll(t, c, c.next(t, 24))

	// Killed, with all offsets lost: everything comes again and is known. What is forged is refused, and the rest goes on.
	require.Error(t, c.end(t, syscall.SIGKILL))
	forge(t, cluster, "ncs."+c.name)
	c.start(t, "GROUP="+c.name+"-two")
	r.post(t, c, "marker", 0)
	require.Equal(t, "marker", c.next(t, 1)[0][2])
	require.Eventually(t, func() bool { return strings.Count(c.output.String(), "refused") == 3 }, patience, tick, "%s", lazily{c.output})

	r.replay(t, c, "recording-1")
	requireReplay(t, c, keys, c.next(t, 6))

	// An operator's test is not acted upon; another event shows that it was read.
	require.Contains(t, r.run(t, "sinks", "test", c.name, "-c", r.config), "delivered")
	for i := range 9 {
		r.post(t, c, fmt.Sprint("marker-", i), 0) // in every partition, by their keys
	}
	require.Len(t, c.next(t, 9), 9)

	// Stopped: what was done is committed.
	_ = c.end(t, syscall.SIGTERM)
	require.EqualValues(t, cluster.Count(t, "ncs."+c.name), committed(t, cluster, c.name+"-two", "ncs."+c.name), "%s", c.output)
	c.start(t, "GROUP="+c.name+"-two")
	r.post(t, c, "marker", 1)
	require.Equal(t, "marker", c.next(t, 1)[0][2])
	require.NotContains(t, c.output.String(), "refused", "was not read again")
}

// forge writes records that the relay would never write: with no signature, with a wrong one, with no value.
func forge(t *testing.T, cluster *kafkatest.Cluster, topic string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addresses()...), kgo.DefaultProduceTopic(topic))
	require.NoError(t, err)
	defer client.Close()
	body := recorded("forged", 0)
	for _, record := range []*kgo.Record{
		{Value: body},
		{Value: body, Headers: []kgo.RecordHeader{{Key: "agora-signature-v2", Value: []byte(signed(append(body, ' ')))}}},
		{Key: []byte("forged"), Headers: []kgo.RecordHeader{{Key: "agora-signature-v2"}}},
	} {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: "ncs-event-id", Value: []byte("0")}, kgo.RecordHeader{Key: "ncs-event", Value: []byte("uploaded")})
		require.NoError(t, client.ProduceSync(t.Context(), record).FirstErr())
	}
}

// committed adds up the offsets that a group has committed in a topic.
func committed(t *testing.T, cluster *kafkatest.Cluster, group, topic string) (sum int64) {
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addresses()...))
	require.NoError(t, err)
	defer client.Close()
	request := kmsg.NewPtrOffsetFetchRequest()
	asked := kmsg.NewOffsetFetchRequestGroup()
	asked.Group = group
	request.Groups = append(request.Groups, asked)
	response, err := request.RequestWith(t.Context(), client)
	require.NoError(t, err)
	topics := response.Groups[0].Topics
	at := slices.IndexFunc(topics, func(o kmsg.OffsetFetchResponseGroupTopic) bool { return o.Topic == topic })
	require.GreaterOrEqual(t, at, 0)
	for _, p := range topics[at].Partitions {
		sum += max(p.Offset, 0)
	}
	return sum
}
