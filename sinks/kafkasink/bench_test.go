package kafkasink_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn/kafkatest"
	"ncs-relay/relay/relaytest"
	"ncs-relay/sinks/kafkasink"
	"ncs-relay/sinks/sinktest"
)

// BenchmarkRealKafka produces events to a real broker with the sink, and the same records with kafka-go's Writer as its
// authors recommend to set it (all acknowledgements, synchronous, a short batch timer). Each partition has one sender. The
// Writer knows no producer ids, so the sink is also measured without. An operation is a record; CPU is that of this process.
func BenchmarkRealKafka(b *testing.B) {
	const partitions = 12
	cluster := kafkatest.Start(b, kafkatest.Options{})
	for _, perBatch := range []int{1, 50, 500} {
		b.Run(fmt.Sprintf("batches of %d", perBatch), func(b *testing.B) {
			for _, idempotent := range []bool{true, false} {
				topic := newTopic(b, cluster, partitions)
				b.Run(fmt.Sprintf("sink idempotence=%v", idempotent), func(b *testing.B) {
					cfg := configured(cluster.Addresses(), topic)
					cfg.Idempotence = idempotent
					sink, err := kafkasink.New(cfg, "bench", discard)
					if err != nil {
						b.Fatal(err)
					}
					defer sink.Close()
					batch := benchBatch(perBatch)
					group := sink.Lane(batch[0].Event).Group
					_, _ = sink.Send(b.Context(), sink.Lane(batch[0].Event), batch)
					sink.Relane(group)
					measure(b, partitions, perBatch, func(partition int) error {
						_, err := sink.Send(b.Context(), relay.Lane{Group: group, Key: fmt.Sprint(partition)}, batch)
						return err
					})
				})
			}
			topic := newTopic(b, cluster, partitions)
			b.Run("Writer", func(b *testing.B) {
				writer := &kafka.Writer{
					Addr: kafka.TCP(cluster.Addresses()...), Topic: topic, RequiredAcks: kafka.RequireAll,
					BatchSize: 500, BatchBytes: 1 << 20, BatchTimeout: 5 * time.Millisecond, Transport: &kafka.Transport{},
					Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return m.WriterData.(int) }),
				}
				defer writer.Transport.(*kafka.Transport).CloseIdleConnections()
				defer writer.Close()
				batch := benchBatch(perBatch)
				measure(b, partitions, perBatch, func(partition int) error {
					return writer.WriteMessages(b.Context(), messages(batch, partition)...)
				})
			})
		})
	}
}

var topics atomic.Int64

func newTopic(b *testing.B, cluster *kafkatest.Cluster, partitions int) string {
	topic := fmt.Sprintf("bench-%d", topics.Add(1))
	cluster.CreateTopic(b, topic, partitions, nil)
	return topic
}

func benchBatch(n int) []relay.Attempt {
	batch := make([]relay.Attempt, n)
	for i := range batch {
		batch[i] = sinktest.Batch(sinktest.Event(i+1, "d12fdce9024d37862a8f3a88e387c817"))[0]
		batch[i].ReceivedAt = time.Now()
	}
	return batch
}

// messages are the records of the batch as a user of the Writer makes them.
func messages(batch []relay.Attempt, partition int) []kafka.Message {
	made := make([]kafka.Message, len(batch))
	for i := range batch {
		a := &batch[i]
		made[i] = kafka.Message{Key: []byte(a.Entity), Value: a.Body, Time: a.ReceivedAt, WriterData: partition, Headers: []kafka.Header{
			{Key: "agora-signature", Value: []byte(a.SignatureV1)}, {Key: "agora-signature-v2", Value: []byte(a.SignatureV2)},
			{Key: "content-type", Value: []byte(a.ContentType)}, {Key: "ncs-event-id", Value: []byte(a.ID.String())},
			{Key: "ncs-product", Value: []byte(a.Info.Product)}, {Key: "ncs-event", Value: []byte(a.Info.Event)},
			{Key: "ncs-event-type", Value: []byte(fmt.Sprint(a.Info.EventType))}, {Key: "ncs-category", Value: []byte(a.Info.Category)},
			{Key: "ncs-source", Value: []byte(a.Source)}, {Key: "ncs-received-at", Value: []byte(a.ReceivedAt.Format(time.RFC3339))},
		}}
	}
	return made
}

// measure makes b.N records, in batches, with one sender for each partition.
func measure(b *testing.B, partitions, perBatch int, send func(partition int) error) {
	for partition := range partitions { // connections, ids and code are warm
		if err := send(partition); err != nil {
			b.Fatal(err)
		}
	}
	relaytest.MeasureSenders(b, partitions, perBatch, send)
}
