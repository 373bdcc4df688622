package kafkaconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/metadata"

	"ncs-relay/relay"
	"ncs-relay/relay/telemetry"
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

// Cluster knows the brokers and the leaders of one Kafka cluster, and brings requests to them. It stands in for kafka-go's
// Transport, which asks one broker after the other, through one goroutine, who leads, and so takes half a minute to notice
// that one hangs; which cannot take back a request from a broker that leads no more; and which loses its place for good when
// SASL stalls. It may be used by several goroutines at once.
type Cluster struct {
	seeds []string
	conns *conns
	log   *slog.Logger
	looks chan look // holds one value: the last look; taken out while there is one under way

	mu     sync.Mutex // guards what follows
	topics map[string]struct{}
	layout layout
	turn   int                              // the broker to be asked first the next time
	silent map[string]*telemetry.Repetition // by address: those that did not answer when others did
}

// To brings a request to the broker at an address and waits for its answer until ctx ends.
func (c *Cluster) To(ctx context.Context, address string, request protocol.Message) (protocol.Message, error) {
	return c.conns.roundTrip(ctx, address, request)
}

// Reconnect makes requests that are sent from now on go over new connections.
func (c *Cluster) Reconnect() { c.conns.reconnect() }

// Close ends all connections, and what still waits for an answer.
func (c *Cluster) Close() { c.conns.closeAll() }

var _ kafka.RoundTripper = (*Cluster)(nil)

// look is an attempt to learn the layout.
type look struct {
	began time.Time
	err   error
}

// layout is what the cluster looked like. It is not changed after it was made.
type layout struct {
	at         time.Time        // when it was asked for
	cluster    string           // its id; "" = the brokers do not tell
	brokers    map[int32]string // addresses
	controller string           // address; "" = unknown
	topics     map[string]Topic
}

// Topic is what a cluster says of a topic. It is not changed after it was made.
type Topic struct {
	Err     kafka.Error     // 0 = none
	Leaders map[int32]int32 // the broker that leads each partition; negative = none
	doubted bool            // a broker said that there are fewer partitions
}

// New makes the way to the cluster of cfg. It opens no connection; the first request does.
func New(cfg Config) *Cluster {
	c := newCluster(cfg.Brokers, newConns(cfg.ClientID, cfg.TLS, cfg.SASL.mechanism()))
	if cfg.Logger != nil {
		c.log = cfg.Logger
	}
	return c
}

func newCluster(seeds []string, conns *conns) *Cluster {
	c := &Cluster{seeds: seeds, conns: conns, log: slog.New(slog.DiscardHandler), looks: make(chan look, 1),
		topics: make(map[string]struct{}), silent: make(map[string]*telemetry.Repetition)}
	c.looks <- look{}
	return c
}

// RoundTrip brings a request of kafka-go's Client to the broker it is for. There is one cluster, so the address is not used.
func (c *Cluster) RoundTrip(ctx context.Context, _ net.Addr, request kafka.Request) (kafka.Response, error) {
	if _, ok := request.(*createtopics.Request); ok {
		if controller := c.current().controller; controller != "" {
			return c.To(ctx, controller, request)
		}
	}
	return c.Ask(ctx, request)
}

// ErrMoved is the outcome of a request that was taken back because its partition has another leader by now. Nobody knows
// whether the first one has done it.
var ErrMoved = relay.Because(relay.ReasonTimeout, errors.New("no answer, and the partition is led by another broker now"))

// ToLeader brings a request to the leader of the partition, whose topic must be known (see Topic). A leader that hangs would
// be waited for until the request's deadline, so it is looked whether the cluster has replaced it; then the error is
// ErrMoved. The answer does not wait for that: whom the look asks may hang as well.
func (c *Cluster) ToLeader(ctx context.Context, topic string, partition int32, request protocol.Message) (protocol.Message, error) {
	leader, err := c.current().leader(topic, partition)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel(nil)
	looking.Go(func() {
		for wait := mayTake(request) + lookAgain; Pause(ctx, wait); wait = lookAgain {
			_ = c.Look(ctx, time.Now().Add(-lookAgain/2))
			if now, err := c.current().leader(topic, partition); err == nil && now != leader {
				cancel(ErrMoved)
			}
		}
	})
	return c.To(ctx, leader, request)
}

// mayTake is how long a broker was asked to wait before it answers.
func mayTake(request protocol.Message) time.Duration {
	if r, ok := request.(*fetch.Request); ok {
		return time.Duration(r.MaxWaitTime) * time.Millisecond
	}
	return 0
}

// result is what one of the brokers that were asked has said.
type result struct {
	address string
	answer  protocol.Message
	err     error
}

// Ask sends a request that every broker can answer. When one has failed, or says nothing for a moment, the next is asked
// besides, and the first answer counts.
func (c *Cluster) Ask(ctx context.Context, request protocol.Message) (protocol.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	addresses := c.addresses()
	results := make(chan result, len(addresses))
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	var failures []result
	for next := 0; len(failures) < len(addresses); {
		if next < len(addresses) {
			address := addresses[next]
			next++
			asking.Go(func() {
				answer, err := c.conns.roundTrip(ctx, address, request)
				results <- result{address, answer, err}
			})
			hedge.Reset(hedgeAfter)
		}
		select {
		case r := <-results:
			if r.err == nil {
				c.warn(addresses[:next], failures, r.address)
				return r.answer, nil
			}
			failures = append(failures, r)
		case <-hedge.C:
		}
	}
	return nil, slices.MaxFunc(failures, func(a, b result) int { return cmp.Compare(weight(a.err), weight(b.err)) }).err
}

// weight says how much an error tells: a broker that speaks knows more than one that is not there.
func weight(err error) int {
	switch relay.ReasonOf(Explain(err)) {
	case relay.ReasonConnection, relay.ReasonTimeout, relay.ReasonDNS:
		if errors.Is(err, ErrNotKafka) {
			return 1
		}
		return 0
	}
	return 2
}

var errSilent = fmt.Errorf("no answer within %s; is this the port of a Kafka broker?", hedgeAfter)

// warn says which of the brokers that were asked failed or were silent while another one answered. Nobody would see it
// otherwise.
func (c *Cluster) warn(asked []string, failures []result, answered string) {
	for _, address := range asked {
		if address == answered {
			continue
		}
		err := errSilent
		if at := slices.IndexFunc(failures, func(r result) bool { return r.address == address }); at >= 0 {
			err = failures[at].err
		}
		if suppressed, ok := c.repetition(address).Allow(time.Now()); ok {
			c.log.Warn("a Kafka broker does not answer, another one does", "broker", address, "error", err, "suppressed", suppressed)
		}
	}
}

func (c *Cluster) repetition(address string) *telemetry.Repetition {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent[address] == nil {
		c.silent[address] = new(telemetry.Repetition)
	}
	return c.silent[address]
}

// addresses are the brokers to ask, each time beginning with another: one that is cut off from the rest of the cluster
// answers what was true once.
func (c *Cluster) addresses() []string {
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

func (c *Cluster) current() layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.layout
}

// Brokers returns the addresses of the brokers that were told of last, by their ids.
func (c *Cluster) Brokers() map[int32]string { return maps.Clone(c.current().brokers) }

// Leader returns the address of the broker that leads a partition, whose topic must be known (see Topic).
func (c *Cluster) Leader(topic string, partition int32) (address string, err error) {
	return c.current().leader(topic, partition)
}

// Topic returns what is known of a topic: not older than staleAfter if the cluster answers, else what was known before.
func (c *Cluster) Topic(ctx context.Context, name string) (Topic, error) {
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
	err := c.Look(ctx, since)
	found, known = c.current().topics[name]
	if known || err == nil {
		return found, nil
	}
	return found, err
}

// Look learns the layout, unless another lane has begun to do so after since.
func (c *Cluster) Look(ctx context.Context, since time.Time) error {
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

func (c *Cluster) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	c.mu.Lock()
	names := slices.Sorted(maps.Keys(c.topics))
	c.mu.Unlock()
	began := time.Now()
	response, err := Answer[*metadata.Response](c.Ask(ctx, &metadata.Request{TopicNames: names}))
	if err != nil {
		return fmt.Errorf("ask the cluster for its brokers and topics: %w", err)
	}
	learnt := layoutOf(response)
	learnt.at = began
	c.adopt(learnt)
	return nil
}

// adopt takes over what a broker said. Partitions are never taken away, so a topic that has fewer was deleted and made again,
// or the broker is behind the others; which of them, the next broker tells.
func (c *Cluster) adopt(learnt layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before := c.layout.cluster; before != "" && learnt.cluster != "" && learnt.cluster != before {
		c.log.Warn("the Kafka cluster at these brokers' addresses is another one than before: what was delivered stays in the former one",
			"error", fmt.Errorf("brokers %s: cluster id %s, was %s", strings.Join(c.seeds, ","), learnt.cluster, before))
	}
	learnt.cluster = cmp.Or(learnt.cluster, c.layout.cluster)
	for name, found := range learnt.topics {
		known := c.layout.topics[name]
		if found.Err == 0 && len(found.Leaders) < len(known.Leaders) && !known.doubted {
			known.doubted = true
			learnt.topics[name] = known
		}
	}
	c.layout = learnt
}

func layoutOf(response *metadata.Response) layout {
	l := layout{
		cluster: response.ClusterID,
		brokers: make(map[int32]string, len(response.Brokers)),
		topics:  make(map[string]Topic, len(response.Topics)),
	}
	for _, b := range response.Brokers {
		l.brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	l.controller = l.brokers[response.ControllerID]
	for _, found := range response.Topics {
		t := Topic{Err: kafka.Error(found.ErrorCode), Leaders: make(map[int32]int32, len(found.Partitions))}
		for _, p := range found.Partitions {
			t.Leaders[p.PartitionIndex] = p.LeaderID
		}
		l.topics[found.Name] = t
	}
	return l
}

// leader is the address of the partition's leader.
func (l layout) leader(topic string, partition int32) (string, error) {
	id, found := l.topics[topic].Leaders[partition]
	if !found {
		return "", fmt.Errorf("%s/%d does not exist on the cluster: %w", topic, partition, kafka.UnknownTopicOrPartition)
	}
	address, found := l.brokers[id]
	if !found {
		return "", fmt.Errorf("%s/%d has no leader: %w", topic, partition, kafka.LeaderNotAvailable)
	}
	return address, nil
}

// TrySeeds connects to each of the configured brokers, and returns what fails there. It does not mind brokers that are away:
// others answer.
func (c *Cluster) TrySeeds(ctx context.Context) []error {
	problems := make([]error, len(c.seeds))
	var trying sync.WaitGroup
	for i, address := range c.seeds {
		trying.Go(func() {
			_, err := c.To(ctx, address, new(apiversions.Request))
			if op := new(net.OpError); errors.As(err, &op) && op.Op == "dial" && relay.ReasonOf(err) != relay.ReasonDNS {
				return
			}
			problems[i] = Explain(err)
		})
	}
	trying.Wait()
	return slices.DeleteFunc(problems, func(err error) bool { return err == nil })
}

// TryLeaders connects to the leaders of the topics that a broker told of, and returns what fails there. The cluster gives out
// other addresses than those configured, and often wrong ones.
func (c *Cluster) TryLeaders(ctx context.Context, told *metadata.Response) (problems []error) {
	l := layoutOf(told)
	leads := make(map[string]int)
	for _, t := range l.topics {
		for _, id := range t.Leaders {
			if address := l.brokers[id]; address != "" {
				leads[address]++
			}
		}
	}
	for _, address := range slices.Sorted(maps.Keys(leads)) {
		if _, err := c.To(ctx, address, new(apiversions.Request)); err != nil {
			problems = append(problems, Explain(fmt.Errorf("the leader of %d partitions: %w", leads[address], err)))
		}
	}
	return problems
}
