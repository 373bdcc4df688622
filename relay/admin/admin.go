// Package admin serves the operator's side of the relay: the metrics page, the probes and the admin API, on an address of
// its own.
//
// It promises that the API answers nobody but the operator: with a token, whoever has it; without one, only programs on
// this machine, and no web page in a browser there. The metrics page and the probes never ask for the token. Slow or many
// clients keep nobody else out, neither here nor at the ingress. What is ready, and what the status is, others know.
package admin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/relay/ingress"
)

const (
	maxConnections = 256
	maxBody        = 1 << 20
	closeTimeout   = 5 * time.Second // for answers under way when Run's context ends
)

// Options of New. All but Gateway, Start and Sharing are required. The functions are called concurrently, once per request.
type Options struct {
	Metrics http.Handler                           // the metrics page
	Ready   func() (ready bool, reason string)     // reason says why not; it is shown to anybody
	Status  func(ctx context.Context) (any, error) // the answer to GET /api/v1/status, to be encoded as JSON; not before there is a Gateway
	Gateway Operations                             // what the other paths of the API are about; nil: the API answers 503 until Attach
	Log     *slog.Logger

	Start string // identifies the start of the process; may be empty

	Sharing  Sharing       // nil = this relay has its journal for itself
	Patience time.Duration // how long a command waits for shards whose owner does not answer; 0: 30 s
}

// Server is the admin server. Its methods may be called concurrently.
type Server struct {
	cfg      Config
	options  Options
	attached atomic.Bool // options.Gateway is there
	others   *http.Client
	ending   chan struct{} // closed when the server ends

	mu       sync.Mutex // guards listener
	listener net.Listener
}

// New makes a server; Listen and Run start it.
func New(cfg Config, options Options) *Server {
	options.Patience = cmp.Or(options.Patience, commandPatience)
	s := &Server{cfg: cfg, options: options, others: NewClient(), ending: make(chan struct{})}
	s.attached.Store(options.Gateway != nil)
	return s
}

// Attach opens the API of a server that was made without a Gateway, and says who shares its journal. It is called once at most.
func (s *Server) Attach(g Operations, sharing Sharing) {
	s.options.Gateway, s.options.Sharing = g, sharing
	s.attached.Store(true)
}

// Listen opens the address, so that a taken port is known before anything else starts. Run does it if need be.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("admin address: %w", err)
	}
	// Without a token "localhost" is trusted to be this machine; a resolver may think otherwise.
	if isLoopback(s.cfg.host()) && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return errors.Join(fmt.Errorf("admin address: %s is %s, which is not a loopback address", s.cfg.Listen, l.Addr()), l.Close())
	}
	s.listener = l
	return nil
}

// Addr is where the server listens, "" before Listen.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run serves until ctx ends, then lets answers under way finish for a moment. It returns nil after an end by ctx. A server
// runs once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:           s.Handler(),
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second, // above the metrics page's own limit
		IdleTimeout:       2 * time.Minute,  // above Prometheus's usual interval, to keep its connection
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.options.Log.Handler(), slog.LevelWarn),
	}
	server.RegisterOnShutdown(func() { close(s.ending) })
	listener := ingress.BoundConnections(server, s.listener, maxConnections, "the limit of admin connections", s.options.Log)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin server: %w", err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		s.options.Log.Warn("admin requests were cut off", "error", errors.Join(err, server.Close()))
	}
	<-served
	return nil
}

// Handler is what Run serves.
func (s *Server) Handler() http.Handler {
	all := http.NewServeMux()
	all.Handle("/metrics", get(s.options.Metrics.ServeHTTP))
	all.Handle("/livez", get(s.live))
	all.Handle("/readyz", get(s.ready))
	all.Handle("/api/", s.checkHost(s.authorize(s.api())))
	all.Handle("/", s.checkHost(http.HandlerFunc(notFound)))

	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(crossOriginDenied))
	return secureHeaders(crossOrigin.Handler(all))
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, Alive{true, s.options.Start})
}

// Alive is the answer to GET /livez.
type Alive struct {
	Alive bool   `json:"alive"`
	Start string `json:"start,omitempty"` // identifies the start of the process, for replicas that find one of their own name
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	ready, reason := s.options.Ready()
	if !ready {
		writeJSON(w, http.StatusServiceUnavailable, Readiness{Reason: reason})
		return
	}
	writeJSON(w, http.StatusOK, Readiness{Ready: true})
}

// Readiness is the answer to GET /readyz: with 200 when ready, else 503.
type Readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why not
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	say := s.answersFor(w, r)
	status, err := s.options.Status(r.Context())
	say()
	if err == nil {
		status, err = s.statusEverywhere(r, status)
	}
	if err != nil {
		s.options.Log.Error("admin status", "error", err)
		writeError(w, http.StatusInternalServerError, "the status cannot be read; the log says why")
		return
	}
	writeJSON(w, http.StatusOK, status)
}

// authorize lets a request for the API pass with the token, or, when none is configured, on a loopback address. There
// checkHost has seen to it that the request does not come from a web page. It is asked before a path is looked up.
func (s *Server) authorize(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.cfg.HasToken() && !s.hasToken(r):
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeError(w, http.StatusUnauthorized, "bearer token missing or wrong")
		case !s.cfg.HasToken() && !isLoopback(s.cfg.host()):
			writeError(w, http.StatusForbidden, "the API needs admin.token to be configured on an address off loopback")
		case !s.attached.Load():
			_, reason := s.options.Ready()
			writeError(w, http.StatusServiceUnavailable, reason)
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			next.ServeHTTP(w, r)
		}
	})
}

func (s *Server) hasToken(r *http.Request) bool {
	_, ok := s.byToken(r)
	return ok
}

// byToken returns the name of the token that r carries.
func (s *Server) byToken(r *http.Request) (name string, ok bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	// Digests are compared so that the time does not tell the length either, and all of them, so that it does not tell which.
	given := sha256.Sum256([]byte(token))
	for _, t := range s.cfg.allTokens() {
		wanted := sha256.Sum256([]byte(t.Token.Reveal()))
		if subtle.ConstantTimeCompare(given[:], wanted[:]) == 1 && strings.EqualFold(scheme, "bearer") && t.Token.IsSet() {
			name, ok = t.Name, true
		}
	}
	return name, ok
}

// caller is who asks, for people to read: the name of the token, or somebody on this machine where none is needed.
func (s *Server) caller(r *http.Request) string {
	if name, ok := s.byToken(r); ok {
		return name
	}
	return callerLocal
}

// checkHost guards a loopback address against DNS rebinding: a web page whose host name is made to mean 127.0.0.1 is read
// by the browser as that site's own. Its name still stands in the Host header, which browsers always send (old probes do
// not). A web page has no token, so a request with it is let through whatever name a proxy has put there. Metrics and
// probes are not guarded: a sidecar or a tunnel asks for them by a service's name, and they show nothing that needs a token.
func (s *Server) checkHost(next http.Handler) http.Handler {
	if !isLoopback(s.cfg.host()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "" && !isLoopback(hostOf(r)) && !s.hasToken(r) {
			writeError(w, http.StatusForbidden, "foreign Host on a loopback address")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf returns the host a request names, without the port.
func hostOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host // no port
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// secureHeaders keep browsers from guessing types, storing, framing or embedding what they get.
func secureHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// get answers other methods as http.ServeMux would, but in JSON.
func get(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, http.StatusMethodNotAllowed, "method not allowed")
			return
		}
		next(w, r)
	})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusNotFound, "not found")
}

func crossOriginDenied(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusForbidden, "cross-origin request")
}

func writeError(w http.ResponseWriter, status int, problem string) {
	writeJSON(w, status, map[string]string{"error": problem})
}

// writeJSON encodes before it writes: what cannot be encoded is a 500, not half an answer.
func writeJSON(w http.ResponseWriter, status int, v any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		status = http.StatusInternalServerError
		body.Reset()
		body.WriteString(`{"error":"the answer cannot be encoded"}` + "\n")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body.Bytes()) // the client's hanging up is not ours to handle
}
