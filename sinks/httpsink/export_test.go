package httpsink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"time"

	"ncs-relay/relay"
)

// Trust makes the sink trust the authorities of a test server.
func (s *Sink) Trust(pool *x509.CertPool) {
	s.current.transport.TLSClientConfig = &tls.Config{RootCAs: pool}
}

// Resolve makes the sink ask another resolver for names.
func (s *Sink) Resolve(r *net.Resolver) error {
	dialer, err := newDialer(&s.cfg)
	if err != nil {
		return err
	}
	dialer.Resolver = r
	noteAnswers(s.current.transport, dialer.DialContext)
	return nil
}

// Header is what a call carries.
func (s *Sink) Header(a relay.Attempt) http.Header {
	return s.current.header(a, s.cfg.CloudEvents, time.Now())
}

// Dial makes the sink connect to what dial gives.
func (s *Sink) Dial(dial func() net.Conn) {
	noteAnswers(s.current.transport, func(context.Context, string, string) (net.Conn, error) { return dial(), nil })
}

// LookAgain lets the next call look at the files.
func (s *Sink) LookAgain() { s.looked = time.Time{} }

// Permits tells what the policy says of an address.
func (e *Egress) Permits(a netip.Addr) bool {
	p, err := e.policy()
	if err != nil {
		panic(err)
	}
	return p.permits(a)
}

// ParseTarget returns the URL of events.
func ParseTarget(raw string) (func(*relay.Event) (string, error), error) {
	t, err := parseTarget(raw)
	return t.url, err
}
