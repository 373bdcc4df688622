package kafkasink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// maxConns bounds the connections of a sink. kafka-go opens one for each request in flight and knows no limit. The
	// dispatcher's slots keep the number far below; this only stops a fault from using up the process's files.
	maxConns = 256

	// handshakeLimit ends what kafka-go starts without a deadline.
	handshakeLimit = 10 * time.Second

	// silence is how long an address that did not answer in time is not dialled. The kernel of a broker that hangs still
	// takes connections, and kafka-go tries another broker only if dialling fails: without this it would ask the silent one
	// again and again who leads now.
	silence = 3 * time.Second
)

// dialer opens the connections of one sink, counts them and can close them all.
type dialer struct {
	net.Dialer
	handshaker *handshaker // nil = no TLS

	mu      sync.Mutex // guards what follows
	dialing int
	conns   map[*guardedConn]struct{}
	silent  map[string]time.Time // addresses that did not answer in time, and when that was
	closed  bool
}

func newDialer(t *TLS) *dialer {
	d := &dialer{conns: make(map[*guardedConn]struct{}), silent: make(map[string]time.Time)}
	if t != nil {
		d.handshaker = &handshaker{tls: t}
	}
	return d
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.begin(address); err != nil {
		return nil, err
	}
	inner, err := d.DialContext(ctx, network, address)
	if err == nil && d.handshaker != nil {
		inner, err = d.handshaker.client(ctx, inner, address)
	}
	return d.end(inner, address, err)
}

// begin refuses instead of waiting: a dial that waits would not notice that an open connection has become idle.
func (d *dialer) begin(address string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, silent := d.silent[address]; silent {
		if time.Since(at) < silence {
			return fmt.Errorf("broker at %s did not answer a moment ago: %w", address, os.ErrDeadlineExceeded)
		}
		delete(d.silent, address)
	}
	if len(d.conns)+d.dialing >= maxConns {
		return fmt.Errorf("%d connections to brokers are open already", maxConns)
	}
	d.dialing++
	return nil
}

func (d *dialer) end(inner net.Conn, address string, err error) (net.Conn, error) {
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
	conn := &guardedConn{Conn: inner, address: address, dialer: d}
	d.conns[conn] = struct{}{}
	return conn, nil
}

func (d *dialer) wasSilent(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent[address] = time.Now()
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
	address string
	dialer  *dialer
}

func (c *guardedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.dialer.wasSilent(c.address)
	}
	return n, err
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
