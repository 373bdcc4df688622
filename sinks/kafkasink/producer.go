package kafkasink

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn/batch"
)

// producer writes one partition for one feed of deliveries. A partition's leader knows a repeated batch by the id and the
// epoch of its producer and the sequence of its first and last record, and appends it once. So each producer has one
// request unanswered at most, and makes that request again, with the same events and the same sequence, before any other.
//
// A replay has a producer of its own: between two tries of a batch it sends other events to the same partition.
type producer struct {
	batch.Lane

	id         int64 // anonymous = none
	epoch      int16
	next       int32 // sequence of the next record
	unanswered sent  // the request whose outcome nobody knows
}

type producerKey struct {
	lane   relay.Lane
	replay uint32
}

// sent are the events of a request. The bytes are not kept: a dead cluster would hold up to a batch of them for each
// partition. The same events make the same records again, except for a traceparent, which names the attempt.
type sent struct {
	count  int
	events [sha256.Size]byte // hash of their ids
}

func sentOf(batch []relay.Attempt) sent {
	hash := sha256.New()
	for i := range batch {
		hash.Write(batch[i].ID[:])
	}
	return sent{count: len(batch), events: [sha256.Size]byte(hash.Sum(nil))}
}

// producer returns the producer of a lane, which no other Send uses meanwhile.
func (s *Sink) producer(lane relay.Lane, partition int, replay uint32) *producer {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := producerKey{lane, replay}
	p := s.producers[key]
	if p == nil {
		if replay != 0 { // replays come and go
			maps.DeleteFunc(s.producers, func(k producerKey, p *producer) bool {
				return k.lane == lane && k.replay != 0 && p.unanswered.count == 0
			})
		}
		p = &producer{Lane: batch.Lane{Topic: lane.Group, Partition: int32(partition)}, id: anonymous}
		s.producers[key] = p
	}
	return p
}

// resume tells how many events at the head of batch are those of the unanswered request, which goes first. If the batch
// begins with other events, some were given up or the lanes have changed, and the sequence they took may be used or not:
// only a new id makes it certain. Should they come again after all, they may be doubled.
func (p *producer) resume(batch []relay.Attempt) int {
	n := p.unanswered.count
	if n > 0 && (n > len(batch) || sentOf(batch[:n]) != p.unanswered) {
		p.forget()
		return 0
	}
	return n
}

func (p *producer) forget() { p.id, p.epoch, p.next, p.unanswered = anonymous, 0, 0, sent{} }

// appended notes that the next n records are in the partition.
func (p *producer) appended(n int) {
	p.next = int32((int64(p.next) + int64(n)) & 0x7fffffff) // after the greatest sequence comes 0
	p.unanswered = sent{}
}

// identify gives p an id, unless the cluster gives none.
func (s *Sink) identify(ctx context.Context, p *producer) error {
	if p.id != anonymous || !s.idempotent.Load() {
		return nil
	}
	id, epoch, err := s.cluster.NewProducerID(ctx)
	if err != nil {
		if refusesIdempotence(err) {
			s.produceAnonymously(err)
			return nil
		}
		return fmt.Errorf("ask for a producer id: %w", err)
	}
	p.id, p.epoch, p.next = id, epoch, 0
	return nil
}

// refusesIdempotence reports whether err, the answer to a request for an id or to one that carried an id, means that this
// cluster or its access rules have none for us.
func refusesIdempotence(err error) bool {
	return errors.Is(err, kafka.ClusterAuthorizationFailed) || errors.Is(err, kafka.UnsupportedVersion)
}

// produceAnonymously goes on without idempotence for the life of the sink.
func (s *Sink) produceAnonymously(err error) {
	if s.idempotent.Swap(false) {
		s.log.Warn("the Kafka cluster gives no producer ids, so a record can be doubled when the answer to it is lost", "error", err)
	}
}
