package httpsink_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// receiver is a service written for Agora: it verifies the signatures it is sent and keeps what it takes.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	received []sinktest.Received
	faults   map[string]int // status by event id; 0 = never answer
	healed   chan struct{}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t, faults: map[string]int{}, healed: make(chan struct{})}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	repeated, _ := httputil.DumpRequest(req, true)
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.verify(req.Header, body)
	status, healed := r.fault(req.Header.Get("Ncs-Relay-Event-Id"))
	switch {
	case status == 0:
		select {
		case <-req.Context().Done():
		case <-healed:
		}
	case status == http.StatusNoContent:
		r.keep(req.Header, body)
		w.WriteHeader(status)
	default: // repeats what it was sent, credentials first, because errors show only the start
		w.WriteHeader(status)
		_, password, _ := req.BasicAuth()
		fmt.Fprintln(w, req.URL.RawQuery, req.URL.Query().Get("token"), req.Header.Get("X-Api-Key"), password, req.Header.Get("Authorization"))
		w.Write(repeated)
	}
}

func (r *receiver) verify(h http.Header, body []byte) {
	if v2 := h.Get("Agora-Signature-V2"); v2 != "" && !hmac.Equal([]byte(v2), []byte(sinktest.Signature(sha256.New, body))) {
		r.t.Errorf("Agora-Signature-V2 does not fit the body %.60q", body)
	}
	if v1 := h.Get("Agora-Signature"); v1 != "" && !hmac.Equal([]byte(v1), []byte(sinktest.Signature(sha1.New, body))) {
		r.t.Errorf("Agora-Signature does not fit the body %.60q", body)
	}
}

func (r *receiver) fault(id string) (status int, healed chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	status, ok := r.faults[id]
	if !ok {
		status = http.StatusNoContent
	}
	return status, r.healed
}

func (r *receiver) keep(h http.Header, body []byte) {
	entity, err := url.PathUnescape(h.Get("Ncs-Relay-Entity"))
	if err != nil {
		r.t.Errorf("entity %q: %v", h.Get("Ncs-Relay-Entity"), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = append(r.received, sinktest.Received{
		ID:             h.Get("Ncs-Relay-Event-Id"),
		Product:        h.Get("Ncs-Relay-Product"),
		Event:          h.Get("Ncs-Relay-Event"),
		EventType:      h.Get("Ncs-Relay-Event-Type"),
		Category:       h.Get("Ncs-Relay-Category"),
		Entity:         entity,
		Source:         h.Get("Ncs-Relay-Source"),
		ReceivedAt:     h.Get("Ncs-Relay-Received-At"),
		Replay:         h.Get("Ncs-Relay-Replay"),
		Test:           h.Get("Ncs-Relay-Test"),
		Body:           body,
		ContentType:    h.Get("Content-Type"),
		SignatureV1:    h.Get("Agora-Signature"),
		SignatureV2:    h.Get("Agora-Signature-V2"),
		Attempt:        h.Get("Ncs-Relay-Attempt"),
		IdempotencyKey: h.Get("Idempotency-Key"),
		Traceparent:    h.Get("Traceparent"),
	})
}

func (r *receiver) set(status int) func(id string) {
	return func(id string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.faults[id] = status
	}
}

func (r *receiver) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.faults)
	close(r.healed)
	r.healed = make(chan struct{})
}

func (r *receiver) all(*testing.T) []sinktest.Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]sinktest.Received(nil), r.received...)
}

// config is the default one with changes.
func config(rawURL string, change ...func(*httpsink.Config)) httpsink.Config {
	var cfg httpsink.Config
	cfg.SetDefaults()
	cfg.URL = rawURL
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func newSink(t *testing.T, cfg httpsink.Config) *httpsink.Sink {
	s, err := httpsink.New(cfg, "ncs-relay/test", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func send(t *testing.T, s *httpsink.Sink, e *relay.Event) error {
	taken, err := s.Send(t.Context(), s.Lane(e), sinktest.Batch(e))
	if err == nil {
		require.Equal(t, 1, taken)
	} else {
		require.Zero(t, taken)
	}
	return err
}

func TestContract(t *testing.T) {
	sinktest.Run(t, sinktest.Harness{CarriesAttempt: true, CarriesIdempotencyKey: true, CarriesTraceparent: true,
		New: func(t *testing.T, logger *slog.Logger) sinktest.Fixture {
			far := newReceiver(t)
			cfg := config(far.URL+"/hooks?token=canary%2Fquery", func(c *httpsink.Config) {
				c.Timeout = time.Minute
				c.BasicAuth = &httpsink.BasicAuth{Username: "relay", Password: relay.NewSecret("canary-password")}
				c.Headers = map[string]relay.Secret{"X-Api-Key": relay.NewSecret("canary-key")}
				c.StandardWebhooks = &httpsink.StandardWebhooks{Secrets: []relay.Secret{relay.NewSecret(webhookSecret)}}
			})
			s, err := httpsink.New(cfg, "ncs-relay/test", logger)
			require.NoError(t, err)
			return sinktest.Fixture{
				Sink:     s,
				Received: far.all,
				Fail:     far.set(http.StatusServiceUnavailable),
				Refuse:   far.set(http.StatusUnprocessableEntity),
				Hang:     far.set(0),
				Heal:     far.heal,
				// the base64 is that of relay:canary-password
				Secrets: []string{"canary%2Fquery", "canary/query", "canary-password", "cmVsYXk6Y2FuYXJ5LXBhc3N3b3Jk", "canary-key", webhookSecret[len("whsec_"):]},
			}
		}})
}

// A sink has either bearer or basic credentials; the contract ran with basic ones.
func TestBearerTokenStaysOutOfErrors(t *testing.T) {
	t.Parallel()
	far := newReceiver(t)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.BearerToken = relay.NewSecret("canary-bearer") }))
	e := sinktest.Event(1, "sid")
	far.set(http.StatusForbidden)(e.ID.String())
	err := send(t, s, e)
	require.ErrorContains(t, err, "403 Forbidden")
	require.ErrorContains(t, err, "Bearer <secret>")
	require.NotContains(t, err.Error(), "canary")
}
