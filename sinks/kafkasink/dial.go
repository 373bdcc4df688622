package kafkasink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// maxConns bounds the connections of a sink. kafka-go opens one for each request in flight and knows no limit. The
	// dispatcher's slots keep the number far below; this only stops a fault from using up the process's files.
	maxConns = 256

	// handshakeLimit ends what kafka-go starts without a deadline.
	handshakeLimit = 10 * time.Second
)

// dialer opens the connections of one sink, counts them and can close them all.
type dialer struct {
	net.Dialer
	handshaker *handshaker // nil = no TLS

	mu      sync.Mutex // guards what follows
	dialing int
	conns   map[*guardedConn]struct{}
	closed  bool
}

func newDialer(t *TLS) *dialer {
	d := &dialer{conns: make(map[*guardedConn]struct{})}
	if t != nil {
		d.handshaker = &handshaker{tls: t}
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.begin(); err != nil {
		return nil, err
	}
	inner, err := d.DialContext(ctx, network, address)
	if err == nil && d.handshaker != nil {
		inner, err = d.handshaker.client(ctx, inner, address)
	}
	return d.end(inner, err)
}

// begin refuses instead of waiting: a dial that waits would not notice that an open connection has become idle.
func (d *dialer) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.conns)+d.dialing >= maxConns {
		return fmt.Errorf("%d connections to brokers are open already", maxConns)
	}
	d.dialing++
	return nil
}

func (d *dialer) end(inner net.Conn, err error) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialing--
	if err != nil {
		return nil, err
	}
	if d.closed {
		inner.Close()
		return nil, net.ErrClosed
	}
	conn := &guardedConn{Conn: inner, dialer: d}
	d.conns[conn] = struct{}{}
	return conn, nil
}

func (d *dialer) forget(conn *guardedConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, conn)
}

// closeAll makes what still waits for a broker end now and not at its deadline.
func (d *dialer) closeAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for conn := range d.conns {
		conn.Conn.Close()
	}
	clear(d.conns)
}

// guardedConn is never without a deadline for long. kafka-go clears the deadline before it authenticates, and a broker
// that stalls there would stop its only discovery goroutine for good. Idle connections come to no harm: it sets a fresh
// deadline before each request.
type guardedConn struct {
	net.Conn
	dialer *dialer
}

func (c *guardedConn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		t = time.Now().Add(handshakeLimit)
	}
	return c.Conn.SetDeadline(t)
}

func (c *guardedConn) Close() error {
	c.dialer.forget(c)
	return c.Conn.Close()
}
