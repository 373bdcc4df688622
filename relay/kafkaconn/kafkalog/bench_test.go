package kafkalog_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/batch"
	"ncs-relay/relay/kafkaconn/kafkalog"
	"ncs-relay/relay/kafkaconn/kafkatest"
	"ncs-relay/relay/relaytest"
)

// BenchmarkRealKafka appends records of a notification's size to 24 partitions of three real brokers, each by a Writer, with
// requests of their own and with shared ones. An operation is a record; CPU is that of this process.
func BenchmarkRealKafka(b *testing.B) {
	const partitions = 24
	cluster := kafkatest.Start(b, kafkatest.Options{Brokers: 3, Config: map[string]string{"min.insync.replicas": "2"}})
	cluster.CreateTopic(b, "bench", partitions, nil)
	c := connect(b, cluster.Addresses())
	for _, perBatch := range []int{1, 50} {
		for _, shared := range []bool{false, true} {
			b.Run(fmt.Sprintf("batches of %d, shared=%v", perBatch, shared), func(b *testing.B) {
				o := kafkalog.WriterOptions{}
				if shared {
					o.Requests = batch.NewRequests(c)
				}
				records := make([]kafkalog.Record, perBatch)
				for i := range records {
					records[i] = kafkalog.Record{Value: make([]byte, 700), Headers: []kafkalog.Header{{Key: "ncs-event-id", Value: make([]byte, 32)}}}
				}
				writers := make([]*kafkalog.Writer, partitions)
				for i := range writers {
					writers[i] = kafkalog.NewWriter(c, "bench", int32(i), o)
					_, err := writers[i].Append(b.Context(), records)
					require.NoError(b, err)
				}
				relaytest.MeasureSenders(b, partitions, perBatch, func(partition int) error {
					_, err := writers[partition].Append(b.Context(), records)
					return err
				})
			})
		}
	}
}
