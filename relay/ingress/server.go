package ingress

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/telemetry"
)

const (
	// headerTimeout bounds the time for the headers of a call; limits.read_timeout is for the body after them.
	headerTimeout = 5 * time.Second

	// maxHeader is far more than NCS and the proxies on the way need, and bounds what a stranger can make us keep.
	maxHeader = 32 << 10
)

// Server is the public listener in front of an Ingress: its limits, time-outs and TLS. Whatever strangers and slow
// clients do, honest calls get through: see connections and bodies.
type Server struct {
	http        *http.Server
	handler     atomic.Pointer[http.Handler] // nil: nothing can be stored yet
	connections *connections
	bodies      bodies

	mu      sync.Mutex    // guards what follows
	stopped bool          // Serve must not begin
	served  chan struct{} // closed when Serve has ended; nil = not begun
}

// ServerOptions configure a Server.
type ServerOptions struct {
	Listen     string
	Handler    http.Handler // nil: calls are answered 503 until SetHandler
	Limits     LimitsConfig
	CertFile   string // both or none: TLS
	KeyFile    string
	HealthPath string      // "" = none
	Ready      func() bool // asked at HealthPath
	Logger     *slog.Logger
	Metrics    *telemetry.Metrics // nil = none
}

// Listen opens the port, so that a port that is taken is an error at start. Connections wait until Serve. Where a
// service manager passed a socket at that port to this process, it is taken.
func Listen(o ServerOptions) (*Server, error) {
	l, err := activated(os.Getenv, o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if l == nil {
		if l, err = net.Listen("tcp", o.Listen); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	return newServer(o, l)
}

// newServer owns l, also when it fails.
func newServer(o ServerOptions, l net.Listener) (*Server, error) {
	s := &Server{connections: &connections{Listener: l, name: "limits.connections", log: o.Logger, deaf: true, refused: newRefusals(o.Logger, o.Metrics)}}
	s.SetLimits(o.Limits)
	if o.Handler != nil {
		s.SetHandler(o.Handler)
	}
	s.http = &http.Server{
		Handler:           s.bodies.bounded(s.withHealth(o)),
		ConnState:         s.connections.moved,
		ConnContext:       withConnection,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout + o.Limits.ReadTimeout,
		WriteTimeout:      o.Limits.ReadTimeout + bodyWait + 2*storeTimeout,
		IdleTimeout:       o.Limits.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	// HTTP/1.1 only: NCS needs no more, and every fault of an HTTP/2 server is one of the public endpoint.
	s.http.Protocols.SetHTTP1(true)
	if o.Metrics != nil {
		s.observe(o.Metrics)
	}
	if o.CertFile != "" {
		files := &certificate{certFile: o.CertFile, keyFile: o.KeyFile, log: o.Logger}
		if err := files.load(); err != nil {
			l.Close()
			return nil, err
		}
		s.connections.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.get, NextProtos: []string{"http/1.1"}}
	}
	return s, nil
}

func (s *Server) withHealth(o ServerOptions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.connections.tls != nil {
			r.TLS = new(tls.ConnectionState) // net/http knows of no TLS below our connections; who asks, asks whether there was
		}
		if o.HealthPath == "" || r.URL.Path != o.HealthPath {
			s.answer(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if !o.Ready() {
			w.WriteHeader(http.StatusServiceUnavailable)
			w.Write([]byte(`{"status":"unavailable"}`))
			return
		}
		w.Write([]byte(`{"status":"ok"}`))
	})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	if h := s.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	s.connections.refused.note(refusedStarting, nil, nil)
	write(w, answer{status: http.StatusServiceUnavailable, text: "nothing can be stored yet"})
}

// SetHandler takes h for the calls that begin from now on.
func (s *Server) SetHandler(h http.Handler) { s.handler.Store(&h) }

// SetLimits takes up connections and in_flight_bytes. Time-outs are those of the start.
func (s *Server) SetLimits(c LimitsConfig) {
	s.connections.setLimit(c.Connections)
	s.bodies.setLimit(c.InFlightBytes)
}

func (s *Server) observe(m *telemetry.Metrics) {
	m.Gauge("connections", "Open connections of the ingress.", func(observe telemetry.Observe) {
		open, _ := s.connections.count()
		observe(float64(open))
	})
	m.CounterFunc("connections_cut_total", "Connections closed for new ones because limits.connections was reached.", func(observe telemetry.Observe) {
		_, cut := s.connections.count()
		observe(float64(cut))
	})
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.connections.Addr() }

// Serve answers calls until Shutdown. It is called once at most.
func (s *Server) Serve() error {
	served := make(chan struct{})
	defer close(served)
	s.mu.Lock()
	stopped := s.stopped
	s.served = served
	s.mu.Unlock()
	if stopped {
		return nil
	}
	err := s.http.Serve(s.connections)
	if s.connections.stopped.Load() {
		return nil
	}
	return err
}

// Shutdown stops accepting and answers the calls of all connections that were accepted, until ctx ends; those that are
// left then are cut off.
//
// http.Server.Shutdown is not enough: it drops a call whose headers it reads after it was called, without an answer,
// and does not know of a connection that was accepted in the same moment.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	served := s.served
	s.mu.Unlock()
	s.connections.stop()
	if served != nil {
		<-served // the HTTP server knows of all connections now
	}
	s.http.SetKeepAlivesEnabled(false) // closes the idle ones, and the others after their answers
	if left := s.connections.drain(ctx); left > 0 {
		s.connections.log.Warn("connections were cut off", "connections", left)
	}
	err := s.http.Close()
	if served == nil {
		err = errors.Join(err, s.connections.Close())
	}
	return err
}

// certificate is a pair of files, loaded again when what is in them changes: a time of modification may stay the same. A
// pair that cannot be loaded leaves the old one in use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	said              telemetry.Repetition

	mu      sync.Mutex // guards what follows
	pair    *tls.Certificate
	digest  [sha256.Size]byte // of the files of pair
	checked time.Time
}

const certificateCheck = 10 * time.Second

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) >= certificateCheck {
		c.checked = time.Now()
		if err := c.load(); err != nil {
			if suppressed, ok := c.said.Allow(c.checked); ok {
				c.log.Error("changed certificate not loaded; the old one stays in use", "error", err, "suppressed", suppressed)
			}
		}
	}
	return c.pair, nil
}

func (c *certificate) load() error {
	now := keyfile.Digest(c.certFile, c.keyFile) // before reading, so that a change in between is seen next time
	if now == c.digest {
		return nil
	}
	pair, err := keyfile.LoadPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.pair, c.digest = &pair, now
	return nil
}
