// Package kafkasink produces events to Kafka topics.
//
// It promises that a batch which Send reported as taken was acknowledged by all in-sync replicas, that the records of a
// lane (a topic's partition) are in the order of its batches, that a record the broker refuses is named alone while those
// around it are delivered, and that a batch of unknown outcome which is sent again is not doubled. The last holds while the
// brokers know the producer; a restart makes a new one, so consumers that must not see a record twice look at the header
// ncs-event-id. Retries, backoff and dead letters are left to the dispatcher.
//
// It stands on kafka-go's Client and protocol. The library's Writer cannot keep order over failures, fails a whole batch for
// one record, and goes on sending what its caller has given up; its Transport is slow to notice that a leader has failed.
// DESIGN.md says more.
package kafkasink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
)

// unplaced is the key of the one lane of a topic whose partitions are not known yet.
const unplaced = "?"

// Sink is a relay.Sink over one Kafka cluster.
type Sink struct {
	template     *topicTemplate
	createTopics *CreateTopics // nil = topics are made by others
	partitioner  partitioner
	compression  compress.Compression
	cloudEvents  bool
	batchEvents  int
	batchBytes   int
	log          *slog.Logger

	cluster    *kafkaconn.Cluster
	client     *kafka.Client
	requests   *batch.Requests
	idempotent atomic.Bool // false once the cluster has refused producer ids

	mu        sync.Mutex                // guards the maps, and each topic
	topics    map[string]topicState     // topics not in it are unknown
	producers map[producerKey]*producer // each belongs to the Send of its lane
}

// topicState is what is known of a topic. Numbers of partitions: 0 = unknown.
type topicState struct {
	laned int // by which lanes are told until Relane
	found int // on the cluster since
	limit int // bytes of a request; 0 = unknown
}

var (
	_ relay.Relaner     = (*Sink)(nil)
	_ relay.Reconnecter = (*Sink)(nil)
)

// New makes the sink called name. It opens no connection; the first Send does. cfg must have passed its Check.
func New(cfg Config, name string, logger *slog.Logger) (*Sink, error) {
	template, err := parseTopic(cfg.Topic)
	if err != nil {
		return nil, err
	}
	if cfg.Brokers = kafkaconn.SplitBrokers(cfg.Brokers); len(cfg.Brokers) == 0 {
		return nil, errors.New("no broker given")
	}
	cluster := kafkaconn.New(kafkaconn.Config{Brokers: cfg.Brokers, ClientID: cfg.ClientID, TLS: cfg.TLS, SASL: cfg.SASL, Logger: logger.With("sink", name)})
	s := &Sink{
		template:     template,
		createTopics: cfg.CreateTopics,
		partitioner:  cfg.partitioner(),
		compression:  codecs[cfg.Compression],
		cloudEvents:  cfg.CloudEvents,
		batchEvents:  cfg.MaxBatchEvents,
		batchBytes:   int(cfg.MaxBatchBytes),
		log:          logger.With("sink", name),
		cluster:      cluster,
		client:       &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: kafkaconn.RequestTimeout, Transport: cluster},
		requests:     batch.NewRequests(cluster),
		topics:       make(map[string]topicState),
		producers:    make(map[producerKey]*producer),
	}
	s.idempotent.Store(cfg.Idempotence)
	if cfg.TLS != nil && cfg.TLS.InsecureSkipVerify {
		s.log.Warn("the certificates of the brokers are NOT verified (tls.insecure_skip_verify)", "brokers", cfg.Brokers)
	}
	return s, nil
}

// Lane is the event's topic and partition. Until the topic's partitions are known all its events share one lane, whose
// first Send asks for them.
func (s *Sink) Lane(ev *relay.Event) relay.Lane {
	topic := s.template.expand(ev.Info)
	count := s.lanedCount(topic)
	if count == 0 {
		return relay.Lane{Group: topic, Key: unplaced}
	}
	return relay.Lane{Group: topic, Key: strconv.Itoa(s.partitioner.place(ev, count))}
}

func (s *Sink) lanedCount(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topics[topic].laned
}

// Relane adopts the partitions that were found on the cluster.
func (s *Sink) Relane(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[topic]
	if t.found == t.laned {
		return
	}
	s.log.Info("partitions of a Kafka topic", "topic", topic, "partitions", t.found, "before", t.laned)
	t.laned = t.found
	s.topics[topic] = t
}

// MaxBatch bounds a Send.
func (s *Sink) MaxBatch() (events, bytes int) { return s.batchEvents, s.batchBytes }

// Send produces the batch to the lane's partition.
func (s *Sink) Send(ctx context.Context, lane relay.Lane, batch []relay.Attempt) (taken int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	if err := s.checkLanes(ctx, lane.Group); err != nil {
		return 0, kafkaconn.Explain(err)
	}
	partition, err := strconv.Atoi(lane.Key)
	if err != nil {
		return 0, fmt.Errorf("%s/%s is not a lane of this sink", lane.Group, lane.Key)
	}
	taken, err = s.produce(ctx, s.producer(lane, partition, batch[0].Replay), batch)
	return taken, kafkaconn.Explain(err)
}

// Reconnect makes later Sends go over new connections.
func (s *Sink) Reconnect() { s.cluster.Reconnect() }

// Close ends all connections.
func (s *Sink) Close() error {
	s.cluster.Close()
	s.requests.Close()
	return nil
}
