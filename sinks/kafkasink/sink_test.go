package kafkasink_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
	"ncs-relay/sinks/kafkasink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const topic = "ncs.cloud_recording"

var discard = slog.New(slog.DiscardHandler)

// fake starts a fake cluster with the topic.
func fake(t *testing.T, partitions int32, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	if partitions > 0 {
		opts = append(opts, kfake.SeedTopics(partitions, topic))
	}
	cluster, err := kfake.NewCluster(opts...)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return cluster
}

func newSink(t *testing.T, brokers []string) *kafkasink.Sink {
	t.Helper()
	return newSinkOf(t, configured(brokers, "ncs.{product}"), discard)
}

func newSinkOf(t *testing.T, cfg kafkasink.Config, logger *slog.Logger) *kafkasink.Sink {
	t.Helper()
	sink, err := kafkasink.New(cfg, "events", logger)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sink.Close()) })
	return sink
}

// attempts makes one first attempt for each body, all of one entity.
func attempts(entity string, bodies ...string) []relay.Attempt {
	batch := make([]relay.Attempt, len(bodies))
	for i, body := range bodies {
		batch[i] = relay.Attempt{Number: 1, Event: &relay.Event{
			ID:         eventID(entity + body),
			Info:       ncs.Builtin().Lookup(3, 31),
			Source:     "recording",
			Entity:     entity,
			ReceivedAt: time.UnixMilli(1_700_000_000_123),
			Body:       []byte(body),
		}}
	}
	return batch
}

func eventID(seed string) ncs.EventID {
	sum := sha256.Sum256([]byte(seed))
	return ncs.EventID(sum[:16])
}

func numbered(n int) []string {
	bodies := make([]string, n)
	for i := range bodies {
		bodies[i] = fmt.Sprintf("body %03d", i)
	}
	return bodies
}

// learn lets the sink find the partitions of the batch's topic and returns the batch's lane.
func learn(t *testing.T, sink *kafkasink.Sink, batch []relay.Attempt) relay.Lane {
	t.Helper()
	lane := sink.Lane(batch[0].Event)
	_, err := sink.Send(t.Context(), lane, batch)
	require.ErrorIs(t, err, relay.ErrRelane)
	sink.Relane(lane.Group)
	return sink.Lane(batch[0].Event)
}

// send sends the batch until it is taken, as the dispatcher does with plain errors.
func send(t *testing.T, sink *kafkasink.Sink, lane relay.Lane, batch []relay.Attempt) {
	deadline := time.After(60 * time.Second)
	for {
		taken, err := sink.Send(t.Context(), lane, batch)
		batch = batch[taken:]
		switch {
		case len(batch) == 0:
			return
		case relay.IsPermanent(err), errors.Is(err, relay.ErrRelane):
			t.Errorf("send: %v", err)
			return
		}
		select {
		case <-deadline:
			t.Errorf("send: %v", err)
			return
		case <-time.After(10 * time.Millisecond): // between looks at whether the cluster is back
		}
	}
}

// read reads the first n records of the topic with another client than the one under test.
func read(t *testing.T, cluster *kfake.Cluster, n int) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableFetchSessions(),            // of which Close reads what a fetch that ends at the same time writes (franz-go 1.22.2)
		kgo.FetchMaxWait(10*time.Millisecond)) // the cluster holds on to a closed connection while a fetch waits
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < n {
		fetches := client.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		records = append(records, fetches.Records()...)
	}
	require.Len(t, records, n)
	return records
}

func values(records []*kgo.Record) []string {
	var vs []string
	for _, r := range records {
		vs = append(vs, string(r.Value))
	}
	return vs
}

func TestNewTouchesNoNetwork(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	requests := cluster.Fault(kfake.Fault{Count: -1, Observe: true})
	sink := newSink(t, cluster.ListenAddrs())
	lane := sink.Lane(attempts("e", "x")[0].Event)
	require.Equal(t, relay.Lane{Group: topic, Key: "?"}, lane)
	require.NoError(t, sink.Close())
	require.Zero(t, requests.Hits())
}

func TestRecordIsAsDocumented(t *testing.T) {
	t.Parallel()
	info := ncs.Builtin().Lookup(3, 31)
	id := eventID("x")
	received := time.Date(2026, 2, 3, 4, 5, 6, 7_890_000, time.FixedZone("", 3600))
	whole := relay.Attempt{
		Event: &relay.Event{
			ID: id, Info: info, Source: "recording", Entity: "会议室", ReceivedAt: received,
			ContentType: "application/json;charset=utf-8", SignatureV1: "v1", SignatureV2: "v2",
			Body: []byte("{\"a\": \"\xff\x00\n\"} "),
		},
		Number: 2, Replay: 7, Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	bare := relay.Attempt{
		Event:  &relay.Event{ID: id, Info: info, Source: "recording", ReceivedAt: received, Body: []byte("x")},
		Number: 1,
	}
	always := []string{
		"ncs-event-id", id.String(), "ncs-product", "cloud_recording", "ncs-event", "uploaded", "ncs-event-type", "31",
		"ncs-category", "uploader", "ncs-source", "recording", "ncs-received-at", "2026-02-03T03:05:06.007Z",
	}
	cloudEvent := []string{
		"ce_specversion", "1.0", "ce_id", id.String(), "ce_source", "/ncs/recording",
		"ce_type", "agora.ncs.cloud_recording.uploaded", "ce_time", "2026-02-03T03:05:06.007Z",
	}
	agora := []string{"agora-signature", "v1", "agora-signature-v2", "v2", "content-type", "application/json;charset=utf-8"}
	for name, test := range map[string]struct {
		attempt     relay.Attempt
		cloudEvents bool
		key         []byte
		headers     []string
	}{
		"everything":   {whole, false, []byte("会议室"), slices.Concat(agora, always, []string{"ncs-replay", "7", "traceparent", whole.Traceparent})},
		"the least":    {bare, false, nil, always},
		"CloudEvents":  {bare, true, nil, slices.Concat(always, cloudEvent)},
		"with subject": {whole, true, []byte("会议室"), slices.Concat(agora, always, []string{"ncs-replay", "7", "traceparent", whole.Traceparent}, cloudEvent, []string{"ce_subject", "会议室"})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			cfg := configured(cluster.ListenAddrs(), topic)
			cfg.CloudEvents = test.cloudEvents
			sink := newSinkOf(t, cfg, discard)
			batch := []relay.Attempt{test.attempt}
			send(t, sink, learn(t, sink, batch), batch)

			record := read(t, cluster, 1)[0]

			var headers []string
			for _, h := range record.Headers {
				headers = append(headers, h.Key, string(h.Value))
			}
			require.Empty(t, cmp.Diff(test.headers, headers))
			require.Empty(t, cmp.Diff(test.key, record.Key))
			require.Empty(t, cmp.Diff(test.attempt.Body, record.Value))
			require.Equal(t, received.UnixMilli(), record.Timestamp.UnixMilli())
		})
	}
}

func TestARecordAlwaysHasAValue(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "x")
	batch[0].Body = nil
	send(t, sink, learn(t, sink, batch), batch)
	require.NotNil(t, read(t, cluster, 1)[0].Value, "it would delete its key from a compacted topic")
}

func TestEveryInSyncReplicaMustAcknowledge(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	requests := make(chan kmsg.ProduceRequest, 1)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		requests <- *r.(*kmsg.ProduceRequest)
		return nil, nil, false
	})
	batch := attempts("e", "x")
	send(t, sink, learn(t, sink, batch), batch)

	request := <-requests
	require.Equal(t, int16(-1), request.Acks)
	require.InDelta(t, 5000, request.TimeoutMillis, 1000, "the broker gives up before the sink does")
}

func TestMetadataIsAskedForTheSinksTopicsOnly(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	asked := make(chan []string, 100)
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		var names []string
		for _, t := range r.(*kmsg.MetadataRequest).Topics {
			names = append(names, *t.Topic)
		}
		asked <- names
		return nil, nil, false
	})
	sink := newSink(t, cluster.ListenAddrs())
	learn(t, sink, attempts("e", "x"))

	names := <-asked
	require.Equal(t, []string{topic}, names)
}

func TestATopicThatDoesNotExistIsWaitedFor(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "x")
	lane := sink.Lane(batch[0].Event)

	for range 2 {
		taken, err := sink.Send(t.Context(), lane, batch)
		require.Zero(t, taken)
		require.ErrorContains(t, err, "topic "+topic+" does not exist on the cluster")
		require.False(t, relay.IsPermanent(err))
		require.False(t, errors.Is(err, relay.ErrRelane))
	}

	require.NoError(t, cluster.CreateTopic(topic, 3, nil))
	_, err := sink.Send(t.Context(), lane, batch)
	require.ErrorIs(t, err, relay.ErrRelane, "the next try sees the topic")
	require.Equal(t, lane, sink.Lane(batch[0].Event), "lanes stay until Relane")
	sink.Relane(topic)
	placed := sink.Lane(batch[0].Event)
	require.NotEqual(t, lane, placed)
	send(t, sink, placed, batch)
	require.Equal(t, []string{"x"}, values(read(t, cluster, 1)))
}

func TestRelaneWithoutNewPartitionsChangesNothing(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 5)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "x")
	sink.Relane(topic)
	require.Equal(t, "?", sink.Lane(batch[0].Event).Key)
	lane := learn(t, sink, batch)
	sink.Relane(topic)
	sink.Relane("another")
	require.Equal(t, lane, sink.Lane(batch[0].Event))
}

func TestChangedPartitionCountsAskForNewLanes(t *testing.T) {
	t.Parallel()
	const before = 3
	for name, after := range map[string]int{"partitions added": 12, "recreated with fewer": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, before)
			sink := newSink(t, cluster.ListenAddrs())
			batch := attempts("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "x") // partitions 2 of 3, 8 of 12
			lane := learn(t, sink, batch)
			send(t, sink, lane, batch)
			if after > before {
				addPartitions(t, cluster, after)
			} else {
				require.NoError(t, cluster.DeleteTopic(topic))
				require.NoError(t, cluster.CreateTopic(topic, int32(after), nil))
			}

			require.Eventually(t, func() bool {
				_, err := sink.Send(t.Context(), lane, batch)
				return errors.Is(err, relay.ErrRelane)
			}, 20*time.Second, 10*time.Millisecond)
			require.Equal(t, lane, sink.Lane(batch[0].Event), "lanes stay until Relane")
			sink.Relane(topic)
			moved := sink.Lane(batch[0].Event)
			require.Equal(t, map[int]string{12: "8", 1: "0"}[after], moved.Key)
			send(t, sink, moved, attempts("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "after"))
		})
	}
}

func addPartitions(t *testing.T, cluster *kfake.Cluster, count int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer client.Close()
	added := kmsg.NewCreatePartitionsRequestTopic()
	added.Topic, added.Count = topic, int32(count)
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.Topics = []kmsg.CreatePartitionsRequestTopic{added}
	response, err := request.RequestWith(t.Context(), client)
	require.NoError(t, err)
	require.NoError(t, kerr.ErrorForCode(response.Topics[0].ErrorCode))
}

func TestATopicWithoutPartitionsIsAnError(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		request := r.(*kmsg.MetadataRequest)
		response := request.ResponseKind().(*kmsg.MetadataResponse)
		for _, asked := range request.Topics {
			found := kmsg.NewMetadataResponseTopic()
			found.Topic = asked.Topic
			response.Topics = append(response.Topics, found)
		}
		return response, nil, true
	})
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "x")
	_, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
	require.ErrorContains(t, err, "has no partitions")
	require.False(t, relay.IsPermanent(err))
	sink.Relane(topic)
	require.Equal(t, "?", sink.Lane(batch[0].Event).Key)
}

func TestAMovedLeaderIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1, kfake.NumBrokers(3))
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(30)...)
	lane := learn(t, sink, batch)
	for i := range 3 {
		leader := cluster.LeaderFor(topic, 0)
		require.NoError(t, cluster.MoveTopicPartition(topic, 0, (leader+1)%3))
		taken, err := sink.Send(t.Context(), lane, batch[10*i:10*i+10])
		require.NoError(t, err, "the sink looks for the new leader itself")
		require.Equal(t, 10, taken)
	}
	require.Equal(t, numbered(30), values(read(t, cluster, 30)))
}

// A leader that hangs is replaced by the cluster after a while. The request that it will never answer is taken back.
func TestALeaderThatHangsIsLeftWhenItIsReplaced(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1, kfake.NumBrokers(3))
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(20)...)
	lane := learn(t, sink, batch)
	send(t, sink, lane, batch[:10])
	asked, moved := make(chan struct{}), make(chan error, 1)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(asked)
		return nil, nil, true // never answered
	})
	go func() {
		<-asked
		moved <- cluster.MoveTopicPartition(topic, 0, (cluster.LeaderFor(topic, 0)+1)%3)
	}()
	taken, err := sink.Send(t.Context(), lane, batch[10:])
	require.NoError(t, <-moved)
	require.NoError(t, err)
	require.Equal(t, 10, taken)
	require.Equal(t, numbered(20), values(read(t, cluster, 20)))
}

func TestALeaderIsWaitedForDuringAnElection(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.FencedLeaderEpoch, kerr.ReplicaNotAvailable} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			sink := newSink(t, cluster.ListenAddrs())
			batch := attempts("e", "a", "b")
			lane := learn(t, sink, batch)
			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: code, Count: 3})
			taken, err := sink.Send(t.Context(), lane, batch)
			require.NoError(t, err)
			require.Equal(t, 2, taken)
		})
	}
}

func TestFailuresOfTheClusterAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, failure := range []*kerr.Error{
		kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.KafkaStorageError,
		kerr.TopicAuthorizationFailed, kerr.PolicyViolation, kerr.ThrottlingQuotaExceeded, kerr.UnknownServerError,
	} {
		t.Run(failure.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			sink := newSink(t, cluster.ListenAddrs())
			batch := attempts("e", "a", "b")
			lane := learn(t, sink, batch)
			requests := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: failure})

			taken, err := sink.Send(t.Context(), lane, batch)
			require.Zero(t, taken)
			require.Error(t, err)
			require.False(t, relay.IsPermanent(err), "%v", err)
			require.Equal(t, 1, requests.Hits(), "the sink does not retry by itself")
			taken, err = sink.Send(t.Context(), lane, batch)
			require.NoError(t, err)
			require.Equal(t, 2, taken)
		})
	}
}

// refuse makes the cluster answer batches that hold a record with a value in bad with code, as a broker does that does not
// say which record it means.
func refuse(cluster *kfake.Cluster, code *kerr.Error, bad string) {
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		for _, record := range recordsOf(r) {
			if string(record.Value) == bad {
				return refusal(r, code, nil), nil, true
			}
		}
		return nil, nil, false
	})
}

func recordsOf(r kmsg.Request) []kmsg.Record {
	var all []kmsg.Record
	for _, topic := range r.(*kmsg.ProduceRequest).Topics {
		for _, partition := range topic.Partitions {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(partition.Records); err != nil {
				return nil
			}
			records, err := kfake.BatchRecords(batch)
			if err != nil {
				return nil
			}
			all = append(all, records...)
		}
	}
	return all
}

func refusal(r kmsg.Request, code *kerr.Error, named map[int]string) kmsg.Response {
	request := r.(*kmsg.ProduceRequest)
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	partition := kmsg.NewProduceResponseTopicPartition()
	partition.Partition = request.Topics[0].Partitions[0].Partition
	partition.ErrorCode = code.Code
	words := "the broker's words"
	partition.ErrorMessage = &words
	for at, reason := range named {
		record := kmsg.NewProduceResponseTopicPartitionErrorRecord()
		record.RelativeOffset = int32(at)
		record.ErrorMessage = &reason
		partition.ErrorRecords = append(partition.ErrorRecords, record)
	}
	answered := kmsg.NewProduceResponseTopic()
	answered.Topic = request.Topics[0].Topic
	answered.Partitions = []kmsg.ProduceResponseTopicPartition{partition}
	response.Topics = []kmsg.ProduceResponseTopic{answered}
	return response
}

func TestOneRefusedRecordIsFoundAndTheRestDelivered(t *testing.T) {
	t.Parallel()
	for _, code := range []*kerr.Error{
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp,
	} {
		for _, bad := range []int{0, 1, 12, 19} {
			t.Run(fmt.Sprint(code.Message, " at ", bad), func(t *testing.T) {
				t.Parallel()
				cluster := fake(t, 1)
				sink := newSink(t, cluster.ListenAddrs())
				bodies := numbered(20)
				batch := attempts("e", bodies...)
				lane := learn(t, sink, batch)
				refuse(cluster, code, bodies[bad])

				taken, err := sink.Send(t.Context(), lane, batch)
				require.Equal(t, bad, taken)
				require.True(t, relay.IsPermanent(err), "%v", err)
				require.ErrorContains(t, err, "the broker's words")
				send(t, sink, lane, batch[bad+1:])

				require.Equal(t, slices.Delete(bodies, bad, bad+1), values(read(t, cluster, 19)))
			})
		}
	}
}

func TestABatchThatIsTooLargeAsAWholeIsDelivered(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 0)
	require.NoError(t, cluster.CreateTopic(topic, 1, map[string]string{"max.message.bytes": "4000"}))
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(100)...)
	lane := learn(t, sink, batch)
	taken, err := sink.Send(t.Context(), lane, batch)
	require.NoError(t, err)
	require.Equal(t, 100, taken)
	require.Equal(t, numbered(100), values(read(t, cluster, 100)))
}

func TestARecordThatTheBrokerNamesNeedsNoSearch(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(20)...)
	lane := learn(t, sink, batch)
	sizes := make(chan int, 100)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		n := len(recordsOf(r))
		sizes <- n
		if n == 20 {
			return refusal(r, kerr.InvalidRecord, map[int]string{17: "late", 13: "does not fit the schema", 99: "odd"}), nil, true
		}
		return nil, nil, false
	})

	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 13, taken)
	require.True(t, relay.IsPermanent(err), "%v", err)
	require.ErrorContains(t, err, "does not fit the schema")
	require.Equal(t, []int{20, 13}, []int{<-sizes, <-sizes})
	require.Empty(t, sizes)
	require.Equal(t, numbered(13), values(read(t, cluster, 13)))
}

func TestARecordNamedOutsideTheBatchIsSearchedFor(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "a", "b", "bad")
	lane := learn(t, sink, batch)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		records := recordsOf(r)
		if string(records[len(records)-1].Value) != "bad" {
			return nil, nil, false
		}
		return refusal(r, kerr.InvalidRecord, map[int]string{-1: "odd", 3: "odd"}), nil, true
	})
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 2, taken)
	require.True(t, relay.IsPermanent(err), "%v", err)
}

func TestCorruptionIsBelievedTheThirdTime(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "bad")
	lane := learn(t, sink, batch)
	refuse(cluster, kerr.CorruptMessage, "bad")
	for number, permanent := range map[int]bool{1: false, 2: false, 3: true, 4: true} {
		batch[0].Number = number
		_, err := sink.Send(t.Context(), lane, batch)
		require.Error(t, err)
		require.Equal(t, permanent, relay.IsPermanent(err), "attempt %d", number)
	}
}

func TestWhatWasTakenBeforeAFailureIsReported(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", numbered(8)...)
	lane := learn(t, sink, batch)
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		records := recordsOf(r)
		switch {
		case len(records) == 8:
			return refusal(r, kerr.MessageTooLarge, nil), nil, true
		case string(records[0].Value) == "body 004":
			return refusal(r, kerr.NotEnoughReplicas, nil), nil, true
		}
		return nil, nil, false
	})
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 4, taken)
	require.Error(t, err)
	require.False(t, relay.IsPermanent(err))
}

func TestSendEndsWithItsContextAtAStalledBroker(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]kmsg.Key{"produce": kmsg.Produce, "metadata": kmsg.Metadata, "versions": kmsg.ApiVersions} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1)
			sink := newSink(t, cluster.ListenAddrs())
			batch := attempts("e", "x")
			lane := sink.Lane(batch[0].Event)
			if key == kmsg.Produce {
				lane = learn(t, sink, batch)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				cancel()
				return nil, nil, true // never answers
			})
			taken, err := sink.Send(ctx, lane, batch)
			require.Zero(t, taken)
			require.ErrorIs(t, err, context.Canceled)
			require.False(t, relay.IsPermanent(err))
		})
	}
}

func TestUnreachableBrokersAreNamedAsThat(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	addresses := cluster.ListenAddrs()
	cluster.Close()
	sink := newSink(t, addresses)
	batch := attempts("e", "x")
	_, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
	require.ErrorContains(t, err, "connection refused")
	require.False(t, relay.IsPermanent(err))
}

func TestAForeignLaneIsAnError(t *testing.T) {
	t.Parallel()
	cluster := fake(t, 1)
	sink := newSink(t, cluster.ListenAddrs())
	batch := attempts("e", "x")
	lane := learn(t, sink, batch)
	for _, key := range []string{"", "?", "x", "7"} {
		_, err := sink.Send(t.Context(), relay.Lane{Group: lane.Group, Key: key}, batch)
		require.Error(t, err, key)
		require.False(t, relay.IsPermanent(err))
	}
	taken, err := sink.Send(t.Context(), lane, nil)
	require.NoError(t, err)
	require.Zero(t, taken)
}
