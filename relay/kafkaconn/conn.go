package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
)

// RequestTimeout is how long a request is worth waiting for.
const RequestTimeout = 10 * time.Second

const (
	connectTimeout = 5 * time.Second // of one connection, with TLS and SASL

	idleTimeout = 5 * time.Minute // below the brokers' connections.max.idle.ms of 10 minutes

	// maxConns bounds the connections of a sink. The dispatcher's slots keep the number far below; this only stops a fault
	// from using up the process's files.
	maxConns = 512
)

// conns opens the connections of one sink, keeps them for later requests, counts them and can close them all. A
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
	closed  bool
}

// conn is a connection that has shaken hands.
type conn struct {
	*protocol.Conn
	raw      net.Conn // closed in place of the other: TLS would first say goodbye to a broker that may not listen any more
	address  string
	versions map[protocol.ApiKey]int16
	session  time.Time // no request is sent after this, because its SASL session ends; zero = never
	until    time.Time // while it is idle: it is not used after this
}

func newConns(clientID string, t *TLS, mechanism sasl.Mechanism) *conns {
	c := &conns{clientID: clientID, mechanism: mechanism, open: make(map[*conn]struct{}), idle: make(map[string][]*conn)}
	if t != nil {
		c.handshaker = &handshaker{tls: t}
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

// get gives an idle connection or a new one.
func (c *conns) get(ctx context.Context, address string) (*conn, error) {
	conn, err := c.takeIdle(address, time.Now())
	if conn != nil || err != nil {
		return conn, err
	}
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
	made := &conn{Conn: protocol.NewConn(inner, c.clientID), raw: raw, address: address}
	err = made.within(ctx, func() error {
		if err := made.negotiate(); err != nil {
			return fmt.Errorf("ask for versions: %w", err)
		}
		if c.mechanism == nil {
			return nil
		}
		if err := made.authenticate(ctx, c.mechanism); err != nil {
			return fmt.Errorf("authenticate: %w", err)
		}
		return nil
	})
	if err != nil {
		raw.Close()
		return nil, err
	}
	return made, nil
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
	if _, known := c.versions[request.ApiKey()]; !known {
		return nil, fmt.Errorf("broker %s does not know %s: %w", c.address, request.ApiKey(), kafka.UnsupportedVersion)
	}
	err = c.within(ctx, func() error {
		answer, err = c.RoundTrip(request)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", c.address, err)
	}
	return answer, nil
}

// negotiate agrees on the version of each request.
func (c *conn) negotiate() error {
	response, err := Answer[*apiversions.Response](c.RoundTrip(new(apiversions.Request)))
	if err != nil {
		return err
	}
	if response.ErrorCode != 0 {
		return kafka.Error(response.ErrorCode)
	}
	c.versions = make(map[protocol.ApiKey]int16, len(response.ApiKeys))
	for _, offered := range response.ApiKeys {
		key := protocol.ApiKey(offered.ApiKey)
		c.versions[key] = key.SelectVersion(offered.MinVersion, offered.MaxVersion)
	}
	c.SetVersions(c.versions)
	return nil
}

// authenticate says who we are. What brokers say freely of a refusal is left out: it may repeat what was sent.
func (c *conn) authenticate(ctx context.Context, mechanism sasl.Mechanism) error {
	handshake, err := Answer[*saslhandshake.Response](c.RoundTrip(&saslhandshake.Request{Mechanism: mechanism.Name()}))
	if err != nil {
		return err
	}
	if handshake.ErrorCode != 0 {
		return kafka.Error(handshake.ErrorCode)
	}
	session, message, err := mechanism.Start(ctx)
	for done := false; err == nil && !done; {
		var response *saslauthenticate.Response
		if response, err = c.exchange(message); err != nil {
			return err
		}
		if lifetime := time.Duration(response.SessionLifetimeMs) * time.Millisecond; lifetime > 0 {
			// When the session ends the broker cuts the connection, whatever is on it. A request in flight may take that long.
			c.session = time.Now().Add(max(lifetime-RequestTimeout, lifetime/2))
		}
		done, message, err = session.Next(ctx, response.AuthBytes)
	}
	return err
}

func (c *conn) exchange(message []byte) (*saslauthenticate.Response, error) {
	response, err := Answer[*saslauthenticate.Response](c.RoundTrip(&saslauthenticate.Request{AuthBytes: message}))
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
