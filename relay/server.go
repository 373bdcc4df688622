package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// headerTimeout bounds the time for the headers of a call; limits.read_timeout is for the body after them.
const headerTimeout = 5 * time.Second

// Server is the public listener in front of a Gateway: its connection limit, time-outs and TLS.
type Server struct {
	http     *http.Server
	listener net.Listener
}

// ServerOptions configure a Server.
type ServerOptions struct {
	Listen     string
	Handler    http.Handler
	Limits     LimitsConfig
	CertFile   string // both or none: TLS
	KeyFile    string
	HealthPath string      // "" = none
	Ready      func() bool // asked at HealthPath
	Logger     *slog.Logger
}

// Listen opens the port, so that a port that is taken is an error at start. Connections wait until Serve.
func Listen(o ServerOptions) (*Server, error) {
	s := &Server{http: &http.Server{
		Handler:           withHealth(o),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout + o.Limits.ReadTimeout,
		WriteTimeout:      o.Limits.ReadTimeout + 2*storeTimeout,
		IdleTimeout:       o.Limits.IdleTimeout,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}}
	// HTTP/1.1 only: NCS needs no more, and every fault of an HTTP/2 server is one of the public endpoint.
	s.http.Protocols.SetHTTP1(true)

	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s.listener = netutil.LimitListener(l, o.Limits.Connections)
	if o.CertFile != "" {
		files := &certificate{certFile: o.CertFile, keyFile: o.KeyFile, log: o.Logger}
		if err := files.load(); err != nil {
			l.Close()
			return nil, err
		}
		s.listener = tls.NewListener(s.listener, &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: files.get, NextProtos: []string{"http/1.1"}})
	}
	return s, nil
}

func withHealth(o ServerOptions) http.Handler {
	if o.HealthPath == "" {
		return o.Handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != o.HealthPath {
			o.Handler.ServeHTTP(w, r)
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

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers calls until Shutdown.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops accepting and waits for the calls in flight until ctx ends; those that are left are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// certificate is a pair of files, loaded again when they change. A pair that cannot be loaded leaves the old one in use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	changed [2]time.Time // modification times of what is loaded
	checked time.Time
}

const certificateCheck = 10 * time.Second

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) >= certificateCheck {
		c.checked = time.Now()
		if times, err := c.modified(); err == nil && times != c.changed {
			if err := c.load(); err != nil {
				c.log.Error("changed certificate not loaded; the old one stays in use", "error", err)
			}
		}
	}
	return c.pair, nil
}

func (c *certificate) load() error {
	times, err := c.modified()
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.pair, c.changed = &pair, times
	return nil
}

func (c *certificate) modified() (times [2]time.Time, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return times, err
		}
		times[i] = info.ModTime()
	}
	return times, nil
}
