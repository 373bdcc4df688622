package kafkasink

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
	// jointPatience is how long a batch waits for an answer that it shares with other partitions, of which one may wait for its
	// replicas. Then it is sent again by itself.
	jointPatience = 250 * time.Millisecond

	// jointBytes is how large a request may be to be joined.
	jointBytes = 4 << 20
)

// requests bring batches to the leaders of their partitions. Batches for one broker that come at the same time share a request,
// because a request costs the relay and the broker several times what a batch does.
type requests struct {
	cluster *kafkaconn.Cluster

	mu      sync.Mutex
	filling map[string]*joint // by the broker's address: there is one while earlier ones are under way
	running sync.WaitGroup
}

// joint is one request.
type joint struct {
	topics []rawproduce.RequestTopic
	bytes  int
	done   chan struct{} // closed when answer and err are set
	answer *produce.Response
	err    error
}

func newRequests(cluster *kafkaconn.Cluster) *requests {
	return &requests{cluster: cluster, filling: make(map[string]*joint)}
}

// close is called when the cluster's connections are closed, which ends what is under way.
func (r *requests) close() { r.running.Wait() }

// alone sends a batch in a request of its own.
func (r *requests) alone(ctx context.Context, p *producer, encoded []byte) (*kafka.ProduceResponse, error) {
	j := new(joint)
	j.add(p, encoded)
	j.send(ctx, r.cluster)
	return j.of(p)
}

// together sends a batch with those of other partitions of its broker. When ctx ends first nobody knows what became of it.
func (r *requests) together(ctx context.Context, p *producer, encoded []byte) (*kafka.ProduceResponse, error) {
	address, err := r.cluster.Leader(p.topic, int32(p.partition))
	if err != nil {
		return nil, err
	}
	j := r.join(address, p, bytes.Clone(encoded)) // which goes on when the caller does not wait any more
	if j == nil {
		return r.alone(ctx, p, encoded)
	}
	select {
	case <-j.done:
		return j.of(p)
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer for %s: %w", jointPatience, ctx.Err())
	}
}

// join adds a batch to the next request for a broker; nil if it would become too large.
func (r *requests) join(address string, p *producer, encoded []byte) *joint {
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
	j.add(p, encoded)
	return j
}

// run sends the requests for a broker until there is none. One that is not answered soon does not hold up the next.
func (r *requests) run(address string) {
	timer := time.NewTimer(jointPatience)
	defer timer.Stop()
	runtime.Gosched() // the batches that come with the first
	for {
		j := r.next(address)
		if j == nil {
			return
		}
		r.running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
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

func (r *requests) next(address string) *joint {
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

func (j *joint) add(p *producer, encoded []byte) {
	partition := rawproduce.RequestPartition{Partition: int32(p.partition), RecordSet: protocol.RawRecordSet{Reader: bytes.NewReader(encoded)}}
	j.bytes += len(encoded)
	for i := range j.topics {
		if j.topics[i].Topic == p.topic {
			j.topics[i].Partitions = append(j.topics[i].Partitions, partition)
			return
		}
	}
	j.topics = append(j.topics, rawproduce.RequestTopic{Topic: p.topic, Partitions: []rawproduce.RequestPartition{partition}})
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
func (j *joint) of(p *producer) (*kafka.ProduceResponse, error) {
	if j.err != nil {
		return nil, j.err
	}
	for _, topic := range j.answer.Topics {
		for _, a := range topic.Partitions {
			if topic.Topic == p.topic && int(a.Partition) == p.partition {
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
