// Package httpsink posts events to an HTTP service, one event a call, with the body and the signatures that Agora sent,
// so that a receiver written for Agora works behind the relay. An event is delivered when the service answers 2xx.
//
// It leaves to its caller: when and how often to call again, order (never two calls of one lane at once), and the number of calls at a time.
// A receiver can see an event twice, with equal Idempotency-Key: after an answer that was lost, and, with even the
// attempt number equal, when a kept-alive connection broke under a call, which the transport makes again at once.
package httpsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ncs-relay/relay"
)

const (
	maxConnectTime   = 5 * time.Second
	maxAnswerHeaders = 64 << 10
	maxAnswerBody    = 64 << 10

	// The verdict is in the status; the rest of the answer is read only for the connection's sake and for the operator's
	// eyes, so a body that trickles must not hold a delivery slot for the whole time-out.
	maxAnswerBodyTime = time.Second

	// Below the 60 s after which common load balancers close an idle connection, so that mostly we close first.
	idleConnTime = 45 * time.Second
)

// Sink posts events to one URL. It is safe for concurrent use.
type Sink struct {
	url         string
	host        string // all that errors say of the URL: the rest may hold tokens
	timeout     time.Duration
	fixed       http.Header // goes with every call
	webhookKeys [][]byte
	cloudEvents bool
	redact      *strings.Replacer // takes our credentials out of the far side's words
	transport   *http.Transport
}

var _ relay.Sink = (*Sink)(nil)

// New makes a sink of cfg, which must pass its Check. It touches no network.
func New(cfg Config, userAgent string) (*Sink, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("url: " + notURL)
	}
	s := &Sink{
		url:         cfg.URL,
		host:        u.Host,
		timeout:     cfg.Timeout,
		fixed:       fixedHeaders(cfg, userAgent),
		cloudEvents: cfg.CloudEvents,
		redact:      redactor(cfg, u),
		transport:   transport(cfg),
	}
	if cfg.StandardWebhooks != nil {
		for _, secret := range cfg.StandardWebhooks.Secrets {
			key, err := webhookKey(secret)
			if err != nil {
				return nil, err
			}
			s.webhookKeys = append(s.webhookKeys, key)
		}
	}
	return s, nil
}

func check(cfg Config) error {
	var problems []error
	cfg.Check(func(path, problem, _ string) { problems = append(problems, fmt.Errorf("%s: %s", path, problem)) })
	return errors.Join(problems...)
}

func transport(cfg Config) *http.Transport {
	return &http.Transport{
		Proxy: proxy,
		// The transport dials on after a call has given up; a limit of its own ends that.
		DialContext:            (&net.Dialer{Timeout: min(cfg.Timeout, maxConnectTime), KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    min(cfg.Timeout, maxConnectTime),
		MaxIdleConns:           cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency, // the default of 2 would dial anew for nearly every call
		MaxConnsPerHost:        cfg.Concurrency,
		IdleConnTimeout:        idleConnTime,
		MaxResponseHeaderBytes: maxAnswerHeaders,
		DisableCompression:     true, // ask for no gzip: a small answer could unpack into a huge one
		ForceAttemptHTTP2:      true, // a DialContext turns HTTP/2 off otherwise
		// An HTTP/2 connection that died silently would take calls until TCP gives up, many minutes. StrictMaxConcurrentRequests
		// stays off: with it, calls to a server that allows few streams were stuck until their time-out.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// proxy keeps the value of a proxy variable, which may hold a password, out of errors.
func proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, errors.New("the proxy given by the environment is not a URL")
	}
	return u, nil
}

// Lane is the event's entity: what is about one recording is sent in order.
func (s *Sink) Lane(e *relay.Event) relay.Lane { return relay.Lane{Key: e.Entity} }

// MaxBatch is one event a call.
func (s *Sink) MaxBatch() (events, bytes int) { return 1, 0 }

// Close ends idle connections.
func (s *Sink) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// Send posts each event of batch until one is not taken. Its errors carry the verdict; see verdict.
func (s *Sink) Send(ctx context.Context, _ relay.Lane, batch []relay.Attempt) (taken int, err error) {
	for i, a := range batch {
		if err := s.post(ctx, a); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// post uses the transport and not http.Client: no redirects, no cookies, and no errors that print the URL.
func (s *Sink) post(ctx context.Context, a relay.Attempt) error {
	call, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// NewRequest gives a bytes.Reader a GetBody, with which the transport may repeat a call that carries an
	// Idempotency-Key when the connection it took from the pool was just being closed. It may keep
	// reading the body after we return; the body belongs to an Event and never changes.
	req, err := http.NewRequestWithContext(call, http.MethodPost, s.url, bytes.NewReader(a.Body))
	if err != nil {
		return errors.New("url: " + notURL)
	}
	req.Header = s.header(a, time.Now())
	answer, err := s.transport.RoundTrip(req)
	if err != nil {
		return s.noAnswer(ctx, call, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusSwitchingProtocols {
		return s.verdict(answer, nil) // its body is the bare connection, which no context bounds
	}
	linger := time.AfterFunc(maxAnswerBodyTime, cancel)
	defer linger.Stop()
	if answer.StatusCode/100 == 2 {
		_, _ = io.CopyN(io.Discard, answer.Body, maxAnswerBody) // so that the connection can be used again
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswerBody)) // whatever came is good enough to show
	return s.verdict(answer, body)
}

// noAnswer is the error of a call without an answer; whether the far side took the event is unknown.
func (s *Sink) noAnswer(ctx, call context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("call to %s cut off: %w", s.host, context.Cause(ctx))
	case call.Err() != nil:
		return fmt.Errorf("no answer from %s within %s", s.host, s.timeout)
	}
	// Text only: what err wraps may quote the far side, which may quote our credentials.
	return fmt.Errorf("call to %s: %s", s.host, s.excerpt(err.Error()))
}
