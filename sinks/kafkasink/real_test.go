package kafkasink_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn/kafkatest"
	"ncs-relay/relay/ncs"
	"ncs-relay/sinks/kafkasink"
)

// TestRealKafka is what a fake broker cannot prove. Its parts run one after the other: the last one restarts the broker.
func TestRealKafka(t *testing.T) {
	t.Parallel()
	cutter, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer cutter.Close()
	cluster := kafkatest.Start(t, kafkatest.Options{
		Listeners: []kafkatest.Listener{{Name: "CUT", Protocol: "PLAINTEXT", Advertised: cutter.Addr().String()}},
	})
	for _, part := range []struct {
		name string
		run  func(*testing.T, *kafkatest.Cluster)
	}{
		{"record is as documented", realRecord},
		{"partitions are those of the Java client", realPartitions},
		{"one record too large", realTooLarge},
		{"topic created later", realTopicCreatedLater},
		{"partitions added", realPartitionsAdded},
		{"compressed", realCompression},
		{"as kcat prints it", realKcat},
		{"partitions are those of librdkafka", realLibrdkafka},
		{"topic deleted and created again", realTopicRecreated},
		{"timestamp refused", realTimestamp},
		{"record without the key that it needs", realInvalid},
		{"lost answers", func(t *testing.T, c *kafkatest.Cluster) { realLostAnswers(t, c, cutter) }},
		{"order through a crash of the broker", realCrash},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, cluster) })
	}
}

func realSink(t *testing.T, cluster *kafkatest.Cluster, topic string) *kafkasink.Sink {
	t.Helper()
	return newSinkOf(t, configured(cluster.Addresses(), topic), discard)
}

func realRecord(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "record", 1, nil)
	sink := realSink(t, cluster, "record")
	body := []byte("{\"日本\": \"\xff\xfe\x00\r\n\t\"} ")
	received := time.Date(2026, 2, 3, 4, 5, 6, 7_890_000, time.UTC)
	id := eventID("record")
	event := relay.Event{
		ID: id, Info: ncs.Builtin().Lookup(3, 31), Source: "recording", Entity: "会议室", ReceivedAt: received,
		ContentType: "application/json", SignatureV1: "v1", SignatureV2: "v2", Body: body,
	}
	keyless := event
	keyless.Entity = ""
	batch := []relay.Attempt{{Event: &event, Number: 1}, {Event: &keyless, Number: 1, Replay: 3, Traceparent: "00-a-b-01"}}
	send(t, sink, learn(t, sink, batch), batch)

	records := cluster.Consume(t, "record")

	headers := []kafkatest.Header{
		{Key: "agora-signature", Value: "v1"}, {Key: "agora-signature-v2", Value: "v2"},
		{Key: "content-type", Value: "application/json"}, {Key: "ncs-event-id", Value: id.String()},
		{Key: "ncs-product", Value: "cloud_recording"}, {Key: "ncs-event", Value: "uploaded"},
		{Key: "ncs-event-type", Value: "31"}, {Key: "ncs-category", Value: "uploader"},
		{Key: "ncs-source", Value: "recording"}, {Key: "ncs-received-at", Value: "2026-02-03T04:05:06.007Z"},
	}
	replayed := append(slices.Clone(headers), kafkatest.Header{Key: "ncs-replay", Value: "3"},
		kafkatest.Header{Key: "traceparent", Value: "00-a-b-01"})
	require.Empty(t, cmp.Diff([]kafkatest.Record{
		{Timestamp: received.UnixMilli(), Headers: headers, Key: []byte("会议室"), Value: body},
		{Offset: 1, Timestamp: received.UnixMilli(), Headers: replayed, Value: body},
	}, records))
}

func realPartitions(t *testing.T, cluster *kafkatest.Cluster) {
	const partitions = 13
	cluster.CreateTopic(t, "java", partitions, nil)
	cluster.CreateTopic(t, "relay", partitions, nil)
	sink := realSink(t, cluster, "relay")
	var java [][2]string
	for i, entity := range someKeys() {
		java = append(java, [2]string{entity, "x"})
		batch := attempts(entity, "x")
		if i == 0 {
			learn(t, sink, batch)
		}
		send(t, sink, sink.Lane(batch[0].Event), batch)
	}
	cluster.Produce(t, "java", java)

	want, got := make(map[string]int), make(map[string]int)
	for _, record := range cluster.Consume(t, "java") {
		want[string(record.Key)] = record.Partition
	}
	for _, record := range cluster.Consume(t, "relay") {
		got[string(record.Key)] = record.Partition
	}
	require.Len(t, want, len(java))
	require.Empty(t, cmp.Diff(want, got))
}

func realTooLarge(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "limited", 1, map[string]string{"max.message.bytes": "1000000"})
	sink := realSink(t, cluster, "limited")
	bodies := numbered(100)
	bodies[37] = strings.Repeat("x", 2_000_000)
	batch := attempts("e", bodies...)
	lane := learn(t, sink, batch)

	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 37, taken)
	require.True(t, relay.IsPermanent(err), "%v", err)
	require.ErrorContains(t, err, "[10] Message Size Too Large")
	send(t, sink, lane, batch[38:])

	var got []string
	for _, record := range cluster.Consume(t, "limited") {
		got = append(got, string(record.Value))
	}
	require.Empty(t, cmp.Diff(slices.Delete(bodies, 37, 38), got))
}

func realTopicCreatedLater(t *testing.T, cluster *kafkatest.Cluster) {
	sink := realSink(t, cluster, "later")
	batch := attempts("e", "x")
	lane := sink.Lane(batch[0].Event)
	_, err := sink.Send(t.Context(), lane, batch)
	require.ErrorContains(t, err, "topic later does not exist on the cluster")
	require.False(t, relay.IsPermanent(err))

	cluster.CreateTopic(t, "later", 4, nil)
	send(t, sink, learn(t, sink, batch), batch)
	require.Equal(t, 1, cluster.Count(t, "later"))
}

func realPartitionsAdded(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "growing", 3, nil)
	sink := realSink(t, cluster, "growing")
	batch := attempts("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "x")
	lane := learn(t, sink, batch)
	require.Equal(t, "2", lane.Key)
	cluster.AddPartitions(t, "growing", 12)
	require.Eventually(t, func() bool {
		_, err := sink.Send(t.Context(), lane, batch)
		return err != nil
	}, 20*time.Second, 50*time.Millisecond)
	_, err := sink.Send(t.Context(), lane, batch)
	require.ErrorIs(t, err, relay.ErrRelane)
	sink.Relane(lane.Group)
	lane = sink.Lane(batch[0].Event)
	require.Equal(t, "8", lane.Key)
	send(t, sink, lane, batch)
}

func realTopicRecreated(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "recreated", 3, nil)
	sink := realSink(t, cluster, "recreated")
	batch := attempts("e", "a", "b", "c")
	send(t, sink, learn(t, sink, batch), batch)
	cluster.DeleteTopic(t, "recreated")
	require.Eventually(t, func() bool {
		_, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
		return err != nil && strings.Contains(err.Error(), "does not exist")
	}, 20*time.Second, 50*time.Millisecond, "it is said")

	cluster.CreateTopic(t, "recreated", 3, nil)
	send(t, sink, sink.Lane(batch[0].Event), batch)

	require.Equal(t, []string{"a", "b", "c"}, values(cluster.Read(t, "recreated")), "the producer's sequence begins anew")
}

func realTimestamp(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "strict", 1, map[string]string{"message.timestamp.before.max.ms": "3600000"})
	sink := realSink(t, cluster, "strict")
	batch := attempts("e", "a", "old", "b", "c")
	for i := range batch {
		batch[i].ReceivedAt = time.Now()
	}
	batch[1].ReceivedAt = time.Now().Add(-2 * time.Hour)
	lane := learn(t, sink, batch)
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 1, taken)
	require.True(t, relay.IsPermanent(err), "%v", err)
	require.ErrorContains(t, err, "[32] Invalid Timestamp")
	require.ErrorContains(t, err, "Timestamp", "what the broker says of the record")
	t.Log(err)
	send(t, sink, lane, batch[2:])
	require.Equal(t, []string{"a", "b", "c"}, values(cluster.Read(t, "strict")))
}

// realInvalid: a compacted topic takes no record without a key.
func realInvalid(t *testing.T, cluster *kafkatest.Cluster) {
	cluster.CreateTopic(t, "compacted", 1, map[string]string{"cleanup.policy": "compact"})
	sink := realSink(t, cluster, "compacted")
	batch := slices.Concat(attempts("e", "a", "b"), attempts("", "no key"), attempts("f", "c"))
	lane := learn(t, sink, batch)
	taken, err := sink.Send(t.Context(), lane, batch)
	require.Equal(t, 2, taken)
	require.True(t, relay.IsPermanent(err), "%v", err)
	require.ErrorContains(t, err, "Compacted topic cannot accept message without key")
	send(t, sink, lane, batch[3:])
	require.Equal(t, []string{"a", "b", "c"}, values(cluster.Read(t, "compacted")))
}

// realLostAnswers sends through something that cuts the connection after every other request was passed on, so that the
// broker has the batch and the sink does not know.
func realLostAnswers(t *testing.T, cluster *kafkatest.Cluster, cutter net.Listener) {
	go loseEveryOtherAnswer(cutter, cluster.AddressesOf("CUT")[0])
	const batches, perBatch = 40, 5
	cluster.CreateTopic(t, "lost", 1, nil)
	var log bytes.Buffer
	sink := newSinkOf(t, configured([]string{cutter.Addr().String()}, "lost"), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	bodies := numbered(batches * perBatch)
	lane := learn(t, sink, attempts("e", bodies...))
	for i := range batches {
		send(t, sink, lane, attempts("e", bodies[i*perBatch:(i+1)*perBatch]...))
	}
	require.Equal(t, bodies, values(cluster.Read(t, "lost")), "each once, in order")
	require.GreaterOrEqual(t, strings.Count(log.String(), "made again"), batches/4, "answers were lost")
}

// loseEveryOtherAnswer passes requests on to the broker. After every other produce request it cuts the connection when the
// broker has answered.
func loseEveryOtherAnswer(l net.Listener, broker string) {
	const produce = 0
	var produced atomic.Int64
	pass := func(near, far net.Conn) {
		defer near.Close()
		defer far.Close()
		for {
			request, err := frame(near)
			if err != nil {
				return
			}
			far.Write(request)
			answer, err := frame(far)
			if err != nil || binary.BigEndian.Uint16(request[4:]) == produce && produced.Add(1)%2 == 1 {
				return
			}
			near.Write(answer)
		}
	}
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", broker)
		if err != nil {
			near.Close()
			continue
		}
		go pass(near, far)
	}
}

// frame reads a request or an answer, with its size.
func frame(r io.Reader) ([]byte, error) {
	size := make([]byte, 4)
	if _, err := io.ReadFull(r, size); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size))
	_, err := io.ReadFull(r, body)
	return append(size, body...), err
}

// realCrash sends on several lanes at once while the broker is killed and comes back. Batches of unknown outcome are sent
// again; the broker remembers their producers over its restart.
func realCrash(t *testing.T, cluster *kafkatest.Cluster) {
	const batches, perBatch = 60, 5
	cluster.CreateTopic(t, "crash", 12, nil)
	sink := realSink(t, cluster, "crash")
	entities := []string{"channel-1", "channel-2", "a"} // partitions 1, 10, 4
	learn(t, sink, attempts(entities[0], "x"))

	var senders, halfway sync.WaitGroup
	for _, entity := range entities {
		halfway.Add(1)
		senders.Go(func() {
			bodies := numbered(batches * perBatch)
			for i := range batches {
				if i == batches/2 {
					halfway.Done()
				}
				batch := attempts(entity, bodies[i*perBatch:(i+1)*perBatch]...)
				for i := range batch {
					batch[i].ReceivedAt = time.Now() // brokers forget producers whose last record is a day old by its timestamp
				}
				send(t, sink, sink.Lane(batch[0].Event), batch)
			}
		})
	}
	halfway.Wait()
	cluster.Restart(t)
	senders.Wait()

	got := make(map[string][]string)
	for _, record := range cluster.Consume(t, "crash") {
		got[string(record.Key)] = append(got[string(record.Key)], string(record.Value))
	}
	for _, entity := range entities {
		require.Empty(t, cmp.Diff(numbered(batches*perBatch), got[entity]), entity)
	}
}
