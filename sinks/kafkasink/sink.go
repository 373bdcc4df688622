// Package kafkasink produces events to Kafka topics.
//
// It promises that a batch which Send reported as taken was acknowledged by all in-sync replicas, that the records of a
// lane (a topic's partition) are in the order of its batches, and that a record the broker refuses is named alone while
// those around it are delivered. A batch of unknown outcome is sent again, so records can be doubled; consumers know them
// by the header ncs-event-id. Retries, backoff and dead letters are left to the dispatcher.
//
// It stands on kafka-go's Client and not on its Writer, which cannot keep order over failures, fails a whole batch for one
// record, and goes on sending what its caller has given up.
package kafkasink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
)

const (
	requestTimeout = 10 * time.Second // of one request; the broker is told half of it for its replicas

	// metadataTTL is both the longest time between two looks at the cluster and the time one look may take. A failed
	// request asks for a look at once, so this is how long added partitions and a failed controller go unnoticed.
	metadataTTL = 2 * time.Second

	idleTimeout = 5 * time.Minute // below the brokers' connections.max.idle.ms of 10 minutes

	// A record carries about 700 bytes besides its body, so a full batch stays below the brokers' usual 1 MiB.
	maxBatchEvents = 500
	maxBatchBytes  = 640 << 10

	// unplaced is the key of the one lane of a topic whose partitions are not known yet.
	unplaced = "?"
)

// Sink is a relay.Sink over one Kafka cluster.
type Sink struct {
	template    *topicTemplate
	cloudEvents bool
	log         *slog.Logger

	dialer    *dialer
	transport *kafka.Transport
	client    *kafka.Client
	refreshes chan time.Time // holds one value: when the last forced refresh began; taken out while one runs

	mu     sync.Mutex                 // guards topics
	topics map[string]partitionCounts // topics not in it are unknown
}

// partitionCounts are the numbers of partitions of one topic; 0 = unknown.
type partitionCounts struct {
	laned int // by which lanes are told until Relane
	found int // on the cluster since
}

var _ relay.Relaner = (*Sink)(nil)

// New makes the sink called name. It opens no connection; the first Send does. cfg must have passed its Check.
func New(cfg Config, name string, logger *slog.Logger) (*Sink, error) {
	template, err := parseTopic(cfg.Topic)
	if err != nil {
		return nil, err
	}
	if len(cfg.Brokers) == 0 {
		return nil, errors.New("no broker given")
	}
	dialer := newDialer()
	transport := &kafka.Transport{
		Dial:        dialer.dial,
		DialTimeout: 5 * time.Second,
		IdleTimeout: idleTimeout,
		MetadataTTL: metadataTTL,
		// kafka-go freezes this list with its first request, and with none it asks for all topics of the cluster. What
		// the template can give is known and bounded, so no change of the routes ever needs another list.
		MetadataTopics: template.all(),
		ClientID:       cfg.ClientID,
	}
	s := &Sink{
		template:    template,
		cloudEvents: cfg.CloudEvents,
		log:         logger.With("sink", name),
		dialer:      dialer,
		transport:   transport,
		client:      &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Timeout: requestTimeout, Transport: transport},
		refreshes:   make(chan time.Time, 1),
		topics:      make(map[string]partitionCounts),
	}
	s.refreshes <- time.Time{}
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
	return relay.Lane{Group: topic, Key: strconv.Itoa(partition(ev, count))}
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
	counts := s.topics[topic]
	if counts.found == counts.laned {
		return
	}
	s.log.Info("partitions of a Kafka topic", "topic", topic, "partitions", counts.found, "before", counts.laned)
	s.topics[topic] = partitionCounts{laned: counts.found, found: counts.found}
}

// MaxBatch bounds a Send.
func (s *Sink) MaxBatch() (events, bytes int) { return maxBatchEvents, maxBatchBytes }

// Send produces the batch to the lane's partition.
func (s *Sink) Send(ctx context.Context, lane relay.Lane, batch []relay.Attempt) (taken int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	if err := s.checkLanes(ctx, lane.Group); err != nil {
		return 0, err
	}
	partition, err := strconv.Atoi(lane.Key)
	if err != nil {
		return 0, fmt.Errorf("%s/%s is not a lane of this sink", lane.Group, lane.Key)
	}
	taken, err = s.produce(ctx, lane.Group, partition, batch)
	if err != nil && !relay.IsPermanent(err) {
		s.refresh(ctx, time.Now())
	}
	return taken, err
}

// checkLanes compares the topic's partitions as its lanes were told with those the cluster has now.
func (s *Sink) checkLanes(ctx context.Context, topic string) error {
	began := time.Now()
	found, err := s.partitions(ctx, topic)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		s.refresh(ctx, began)
		found, err = s.partitions(ctx, topic)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := s.topics[topic]
	if counts.laned == found {
		return nil
	}
	counts.found = found
	s.topics[topic] = counts
	return relay.ErrRelane
}

// Close ends all connections.
func (s *Sink) Close() error {
	s.transport.CloseIdleConnections()
	s.dialer.closeAll()
	return nil
}
