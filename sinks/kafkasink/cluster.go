package kafkasink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/rawproduce"

	"ncs-relay/relay"
)

const (
	// staleAfter is how old the layout may be for a Send: so long added partitions go unnoticed.
	staleAfter = 2 * time.Second

	// lookAgain is how often a request that is not answered looks whether its partition has another leader by now.
	lookAgain = 250 * time.Millisecond

	// hedgeAfter is how long one broker alone is waited for when any can answer. A broker that hangs or was cut off keeps
	// its connections, so only its silence tells.
	hedgeAfter = 300 * time.Millisecond

	// lookTimeout bounds a look at the cluster, which other lanes may be waiting for.
	lookTimeout = 3 * time.Second
)

// cluster knows the brokers and the leaders, and brings requests to them. It stands in for kafka-go's Transport, which asks
// one broker after the other, through one goroutine, who leads, and so takes half a minute to notice that one hangs; which
// cannot take back a request from a broker that leads no more; and which loses its place for good when SASL stalls.
type cluster struct {
	seeds []string
	conns *conns
	looks chan look // holds one value: the last look; taken out while there is one under way

	mu     sync.Mutex // guards what follows
	topics map[string]struct{}
	layout layout
	turn   int // the broker to be asked first the next time
}

var _ kafka.RoundTripper = (*cluster)(nil)

// look is an attempt to learn the layout.
type look struct {
	began time.Time
	err   error
}

// layout is what the cluster looked like. It is not changed after it was made.
type layout struct {
	at         time.Time        // when it was asked for
	brokers    map[int32]string // addresses
	controller string           // address; "" = unknown
	topics     map[string]topicLayout
}

type topicLayout struct {
	err     kafka.Error     // 0 = none
	leaders map[int32]int32 // of each partition
	doubted bool            // a broker said that there are fewer partitions
}

func newCluster(seeds []string, conns *conns) *cluster {
	c := &cluster{seeds: seeds, conns: conns, looks: make(chan look, 1), topics: make(map[string]struct{})}
	c.looks <- look{}
	return c
}

// RoundTrip brings a request of kafka-go's Client to the broker it is for. There is one cluster, so the address is not used.
func (c *cluster) RoundTrip(ctx context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	switch r := request.(type) {
	case *rawproduce.Request:
		return c.produce(ctx, r)
	case *createtopics.Request:
		if controller := c.current().controller; controller != "" {
			return c.conns.roundTrip(ctx, controller, request)
		}
	}
	return c.ask(ctx, request)
}

var errMoved = relay.Because(relay.ReasonTimeout, errors.New("no answer, and the partition is led by another broker now"))

// produce sends to the leader of the request's partition. A leader that hangs would be waited for until the request's
// deadline, so it is looked whether the cluster has replaced it. The answer does not wait for that: whom the look asks may
// hang as well.
func (c *cluster) produce(ctx context.Context, r *rawproduce.Request) (protocol.Message, error) {
	topic, partition := r.Topics[0].Topic, r.Topics[0].Partitions[0].Partition
	leader, err := c.current().leader(topic, partition)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel(nil)
	looking.Go(func() {
		for pause(ctx, lookAgain) {
			_ = c.look(ctx, time.Now().Add(-lookAgain/2))
			if now, err := c.current().leader(topic, partition); err == nil && now != leader {
				cancel(errMoved)
			}
		}
	})
	return c.conns.roundTrip(ctx, leader, r)
}

// ask sends a request that every broker can answer. When one has failed, or says nothing for a moment, the next is asked
// besides, and the first answer counts.
func (c *cluster) ask(ctx context.Context, request protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type result struct {
		answer protocol.Message
		err    error
	}
	addresses := c.addresses()
	results := make(chan result, len(addresses))
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	var failures []error
	for next := 0; len(failures) < len(addresses); {
		if next < len(addresses) {
			address := addresses[next]
			next++
			asking.Go(func() {
				answer, err := c.conns.roundTrip(ctx, address, request)
				results <- result{answer, err}
			})
			hedge.Reset(hedgeAfter)
		}
		select {
		case r := <-results:
			if r.err == nil {
				return r.answer, nil
			}
			failures = append(failures, r.err)
		case <-hedge.C:
		}
	}
	for _, err := range failures { // a broker that speaks knows more than one that is not there
		switch relay.ReasonOf(explain(err)) {
		case relay.ReasonConnection, relay.ReasonTimeout, relay.ReasonDNS:
		default:
			return nil, err
		}
	}
	return nil, failures[0]
}

// addresses are the brokers to ask, each time beginning with another: one that is cut off from the rest of the cluster
// answers what was true once.
func (c *cluster) addresses() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Sorted(maps.Values(c.layout.brokers))
	if len(known) == 0 {
		known = slices.Clone(c.seeds)
	}
	at := c.turn % len(known)
	c.turn++
	addresses := slices.Concat(known[at:], known[:at])
	for _, seed := range c.seeds { // all that are known may have moved
		if !slices.Contains(addresses, seed) {
			addresses = append(addresses, seed)
		}
	}
	return addresses
}

func (c *cluster) current() layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.layout
}

// topic gives what is known of a topic: not older than staleAfter if the cluster answers, else what was known before.
func (c *cluster) topic(ctx context.Context, name string) (topicLayout, error) {
	c.mu.Lock()
	c.topics[name] = struct{}{}
	found, known := c.layout.topics[name]
	at := c.layout.at
	c.mu.Unlock()
	since := time.Now()
	if known {
		if since = since.Add(-staleAfter); at.After(since) {
			return found, nil
		}
	}
	err := c.look(ctx, since)
	found, known = c.current().topics[name]
	if known || err == nil {
		return found, nil
	}
	return found, err
}

// look learns the layout, unless another lane has begun to do so after since.
func (c *cluster) look(ctx context.Context, since time.Time) error {
	var last look
	select {
	case last = <-c.looks:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.looks <- last }()
	if !last.began.Before(since) {
		return last.err
	}
	last.began = time.Now()
	last.err = c.learn(ctx)
	if last.err != nil && ctx.Err() != nil {
		last.began = time.Time{} // this lane gave up, which says nothing to the others
	}
	return last.err
}

func (c *cluster) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	c.mu.Lock()
	names := slices.Sorted(maps.Keys(c.topics))
	c.mu.Unlock()
	began := time.Now()
	answer, err := c.ask(ctx, &metadata.Request{TopicNames: names})
	if err != nil {
		return fmt.Errorf("ask the cluster for its brokers and topics: %w", err)
	}
	response, ok := answer.(*metadata.Response)
	if !ok {
		return errOdd
	}
	learnt := layoutOf(response)
	learnt.at = began
	c.adopt(learnt)
	return nil
}

// adopt takes over what a broker said. Partitions are never taken away, so a topic that has fewer was deleted and made again,
// or the broker is behind the others; which of them, the next broker tells.
func (c *cluster) adopt(learnt layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, found := range learnt.topics {
		known := c.layout.topics[name]
		if found.err == 0 && len(found.leaders) < len(known.leaders) && !known.doubted {
			known.doubted = true
			learnt.topics[name] = known
		}
	}
	c.layout = learnt
}

func layoutOf(response *metadata.Response) layout {
	l := layout{
		brokers: make(map[int32]string, len(response.Brokers)),
		topics:  make(map[string]topicLayout, len(response.Topics)),
	}
	for _, b := range response.Brokers {
		l.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	l.controller = l.brokers[response.ControllerID]
	for _, found := range response.Topics {
		t := topicLayout{err: kafka.Error(found.ErrorCode), leaders: make(map[int32]int32, len(found.Partitions))}
		for _, p := range found.Partitions {
			t.leaders[p.PartitionIndex] = p.LeaderID
		}
		l.topics[found.Name] = t
	}
	return l
}

// leader is the address of the partition's leader.
func (l layout) leader(topic string, partition int32) (string, error) {
	id, found := l.topics[topic].leaders[partition]
	if !found {
		return "", fmt.Errorf("%s/%d does not exist on the cluster: %w", topic, partition, kafka.UnknownTopicOrPartition)
	}
	address, found := l.brokers[id]
	if !found {
		return "", fmt.Errorf("%s/%d has no leader: %w", topic, partition, kafka.LeaderNotAvailable)
	}
	return address, nil
}
