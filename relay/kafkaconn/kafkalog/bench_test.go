package kafkalog_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn/batch"
	"ncs-relay/relay/kafkaconn/kafkalog"
	"ncs-relay/relay/kafkaconn/kafkatest"
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
				var left atomic.Int64
				left.Store(int64((b.N + perBatch - 1) / perBatch))
				var appending sync.WaitGroup
				b.ResetTimer()
				before := cpu(b)
				for _, w := range writers {
					appending.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := w.Append(b.Context(), records); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				appending.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func cpu(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
