package httpsink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
)

// client is what calls are made with: all that depends on files. A new one takes its place when one of them changes.
type client struct {
	*redactor
	fixed       http.Header // goes with every call
	host        string      // in place of that of the URL; "" = that
	webhookKeys [][]byte
	transport   *http.Transport
	until       time.Time // when its connections are too old
	calls       int       // in flight; guarded by Sink.mu
}

// newClient makes a client of what the files hold now.
func (s *Sink) newClient() (*client, error) {
	full, err := s.cfg.withFiles()
	if err != nil {
		return nil, err
	}
	transport, err := newTransport(&full)
	if err != nil {
		return nil, err
	}
	c := &client{
		redactor:  newRedactor(&full, proxyUsers(full.Proxy)),
		fixed:     fixedHeaders(&full, s.userAgent),
		transport: transport,
		until:     s.endOfConnections(),
	}
	c.host = c.fixed.Get("Host") // net/http does not take it among the headers
	c.fixed.Del("Host")
	if full.StandardWebhooks != nil {
		for _, secret := range full.StandardWebhooks.Secrets {
			key, err := webhookKey(secret)
			if err != nil {
				return nil, err
			}
			c.webhookKeys = append(c.webhookKeys, key)
		}
	}
	return c, nil
}

// client returns the one to use for a call; release it afterwards.
func (s *Sink) client() *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clientOfChangedFiles(); c != nil {
		s.use(c)
	} else if time.Now().After(s.current.until) {
		s.use(s.reconnected())
	}
	s.current.calls++
	return s.current
}

// release ends the use of a client. The last call of one that was replaced takes its connections with it.
func (s *Sink) release(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.calls--; c.calls == 0 && c != s.current {
		c.transport.CloseIdleConnections()
	}
}

// use needs the lock. Calls in flight end as they began.
func (s *Sink) use(c *client) {
	s.current.transport.CloseIdleConnections()
	s.current = c
}

// clientOfChangedFiles is nil if there is nothing new. Files are looked at once a second at most. Files that cannot be used, as
// happens while a certificate and its key are being changed one after the other, leave the client as it is.
func (s *Sink) clientOfChangedFiles() *client {
	if len(s.files) == 0 || time.Since(s.looked) < lookEvery {
		return nil
	}
	s.looked = time.Now()
	now := keyfile.Digest(s.files...) // before reading, so that a change in between is seen next time
	if now == s.seen {
		return nil
	}
	s.seen = now
	c, err := s.newClient()
	if err != nil {
		s.log.Error("changed files cannot be used; what they held before goes on being used", "error", err)
		return nil
	}
	s.log.Info("credentials were read again")
	return c
}

// reconnected is the current client without its connections. A transport can retire no single connection in time, and none of
// HTTP/2 at all, so all are left together.
func (s *Sink) reconnected() *client {
	c := *s.current
	c.transport, c.until, c.calls = c.transport.Clone(), s.endOfConnections(), 0
	return &c
}

// endOfConnections is up to a fifth earlier than configured, so that many relays do not connect anew together.
func (s *Sink) endOfConnections() time.Time {
	most := s.cfg.MaxConnectionAge
	return time.Now().Add(most - rand.N(most/5+1))
}

// Reconnect makes new connections for the calls that come; what moved under an old address is found again.
func (s *Sink) Reconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(s.reconnected())
}

func newTransport(cfg *Config) (*http.Transport, error) {
	proxy, err := proxyFunc(cfg.Proxy)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.TLS.Config()
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	dialer, err := newDialer(cfg)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy:                  proxy,
		OnProxyConnectResponse: tunnelled,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    min(cfg.Timeout, maxConnectTime),
		MaxIdleConns:           cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency, // the default of 2 would dial anew for nearly every call
		MaxConnsPerHost:        cfg.Concurrency,
		IdleConnTimeout:        cfg.IdleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeaders,
		DisableCompression:     true, // ask for no gzip: a small answer could unpack into a huge one
		ForceAttemptHTTP2:      true, // a DialContext turns HTTP/2 off otherwise
		// An HTTP/2 connection that died silently would take calls until TCP gives up, many minutes. StrictMaxConcurrentRequests
		// stays off: with it, calls to a server that allows few streams were stuck until their time-out.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
	noteAnswers(t, dialer.DialContext)
	return t, nil
}

// tunnelled tells a proxy that opened no tunnel to the receiver. Without it, all that is known of its answer is its words.
func tunnelled(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return relay.BecauseOfStatus(answer.StatusCode, fmt.Errorf("the proxy answered %s", statusText(answer.StatusCode)))
}

func newDialer(cfg *Config) (*net.Dialer, error) {
	egress, err := cfg.Egress.policy()
	if err != nil {
		return nil, err
	}
	return &net.Dialer{
		// The transport dials on after a call has given up; a limit of its own ends that.
		Timeout:   min(cfg.Timeout, maxConnectTime),
		KeepAlive: 30 * time.Second,
		Control:   egress.control,
	}, nil
}

// proxyFunc keeps the value, and that of a proxy variable, which may hold a password, out of errors.
func proxyFunc(proxy relay.Secret) (func(*http.Request) (*url.URL, error), error) {
	switch proxy.Reveal() {
	case "none":
		return nil, nil
	case "", "env":
		return environmentProxy, nil
	}
	u, err := url.Parse(proxy.Reveal())
	if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
		return nil, problem.Errorf("is not the URL of a proxy")
	}
	return http.ProxyURL(u), nil
}

func environmentProxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, errors.New("the proxy given by the environment is not a URL")
	}
	return u, nil
}

// proxyUsers are the credentials of every proxy that calls may go through; which of the environment's it is shows only per call.
func proxyUsers(proxy relay.Secret) (users []*url.Userinfo) {
	texts := []string{proxy.Reveal()}
	if texts[0] == "" || texts[0] == "env" {
		for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
			texts = append(texts, os.Getenv(name))
		}
	}
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			u, err = url.Parse("http://" + text) // as net/http does with those of the environment
		}
		if err == nil && u.User != nil {
			users = append(users, u.User)
		}
	}
	return users
}
