package kafkasink_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn/kafkatest"
	"ncs-relay/sinks/kafkasink"
	"ncs-relay/sinks/sinktest"
)

// What other software makes of what the sink writes, and where it would write the same keys.

func TestCloudEventsAsTheOfficialSDKReadsThem(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.CloudEvents = true
	sink := newSinkOf(t, cfg, discard)
	event := sinktest.Event(1, "sid-1")
	event.ContentType = "application/json; charset=utf-8"
	batch := sinktest.Batch(event)
	send(t, sink, learn(t, sink, batch), batch)
	record := read(t, cluster, 1)[0]

	var headers []*sarama.RecordHeader
	for _, h := range record.Headers {
		headers = append(headers, &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	message := kafka_sarama.NewMessageFromConsumerMessage(&sarama.ConsumerMessage{Key: record.Key, Value: record.Value, Headers: headers})
	require.Equal(t, binding.EncodingBinary, message.ReadEncoding())
	e, err := binding.ToEvent(t.Context(), message)
	require.NoError(t, err)
	require.NoError(t, e.Validate())
	require.Equal(t, "1.0", e.SpecVersion())
	require.Equal(t, event.ID.String(), e.ID())
	require.Equal(t, "/ncs/recording", e.Source())
	require.Equal(t, "agora.ncs."+event.Info.Product+"."+event.Info.Event, e.Type())
	require.Equal(t, event.Entity, e.Subject())
	require.Equal(t, event.ReceivedAt.UTC().Truncate(time.Millisecond), e.Time().UTC())
	require.Equal(t, event.ContentType, e.DataContentType())
	require.Equal(t, event.Body, e.Data())
}

// partitionedLike compares the sink's partitions with those in want, by key.
func partitionedLike(t *testing.T, partitioner string, partitions int32, want map[string]int) {
	t.Helper()
	cluster := fake(t, partitions)
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.Partitioner = partitioner
	sink := newSinkOf(t, cfg, discard)
	learn(t, sink, attempts("e", "x"))
	got := make(map[string]int)
	for key := range want {
		var partition int
		_, err := fmt.Sscan(sink.Lane(attempts(key, "x")[0].Event).Key, &partition)
		require.NoError(t, err)
		got[key] = partition
	}
	require.Empty(t, cmp.Diff(want, got))
}

func someKeys() (keys []string) {
	for i := range 200 {
		keys = append(keys, strings.Repeat("é", i%5)+fmt.Sprintf("entity-%d", i*i))
	}
	return keys
}

func TestPartitionsAreThoseOfSarama(t *testing.T) {
	t.Parallel()
	const partitions = 13
	oracle, want := sarama.NewHashPartitioner(topic), make(map[string]int)
	for _, key := range someKeys() {
		partition, err := oracle.Partition(&sarama.ProducerMessage{Key: sarama.StringEncoder(key)}, partitions)
		require.NoError(t, err)
		want[key] = int(partition)
	}
	partitionedLike(t, "sarama", partitions, want)
}

func realCompression(t *testing.T, cluster *kafkatest.Cluster) {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		name := "compressed-" + codec
		cluster.CreateTopic(t, name, 1, nil) // compression.type=producer: the broker keeps what it gets
		cfg := configured(cluster.Addresses(), name)
		cfg.Compression = codec
		sink := newSinkOf(t, cfg, discard)
		bodies := append(numbered(300), strings.Repeat("long ", 50_000))
		batch := attempts("e", bodies...)
		send(t, sink, learn(t, sink, batch), batch)

		var got []string
		for _, r := range cluster.Consume(t, name) {
			got = append(got, string(r.Value))
		}
		require.Empty(t, cmp.Diff(bodies, got), codec)
		require.Equal(t, codec, cluster.Codec(t, name), "as the broker stored it")
	}
}

// kcat is the tool that people look into topics with. It is built on librdkafka, which has its own partitioner.
func kcat(t *testing.T, input string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is missing (on Debian: apt-get install kcat)")
	}
	command := exec.CommandContext(t.Context(), "kcat", args...)
	var output, errors bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &output, &errors
	require.NoError(t, command.Run(), errors.String())
	return output.String()
}

func realKcat(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "kcat", 1, nil)
	sink := realSink(t, cluster, "kcat")
	event := sinktest.Event(1, "d12fdce9024d37862a8f3a88e387c817")
	batch := sinktest.Batch(event)
	send(t, sink, learn(t, sink, batch), batch)
	printed := kcat(t, "", "-C", "-b", cluster.Addresses()[0], "-t", "kcat", "-e", "-q", "-f", "%T|%k|%h|%s")
	require.True(t, strings.HasPrefix(printed, fmt.Sprintf("%d|%s|", event.ReceivedAt.UnixMilli(), event.Entity)), printed)
	require.True(t, strings.HasSuffix(printed, "|"+string(event.Body)), printed)
	for _, header := range []string{"ncs-event-id=" + event.ID.String(), "ncs-product=cloud_recording", "ncs-source=recording", "agora-signature-v2=" + event.SignatureV2} {
		require.Contains(t, printed, header)
	}
}

func realLibrdkafka(t *testing.T, cluster *kafkatest.Cluster) {
	const partitions = 13
	for partitioner, setting := range map[string]string{"librdkafka": "consistent_random", "java": "murmur2_random"} {
		name := "librdkafka-" + partitioner
		cluster.CreateTopic(t, name, partitions, nil)
		kcat(t, strings.Join(someKeys(), ":x\n")+":x\n", "-P", "-b", cluster.Addresses()[0], "-t", name, "-K", ":", "-X", "topic.partitioner="+setting)
		want := make(map[string]int)
		for _, r := range cluster.Read(t, name) {
			want[string(r.Key)] = int(r.Partition)
		}
		require.Len(t, want, 200)
		partitionedLike(t, partitioner, partitions, want)
	}
}

// TestRealKafkaOfTheLastGeneration: Kafka 3.9 is the last before the old versions of requests were removed, and much in use.
func TestRealKafkaOfTheLastGeneration(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Version: "3.9.1"})
	cluster.CreateTopic(t, "old", 3, map[string]string{"max.message.bytes": "100000"})
	sink := realSink(t, cluster, "old")
	bodies := numbered(50)
	bodies[20] = strings.Repeat("x", 200_000)
	batch := attempts("e", bodies...)
	lane := learn(t, sink, batch)
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 20, taken)
	require.True(t, relay.IsPermanent(err), "%v", err)
	require.ErrorContains(t, err, "the topic takes 100000")
	send(t, sink, lane, batch[21:])
	require.Equal(t, slices.Delete(bodies, 20, 21), values(cluster.Read(t, "old")))

	cfg := configured(cluster.Addresses(), "created")
	cfg.CreateTopics = &kafkasink.CreateTopics{Partitions: 5, Replication: 1, Configs: map[string]string{"retention.ms": "60000"}}
	created := newSinkOf(t, cfg, discard)
	require.Empty(t, created.Connect(t.Context(), []string{"old", "created"}))
	send(t, created, learn(t, created, batch), batch[:1])
	require.Equal(t, 1, cluster.Count(t, "created"))

	cluster.Restart(t)
	send(t, sink, lane, attempts("e", "after a restart"))
	require.Equal(t, 50, cluster.Count(t, "old"))
}
