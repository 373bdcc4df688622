package kafkasink_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"ncs-relay/relay"
	"ncs-relay/sinks/kafkasink"
)

func TestRequestsRespectTheTopicsLimit(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	require.NoError(t, cluster.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "4000"}))
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(100)...)
	lane := learn(t, sink, batch)
	requests := watchProduce(cluster)

	send(t, sink, lane, batch)

	require.Equal(t, numbered(100), values(read(t, cluster, 100)))
	total := 0
	for _, r := range requests.requests {
		total += int(r.NumRecords)
	}
	require.Equal(t, 100, total, "nothing was sent to be refused")
	require.Greater(t, total/len(requests.requests), 4, "and requests are filled: each record has some 300 bytes")
}

func TestALimitThatMayNotBeReadIsFound(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	require.NoError(t, cluster.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "4000"}))
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(100)...)
	lane := learn(t, sink, batch)
	send(t, sink, lane, batch)
	requests := watchProduce(cluster)

	send(t, sink, lane, attempts("f", numbered(100)...))

	read(t, cluster, 200)
	total := 0
	for _, r := range requests.requests {
		total += int(r.NumRecords)
	}
	require.Equal(t, 100, total, "what the first batch found out holds for the second")
}

func TestALoweredLimitIsLearnt(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	require.NoError(t, cluster.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "100000"}))
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(50)...)
	lane := learn(t, sink, batch)
	send(t, sink, lane, batch)
	setTopicConfig(t, cluster, "max.message.bytes", "4000")
	send(t, sink, lane, attempts("f", numbered(50)...))
	requests := watchProduce(cluster)
	send(t, sink, lane, attempts("g", numbered(50)...))
	total := 0
	for _, r := range requests.requests {
		total += int(r.NumRecords)
	}
	require.Equal(t, 50, total)
}

func setTopicConfig(t *testing.T, cluster *kfake.Cluster, name, value string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	set := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	set.Name, set.Value = name, &value
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	resource.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{set}
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = []kmsg.IncrementalAlterConfigsRequestResource{resource}
	response, err := request.RequestWith(t.Context(), client)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(response.Resources[0].ErrorCode))
}

func TestMaxBatchIsConfigured(t *testing.T) {
	t.Parallel()
	cfg := configured([]string{"k1.internal:9092"}, topic)
	cfg.MaxBatchEvents, cfg.MaxBatchBytes = 7, 8000
	events, bytes := newSinkOf(t, cfg, discard).MaxBatch()
	require.Equal(t, []int{7, 8000}, []int{events, bytes})
}

func TestEveryCompressionIsReadByAnotherClient(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int16{"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			cfg := configured(cluster.ListenAddrs(), topic)
			cfg.Compression = name
			sink := newSinkOf(t, cfg, discard)
			bodies := numbered(100)
			bodies[50] = strings.Repeat("same ", 10_000)
			batch := attempts("e", bodies...)
			lane := learn(t, sink, batch)
			requests := watchProduce(cluster)
			send(t, sink, lane, batch)
			require.Equal(t, bodies, values(read(t, cluster, 100)))
			require.Equal(t, code, requests.requests[0].Attributes&7)
		})
	}
}

// kafka-go negotiates versions. These must be what today's and tomorrow's brokers still serve.
func TestNoRequestIsBelowWhatKafka4Serves(t *testing.T) {
	t.Parallel()
	floor := map[int16]int16{int16(kmsg.Produce): 3, int16(kmsg.CreateTopics): 2, int16(kmsg.DescribeConfigs): 1}
	cluster := fake(t, 0, kfake.MaxVersions(kversion.V4_1_0()))
	var below atomic.Int32
	cluster.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if r.GetVersion() < floor[r.Key()] {
			below.Add(1)
		}
		return nil, nil, false
	})
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.CreateTopics = &kafkasink.CreateTopics{Partitions: 1, Replication: 1}
	sink := newSinkOf(t, cfg, discard)
	batch := attempts("e", "a")
	send(t, sink, learn(t, sink, batch), batch)
	require.Zero(t, below.Load())
}

func TestAMissingTopicIsCreatedWhereThatIsConfigured(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.CreateTopics = &kafkasink.CreateTopics{Partitions: 5, Replication: 1, Configs: map[string]string{"max.message.bytes": "5000"}}
	sink := newSinkOf(t, cfg, discard)
	batch := attempts("e", "x")
	lane := learn(t, sink, batch)
	send(t, sink, lane, batch)
	require.Len(t, cluster.PartitionInfos(topic), 5)
	taken, err := sink.Send(t.Context(), lane, attempts("e", strings.Repeat("x", 6000)))
	require.Zero(t, taken)
	require.True(t, relay.IsPermanent(err), "the limit was set: %v", err)
}

func TestATopicIsCreatedWithTheClustersDefaults(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0, kfake.DefaultNumPartitions(7))
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.CreateTopics = &kafkasink.CreateTopics{}
	sink := newSinkOf(t, cfg, discard)
	learn(t, sink, attempts("e", "x"))
	require.Len(t, cluster.PartitionInfos(topic), 7)
}

func TestATopicThatCannotBeCreatedIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	cluster.ControlKey(int16(kmsg.CreateTopics), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		request := r.(*kmsg.CreateTopicsRequest)
		response := request.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, asked := range request.Topics {
			refused := kmsg.NewCreateTopicsResponseTopic()
			refused.Topic, refused.ErrorCode = asked.Topic, kerr.TopicAuthorizationFailed.Code
			response.Topics = append(response.Topics, refused)
		}
		return response, nil, true
	})
	cfg := configured(cluster.ListenAddrs(), topic)
	cfg.CreateTopics = &kafkasink.CreateTopics{Partitions: 5}
	sink := newSinkOf(t, cfg, discard)
	batch := attempts("e", "x")
	_, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
	require.ErrorContains(t, err, "create topic "+topic)
	require.False(t, relay.IsPermanent(err))
}

func TestAPartitionWithoutLeaderIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "x")
	lane := learn(t, sink, batch)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var looks atomic.Int32
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		look := looks.Add(1)
		if look == 3 {
			cancel()
		}
		if look >= 6 {
			return nil, nil, false
		}
		return withoutLeader(cluster, r.(*kmsg.MetadataRequest)), nil, true
	})
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition})
	_, err := sink.Send(ctx, lane, batch)
	require.ErrorIs(t, err, kafka.LeaderNotAvailable, "the reason, when Send has to end, and not that it has to")
	require.False(t, relay.IsPermanent(err))
	taken, err := sink.Send(t.Context(), lane, batch)
	require.NoError(t, err)
	require.Equal(t, 1, taken)
	require.Equal(t, []string{"x"}, values(read(t, cluster, 1)))
}

func withoutLeader(cluster *kfake.Cluster, request *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	response := request.ResponseKind().(*kmsg.MetadataResponse)
	for i, address := range cluster.ListenAddrs() {
		broker := kmsg.NewMetadataResponseBroker()
		host, port, _ := strings.Cut(address, ":")
		n, _ := strconv.ParseInt(port, 10, 32)
		broker.NodeID, broker.Host, broker.Port = int32(i), host, int32(n)
		response.Brokers = append(response.Brokers, broker)
	}
	partition := kmsg.NewMetadataResponseTopicPartition()
	partition.ErrorCode, partition.Leader = kerr.LeaderNotAvailable.Code, -1
	for _, asked := range request.Topics {
		found := kmsg.NewMetadataResponseTopic()
		found.Topic = asked.Topic
		if *asked.Topic == topic {
			found.Partitions = []kmsg.MetadataResponseTopicPartition{partition}
		} else {
			found.ErrorCode = kerr.UnknownTopicOrPartition.Code
		}
		response.Topics = append(response.Topics, found)
	}
	return response
}
