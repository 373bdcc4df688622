// Package httpsink posts events to an HTTP service, one event a call, with the body and the signatures that Agora sent,
// so that a receiver written for Agora works behind the relay. An event is delivered when the service answers 2xx.
//
// It leaves to its caller: when and how often to call again, order (never two calls of one lane at once), and the number of calls at a time.
// A receiver can see an event twice, with equal Idempotency-Key: after an answer that was lost, and, with even the
// attempt number equal, when a kept-alive connection broke under a call, which the transport makes again at once.
package httpsink

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/telemetry"
)

const (
	maxConnectTime   = 5 * time.Second
	maxAnswerHeaders = 64 << 10
	maxAnswerBody    = 64 << 10

	// The verdict is in the status; the rest of the answer is read only for the connection's sake and for the operator's
	// eyes, so a body that trickles must not hold a delivery slot for the whole time-out.
	maxAnswerBodyTime = time.Second
)

// Sink posts events to one service. It is safe for concurrent use.
type Sink struct {
	cfg       Config
	userAgent string
	log       *slog.Logger
	target    target
	host      string        // all that errors say of the URL: the rest may hold tokens
	limiter   *rate.Limiter // nil = no limit
	files     []string      // that the client is made of
	refused   telemetry.Repetition

	mu      sync.Mutex // guards what follows
	current *client
	looked  time.Time         // when the files were looked at
	seen    [sha256.Size]byte // what they held then
}

var (
	_ relay.Reconnecter = (*Sink)(nil)
	_ relay.Sharer      = (*Sink)(nil)
)

// New makes a sink of cfg, which must pass its Check. It reads the files that cfg names and touches no network.
func New(cfg Config, userAgent string, log *slog.Logger) (*Sink, error) {
	if err := check(cfg); err != nil {
		return nil, err
	}
	target, err := parseTarget(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	u, err := url.Parse(target.example())
	if err != nil {
		return nil, errors.New("url: " + notURL)
	}
	s := &Sink{
		cfg: cfg, userAgent: userAgent, log: log, target: target, host: u.Host, files: cfg.watched(),
	}
	if cfg.Rate > 0 {
		s.limiter = rate.NewLimiter(rate.Limit(cfg.Rate), cmp.Or(cfg.Burst, cfg.Rate))
	}
	s.seen = keyfile.Digest(s.files...)
	if s.current, err = s.newClient(); err != nil {
		return nil, err
	}
	s.announce(u)
	return s, nil
}

func check(cfg Config) error {
	return problem.Collect(func(report problem.Report) {
		cfg.Check(report)
		if cfg.TLS != nil {
			cfg.TLS.Check(report.In("tls"))
		}
	})
}

// announce says at each start what weakens the sink.
func (s *Sink) announce(u *url.URL) {
	if s.cfg.TLS != nil && s.cfg.TLS.InsecureSkipVerify {
		s.log.Warn("the certificate of the receiver is NOT verified (tls.insecure_skip_verify)", "host", s.host)
	}
	if s.current.transport.Proxy == nil {
		return
	}
	if proxy, err := s.current.transport.Proxy(&http.Request{URL: u}); proxy != nil || err != nil {
		s.log.Warn("calls go through a proxy: the egress policy holds for the proxy's address only, not for what it connects to", "host", s.host)
	}
}

// Lane is the event's entity: what is about one recording is sent in order.
func (s *Sink) Lane(e *relay.Event) relay.Lane { return relay.Lane{Key: e.Entity} }

// MaxBatch is one event a call.
func (s *Sink) MaxBatch() (events, bytes int) { return 1, 0 }

// Share lets the sink make its part of the calls that rate and burst allow.
func (s *Sink) Share(owned, shards int) {
	if s.limiter != nil {
		s.limiter.SetLimit(rate.Limit(s.cfg.Rate) * rate.Limit(owned) / rate.Limit(shards))
		s.limiter.SetBurst(max(1, cmp.Or(s.cfg.Burst, s.cfg.Rate)*owned/shards))
	}
}

// Close ends idle connections.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.transport.CloseIdleConnections()
	return nil
}

// Send posts each event of batch until one is not taken. Its errors carry the verdict; see verdict.
func (s *Sink) Send(ctx context.Context, _ relay.Lane, batch []relay.Attempt) (taken int, err error) {
	for i, a := range batch {
		c := s.client()
		_, err := s.post(ctx, c, a, false)
		s.release(c)
		if err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// exchange is one call as it was made. Without an answer the last two are nil.
type exchange struct {
	request *http.Request
	answer  *http.Response
	body    []byte // the beginning of the answer's body, if it was asked for or the call failed
}

// post makes one call, once the rate allows it; the wait takes one of the sink's slots and none of the call's time.
//
// It uses the transport and not http.Client: no redirects, no cookies, and no errors that print the URL.
func (s *Sink) post(ctx context.Context, c *client, a relay.Attempt, keepBody bool) (x exchange, err error) {
	if s.limiter != nil {
		if err := s.limiter.Wait(ctx); err != nil {
			return x, fmt.Errorf("call to %s not begun: %w", s.host, err)
		}
	}
	call, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	var conn *noting
	if x.request, err = s.request(noteTo(call, &conn), c, a); err != nil {
		return x, err
	}
	x.answer, err = c.transport.RoundTrip(x.request)
	if err != nil {
		if x.answer = conn.answer(); x.answer == nil {
			return x, s.noAnswer(ctx, call, c, err)
		}
		if suppressed, ok := s.refused.Allow(time.Now()); ok {
			s.log.Warn("the receiver's answers are not HTTP as it should be: only their status is used, and each costs a connection",
				"error", c.excerpt(err.Error(), maxExcerpt), "suppressed", suppressed)
		}
	}
	defer x.answer.Body.Close()
	trace.SpanFromContext(ctx).SetAttributes(telemetry.HTTPStatus(x.answer.StatusCode)) // of the attempt, if it is recorded
	if x.answer.StatusCode == http.StatusSwitchingProtocols {
		return x, s.verdict(c, x.answer, nil) // its body is the bare connection, which no context bounds
	}
	if x.answer.Body != http.NoBody {
		linger := time.AfterFunc(maxAnswerBodyTime, cancel)
		defer linger.Stop()
	}
	if !keepBody && x.answer.StatusCode/100 == 2 {
		_, _ = io.CopyN(io.Discard, x.answer.Body, maxAnswerBody) // so that the connection can be used again
	} else {
		x.body, _ = io.ReadAll(io.LimitReader(x.answer.Body, maxAnswerBody)) // whatever came is good enough to show
	}
	return x, s.verdict(c, x.answer, x.body)
}

// request gives the transport a GetBody by way of bytes.Reader, with which it may repeat a call that carries an
// Idempotency-Key when the connection it took from the pool was just being closed. It may keep reading the body after the
// call; the body belongs to an Event and never changes.
func (s *Sink) request(call context.Context, c *client, a relay.Attempt) (*http.Request, error) {
	to, err := s.target.url(a.Event)
	if err != nil {
		return nil, relay.Permanent(relay.Because(relay.ReasonEvent, fmt.Errorf("no URL for this event: %w", err)))
	}
	req, err := http.NewRequestWithContext(call, http.MethodPost, to, bytes.NewReader(a.Body))
	if err != nil {
		return nil, errors.New("url: " + notURL)
	}
	req.Host = cmp.Or(c.host, req.Host)
	req.Header = c.header(a, s.cfg.CloudEvents, time.Now())
	return req, nil
}

// noAnswer is the error of a call without an answer; whether the far side took the event is unknown.
func (s *Sink) noAnswer(ctx, call context.Context, c *client, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("call to %s cut off: %w", s.host, context.Cause(ctx))
	case call.Err() != nil:
		return relay.Because(relay.ReasonTimeout, fmt.Errorf("no answer from %s within %s", s.host, s.cfg.Timeout))
	}
	// Text only: what err wraps may quote the far side, which may quote our credentials.
	return relay.Because(relay.ReasonOf(err), fmt.Errorf("call to %s: %s", s.host, c.excerpt(err.Error(), maxExcerpt)))
}
