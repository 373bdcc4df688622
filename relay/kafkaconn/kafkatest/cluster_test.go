package kafkatest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/kafkatest"
)

func TestRealKafkaCluster(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	cluster.CreateTopic(t, "tools", 3, map[string]string{"max.message.bytes": "10000"})

	cluster.Produce(t, "tools", [][2]string{{"a", "first"}, {"a", "zwei"}, {"b", "日本"}})

	byKey := make(map[string][]string)
	for _, record := range cluster.Consume(t, "tools") {
		byKey[string(record.Key)] = append(byKey[string(record.Key)], string(record.Value))
		require.NotZero(t, record.Timestamp)
	}
	require.Equal(t, 3, cluster.Count(t, "tools"))
	require.Equal(t, map[string][]string{"a": {"first", "zwei"}, "b": {"日本"}}, byKey)
}
