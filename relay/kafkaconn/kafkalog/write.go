package kafkalog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/batch"
)

// WriterOptions say how a Writer writes. The zero value does not compress, and makes its requests alone.
type WriterOptions struct {
	Codec    compress.Compression
	Requests *batch.Requests // of the cluster: writers that have the same share requests
}

// Writer appends to one partition as one idempotent producer, with one request in flight. It is not for concurrent use.
type Writer struct {
	cluster  *kafkaconn.Cluster
	lane     batch.Lane
	codec    compress.Compression
	requests *batch.Requests
	lone     bool
	builder  batch.Builder
	record   []byte

	id    int64
	epoch int16
	next  int32 // sequence of the next record
}

// NewWriter makes a Writer of the partition. It asks nothing of the cluster; the first Append does.
func NewWriter(c *kafkaconn.Cluster, topic string, partition int32, o WriterOptions) *Writer {
	w := &Writer{cluster: c, lane: batch.Lane{Topic: topic, Partition: partition}, codec: o.Codec, requests: o.Requests, id: batch.Anonymous}
	if w.lone = w.requests == nil; w.lone {
		w.requests = batch.NewRequests(c)
	}
	return w
}

// Append writes the records as one batch and returns the offset of the first, once all in-sync replicas have them; the
// others follow it without a gap. It repeats the request, byte for byte, until the answer is final or ctx ends. The offset is
// -1 if the broker only says that it has them already. Their Offset and Time are not used.
//
// A *Refused in the error's chain says that none was written. After any other error nobody knows whether they were, or will
// be until the next batch is: what is still on its way is refused then.
func (w *Writer) Append(ctx context.Context, recs []Record) (base int64, err error) {
	if len(recs) == 0 {
		return 0, errors.New("BUG: an empty batch")
	}
	for try := 1; ; try++ {
		base, fresh, err := w.append(ctx, recs)
		if err == nil {
			return base, nil
		}
		if !errors.As(err, new(*Refused)) {
			w.outdate(err)
		}
		if !fresh || !batch.LostIdentity(err) || try == enoughDoubts {
			return 0, fmt.Errorf("append to %s/%d: %w", w.lane.Topic, w.lane.Partition, err)
		}
	}
}

// append makes one request, under one identity. fresh reports that no answer is missing: what err says was not written.
func (w *Writer) append(ctx context.Context, recs []Record) (base int64, fresh bool, err error) {
	if err := w.identify(ctx); err != nil {
		return 0, false, err
	}
	encoded, err := w.encode(recs)
	if err != nil {
		return 0, false, &Refused{-1, err}
	}
	var p persistence
	fresh = true
	response, err := w.requests.Write(ctx, &w.lane, encoded, w.lone, func(reason error) bool {
		again := p.again(reason)
		fresh = fresh && !again
		return again
	})
	if err == nil {
		err = response.Error
	}
	switch {
	case err == nil:
		base = response.BaseOffset
	case errors.Is(err, kafka.DuplicateSequenceNumber):
		base = -1
	case response != nil && refuses(err):
		return 0, fresh, &Refused{firstNamed(response, len(recs)), err}
	default:
		return 0, fresh && response != nil, err
	}
	w.next = int32((int64(w.next) + int64(len(recs))) & 0x7fffffff) // after the greatest sequence comes 0
	return base, true, nil
}

// outdate makes the next batch one of a later epoch: brokers refuse of a producer what is older than what they have of it. A broker
// that has forgotten the producer is told of another.
func (w *Writer) outdate(err error) {
	if batch.LostIdentity(err) || w.epoch == math.MaxInt16 {
		w.id = batch.Anonymous
		return
	}
	w.epoch, w.next = w.epoch+1, 0
}

// identify gives w an id, if it has none.
func (w *Writer) identify(ctx context.Context) error {
	if w.id != batch.Anonymous {
		return nil
	}
	return insist(ctx, w.cluster, w.lane.Topic, func() error {
		id, epoch, err := w.cluster.NewProducerID(ctx)
		if err != nil {
			return fmt.Errorf("ask for a producer id: %w", err)
		}
		w.id, w.epoch, w.next = id, epoch, 0
		return nil
	})
}

// encode makes the batch of a request.
func (w *Writer) encode(recs []Record) ([]byte, error) {
	now := time.Now().UnixMilli()
	w.builder.Reset()
	for i := range recs {
		w.record = appendRecord(w.record[:0], &recs[i], i)
		w.builder.Add(w.record)
	}
	return w.builder.Build(batch.Head{Producer: w.id, Epoch: w.epoch, Sequence: w.next, First: now, Newest: now}, w.codec)
}

// appendRecord appends a record in Kafka's format 2 to dst, without the length that stands before it.
func appendRecord(dst []byte, r *Record, at int) []byte {
	dst = append(dst, 0, 0) // attributes; the time is the batch's
	dst = binary.AppendVarint(dst, int64(at))
	dst = batch.AppendBytes(dst, r.Key)
	dst = batch.AppendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = batch.AppendBytes(dst, h.Value)
	}
	return dst
}

// Fitting returns how many records at the head of recs make a batch of at most maxBytes before compression; at least one,
// if there is one. A topic's max.message.bytes is for the batch after compression.
func Fitting(recs []Record, maxBytes int) int {
	size := batch.Overhead
	for i := range recs {
		size += mostBytes(&recs[i])
		if i > 0 && size > maxBytes {
			return i
		}
	}
	return len(recs)
}

// mostBytes bounds the bytes of a record: no length or number before something takes more than 5.
func mostBytes(r *Record) int {
	size := 32 + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += 10 + len(h.Key) + len(h.Value)
	}
	return size
}

// refuses reports whether the answer is about the records, which another try would not change.
func refuses(err error) bool {
	var code kafka.Error
	errors.As(err, &code)
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize, kafka.InvalidRecord, kafka.InvalidMessage,
		kafka.InvalidTimestamp, kafka.UnsupportedCompressionType, kafka.UnsupportedForMessageFormat, kafka.PolicyViolation:
		return true
	}
	return false
}

// firstNamed is the first of the records that the broker names as the reason of its refusal; -1 = it names none.
func firstNamed(response *kafka.ProduceResponse, count int) int {
	for at := range count {
		if response.RecordErrors[at] != nil {
			return at
		}
	}
	return -1
}
