package member

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/heartbeat"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/segmentio/kafka-go/protocol/leavegroup"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/syncgroup"

	"ncs-relay/relay/kafkaconn"
)

// Brokers bring requests to the brokers of one cluster; *kafkaconn.Cluster does.
type Brokers interface {
	Ask(ctx context.Context, request protocol.Message) (protocol.Message, error)                // of any broker
	To(ctx context.Context, address string, request protocol.Message) (protocol.Message, error) // of one
	Reconnect()
}

var _ Brokers = (*kafkaconn.Cluster)(nil)

const (
	// lookAgain is how often a request that is not answered looks whether the group has another coordinator by now.
	lookAgain = 500 * time.Millisecond

	findTimeout = 2 * time.Second
)

var errMoved = errors.New("no answer, and the group has another coordinator now")

// group brings requests to the coordinator of one consumer group, and follows it.
type group struct {
	brokers Brokers
	name    string

	mu          sync.Mutex // guards what follows
	coordinator string     // its address; "" = to be looked up
}

// find asks who the coordinator is.
func (g *group) find(ctx context.Context) (address string, err error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	found, err := kafkaconn.Answer[*findcoordinator.Response](g.brokers.Ask(ctx, &findcoordinator.Request{Key: g.name}))
	if err == nil && found.ErrorCode != 0 {
		err = kafka.Error(found.ErrorCode)
	}
	if err != nil {
		return "", fmt.Errorf("find the coordinator of consumer group %s: %w", g.name, err)
	}
	return net.JoinHostPort(found.Host, strconv.Itoa(int(found.Port))), nil
}

func (g *group) known(ctx context.Context) (string, error) {
	g.mu.Lock()
	address := g.coordinator
	g.mu.Unlock()
	if address != "" {
		return address, nil
	}
	address, err := g.find(ctx)
	if err == nil {
		g.mu.Lock()
		g.coordinator = address
		g.mu.Unlock()
	}
	return address, err
}

// forget makes the next request look up the coordinator.
func (g *group) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.coordinator = ""
}

// send brings a request to the coordinator. One that hangs or was cut off keeps its connections, so it is looked meanwhile whether
// the cluster has another one.
func (g *group) send(ctx context.Context, timeout time.Duration, request protocol.Message) (protocol.Message, error) {
	address, err := g.known(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
	defer cancelTimeout()
	ctx, cancel := context.WithCancelCause(ctx)
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel(nil)
	looking.Go(func() {
		for kafkaconn.Pause(ctx, lookAgain) {
			if now, err := g.find(ctx); err == nil && now != address {
				cancel(errMoved)
			}
		}
	})
	answer, err := g.brokers.To(ctx, address, request)
	if err != nil {
		g.forget()
		if errors.Is(err, context.DeadlineExceeded) {
			g.brokers.Reconnect() // what lies idle may be as dead as this connection was
		}
		return nil, fmt.Errorf("consumer group %s: %s: %w", g.name, request.ApiKey(), err)
	}
	return answer, nil
}

// code makes an error of what the coordinator has answered; 0 is none.
func (g *group) code(request protocol.Message, code int16) error {
	if code == 0 {
		return nil
	}
	switch err := kafka.Error(code); err {
	case kafka.NotCoordinatorForGroup, kafka.GroupCoordinatorNotAvailable, kafka.GroupLoadInProgress:
		g.forget()
		fallthrough
	default:
		return fmt.Errorf("consumer group %s: %s: %w", g.name, request.ApiKey(), err)
	}
}

func (g *group) join(ctx context.Context, timeout time.Duration, request *joingroup.Request) (*joingroup.Response, error) {
	response, err := kafkaconn.Answer[*joingroup.Response](g.send(ctx, timeout, request))
	if err == nil {
		err = g.code(request, response.ErrorCode)
	}
	return response, err
}

func (g *group) sync(ctx context.Context, timeout time.Duration, request *syncgroup.Request) (assignment []byte, err error) {
	response, err := kafkaconn.Answer[*syncgroup.Response](g.send(ctx, timeout, request))
	if err != nil {
		return nil, err
	}
	return response.Assignments, g.code(request, response.ErrorCode)
}

func (g *group) heartbeat(ctx context.Context, timeout time.Duration, request *heartbeat.Request) error {
	response, err := kafkaconn.Answer[*kafkaconn.HeartbeatResponse](g.send(ctx, timeout, request))
	if err != nil {
		return err
	}
	return g.code(request, response.ErrorCode)
}

func (g *group) leave(ctx context.Context, timeout time.Duration, request *leavegroup.Request) error {
	response, err := kafkaconn.Answer[*leavegroup.Response](g.send(ctx, timeout, request))
	if err != nil {
		return err
	}
	code := response.ErrorCode
	for _, m := range response.Members {
		if code == 0 {
			code = m.ErrorCode
		}
	}
	return g.code(request, code)
}

func (g *group) commit(ctx context.Context, timeout time.Duration, request *offsetcommit.Request) error {
	response, err := kafkaconn.Answer[*offsetcommit.Response](g.send(ctx, timeout, request))
	if err != nil {
		return err
	}
	for _, topic := range response.Topics {
		for _, p := range topic.Partitions {
			if err := g.code(request, p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *group) describe(ctx context.Context, timeout time.Duration) (described describegroups.ResponseGroup, err error) {
	request := &describegroups.Request{Groups: []string{g.name}}
	response, err := kafkaconn.Answer[*describegroups.Response](g.send(ctx, timeout, request))
	if err != nil {
		return described, err
	}
	if len(response.Groups) != 1 {
		return described, fmt.Errorf("consumer group %s: %d descriptions, want 1", g.name, len(response.Groups))
	}
	return response.Groups[0], g.code(request, response.Groups[0].ErrorCode)
}
