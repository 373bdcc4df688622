package relay

import (
	"container/list"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connections is a listener with a bound on the connections that are open. At the bound a new connection is not made to
// wait, or slow and idle clients could keep everybody out until their time-outs end: it takes the place of the one that
// has been still for longest. Still is a connection that has neither come, nor begun a call, nor ended one. A call
// whose body has arrived is not cut off. So an honest caller loses a call only when as many others as there are places
// come or move in the moment between its connecting and the end of its body; NCS makes such a call again.
type connections struct {
	net.Listener
	name    string // of the limit, for people
	log     *slog.Logger
	stopped atomic.Bool

	mu     sync.Mutex // guards what follows, and place and open of each connection
	limit  int
	open   int
	still  list.List // of those *connection that may be cut off, the one that has been still for longest first
	cut    uint64    // closed for another
	warned time.Time
}

// BoundConnections bounds the connections of server, which is to serve the listener returned, as those of the ingress are:
// crowds of slow and idle clients do not keep others out. name is what the log calls the limit.
func BoundConnections(server *http.Server, l net.Listener, limit int, name string, log *slog.Logger) net.Listener {
	bounded := &connections{Listener: l, name: name, log: log, limit: limit}
	server.ConnState, server.ConnContext = bounded.moved, withConnection
	next := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			arrived(r.Context())
		}
		call := *r
		call.Body = arrivingBody{r.Body, r.Context()}
		next.ServeHTTP(w, &call)
	})
	return bounded
}

type arrivingBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b arrivingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		arrived(b.ctx)
	}
	return n, err
}

// connection is one of a bounded number.
type connection struct {
	net.Conn
	owner *connections
	open  bool
	place *list.Element // in owner.still; nil = may not be cut off
}

func (l *connections) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	switch {
	case err != nil && l.stopped.Load():
		return nil, net.ErrClosed
	case err != nil:
		return nil, err
	}
	c := &connection{Conn: nc, owner: l, open: true}
	l.mu.Lock()
	l.open++
	c.place = l.still.PushBack(c)
	l.mu.Unlock()
	l.shrink()
	return c, nil
}

// stop makes Accept fail. What has not been accepted stays with the operating system: when a service manager keeps the
// socket open, the next process takes it.
func (l *connections) stop() {
	l.stopped.Store(true)
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		d.SetDeadline(time.Unix(1, 0))
		return
	}
	l.Listener.Close()
}

func (l *connections) setLimit(n int) {
	l.mu.Lock()
	l.limit = n
	l.mu.Unlock()
	l.shrink()
}

// shrink closes what is over the limit.
func (l *connections) shrink() {
	for _, c := range l.takeSurplus() {
		c.Conn.Close() // whoever serves it finds out and ends
	}
}

func (l *connections) takeSurplus() (surplus []*connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.open > l.limit && l.still.Len() > 0 {
		c := l.still.Front().Value.(*connection)
		l.forget(c)
		surplus = append(surplus, c)
	}
	l.cut += uint64(len(surplus))
	if now := time.Now(); len(surplus) > 0 && now.Sub(l.warned) >= time.Minute {
		l.warned = now
		l.log.Warn(l.name+" is reached; connections that are still are closed for new ones", "limit", l.limit, "closed", l.cut)
	}
	return surplus
}

// forget takes c out of the accounts. l.mu is held.
func (l *connections) forget(c *connection) {
	l.shield(c)
	if c.open {
		c.open = false
		l.open--
	}
}

// shield keeps c from being cut off until it moves. l.mu is held.
func (l *connections) shield(c *connection) {
	if c.place != nil {
		l.still.Remove(c.place)
		c.place = nil
	}
}

// moved is told of every change of state by the HTTP server.
func (l *connections) moved(nc net.Conn, state http.ConnState) {
	c := connectionOf(nc)
	if c == nil || state != http.StateActive && state != http.StateIdle {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shield(c)
	if c.open {
		c.place = l.still.PushBack(c)
	}
}

// count gives the connections that are open and those that were closed for another.
func (l *connections) count() (open int, cut uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.cut
}

// drain waits until no connection is open or ctx ends, and gives the number that are left.
func (l *connections) drain(ctx context.Context) (left int) {
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		if left, _ = l.count(); left == 0 {
			return 0
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return left
		}
	}
}

// connectionOf finds ours below TLS, nil if there is none.
func connectionOf(nc net.Conn) *connection {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*connection)
	return c
}

// connectionKey is where the HTTP server's calls carry their connection; it offers no other way.
type connectionKey struct{}

func withConnection(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connectionOf(nc))
}

// arrived says that the body of a call is there: from now on the answer is up to us, and the call is not cut off.
func arrived(ctx context.Context) {
	if c, _ := ctx.Value(connectionKey{}).(*connection); c != nil {
		c.owner.mu.Lock()
		defer c.owner.mu.Unlock()
		c.owner.shield(c)
	}
}

func (c *connection) Close() error {
	c.owner.mu.Lock()
	c.owner.forget(c)
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets the HTTP server end its side first, so that a caller whose body it did not read to the end still gets
// the answer and no reset.
func (c *connection) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
