package ingress

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// connections is a listener with a bound on the connections that are open. At the bound a new connection is not made to
// wait, or slow and idle clients could keep everybody out until their time-outs end: it takes the place of the one that
// has been still for longest. Still is a connection that has neither come, nor begun a call, nor ended one. A call
// whose body has arrived is not cut off. So an honest caller loses a call only when as many others as there are places
// come or move in the moment between its connecting and the end of its body; NCS makes such a call again.
type connections struct {
	net.Listener
	tls     *tls.Config // nil: plain
	refused *refusals   // nil: nobody counts
	name    string      // of the limit, for people
	log     *slog.Logger
	deaf    bool // nothing is read while a call is being handled; who waits for a caller to hang up must hear it
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
		c := connectionFor(r.Context())
		c.handling()
		if r.ContentLength == 0 {
			c.arrived()
		}
		call := *r
		call.Body = arrivingBody{r.Body, c}
		next.ServeHTTP(w, &call)
	})
	return bounded
}

type arrivingBody struct {
	io.ReadCloser
	from *connection
}

func (b arrivingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.from.arrived()
	}
	return n, err
}

// connection is one of a bounded number.
type connection struct {
	net.Conn // TLS, where it is spoken
	raw      net.Conn
	owner    *connections
	open     bool
	place    *list.Element // in owner.still; nil = may not be cut off

	handled atomic.Bool // a handler has seen the call under way; what is written otherwise is net/http's own
	whole   atomic.Bool // the body of the call under way has arrived, and its handler goes on
	active  atomic.Bool // some of a call has come
	ended   atomic.Bool // nothing more comes
	noted   atomic.Bool // that it is refused, or need not be
	shaken  bool        // the TLS handshake is done
	begun   bool        // something has been read
	first   [5]byte     // of what was read

	reads   sync.Mutex // guards what follows
	reading bool       // a Read waits
	until   time.Time  // the deadline of reads
	set     time.Time  // the deadline that the connection below has
}

func (l *connections) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	switch {
	case err != nil && l.stopped.Load():
		return nil, net.ErrClosed
	case err != nil:
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			l.refused.note(refusedDescriptors, nil, err)
		}
		return nil, err
	}
	c := &connection{Conn: nc, raw: nc, owner: l, open: true}
	if l.tls != nil {
		c.Conn = tls.Server(nc, l.tls)
	}
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
		c.noted.Store(true)
		c.raw.Close() // whoever serves it finds out and ends
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
	if c == nil {
		return
	}
	switch state {
	case http.StateActive:
		c.active.Store(true)
	case http.StateIdle:
		c.active.Store(false)
		c.handled.Store(false)
	case http.StateClosed:
		if c.active.Load() && !c.handled.Load() && !l.stopped.Load() {
			c.refuse(refusedIncomplete, nil)
		}
		return
	default:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shield(c)
	if c.open {
		c.place = l.still.PushBack(c)
	}
}

// count returns the connections that are open and those that were closed for another.
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

// connectionOf returns ours, nil if it is none.
func connectionOf(nc net.Conn) *connection {
	c, _ := nc.(*connection)
	return c
}

// connectionKey is where the HTTP server's calls carry their connection; it offers no other way.
type connectionKey struct{}

func withConnection(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connectionOf(nc))
}

// connectionFor returns the connection of a call; nil if it is none of ours, which the methods for handlers take.
func connectionFor(call context.Context) *connection {
	c, _ := call.Value(connectionKey{}).(*connection)
	return c
}

// handling says that the call has reached a handler, which answers and counts it.
func (c *connection) handling() {
	if c != nil {
		c.handled.Store(true)
	}
}

// arrived says that the body of a call is there: from now on the answer is up to us, and the call is not cut off.
func (c *connection) arrived() {
	if c != nil {
		c.whole.Store(c.owner.deaf)
		c.owner.mu.Lock()
		defer c.owner.mu.Unlock()
		c.owner.shield(c)
	}
}

// answered says that the handler of a call has ended.
func (c *connection) answered() {
	if c != nil {
		c.whole.Store(false)
	}
}

// refuse notes a reason, the first of a connection only: net/http closes it.
func (c *connection) refuse(reason string, err error) {
	if reason != "" && !c.noted.Swap(true) {
		c.owner.refused.note(reason, c.RemoteAddr(), err)
	}
}

// Read gives nothing while a call whose body has arrived is being handled. net/http reads a byte ahead then, to notice a caller
// that hangs up, which changes nothing here: what has arrived is stored. That costs a call another read in vain, two
// deadlines and two switches of goroutines.
func (c *connection) Read(p []byte) (int, error) {
	if c.whole.Load() {
		return 0, nil
	}
	if t, ok := c.Conn.(*tls.Conn); ok && !c.shaken {
		if err := c.shake(t); err != nil {
			return 0, err
		}
	}
	c.beginRead()
	n, err := c.Conn.Read(p)
	c.endRead()
	if n > 0 && !c.begun {
		c.begun = true
		copy(c.first[:], p[:n])
	}
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}

// SetReadDeadline is called up to seven times for a call, of which one matters: it is passed on when something is read.
func (c *connection) SetReadDeadline(t time.Time) error {
	c.reads.Lock()
	defer c.reads.Unlock()
	c.until = t
	if !c.reading {
		return nil
	}
	c.set = t
	return c.Conn.SetReadDeadline(t)
}

func (c *connection) beginRead() {
	c.reads.Lock()
	defer c.reads.Unlock()
	c.reading = true
	if !c.until.Equal(c.set) {
		c.set = c.until
		c.Conn.SetReadDeadline(c.until)
	}
}

func (c *connection) endRead() {
	c.reads.Lock()
	defer c.reads.Unlock()
	c.reading = false
}

// shake makes the TLS handshake. net/http would do it for a *tls.Conn, and then nobody would see what it answers by itself.
func (c *connection) shake(t *tls.Conn) error {
	c.SetDeadline(time.Now().Add(headerTimeout))
	err := t.Handshake()
	if err != nil {
		reason := byHandshake(t, err)
		if reason == refusedHTTP {
			io.WriteString(c.raw, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port speaks TLS: use https.\n")
		}
		if !errors.Is(err, net.ErrClosed) {
			c.refuse(reason, err)
		}
		return err
	}
	c.shaken = true
	c.SetWriteDeadline(time.Time{})
	c.SetReadDeadline(time.Now().Add(headerTimeout))
	return nil
}

func (c *connection) Write(p []byte) (int, error) {
	switch {
	case c.handled.Load():
	case c.ended.Load():
		c.refuse(refusedIncomplete, nil)
	default:
		c.refuse(byAnswer(p, c.first[:]), nil)
	}
	return c.Conn.Write(p)
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
