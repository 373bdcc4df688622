package batch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"

	"ncs-relay/relay/kafkaconn"
)

const (
	// Patience is how long a request waits for a partition to get a leader. It is longer than brokers wait before they
	// replace one that hangs (broker.session.timeout.ms, 9 s).
	Patience = 15 * time.Second

	// ElectionPause is the time between two tries meanwhile.
	ElectionPause = 200 * time.Millisecond

	// jointPatience is how long a batch waits for an answer that it shares with other partitions, of which one may wait for its
	// replicas. Then it is sent again by itself.
	jointPatience = 250 * time.Millisecond

	// jointBytes is how large a request may be to be joined.
	jointBytes = 4 << 20
)

// Requests bring batches to the leaders of their partitions. Batches for one broker that come at the same time share a request,
// because a request costs the relay and the broker several times what a batch does. It may be used by several goroutines at
// once.
type Requests struct {
	cluster *kafkaconn.Cluster

	mu      sync.Mutex
	filling map[string]*joint // by the broker's address: there is one while earlier ones are under way
	running sync.WaitGroup
}

// Lane is a partition that one producer writes, one batch after the other. It is not for concurrent use.
type Lane struct {
	Topic     string
	Partition int32
	alone     bool // the next request holds nothing else
}

// joint is one request.
type joint struct {
	topics []rawproduce.RequestTopic
	bytes  int
	done   chan struct{} // closed when answer and err are set
	answer *produce.Response
	err    error
}

// NewRequests makes requests to a cluster.
func NewRequests(cluster *kafkaconn.Cluster) *Requests {
	return &Requests{cluster: cluster, filling: make(map[string]*joint)}
}

// Close waits for what is under way. It is called when the cluster's connections are closed, which ends that.
func (r *Requests) Close() { r.running.Wait() }

// Write sends a batch, and again, byte for byte, to whoever leads its partition then, while again says of what became of it
// that it may be sent again, until ctx ends. The answer's Error is what the broker says. Batches of a producer without an id
// must go alone: a request that is shared is given up sooner, and what it holds is sent again, which would double them.
func (r *Requests) Write(ctx context.Context, l *Lane, encoded []byte, alone bool, again func(error) bool) (*kafka.ProduceResponse, error) {
	for {
		response, err := r.send(ctx, l, encoded, alone)
		reason := err
		if err == nil {
			reason = response.Error
		}
		if reason == nil || !again(reason) {
			return response, err
		}
		if ctx.Err() == nil {
			_ = r.cluster.Look(ctx, time.Now())
		}
		if !kafkaconn.Pause(ctx, ElectionPause) {
			return response, err
		}
	}
}

// send makes one request. A batch goes with those of other partitions unless its last request failed or took long, so that a
// partition that waits for its replicas holds up the others once.
func (r *Requests) send(ctx context.Context, l *Lane, encoded []byte, alone bool) (response *kafka.ProduceResponse, err error) {
	began := time.Now()
	defer func() {
		l.alone = err != nil || response.Error != nil || time.Since(began) >= jointPatience
	}()
	if !l.alone && !alone {
		within, cancel := context.WithTimeout(ctx, jointPatience)
		defer cancel()
		response, err = r.together(within, l, encoded)
		if within.Err() == nil || ctx.Err() != nil {
			return response, err
		}
	}
	return r.single(ctx, l, encoded)
}

// single sends a batch in a request of its own.
func (r *Requests) single(ctx context.Context, l *Lane, encoded []byte) (*kafka.ProduceResponse, error) {
	j := new(joint)
	j.add(l, encoded)
	j.send(ctx, r.cluster)
	return j.of(l)
}

// together sends a batch with those of other partitions of its broker. When ctx ends first nobody knows what became of it.
func (r *Requests) together(ctx context.Context, l *Lane, encoded []byte) (*kafka.ProduceResponse, error) {
	address, err := r.cluster.Leader(l.Topic, l.Partition)
	if err != nil {
		return nil, err
	}
	j := r.join(address, l, bytes.Clone(encoded)) // which goes on when the caller does not wait any more
	if j == nil {
		return r.single(ctx, l, encoded)
	}
	select {
	case <-j.done:
		return j.of(l)
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer for %s: %w", jointPatience, ctx.Err())
	}
}

// join adds a batch to the next request for a broker; nil if it would become too large.
func (r *Requests) join(address string, l *Lane, encoded []byte) *joint {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.filling[address]
	if j == nil {
		j = newJoint()
		r.filling[address] = j
		r.running.Go(func() { r.run(address) })
	}
	if j.bytes+len(encoded) > jointBytes {
		return nil
	}
	j.add(l, encoded)
	return j
}

// run sends the requests for a broker until there is none. One that is not answered soon does not hold up the next.
func (r *Requests) run(address string) {
	timer := time.NewTimer(jointPatience)
	defer timer.Stop()
	runtime.Gosched() // the batches that come with the first
	for {
		j := r.next(address)
		if j == nil {
			return
		}
		r.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), Patience)
			defer cancel()
			j.send(ctx, r.cluster)
		})
		timer.Reset(jointPatience)
		select {
		case <-j.done:
		case <-timer.C:
		}
	}
}

func (r *Requests) next(address string) *joint {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := r.filling[address]
	if len(j.topics) == 0 {
		delete(r.filling, address)
		return nil
	}
	r.filling[address] = newJoint()
	return j
}

func newJoint() *joint { return &joint{done: make(chan struct{})} }

func (j *joint) add(l *Lane, encoded []byte) {
	partition := rawproduce.RequestPartition{Partition: l.Partition, RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(encoded)}}
	j.bytes += len(encoded)
	for i := range j.topics {
		if j.topics[i].Topic == l.Topic {
			j.topics[i].Partitions = append(j.topics[i].Partitions, partition)
			return
		}
	}
	j.topics = append(j.topics, rawproduce.RequestTopic{Topic: l.Topic, Partitions: []rawproduce.RequestPartition{partition}})
}

// send waits until all in-sync replicas have what it holds. All is led by the broker that leads the first.
func (j *joint) send(ctx context.Context, cluster *kafkaconn.Cluster) {
	first := j.topics[0]
	j.answer, j.err = kafkaconn.Answer[*produce.Response](cluster.ToLeader(ctx, first.Topic, first.Partitions[0].Partition, &rawproduce.Request{
		Acks:    int16(kafka.RequireAll),                              // the zero value asks for no acknowledgement
		Timeout: int32((kafkaconn.RequestTimeout / 2).Milliseconds()), // so that its own answer comes before we stop waiting,
		Topics:  j.topics,
	}))
	if j.done != nil {
		close(j.done)
	}
}

// of is what the answer says of a partition.
func (j *joint) of(l *Lane) (*kafka.ProduceResponse, error) {
	if j.err != nil {
		return nil, j.err
	}
	for _, topic := range j.answer.Topics {
		for _, a := range topic.Partitions {
			if topic.Topic == l.Topic && a.Partition == l.Partition {
				return responseOf(&a), nil
			}
		}
	}
	return nil, errors.New("the answer does not name the partition")
}

func responseOf(a *produce.ResponsePartition) *kafka.ProduceResponse {
	response := &kafka.ProduceResponse{BaseOffset: a.BaseOffset, RecordErrors: make(map[int]error, len(a.RecordErrors))}
	if a.ErrorCode != 0 {
		response.Error = kafka.Error(a.ErrorCode)
		if a.ErrorMessage != "" {
			response.Error = fmt.Errorf("%w: %s", response.Error, a.ErrorMessage)
		}
	}
	for _, e := range a.RecordErrors {
		response.RecordErrors[int(e.BatchIndex)] = errors.New(e.BatchIndexErrorMessage)
	}
	return response
}
