package kafkasink

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
)

// corruptTries is how often a lone record is sent before CORRUPT_MESSAGE is believed to be its own fault: damage on the
// way gives the same answer.
const corruptTries = 3

// refusal is a broker's answer that it does not take a request's records as they are. None of them was written then.
type refusal struct {
	err    error
	record int // the first record it refuses; -1 = it does not say
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// errNewIdentity says that the producer has lost its id and the request was not written: it can be made again at once.
var errNewIdentity = errors.New("the producer needs a new id")

// produce writes the batch in order, in requests that the topic takes, the unanswered one first.
func (s *Sink) produce(ctx context.Context, p *producer, batch []relay.Attempt) (taken int, err error) {
	n := p.resume(batch)
	for taken < len(batch) {
		rest := batch[taken:]
		if n == 0 {
			n = fitting(rest, s.limit(p.Topic), s.cloudEvents)
		}
		done, err := s.deliver(ctx, p, rest[:n])
		taken += done
		if err != nil {
			return taken, err
		}
		n = 0
	}
	return taken, nil
}

// deliver writes the events of one request. If the broker refuses it, it writes what stands before the record at fault and
// reports that record, which the broker names or which is found by halving. A refused request was not written, so its
// sequence is free for the halves.
func (s *Sink) deliver(ctx context.Context, p *producer, batch []relay.Attempt) (taken int, err error) {
	err = s.request(ctx, p, batch)
	if errors.Is(err, errNewIdentity) {
		err = s.request(ctx, p, batch)
	}
	if err == nil {
		return len(batch), nil
	}
	var refused *refusal
	switch {
	case !errors.As(err, &refused):
		return 0, err
	case refused.record == 0 || len(batch) == 1:
		return 0, refused.verdict(&batch[0])
	case refused.record > 0:
		taken, err = s.deliver(ctx, p, batch[:refused.record])
		if err != nil {
			return taken, err
		}
		return taken, refused.verdict(&batch[taken])
	}
	half := len(batch) / 2
	taken, err = s.deliver(ctx, p, batch[:half])
	if err != nil {
		return taken, err
	}
	rest, err := s.deliver(ctx, p, batch[half:])
	return taken + rest, err
}

func (r *refusal) verdict(a *relay.Attempt) error {
	if errors.Is(r, kafka.InvalidMessage) && a.Number < corruptTries {
		return r
	}
	return relay.Permanent(r)
}

// request makes one produce request and waits until all in-sync replicas have its records. A *refusal and errNewIdentity
// say that none of them was written; after any other error nobody knows, and p remembers the request.
func (s *Sink) request(ctx context.Context, p *producer, events []relay.Attempt) error {
	if err := s.identify(ctx, p); err != nil {
		return err
	}
	builder := builders.Get().(*batchBuilder)
	defer builders.Put(builder)
	encoded, err := builder.build(p, events, s.compression, s.cloudEvents)
	if err != nil {
		return fmt.Errorf("encode records: %w", err)
	}
	response, err := s.write(ctx, p, events, encoded)
	if err != nil {
		return fmt.Errorf("produce to %s/%d: %w", p.Topic, p.Partition, err)
	}
	var code kafka.Error
	errors.As(response.Error, &code)
	if response.Error == nil || code == kafka.DuplicateSequenceNumber { // of an earlier try that was written
		p.appended(len(events))
		return nil
	}
	err = fmt.Errorf("produce to %s/%d: %w", p.Topic, p.Partition, response.Error)
	switch {
	case refusesRecords(code):
		p.unanswered = sent{}
		if tooLarge(code) {
			if limit := s.learnLimit(ctx, p.Topic, len(encoded)); limit > 0 {
				err = fmt.Errorf("%w (%d bytes; the topic takes %d)", err, len(encoded)-batchAt, limit)
			}
		}
		return newRefusal(err, response.RecordErrors, len(events))
	case p.id != anonymous && batch.LostIdentity(response.Error):
		s.log.Warn("a Kafka broker does not know this producer any more; it takes a new id",
			"lane", fmt.Sprintf("%s/%d", p.Topic, p.Partition), "may_be_doubled", p.unanswered.count, "error", err)
		p.forget()
		return fmt.Errorf("%w: %w", errNewIdentity, err)
	case p.id != anonymous && refusesIdempotence(code):
		s.produceAnonymously(err)
		p.forget()
		return fmt.Errorf("%w: %w", errNewIdentity, err)
	}
	p.unanswered = sentOf(events)
	return err
}

// write sends an encoded batch, and while its partition has no leader, or one that does not answer any more, sends it again to
// whoever leads then. Elections belong to a cluster that is well. The dispatcher's pauses, which grow, are for one that is
// not, and would be added to the time that the cluster needs.
func (s *Sink) write(ctx context.Context, p *producer, events []relay.Attempt, encoded []byte) (*kafka.ProduceResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, batch.Patience)
	defer cancel()
	response, err := s.requests.Write(ctx, &p.Lane, encoded, p.id == anonymous, func(reason error) bool {
		again := kafkaconn.Leaderless(reason)
		if again {
			p.unanswered = sentOf(events)
			s.log.Debug("a request is made again", "topic", p.Topic, "partition", p.Partition, "error", reason)
		}
		return again
	})
	if err != nil {
		p.unanswered = sentOf(events)
	}
	return response, err
}

// refusesRecords reports whether the answer is about what the request holds, and not about the state of the cluster.
func refusesRecords(code kafka.Error) bool {
	return tooLarge(code) || code == kafka.InvalidRecord || code == kafka.InvalidMessage || code == kafka.InvalidTimestamp
}

func tooLarge(code kafka.Error) bool {
	return code == kafka.MessageSizeTooLarge || code == kafka.RecordListTooLarge
}

// newRefusal picks the first record of the batch that the broker names, with what it says of it.
func newRefusal(err error, named map[int]error, size int) *refusal {
	for at := range size {
		if reason, found := named[at]; found {
			return &refusal{err: fmt.Errorf("%w: %w", err, reason), record: at}
		}
	}
	return &refusal{err: err, record: -1}
}
