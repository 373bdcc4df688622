package kafkalog_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/goleak"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "log"

// fake starts an in-process cluster with a topic.
func fake(t testing.TB, partitions int32, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(append(opts, kfake.SeedTopics(partitions, topic))...)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster
}

func connect(t testing.TB, addresses []string) *kafkaconn.Cluster {
	c := kafkaconn.New(kafkaconn.Config{Brokers: addresses, ClientID: "test"})
	t.Cleanup(c.Close)
	return c
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // machines are loaded
	t.Cleanup(cancel)
	return ctx
}

func texts(values ...string) []kafkalog.Record {
	records := make([]kafkalog.Record, len(values))
	for i, value := range values {
		records[i].Value = []byte(value)
	}
	return records
}

func values(records []kafkalog.Record) []string {
	values := make([]string, len(records))
	for i := range records {
		values[i] = string(records[i].Value)
	}
	return values
}

// readAll reads a partition to its end.
func readAll(t testing.TB, c *kafkaconn.Cluster, topic string, partition int32) (all []kafkalog.Record) {
	t.Helper()
	for next := int64(0); ; {
		chunk, err := kafkalog.Read(soon(t), c, topic, partition, next, 1<<20, 0)
		require.NoError(t, err)
		all = append(all, chunk.Records...)
		if next = chunk.Next; next >= chunk.End {
			return all
		}
	}
}

func TestWhatIsAppendedIsRead(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 3)
	c := connect(t, cluster.ListenAddrs())
	written := []kafkalog.Record{
		{Key: []byte("k"), Value: []byte("v"), Headers: []kafkalog.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte{}}, {Key: "", Value: nil}}},
		{Value: []byte{}},
		{Key: []byte("gone")},
		{Key: []byte{}, Value: []byte(strings.Repeat("x", 100_000))},
	}
	for _, codec := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		w := kafkalog.NewWriter(c, topic, 1, kafkalog.WriterOptions{Codec: codec})
		first, err := w.Append(soon(t), written)
		require.NoError(t, err)
		second, err := w.Append(soon(t), texts("more"))
		require.NoError(t, err)
		require.Equal(t, first+int64(len(written)), second)

		chunk, err := kafkalog.Read(soon(t), c, topic, 1, first, 1<<20, time.Second)
		require.NoError(t, err)
		require.Len(t, chunk.Records, len(written)+1, codec)
		require.Equal(t, second+1, chunk.Next)
		require.Equal(t, second+1, chunk.End)
		require.Zero(t, chunk.Start)
		for i, r := range chunk.Records[:len(written)] {
			require.WithinDuration(t, time.Now(), r.Time, time.Minute)
			require.Equal(t, first+int64(i), r.Offset)
			r.Offset, r.Time = 0, time.Time{}
			require.Equal(t, written[i], r, "also what is nil and what is empty")
		}
		inside, err := kafkalog.Read(soon(t), c, topic, 1, first+2, 1<<20, time.Second)
		require.NoError(t, err)
		require.Equal(t, first+2, inside.Records[0].Offset, "a batch is read from within")
	}
}

// Other clients write other batches: another library is the judge.
func TestOthersReadWhatIsAppendedAndTheOtherWayRound(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	c := connect(t, cluster.ListenAddrs())
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DisableFetchSessions(), kgo.ConsumeTopics(topic), kgo.DefaultProduceTopic(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer client.Close()
	at := time.UnixMilli(1767323045678)
	theirs := &kgo.Record{Key: []byte("k"), Value: []byte("theirs"), Timestamp: at, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}}
	require.NoError(t, client.ProduceSync(soon(t), theirs, &kgo.Record{Value: []byte("later"), Timestamp: at.Add(time.Hour)}).FirstErr())
	w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{Codec: compress.Zstd})
	_, err = w.Append(soon(t), []kafkalog.Record{{Key: []byte("k"), Value: []byte("ours"), Headers: []kafkalog.Header{{Key: "h", Value: []byte("v")}}}})
	require.NoError(t, err)

	read := readAll(t, c, topic, 0)
	require.Equal(t, []string{"theirs", "later", "ours"}, values(read))
	require.Equal(t, at, read[0].Time)
	require.Equal(t, at.Add(time.Hour), read[1].Time)
	require.Equal(t, []kafkalog.Header{{Key: "h", Value: []byte("v")}}, read[0].Headers)

	var theirRecords []*kgo.Record
	for len(theirRecords) < 3 {
		theirRecords = append(theirRecords, client.PollFetches(soon(t)).Records()...)
	}
	require.Equal(t, "ours", string(theirRecords[2].Value))
	require.Equal(t, "k", string(theirRecords[2].Key))
	require.Equal(t, []kgo.RecordHeader{{Key: "h", Value: []byte("v")}}, theirRecords[2].Headers)
	require.WithinDuration(t, time.Now(), theirRecords[2].Timestamp, time.Minute)
}

func TestReadWaitsForTheFirstRecord(t *testing.T) {
	t.Parallel()
	c := connect(t, fake(t, 1).ListenAddrs())
	began := time.Now()
	chunk, err := kafkalog.Read(soon(t), c, topic, 0, 0, 1<<20, 300*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, kafkalog.Chunk{}, chunk)
	require.GreaterOrEqual(t, time.Since(began), 300*time.Millisecond)

	go func() {
		time.Sleep(100 * time.Millisecond)
		_, _ = kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{}).Append(t.Context(), texts("x"))
	}()
	began = time.Now()
	chunk, err = kafkalog.Read(soon(t), c, topic, 0, 0, 1<<20, 15*time.Second)
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, values(chunk.Records))
	require.Less(t, time.Since(began), 10*time.Second)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = kafkalog.Read(ctx, c, topic, 0, 1, 1<<20, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A poll that waits asks nobody else meanwhile who leads, and holds up nothing that goes to the same broker.
func TestALongPollIsQuietAndAlone(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 8, kfake.NumBrokers(1))
	c := connect(t, cluster.ListenAddrs())
	_, err := kafkalog.Ends(soon(t), c, topic, []int32{0})
	require.NoError(t, err)
	var looks atomic.Int64
	cluster.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		looks.Add(1)
		return nil, nil, false
	})
	var polling sync.WaitGroup
	for partition := range int32(8) {
		polling.Go(func() {
			_, err := kafkalog.Read(soon(t), c, topic, partition, 0, 1<<20, 1500*time.Millisecond)
			require.NoError(t, err)
		})
	}
	time.Sleep(200 * time.Millisecond) // all wait at the broker
	began := time.Now()
	ends, err := kafkalog.Ends(soon(t), c, topic, []int32{0, 1, 2, 3, 4, 5, 6, 7})
	require.NoError(t, err)
	require.Len(t, ends, 8)
	require.Less(t, time.Since(began), time.Second)
	polling.Wait()
	require.LessOrEqual(t, looks.Load(), int64(8), "looks at the cluster: one for each poll, where a busy machine answers later than its wait")
}

func TestAnOffsetThatIsNotInTheLogIsSaid(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	c := connect(t, cluster.ListenAddrs())
	w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
	for range 4 {
		_, err := w.Append(soon(t), texts("a", "b"))
		require.NoError(t, err)
	}
	deleteBefore(t, cluster, 3)
	starts, err := kafkalog.Starts(soon(t), c, topic, []int32{0})
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 3}, starts)
	for _, offset := range []int64{0, 9} {
		_, err = kafkalog.Read(soon(t), c, topic, 0, offset, 1<<20, 0)
		var out *kafkalog.OutOfRange
		require.ErrorAs(t, err, &out)
		require.Equal(t, kafkalog.OutOfRange{Offset: offset, Start: 3, End: 8}, *out)
	}
	require.EqualError(t, err, "read log/0 from offset 9: offset 9 is not in the log, which begins at 3 and ends at 8")
	chunk, err := kafkalog.Read(soon(t), c, topic, 0, 8, 1<<20, 0)
	require.NoError(t, err, "the end is where one waits")
	require.Equal(t, kafkalog.Chunk{Next: 8, End: 8, Start: 3}, chunk)
}

func deleteBefore(t *testing.T, cluster *kfake.Cluster, offset int64) {
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: offset}}}}
	response, err := request.RequestWith(soon(t), client)
	require.NoError(t, err)
	require.Zero(t, response.Topics[0].Partitions[0].ErrorCode)
}

// A broker sends a batch whole, however few bytes are asked for.
func TestABatchLargerThanWhatIsAskedForIsRead(t *testing.T) {
	t.Parallel()
	c := connect(t, fake(t, 1).ListenAddrs())
	w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
	large := strings.Repeat("x", 300_000)
	for range 3 {
		_, err := w.Append(soon(t), texts(large, large))
		require.NoError(t, err)
	}
	for next := int64(0); next < 6; {
		chunk, err := kafkalog.Read(soon(t), c, topic, 0, next, 1000, 0)
		require.NoError(t, err)
		require.Len(t, chunk.Records, 2)
		next = chunk.Next
	}
}

func TestAnAnswerThatIsLostDoublesNothing(t *testing.T) {
	t.Parallel()
	for name, shared := range map[string]bool{"alone": false, "with others": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			c := connect(t, cluster.ListenAddrs())
			o := kafkalog.WriterOptions{}
			if shared {
				o.Requests = batch.NewRequests(c)
				defer o.Requests.Close()
				defer c.Close()
			}
			w := kafkalog.NewWriter(c, topic, 0, o)
			var want []string
			for i := range 20 {
				if i%3 == 1 {
					answer(cluster, 1+i%2, kerr.NotEnoughReplicasAfterAppend)
				}
				base, err := w.Append(soon(t), texts(fmt.Sprint(i, "a"), fmt.Sprint(i, "b")))
				require.NoError(t, err)
				require.EqualValues(t, 2*i, base)
				want = append(want, fmt.Sprint(i, "a"), fmt.Sprint(i, "b"))
			}
			require.Equal(t, want, values(readAll(t, c, topic, 0)))
		})
	}
}

// answer makes the cluster answer the next n produce requests with an error.
func answer(cluster *kfake.Cluster, n int, code *kerr.Error) *kfake.FaultHandle {
	return cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: code, Count: n})
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend,
		kerr.KafkaStorageError, kerr.RequestTimedOut, kerr.UnknownTopicOrPartition, kerr.CorruptMessage} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			c := connect(t, cluster.ListenAddrs())
			w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
			answered := answer(cluster, 2, code)
			base, err := w.Append(soon(t), texts("x"))
			require.NoError(t, err)
			require.Zero(t, base)
			require.Equal(t, 2, answered.Hits())
			require.Equal(t, []string{"x"}, values(readAll(t, c, topic, 0)))
		})
	}
}

func TestWhatIsRefusedIsNotWrittenAndNotTriedAgain(t *testing.T) {
	t.Parallel()
	for code, tries := range map[*kerr.Error]int{kerr.MessageTooLarge: 1, kerr.InvalidRecord: 1, kerr.RecordListTooLarge: 1, kerr.CorruptMessage: 3} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			c := connect(t, cluster.ListenAddrs())
			w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
			_, err := w.Append(soon(t), texts("before"))
			require.NoError(t, err)
			answered := answer(cluster, tries, code)
			_, err = w.Append(soon(t), texts("x"))
			var refused *kafkalog.Refused
			require.ErrorAs(t, err, &refused)
			require.Equal(t, -1, refused.Record)
			require.ErrorIs(t, err, kafka.Error(code.Code))
			require.ErrorContains(t, err, "append to log/0: ")
			require.Equal(t, tries, answered.Hits())
			_, err = w.Append(soon(t), texts("after"))
			require.NoError(t, err)
			require.Equal(t, []string{"before", "after"}, values(readAll(t, c, topic, 0)))
		})
	}
}

func TestAProducerThatIsForgottenTakesANewIDIfNothingIsUnanswered(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	c := connect(t, cluster.ListenAddrs())
	w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
	answer(cluster, 1, kerr.UnknownProducerID)
	base, err := w.Append(soon(t), texts("x"))
	require.NoError(t, err)
	require.Zero(t, base)

	var tries atomic.Int64
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		if tries.Add(1) == 1 {
			answer(cluster, 1, kerr.OutOfOrderSequenceNumber)
			return nil, fmt.Errorf("the connection breaks"), true
		}
		return nil, nil, false
	})
	_, err = w.Append(soon(t), texts("y"))
	require.ErrorIs(t, err, kafka.OutOfOrderSequenceNumber, "whether the first try was written nobody knows")
	require.False(t, errorsAsRefused(err))
	_, err = w.Append(soon(t), texts("z"))
	require.NoError(t, err, "a new producer's")
}

// A request that nobody waits for any more may still be on its way: of one key the older value would be the one that stays.
func TestWhatWasBrokenOffDoesNotLandBehindWhatIsWrittenNext(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	c := connect(t, cluster.ListenAddrs())
	w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
	_, err := w.Append(soon(t), texts("first"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var late kmsg.Request
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		late = r
		cancel()
		return nil, fmt.Errorf("it is held up on its way"), true
	})
	_, err = w.Append(ctx, texts("old"))
	require.Error(t, err)
	base, err := w.Append(soon(t), texts("new"))
	require.NoError(t, err)
	require.EqualValues(t, 1, base)
	require.Equal(t, kerr.InvalidProducerEpoch, arrive(t, cluster.ListenAddrs(), cluster.LeaderFor(topic, 0), late))
	_, err = w.Append(soon(t), texts("last"))
	require.NoError(t, err)
	require.Equal(t, []string{"first", "new", "last"}, values(readAll(t, c, topic, 0)))
}

// arrive lets a request arrive now, and returns what the broker answers for its partition.
func arrive(t *testing.T, brokers []string, leader int32, produce kmsg.Request) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.MaxVersions(kversion.V3_0_0())) // requests name topics there
	require.NoError(t, err)
	defer client.Close()
	response, err := client.Broker(int(leader)).Request(t.Context(), produce)
	require.NoError(t, err)
	return kerr.ErrorForCode(response.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
}

func errorsAsRefused(err error) bool {
	_, refused := err.(*kafkalog.Refused)
	return refused
}

func TestWhatTheBrokerHasAlreadyHasNoOffset(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	c := connect(t, cluster.ListenAddrs())
	w := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{})
	answer(cluster, 1, kerr.DuplicateSequenceNumber)
	base, err := w.Append(soon(t), texts("x"))
	require.NoError(t, err)
	require.EqualValues(t, -1, base)
}

func TestATopicThatDoesNotExistIsSaid(t *testing.T) {
	t.Parallel()
	c := connect(t, fake(t, 1).ListenAddrs())
	_, err := kafkalog.Read(soon(t), c, "other", 0, 0, 1<<20, time.Minute)
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
	_, err = kafkalog.Read(soon(t), c, topic, 7, 0, 1<<20, time.Minute)
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
	_, err = kafkalog.NewWriter(c, "other", 0, kafkalog.WriterOptions{}).Append(soon(t), texts("x"))
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
	_, err = kafkalog.Ends(soon(t), c, topic, []int32{0, 7})
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
}

func TestOffsetsOfManyPartitionsAreAskedOfTheirLeaders(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 9, kfake.NumBrokers(3))
	c := connect(t, cluster.ListenAddrs())
	var asked atomic.Int64
	cluster.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked.Add(1)
		return nil, nil, false
	})
	all := make([]int32, 9)
	for partition := range all {
		all[partition] = int32(partition)
		w := kafkalog.NewWriter(c, topic, int32(partition), kafkalog.WriterOptions{})
		_, err := w.Append(soon(t), texts(make([]string, partition+1)...))
		require.NoError(t, err)
	}
	ends, err := kafkalog.Ends(soon(t), c, topic, all)
	require.NoError(t, err)
	for partition, end := range ends {
		require.EqualValues(t, partition+1, end)
	}
	require.Len(t, ends, 9)
	require.LessOrEqual(t, asked.Load(), int64(3), "one request a broker")

	require.NoError(t, cluster.MoveTopicPartition(topic, 4, (cluster.LeaderFor(topic, 4)+1)%3))
	ends, err = kafkalog.Ends(soon(t), c, topic, all)
	require.NoError(t, err, "what has moved is found")
	require.Len(t, ends, 9)
}

func TestSinceIsTheEndWhereNothingIsThatYoung(t *testing.T) {
	t.Parallel()
	c := connect(t, fake(t, 1).ListenAddrs())
	_, err := kafkalog.NewWriter(c, topic, 0, kafkalog.WriterOptions{}).Append(soon(t), texts("x", "y"))
	require.NoError(t, err)
	for later, want := range map[time.Duration]int64{-time.Hour: 0, time.Hour: 2} {
		at, err := kafkalog.Since(soon(t), c, topic, 0, time.Now().Add(later))
		require.NoError(t, err)
		require.Equal(t, want, at)
	}
	_, err = kafkalog.Since(soon(t), c, topic, 7, time.Now())
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
}

// Fitting is about bytes before compression, and never more than was promised.
func TestFittingKeepsBatchesWithinTheirBound(t *testing.T) {
	t.Parallel()
	records := texts(make([]string, 100)...)
	for i := range records {
		records[i].Value = make([]byte, 100)
		records[i].Key = []byte("key")
		records[i].Headers = []kafkalog.Header{{Key: "name", Value: []byte("value")}}
	}
	n := kafkalog.Fitting(records, 5000)
	require.Less(t, n, 50)
	require.Greater(t, n, 25)
	require.Equal(t, 100, kafkalog.Fitting(records, 1<<20))
	require.Equal(t, 1, kafkalog.Fitting(records, 10), "one always")
	require.Equal(t, 0, kafkalog.Fitting(nil, 10))
}
