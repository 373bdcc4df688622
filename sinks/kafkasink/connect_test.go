package kafkasink_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
)

// What a cluster says of rights it says since version 8 of the answer; some say nothing then.
func TestRightsThatAreNotStatedAreNotJudged(t *testing.T) {
	t.Parallel()
	for name, versions := range map[string]*kversion.Versions{
		"Kafka 1.1": kversion.V1_1_0(), "Kafka 2.1": kversion.V2_1_0(), "Kafka 2.3": kversion.V2_3_0(), "Kafka 3.0": kversion.V3_0_0(), "the latest": kversion.Stable(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1, kfake.MaxVersions(versions))
			require.Empty(t, newSink(t, cluster.ListenAddrs()).Connect(t.Context(), []string{topic}))
			batch := attempts("e", "x")
			sink := newSink(t, cluster.ListenAddrs())
			send(t, sink, learn(t, sink, batch), batch)
		})
	}
	for name, test := range map[string]struct {
		operations int32
		problems   int
	}{"nothing": {0, 0}, "not said": {-1 << 31, 0}, "to describe": {1 << 8, 1}, "to write": {1<<8 | 1<<4, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			saying(t, cluster, test.operations)
			require.Len(t, newSink(t, cluster.ListenAddrs()).Connect(t.Context(), []string{topic}), test.problems)
		})
	}
}

// saying makes the cluster say what we may do with topics.
func saying(t *testing.T, cluster *kfake.Cluster, operations int32) {
	host, port, err := net.SplitHostPort(cluster.ListenAddrs()[0])
	require.NoError(t, err)
	number, err := net.LookupPort("tcp", port)
	require.NoError(t, err)
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response := r.ResponseKind().(*kmsg.MetadataResponse)
		broker := kmsg.NewMetadataResponseBroker()
		broker.NodeID, broker.Host, broker.Port = 0, host, int32(number)
		found, partition := kmsg.NewMetadataResponseTopic(), kmsg.NewMetadataResponseTopicPartition()
		found.Topic, found.AuthorizedOperations = kmsg.StringPtr(topic), operations
		found.Partitions = append(found.Partitions, partition)
		response.Brokers, response.Topics = append(response.Brokers, broker), append(response.Topics, found)
		return response, nil, true
	})
}

func TestAForeignAddressAmongTheBrokersIsToldAndDeliveryGoesOn(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer foreign.Close()
	go func() {
		for {
			conn, err := foreign.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			conn.Close()
		}
	}()
	var log bytes.Buffer
	cfg := configured(append([]string{foreign.Addr().String()}, cluster.ListenAddrs()...), topic)
	sink := newSinkOf(t, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	batch := attempts("e", "x")
	send(t, sink, learn(t, sink, batch), batch)
	require.Equal(t, []string{"x"}, values(read(t, cluster, 1)))
	require.Contains(t, log.String(), "broker="+foreign.Addr().String())
	require.Contains(t, log.String(), "does not speak Kafka")

	problems := sink.Connect(t.Context(), []string{topic})
	require.Len(t, problems, 1)
	require.ErrorIs(t, problems[0], kafkaconn.ErrNotKafka)
	require.ErrorContains(t, problems[0], foreign.Addr().String())
}

func TestMissingTopicsAreToldInOrder(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	problems := newSink(t, cluster.ListenAddrs()).Connect(t.Context(), []string{"c", "a", topic, "b"})
	require.Len(t, problems, 3)
	for i, name := range []string{"a", "b", "c"} {
		require.EqualError(t, problems[i], "topic "+name+" does not exist on the cluster; create it, or use create_topics")
		require.Equal(t, relay.ReasonBroker, relay.ReasonOf(problems[i]))
	}
}
