package kafkaconn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
)

// RequestTimeout is how long a request is worth waiting for.
const RequestTimeout = 10 * time.Second

const (
	connectTimeout = 5 * time.Second // of one connection, with TLS and SASL

	// maxAge is how long a connection is used, give or take a tenth: a broker's name may lead elsewhere by then, and what still
	// answers at the old address may not be asked for ever.
	maxAge = 10 * time.Minute

	idleTimeout = 5 * time.Minute // below the brokers' connections.max.idle.ms of 10 minutes

	// maxConns bounds the connections to a cluster. Whoever uses it needs far fewer; this only stops a fault from using up the
	// process's files.
	maxConns = 512
)

// conns opens the connections to one cluster, keeps them for later requests, counts them and can close them all. A
// connection serves one request at a time: a broker answers in order, so one slow partition would hold up the others.
type conns struct {
	net.Dialer
	clientID   string
	handshaker *handshaker    // nil = no TLS
	mechanism  sasl.Mechanism // nil = no authentication

	mu      sync.Mutex // guards what follows
	opening int
	open    map[*conn]struct{}
	idle    map[string][]*conn // by address, the last used at the end
	round   int                // how often reconnect was called
	closed  bool
}

// conn is a connection that has shaken hands.
type conn struct {
	net.Conn
	raw      net.Conn // closed in place of the other: TLS would first say goodbye to a broker that may not listen any more
	answers  *bufio.Reader
	address  string
	clientID string
	last     int32                                          // the id of the last request
	secure   bool                                           // it is authenticated
	used     bool                                           // a request was answered after the connection was made
	versions map[protocol.ApiKey]int16                      // of the requests that both sides know
	offered  map[protocol.ApiKey]apiversions.ApiKeyResponse // what the broker knows of requests, for those that are our own
	session  time.Time                                      // no request is sent after this, because it is too old or its SASL session ends; zero = never
	round    int                                            // of conns, when it was made
	until    time.Time                                      // while it is idle: it is not used after this
}

func newConns(clientID string, t *keyfile.TLS, mechanism sasl.Mechanism) *conns {
	c := &conns{clientID: clientID, mechanism: mechanism, open: make(map[*conn]struct{}), idle: make(map[string][]*conn)}
	if t != nil {
		c.handshaker = &handshaker{keyfile.Follower{TLS: t}}
	}
	return c
}

// roundTrip sends a request to the broker at the address and waits for the answer until ctx ends.
func (c *conns) roundTrip(ctx context.Context, address string, request protocol.Message) (protocol.Message, error) {
	conn, err := c.get(ctx, address)
	if err != nil {
		return nil, err
	}
	answer, err := conn.roundTrip(ctx, request)
	switch {
	case err == nil, errors.Is(err, kafka.UnsupportedVersion):
		c.put(conn)
	case ctx.Err() != nil:
		c.close(conn)
	default: // what ends one connection has mostly ended them all
		c.close(conn)
		c.closeIdle(address)
	}
	return answer, err
}

// get returns an idle connection or a new one.
func (c *conns) get(ctx context.Context, address string) (*conn, error) {
	conn, err := c.takeIdle(address, time.Now())
	if conn != nil || err != nil {
		return conn, err
	}
	c.mu.Lock()
	round := c.round // a reconnect meanwhile is about this connection, too
	c.mu.Unlock()
	conn, err = c.connect(ctx, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opening--
	switch {
	case err != nil:
		return nil, fmt.Errorf("connect to broker %s: %w", address, err)
	case c.closed:
		conn.raw.Close()
		return nil, net.ErrClosed
	}
	conn.round = round
	c.open[conn] = struct{}{}
	return conn, nil
}

// takeIdle takes an idle connection, or room for a new one.
func (c *conns) takeIdle(address string, now time.Time) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	for idle := c.idle[address]; len(idle) > 0; idle = c.idle[address] {
		last := idle[len(idle)-1]
		c.idle[address] = idle[:len(idle)-1]
		if now.Before(last.until) {
			return last, nil
		}
		c.drop(last)
	}
	if len(c.open)+c.opening >= maxConns && !c.dropIdle() {
		return nil, fmt.Errorf("%d connections to brokers are open already", maxConns)
	}
	c.opening++
	return nil, nil
}

// put keeps the connection for later, and drops those that were not needed for long.
func (c *conns) put(used *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	if used.round != c.round {
		c.drop(used)
		return
	}
	now := time.Now()
	used.until = now.Add(idleTimeout)
	if !used.session.IsZero() && used.session.Before(used.until) {
		used.until = used.session
	}
	c.idle[used.address] = append(c.idle[used.address], used)
	for address, idle := range c.idle { // of all addresses: a broker that has moved is not called at its old one again
		idle = slices.DeleteFunc(idle, func(o *conn) bool {
			if now.Before(o.until) {
				return false
			}
			c.drop(o)
			return true
		})
		if c.idle[address] = idle; len(idle) == 0 {
			delete(c.idle, address)
		}
	}
}

// dropIdle closes an idle connection, if there is one.
func (c *conns) dropIdle() bool {
	for address, idle := range c.idle {
		if len(idle) > 0 {
			c.drop(idle[0])
			c.idle[address] = slices.Delete(idle, 0, 1)
			return true
		}
	}
	return false
}

// reconnect closes all idle connections, and others once they have their answer.
func (c *conns) reconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round++
	for c.dropIdle() {
	}
	clear(c.idle)
}

func (c *conns) close(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(conn)
}

func (c *conns) closeIdle(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle[address] {
		c.drop(conn)
	}
	delete(c.idle, address)
}

func (c *conns) drop(conn *conn) {
	delete(c.open, conn)
	conn.raw.Close()
}

// closeAll makes what still waits for a broker end now.
func (c *conns) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		c.drop(conn)
	}
	clear(c.idle)
}

// connect opens a connection. No step of it can wait for ever: a broker that hangs would hold up its partitions for good.
func (c *conns) connect(ctx context.Context, address string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	raw, err := c.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	inner := raw
	if c.handshaker != nil {
		if inner, err = c.handshaker.client(ctx, raw, address); err != nil {
			return nil, err
		}
	}
	made := &conn{Conn: inner, raw: raw, answers: bufio.NewReader(inner), address: address,
		clientID: c.clientID, secure: c.mechanism != nil,
		session:  time.Now().Add(maxAge*9/10 + rand.N(maxAge/5)),
		versions: map[protocol.ApiKey]int16{protocol.ApiVersions: 0}}
	if err = made.within(ctx, made.negotiate); err != nil {
		err = fmt.Errorf("ask for versions: %w", c.suspect(err))
	} else if c.mechanism != nil {
		if err = made.within(ctx, func() error { return made.authenticate(ctx, c.mechanism) }); err != nil {
			err = fmt.Errorf("authenticate: %w", err)
		}
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return made, nil
}

// suspect adds to the error of a connection's first request what is mostly behind it: brokers do not answer what they do not
// expect at a port.
func (c *conns) suspect(err error) error {
	switch timeout := relay.ReasonOf(err) == relay.ReasonTimeout; {
	case !timeout && !hungUp(err):
		return err
	case c.handshaker == nil:
		return fmt.Errorf("no answer; is this the port of a Kafka broker, and is tls missing in the configuration? %w", err)
	default:
		return fmt.Errorf("no answer; is this the port of a Kafka broker? %w", err)
	}
}

// within runs f, which must not use the connection longer than ctx lasts. After an error the connection is of no more use.
func (c *conn) within(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err == nil {
		return context.Cause(ctx) // the deadline is set, or will be
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (c *conn) roundTrip(ctx context.Context, request protocol.Message) (answer protocol.Message, err error) {
	err = c.within(ctx, func() error {
		answer, err = c.exchange(request)
		return err
	})
	if err != nil {
		if !c.used && !c.secure && hungUp(err) {
			err = fmt.Errorf("it hangs up at the first request; is sasl missing in the configuration? %w", err)
		}
		return nil, fmt.Errorf("broker %s: %w", c.address, err)
	}
	c.used = true
	return answer, nil
}

// hungUp reports whether the far side ended a connection without a word, which is how brokers refuse what they do not expect.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// exchange sends a request and reads its answer.
func (c *conn) exchange(request protocol.Message) (protocol.Message, error) {
	key := request.ApiKey()
	version, known := c.versions[key]
	empty := answers[key].empty
	if o, ok := request.(own); ok {
		version, empty = o.version(), o.empty
		known = version >= c.offered[key].MinVersion && version <= c.offered[key].MaxVersion
	}
	if !known {
		return nil, fmt.Errorf("it does not know %s as we do: %w", key, kafka.UnsupportedVersion)
	}
	if p, ok := request.(protocol.PreparedMessage); ok {
		p.Prepare(version)
	}
	c.last++
	if err := protocol.WriteRequest(c, version, c.last, c.clientID, request); err != nil {
		return nil, err
	}
	frame, err := readFrame(c.answers, c.last, mostOf(request))
	if err != nil {
		return nil, err
	}
	answer := empty()
	return answer, decode(frame, version, answer)
}

// negotiate agrees on the version of each request.
func (c *conn) negotiate() error {
	response, err := Answer[*apiversions.Response](c.exchange(new(apiversions.Request)))
	if err != nil {
		return err
	}
	if response.ErrorCode != 0 {
		return kafka.Error(response.ErrorCode)
	}
	c.offered = make(map[protocol.ApiKey]apiversions.ApiKeyResponse, len(response.ApiKeys))
	for _, offered := range response.ApiKeys {
		key := protocol.ApiKey(offered.ApiKey)
		c.offered[key] = offered
		version := min(key.MaxVersion(), offered.MaxVersion)
		if answers[key].empty != nil && version >= max(key.MinVersion(), offered.MinVersion) {
			c.versions[key] = version
		}
	}
	return nil
}

// authenticate says who we are. What brokers say freely of a refusal is left out: it may repeat what was sent.
func (c *conn) authenticate(ctx context.Context, mechanism sasl.Mechanism) error {
	handshake, err := Answer[*saslhandshake.Response](c.exchange(&saslhandshake.Request{Mechanism: mechanism.Name()}))
	if err != nil {
		return err
	}
	if handshake.ErrorCode != 0 {
		return kafka.Error(handshake.ErrorCode)
	}
	session, message, err := mechanism.Start(ctx)
	for done := false; err == nil && !done; {
		var response *saslauthenticate.Response
		if response, err = c.sendSASL(message); err != nil {
			return err
		}
		if lifetime := time.Duration(response.SessionLifetimeMs) * time.Millisecond; lifetime > 0 {
			// When the session ends the broker cuts the connection, whatever is on it. A request in flight may take that long.
			if end := time.Now().Add(max(lifetime-RequestTimeout, lifetime/2)); end.Before(c.session) {
				c.session = end
			}
		}
		done, message, err = session.Next(ctx, response.AuthBytes)
	}
	return err
}

func (c *conn) sendSASL(message []byte) (*saslauthenticate.Response, error) {
	response, err := Answer[*saslauthenticate.Response](c.exchange(&saslauthenticate.Request{AuthBytes: message}))
	if errors.Is(err, io.EOF) { // how some brokers refuse
		return nil, kafka.SASLAuthenticationFailed
	}
	if err != nil {
		return nil, err
	}
	if response.ErrorCode != 0 {
		return nil, kafka.Error(response.ErrorCode)
	}
	return response, nil
}
