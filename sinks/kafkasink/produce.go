package kafkasink

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
)

// corruptTries is how often a lone record is sent before CORRUPT_MESSAGE is believed to be its own fault: damage on the
// way gives the same answer.
const corruptTries = 3

// refusal is a broker's answer that it does not take a batch as it is. Nothing of the batch was written then.
type refusal struct {
	err    error
	record int // the first record it refuses; -1 = it does not say
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// produce writes the batch in order. Of a batch that the broker refuses it writes what stands before the record at fault
// and reports that record, which the broker names or which is found by halving.
func (s *Sink) produce(ctx context.Context, topic string, partition int, batch []relay.Attempt) (taken int, err error) {
	err = s.request(ctx, topic, partition, batch)
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
		taken, err = s.produce(ctx, topic, partition, batch[:refused.record])
		if err != nil {
			return taken, err
		}
		return taken, refused.verdict(&batch[taken])
	}
	half := len(batch) / 2
	taken, err = s.produce(ctx, topic, partition, batch[:half])
	if err != nil {
		return taken, err
	}
	rest, err := s.produce(ctx, topic, partition, batch[half:])
	return taken + rest, err
}

func (r *refusal) verdict(a *relay.Attempt) error {
	if errors.Is(r, kafka.InvalidMessage) && a.Number < corruptTries {
		return r
	}
	return relay.Permanent(r)
}

// request makes one produce request and waits until all in-sync replicas have the batch. A *refusal says that none of it
// was written; after any other error nobody knows.
func (s *Sink) request(ctx context.Context, topic string, partition int, batch []relay.Attempt) error {
	response, err := s.client.Produce(ctx, &kafka.ProduceRequest{
		Topic:        topic,
		Partition:    partition,
		RequiredAcks: kafka.RequireAll, // the zero value asks for no acknowledgement
		Records:      kafka.NewRecordReader(records(batch, s.cloudEvents)...),
	})
	if err != nil {
		return fmt.Errorf("produce to %s/%d: %w", topic, partition, err)
	}
	if response.Error == nil {
		return nil
	}
	err = fmt.Errorf("produce to %s/%d: %w", topic, partition, response.Error)
	if !refusesRecords(response.Error) {
		return err
	}
	return newRefusal(err, response.RecordErrors, len(batch))
}

// refusesRecords tells whether err is about what the batch holds, and not about the state of the cluster.
func refusesRecords(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidRecord, kafka.InvalidMessage, kafka.InvalidTimestamp:
		return true
	}
	return false
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
