package kafkalog_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
	"ncs-relay/relay/kafkaconn/kafkalog"
	"ncs-relay/relay/kafkaconn/kafkatest"
)

// TestRealKafka runs against three real brokers, of which two must have each record.
func TestRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3, Config: map[string]string{
		"min.insync.replicas": "2", "log.cleaner.backoff.ms": "200", "broker.session.timeout.ms": "6000",
	}})
	t.Run("compaction", func(t *testing.T) { realCompaction(t, cluster) })
	t.Run("refusals", func(t *testing.T) { realRefusals(t, cluster) })
	t.Run("late", func(t *testing.T) { realLate(t, cluster) })
	t.Run("faults", func(t *testing.T) { realFaults(t, cluster) })
}

// realCompaction reads a topic from which records are removed meanwhile.
func realCompaction(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "compact", 1, map[string]string{"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime",
		"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "100"})
	c := connect(t, cluster.Addresses())
	w := kafkalog.NewWriter(c, "compact", 0, kafkalog.WriterOptions{Codec: compress.Zstd})
	write := func(n int) (base int64) {
		var err error
		base, err = w.Append(soon(t), []kafkalog.Record{
			{Key: []byte("a"), Value: fmt.Append(nil, n)}, {Key: []byte("b"), Value: fmt.Append(nil, n)}, {Key: []byte("gone")}})
		require.NoError(t, err)
		return base
	}
	began := time.Now()
	for n := 0; ; n++ {
		base := write(n)
		require.EqualValues(t, 3*n, base)
		records := readAll(t, c, "compact", 0)
		last := records[len(records)-3:]
		require.Equal(t, base, last[0].Offset)
		require.Equal(t, fmt.Sprint(n), string(last[0].Value))
		require.Nil(t, last[2].Value)
		require.WithinRange(t, last[0].Time, began.Add(-time.Minute), time.Now().Add(time.Minute), "the time of appending")
		for since, want := range map[time.Time]int64{last[0].Time: base, last[0].Time.Add(time.Hour): base + 3} {
			at, err := kafkalog.Since(soon(t), c, "compact", 0, since)
			require.NoError(t, err)
			require.Equal(t, want, at, since)
		}
		for i := range records[1:] {
			require.Less(t, records[i].Offset, records[i+1].Offset)
		}
		if len(records) < 3*n/2 { // much is gone, and there are gaps
			chunk, err := kafkalog.Read(soon(t), c, "compact", 0, 1, 1<<20, 0)
			require.NoError(t, err, "an offset in a gap is in the log")
			require.NotEmpty(t, chunk.Records)
			return
		}
		require.Less(t, time.Since(began), 2*time.Minute, "nothing is compacted")
		time.Sleep(50 * time.Millisecond)
	}
}

// realRefusals are what Kafka does not take.
func realRefusals(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "small", 1, map[string]string{"max.message.bytes": "1000", "cleanup.policy": "compact"})
	c := connect(t, cluster.Addresses())
	w := kafkalog.NewWriter(c, "small", 0, kafkalog.WriterOptions{})
	good := kafkalog.Record{Key: []byte("k"), Value: []byte("v")}
	for i := range int64(3) {
		_, err := w.Append(soon(t), []kafkalog.Record{{Key: []byte("k"), Value: make([]byte, 2000)}})
		require.ErrorAs(t, err, new(*kafkalog.Refused))
		require.ErrorIs(t, err, kafka.MessageSizeTooLarge)
		var refused *kafkalog.Refused
		_, err = w.Append(soon(t), []kafkalog.Record{good, {Value: []byte("without a key, which a compacted topic needs")}})
		require.ErrorAs(t, err, &refused)
		require.ErrorIs(t, err, kafka.InvalidRecord)
		require.Equal(t, 1, refused.Record)
		base, err := w.Append(soon(t), []kafkalog.Record{good})
		require.NoError(t, err)
		require.Equal(t, i, base, "nothing of what was refused is there")
	}
}

// realLate lets a batch arrive behind one of a later epoch of its producer, which nobody has announced: it is refused.
func realLate(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "late", 1, nil)
	c := connect(t, cluster.Addresses())
	producer, epoch, err := c.NewProducerID(soon(t))
	require.NoError(t, err)
	send := func(epoch int16, sequence int32, value string) error {
		var b batch.Builder
		b.Reset()
		b.Add([]byte("\x00\x00\x00\x01\x06" + value + "\x00")) // a record without a key or headers
		now := time.Now().UnixMilli()
		built, err := b.Build(batch.Head{Producer: producer, Epoch: epoch, Sequence: sequence, First: now, Newest: now}, compress.None)
		require.NoError(t, err)
		request := kmsg.NewPtrProduceRequest()
		request.Acks, request.TimeoutMillis = -1, 5000
		request.Topics = []kmsg.ProduceRequestTopic{{Topic: "late", Partitions: []kmsg.ProduceRequestTopicPartition{{Records: built[batch.SizeBytes:]}}}}
		return arrive(t, cluster.Addresses(), int32(cluster.Leader(t, "late", 0)), request)
	}
	require.NoError(t, send(epoch, 0, "one"))
	require.NoError(t, send(epoch+1, 0, "new"))
	require.Equal(t, kerr.InvalidProducerEpoch, send(epoch, 1, "old"))
	require.NoError(t, send(epoch+1, 1, "end"))
	require.Equal(t, []string{"one", "new", "end"}, values(readAll(t, c, "late", 0)))
}

// realFaults writes and reads three partitions without a pause while their leaders are killed and paused.
func realFaults(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "faults", 3, map[string]string{"message.timestamp.type": "LogAppendTime"})
	c := connect(t, cluster.Addresses())
	requests := batch.NewRequests(c)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var ending atomic.Bool
	var running sync.WaitGroup
	var slowest atomic.Int64
	counts := make([]int64, 3)
	for partition := range int32(3) {
		running.Go(func() {
			w := kafkalog.NewWriter(c, "faults", partition, kafkalog.WriterOptions{Codec: compress.Lz4, Requests: requests})
			counts[partition] = writeUntil(t, ctx, &ending, &slowest, w)
		})
		running.Go(func() { follow(t, ctx, &ending, c, partition) })
	}
	func() {
		defer running.Wait()
		defer ending.Store(true)
		leader := cluster.Leader(t, "faults", 0)
		cluster.Kill(t, leader)
		cluster.AwaitLeaderOtherThan(t, "faults", leader)
		cluster.Run(t, leader)
		cluster.AwaitInSync(t, "faults")
		leader = cluster.Leader(t, "faults", 1)
		cluster.Pause(t, leader)
		cluster.AwaitLeaderOtherThan(t, "faults", leader)
		time.Sleep(time.Second)
		cluster.Resume(t, leader)
		cluster.AwaitInSync(t, "faults")
	}()
	for partition, count := range counts {
		require.Greater(t, count, int64(10))
		records := readAll(t, c, "faults", int32(partition))
		require.Len(t, records, int(count), "each once")
		for i, r := range records {
			require.Equal(t, fmt.Sprint(i), string(r.Value), "in order, at the offset that was told")
			require.EqualValues(t, i, r.Offset)
		}
	}
	t.Logf("appended %v records; the slowest batch took %s", counts, time.Duration(slowest.Load()))
}

// writeUntil appends batches of 1, 2 and 3 records, each of which holds the offset that it must get.
func writeUntil(t *testing.T, ctx context.Context, ending *atomic.Bool, slowest *atomic.Int64, w *kafkalog.Writer) (next int64) {
	for n := 0; !ending.Load() && !t.Failed(); n++ {
		var records []kafkalog.Record
		for i := range int64(n%3 + 1) {
			records = append(records, kafkalog.Record{Value: fmt.Append(nil, next+i)})
		}
		began := time.Now()
		base, err := w.Append(ctx, records)
		if err != nil || base != next && base != -1 {
			t.Errorf("appended at %d, not at %d: %v", base, next, err)
			return next
		}
		slowest.Store(max(slowest.Load(), int64(time.Since(began))))
		next += int64(len(records))
	}
	return next
}

// follow reads what is appended, as it comes.
func follow(t *testing.T, ctx context.Context, ending *atomic.Bool, c *kafkaconn.Cluster, partition int32) {
	for next := int64(0); ; {
		chunk, err := kafkalog.Read(ctx, c, "faults", partition, next, 1<<20, time.Second)
		if err != nil {
			t.Errorf("read: %v", err)
			return
		}
		for i, r := range chunk.Records {
			if r.Offset != next+int64(i) || string(r.Value) != fmt.Sprint(r.Offset) {
				t.Errorf("read %q at %d", r.Value, r.Offset)
			}
		}
		next = chunk.Next
		if ending.Load() && len(chunk.Records) == 0 || t.Failed() {
			return
		}
	}
}
