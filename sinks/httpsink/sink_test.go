package httpsink_test

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/relaytest"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

const (
	webhookSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" // of the specification's own example
	oldWebhookSecret = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="
)

// TestWireBytes fixes the whole head of a call: what is sent, what is left out, what Go does not add.
func TestWireBytes(t *testing.T) {
	t.Parallel()
	heads := make(chan []string, 1)
	addr := listen(t, func(c net.Conn) {
		head, _ := readCall(c)
		heads <- head
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	s := newSink(t, config("http://"+addr+"/hooks?a=b"))
	e := sinktest.Event(1, "sid/1 ä+")
	require.NoError(t, send(t, s, e))
	want := []string{
		"POST /hooks?a=b HTTP/1.1",
		"Host: " + addr,
		"User-Agent: ncs-relay/test",
		fmt.Sprintf("Content-Length: %d", len(e.Body)),
		"Agora-Signature: " + e.SignatureV1,
		"Agora-Signature-V2: " + e.SignatureV2,
		"Content-Type: application/json",
		"Idempotency-Key: " + e.ID.String(),
		"Ncs-Relay-Attempt: 1",
		"Ncs-Relay-Category: recorder",
		"Ncs-Relay-Entity: sid%2F1%20%C3%A4%2B",
		"Ncs-Relay-Event: recorder_slice_start",
		"Ncs-Relay-Event-Id: " + e.ID.String(),
		"Ncs-Relay-Event-Type: 42",
		"Ncs-Relay-Product: cloud_recording",
		"Ncs-Relay-Received-At: 2026-11-23T12:00:01.007Z",
		"Ncs-Relay-Source: recording",
	}
	require.Empty(t, gocmp.Diff(want, <-heads))
}

// TestOddValuesInHeaders: what comes from outside stays in its header, whatever it is.
func TestOddValuesInHeaders(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ contentType, entity string }{
		"line breaks":  {"application/json", "a\r\nX-Evil: 1\r\n\r\nPOST /evil HTTP/1.1\r\n"},
		"control":      {"application/json", "\x00\x7f\x1b[31m"},
		"not ASCII":    {"application/json; name=\"\u00e9\xff\"", "\u4f1a\u8bae\u5ba4 \U0001f600\xff"},
		"long":         {strings.Repeat("x", 30_000), strings.Repeat("\u4f1a", 10_000)},
		"spaces":       {"application/json", "  a  "},
		"nothing":      {"", ""},
		"already so":   {"application/json", "%0d%0a"},
		"two of these": {"text/plain, application/json", "a, b"},
	} {
		var got http.Header
		far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
		s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.CloudEvents = true }))
		e := sinktest.Event(1, tt.entity)
		e.ContentType = tt.contentType
		require.NoError(t, send(t, s, e), name)
		far.Close()
		require.Empty(t, got.Get("X-Evil"), name)
		require.Equal(t, tt.contentType, got.Get("Content-Type"), name)
		for _, header := range []string{"Ncs-Relay-Entity", "Ce-Subject"} {
			require.Regexp(t, `^[A-Za-z0-9._~%-]*$`, got.Get(header), name)
			entity, err := url.PathUnescape(got.Get(header))
			require.NoError(t, err, name)
			require.True(t, tt.entity == entity, "%s: %.60q", name, entity)
		}
		_, there := got["Content-Type"]
		require.Equal(t, tt.contentType != "", there, name)
	}
}

func TestHeadersConfigured(t *testing.T) {
	t.Parallel()
	headers := make(chan http.Header, 1)
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { headers <- r.Header.Clone() }))
	defer far.Close()
	call := func(change func(*httpsink.Config), a relay.Attempt) http.Header {
		s := newSink(t, config(far.URL, change))
		_, err := s.Send(t.Context(), s.Lane(a.Event), []relay.Attempt{a})
		require.NoError(t, err)
		return <-headers
	}
	e := sinktest.Event(1, "sid 1")

	t.Run("fixed headers and bearer token", func(t *testing.T) {
		h := call(func(c *httpsink.Config) {
			c.Headers = map[string]relay.Secret{"x-team": relay.NewSecret("media")}
			c.BearerToken = relay.NewSecret("token")
		}, sinktest.Batch(e)[0])
		require.Equal(t, "media", h.Get("X-Team"))
		require.Equal(t, "Bearer token", h.Get("Authorization"))
	})
	t.Run("basic auth", func(t *testing.T) {
		h := call(func(c *httpsink.Config) {
			c.BasicAuth = &httpsink.BasicAuth{Username: "ä", Password: relay.NewSecret("p:w")}
		}, sinktest.Batch(e)[0])
		user, password, ok := (&http.Request{Header: h}).BasicAuth()
		require.True(t, ok)
		require.Equal(t, []string{"ä", "p:w"}, []string{user, password})
	})
	t.Run("CloudEvents", func(t *testing.T) {
		h := call(func(c *httpsink.Config) { c.CloudEvents = true }, sinktest.Batch(e)[0])
		got := map[string]string{}
		for name := range h {
			if rest, ok := strings.CutPrefix(name, "Ce-"); ok {
				got[rest] = h.Get(name)
			}
		}
		require.Empty(t, gocmp.Diff(map[string]string{
			"Specversion": "1.0", "Id": e.ID.String(), "Source": "/ncs/recording", "Type": "agora.ncs.cloud_recording.recorder_slice_start",
			"Subject": "sid%201", "Time": "2026-11-23T12:00:01.007Z",
		}, got))
		require.Equal(t, "application/json", h.Get("Content-Type"))
	})
	t.Run("Standard Webhooks with two secrets, on a replay", func(t *testing.T) {
		before := time.Now().Unix()
		h := call(func(c *httpsink.Config) {
			c.StandardWebhooks = &httpsink.StandardWebhooks{Secrets: []relay.Secret{relay.NewSecret(webhookSecret), relay.NewSecret(oldWebhookSecret)}}
		}, relay.Attempt{Event: e, Number: 1, Replay: 4})
		require.Equal(t, e.ID.String()+"-r4", h.Get("Webhook-Id"))
		require.Equal(t, h.Get("Idempotency-Key"), h.Get("Webhook-Id"))
		signatures := strings.Split(h.Get("Webhook-Signature"), " ")
		require.Len(t, signatures, 2)
		for i, secret := range []string{webhookSecret[len("whsec_"):], oldWebhookSecret} {
			key, err := base64.StdEncoding.DecodeString(secret)
			require.NoError(t, err)
			mac := hmac.New(sha256.New, key)
			fmt.Fprintf(mac, "%s.%s.%s", h.Get("Webhook-Id"), h.Get("Webhook-Timestamp"), e.Body)
			require.Equal(t, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)), signatures[i])
		}
		var at int64
		_, err := fmt.Sscan(h.Get("Webhook-Timestamp"), &at)
		require.NoError(t, err)
		require.GreaterOrEqual(t, at, before)
		require.LessOrEqual(t, at, time.Now().Unix())
	})
}

// verdict says what err is to a dispatcher.
func verdict(err error) string {
	switch {
	case err == nil:
		return "delivered"
	case relay.IsPermanent(err):
		return "dead letter"
	case relay.IsPause(err):
		return "paused"
	}
	return "tried again"
}

// TestVerdicts holds the documented table against every status that a server can answer.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	table := documentedVerdicts(t)
	status := make(chan int, 1)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-status) }))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL))
	for code := 200; code <= 999; code++ {
		status <- code
		err := send(t, s, sinktest.Event(1, "sid"))
		require.Equal(t, table(code), verdict(err), "status %d: %v", code, err)
		if err != nil {
			require.ErrorContains(t, err, fmt.Sprintf("answered %d", code))
		}
	}
}

// documentedVerdicts returns the verdict that the documented table has for a status.
func documentedVerdicts(t *testing.T) func(status int) string {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "<!-- verdicts -->\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	named := map[int]string{} // 2 for 2xx
	for _, row := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(row, "|")
		answer, meant := cells[1], ""
		for _, word := range []string{"delivered", "dead letter", "paused", "tried again"} {
			if strings.Contains(cells[2], word) {
				meant = word
			}
		}
		require.NotEmpty(t, meant, row)
		for _, m := range regexp.MustCompile(`(\d{3})(?:-(\d{3}))?|\b(\d)xx`).FindAllStringSubmatch(answer, -1) {
			first, _ := strconv.Atoi(m[1] + m[3])
			last, _ := strconv.Atoi(m[2])
			for code := first; code <= max(first, last); code++ {
				require.Empty(t, named[code], "%d is in two rows", code)
				named[code] = meant
			}
		}
	}
	require.Equal(t, "dead letter", named[4])
	require.Contains(t, table, "5xx and above")
	return func(status int) string {
		return cmp.Or(named[status], named[min(5, status/100)])
	}
}

// short is a time-out that ends tests soon, and in which a busy machine still connects.
const short = 3 * time.Second

// TestNoAnswer has the rows of the table in which no status comes. Whether the far side took the event is unknown, so each is
// tried again.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	plain := listen(t, func(c net.Conn) { io.WriteString(c, "this is no TLS\n") })
	taken := listen(t, func(c net.Conn) { readCall(c) })
	silent := listen(t, func(c net.Conn) { readCall(c); hold(c) })
	for name, tt := range map[string]struct{ url, want string }{
		"connection refused":         {"http://" + closed.Addr().String(), "connection refused"},
		"TLS":                        {"https://" + plain, "tls: first record does not look like a TLS handshake"},
		"DNS":                        {"http://nowhere.invalid/", "nowhere.invalid"},
		"taken, and no answer":       {"http://" + taken, "EOF"},
		"taken, and silent for good": {"http://" + silent, "no answer from " + silent + " within 3s"},
	} {
		s := newSink(t, config(tt.url+"/?token=canary", func(c *httpsink.Config) { c.Timeout = short }))
		err := send(t, s, sinktest.Event(1, "sid"))
		require.Equal(t, "tried again", verdict(err), name)
		if name != "DNS" { // where there is no resolver this takes the whole time-out
			require.ErrorContains(t, err, tt.want, name)
		}
		require.NotContains(t, err.Error(), "canary", name)
	}
}

func TestVerdictsConfigured(t *testing.T) {
	t.Parallel()
	status := make(chan int, 1)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(<-status)
	}))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) {
		c.Verdicts = map[string]string{"409": "deliver", "404": "dead", "410": "retry", "204": "retry", "5xx": "pause", "503": "retry"}
	}))
	for code, want := range map[int]string{
		200: "delivered", 204: "tried again", 400: "dead letter", 404: "dead letter", 403: "tried again", 409: "delivered", 410: "tried again",
		500: "paused", 599: "paused", 503: "tried again",
	} {
		status <- code
		err := send(t, s, sinktest.Event(1, "sid"))
		require.Equal(t, want, verdict(err), "status %d: %v", code, err)
		var after *relay.RetryAfterError
		require.Equal(t, want == "tried again", errors.As(err, &after), "status %d", code)
	}
}

// TestACallThatIsNotDone: a receiver with a middleware for Idempotency-Key, whose first call outlasts our time-out and then keeps
// nothing. The second call meets its 409; the event must be kept by some later call.
func TestACallThatIsNotDone(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	begun, failed := make(chan struct{}), make(chan struct{})
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			io.Copy(io.Discard, r.Body)
			close(begun)
			<-failed
		case 2:
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, `{"title":"A request is outstanding for this Idempotency-Key"}`)
		}
	}))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Timeout = time.Second }))
	e := sinktest.Event(1, "sid")
	require.Equal(t, "tried again", verdict(send(t, s, e)))
	<-begun
	require.Equal(t, "tried again", verdict(send(t, s, e)), "the first call is not done")
	close(failed)
	require.Equal(t, "delivered", verdict(send(t, s, e)))
}

// TestAnswersAboutAnotherCall: some services have other statuses for it, and say so in words.
func TestAnswersAboutAnotherCall(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status       int
		header, body string
		want, says   string
	}{
		{409, "", "", "tried again", "409 Conflict"},
		{423, "", "", "tried again", "423 Locked"},
		{425, "", "", "tried again", "425 Too Early"},
		{422, "", `{"title":"Idempotency-Key is already used"}`, "tried again", "already used"},
		{400, "", `{"type":"idempotency_error"}`, "tried again", "idempotency_error"},
		{422, "", `{"error":"no such account"}`, "dead letter", "no such account"},
		{422, "", "you sent Idempotency-Key: 1, Ncs-Relay-Event-Id: 1", "dead letter", "you sent"}, // repeats the call, says nothing of it
		{500, "Idempotent-Replayed", "oops", "tried again", "repeats the stored answer"},
		{500, "X-Idempotency-Replay", "oops", "tried again", "repeats the stored answer"},
	} {
		far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if tt.header != "" {
				w.Header().Set(tt.header, "true")
			}
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}))
		err := send(t, newSink(t, config(far.URL)), sinktest.Event(1, "sid"))
		require.Equal(t, tt.want, verdict(err), "%d %s", tt.status, tt.body)
		require.ErrorContains(t, err, tt.says)
		far.Close()
	}
	// What is configured counts, whatever the words are.
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(422)
		io.WriteString(w, "Idempotency-Key is already used")
	}))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Verdicts = map[string]string{"422": "dead"} }))
	require.Equal(t, "dead letter", verdict(send(t, s, sinktest.Event(1, "sid"))))
}

func TestDeliverOfAnotherCallIsWarnedOf(t *testing.T) {
	t.Parallel()
	for verdicts, want := range map[[2]string]bool{
		{"409", "deliver"}: true, {"423", "deliver"}: true, {"425", "deliver"}: true, {"4xx", "deliver"}: true,
		{"409", "dead"}: false, {"409", "retry"}: false, {"404", "deliver"}: false,
	} {
		cfg := config("https://far.test", func(c *httpsink.Config) { c.Verdicts = map[string]string{verdicts[0]: verdicts[1]} })
		var warned []string
		cfg.Warn(func(path, problem, _ string, _ ...any) { warned = append(warned, path+" "+problem) })
		require.Equal(t, want, len(warned) > 0, "%v: %v", verdicts, warned)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	tests := []struct {
		name     string
		status   int
		value    string
		min, max time.Duration // 0, 0: a plain error
	}{
		{"seconds on 429", 429, "7", 7 * time.Second, 7 * time.Second},
		{"seconds on 503", 503, "120", 2 * time.Minute, 2 * time.Minute},
		{"seconds on 301", 301, "5", 5 * time.Second, 5 * time.Second},
		{"date", 503, date(10 * time.Minute), 9 * time.Minute, 10 * time.Minute},
		{"capped", 429, "86400", time.Hour, time.Hour},
		{"date capped", 429, date(30 * 24 * time.Hour), time.Hour, time.Hour},
		{"zero", 429, "0", time.Second, time.Second},
		{"negative", 429, "-1", time.Second, time.Second},
		{"signed", 429, "+1", time.Second, time.Second},
		{"huge", 429, "4294967296", time.Hour, time.Hour},
		{"overflow", 429, "99999999999999999999", time.Hour, time.Hour},
		{"beyond any number", 429, strings.Repeat("9", 400), time.Hour, time.Hour},
		{"far date", 503, "Fri, 31 Dec 9999 23:59:59 GMT", time.Hour, time.Hour},
		{"spaces around", 429, "  7 ", 7 * time.Second, 7 * time.Second},
		{"fraction", 429, "1.5", 1500 * time.Millisecond, 1500 * time.Millisecond},
		{"whole as a fraction", 503, "3.0", 3 * time.Second, 3 * time.Second},
		{"date in UTC", 503, strings.Replace(date(10*time.Minute), "GMT", "UTC", 1), 9 * time.Minute, 10 * time.Minute},
		{"date with an offset", 503, strings.Replace(date(10*time.Minute), "GMT", "+0000", 1), 9 * time.Minute, 10 * time.Minute},
		{"ISO 8601", 503, time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339), 9 * time.Minute, 10 * time.Minute},
		{"ISO 8601 with a fraction", 503, time.Now().Add(10 * time.Minute).UTC().Format("2006-01-02T15:04:05.000Z07:00"), 9 * time.Minute, 10 * time.Minute},
		{"ISO 8601 with an offset", 503, time.Now().Add(10 * time.Minute).In(time.FixedZone("", 7200)).Format("2006-01-02T15:04:05-0700"), 9 * time.Minute, 10 * time.Minute},
		{"ISO 8601 without a zone", 503, time.Now().Add(10 * time.Minute).UTC().Format("2006-01-02T15:04:05"), 9 * time.Minute, 10 * time.Minute},
		{"hexadecimal", 429, "0x10", time.Second, time.Second},
		{"two", 429, "7, 8", time.Second, time.Second},
		{"control characters", 429, "7\t\t8", time.Second, time.Second},
		{"past date", 503, date(-time.Hour), time.Second, time.Second},
		{"words", 503, "soon", time.Second, time.Second},
		{"absent", 503, "", time.Second, time.Second},
		{"absent on 429", 429, "", time.Second, time.Second},
		{"words on 500", 500, "soon", 0, 0},
		{"absent on 500", 500, "", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.value != "" {
					w.Header().Set("Retry-After", tt.value)
				}
				w.WriteHeader(tt.status)
			}))
			t.Cleanup(far.Close)
			err := send(t, newSink(t, config(far.URL)), sinktest.Event(1, "sid"))
			require.Error(t, err)
			var after *relay.RetryAfterError
			if tt.max == 0 {
				require.NotErrorAs(t, err, &after)
				return
			}
			require.ErrorAs(t, err, &after)
			require.Equal(t, tt.status == 429 || tt.status == 503 && tt.value != "", after.All, "whether it is meant for everything")
			require.GreaterOrEqual(t, after.After, tt.min)
			require.LessOrEqual(t, after.After, tt.max)
		})
	}
}

func TestPermanentIgnoresRetryAfter(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusBadRequest)
	}))
	t.Cleanup(far.Close)
	err := send(t, newSink(t, config(far.URL)), sinktest.Event(1, "sid"))
	require.True(t, relay.IsPermanent(err))
	var after *relay.RetryAfterError
	require.NotErrorAs(t, err, &after)
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := newReceiver(t)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(elsewhere.URL, "http://", "http://user:canary@", 1)+"/moved?token=canary", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(far.Close)
	err := send(t, newSink(t, config(far.URL)), sinktest.Event(1, "sid"))
	require.ErrorContains(t, err, "307 Temporary Redirect (redirects are not followed; this one points to "+elsewhere.URL+"/moved)")
	require.NotContains(t, err.Error(), "canary")
	require.Empty(t, elsewhere.all(t))
}

func TestErrorShowsTheAnswerSafely(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, answer, want string
	}{
		{"text", `{"error":"no such account"}`, `"{\"error\":\"no such account\"}"`},
		{"control characters", "a\x1b[31m\r\nb\x00\u202e", `"a\x1b[31m\r\nb\x00\u202e"`},
		{"not UTF-8", "a\xff\xfeb", `"a\xff\xfeb"`},
		{"long", strings.Repeat("é", 5000), strings.Repeat("é", 98) + `..."`},
		{"long controls", strings.Repeat("\x01", 5000), strings.Repeat(`\x01`, 49) + `..."`},
		{"empty", "", "answered 500 Internal Server Error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusInternalServerError)
				io.WriteString(w, tt.answer)
			}))
			t.Cleanup(far.Close)
			err := send(t, newSink(t, config(far.URL)), sinktest.Event(1, "sid"))
			require.ErrorContains(t, err, tt.want)
			require.Less(t, len(err.Error()), 300)
		})
	}
}

// TestSecretsCutShort: an answer that breaks off, or goes on beyond what is read, in the middle of what it repeats.
func TestSecretsCutShort(t *testing.T) {
	t.Parallel()
	const secret = "canary<bearer>&"
	for name, answer := range map[string]string{
		"breaks off":   "HTTP/1.1 403 No\r\nContent-Length: 99\r\n\r\ngot Bearer canar",
		"whole":        "HTTP/1.1 403 No\r\n\r\ngot Bearer " + secret,
		"as HTML":      "HTTP/1.1 403 No\r\n\r\n<p>got Bearer canary&lt;bearer&gt;&amp;</p>",
		"as HTML, cut": "HTTP/1.1 403 No\r\n\r\n<p>got Bearer canary&lt;bea",
		"as JSON, cut": "HTTP/1.1 403 No\r\n\r\n{\"got\":\"Bearer canary\\u003cbear",
		"in words":     "HTTP/1.1 403 " + secret + "\r\nContent-Length: 0\r\n\r\n",
		"no HTTP":      "500 Bearer " + secret + "\r\n\r\n",
		"in a header":  "HTTP/1.1 307 No\r\nLocation: https://user:" + secret + "@h/" + secret + "?" + secret + "#" + secret + "\r\n\r\n",
	} {
		addr := listen(t, func(c net.Conn) { readCall(c); io.WriteString(c, answer) })
		s := newSink(t, config("http://"+addr, func(c *httpsink.Config) { c.BearerToken = relay.NewSecret(secret) }))
		err := send(t, s, sinktest.Event(1, "sid"))
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "cana", name)
		var shown strings.Builder
		require.Error(t, s.Try(t.Context(), sinktest.Batch(sinktest.Event(1, "sid"))[0], &shown), name)
		require.NotContains(t, shown.String(), "cana", name)
	}
}

func TestSecretThatBeginsLikeAnother(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, r.Header.Get("X-B")+" is wrong")
	}))
	t.Cleanup(far.Close)
	err := send(t, newSink(t, config(far.URL, func(c *httpsink.Config) {
		c.BearerToken = relay.NewSecret("canary")
		c.Headers = map[string]relay.Secret{"X-B": relay.NewSecret("canary-longer")}
	})), sinktest.Event(1, "sid"))
	require.ErrorContains(t, err, `"<secret> is wrong"`)
}

// TestTryCutsAfterMasking: what is shown of a long answer ends in the middle of a secret.
// TestTryShowsURLsAsLogsDo: some URLs are credentials, whatever the length of their parts.
func TestTryShowsURLsAsLogsDo(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL+"/hooks/T0can/B0can/{event}-can?token=can"))
	var shown strings.Builder
	require.NoError(t, s.Try(t.Context(), sinktest.Batch(sinktest.Event(1, "sid"))[0], &shown))
	require.NotContains(t, shown.String(), "can")
	require.Contains(t, shown.String(), "> POST "+far.URL+"/<secret>?<secret>\n")
}

// TestOwnHost: the call goes where the URL says, for another name.
func TestOwnHost(t *testing.T) {
	t.Parallel()
	hosts := make(chan string, 1)
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hosts <- r.Host }))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) {
		c.Headers = map[string]relay.Secret{"host": relay.NewSecret("billing.internal:8443")}
	}))
	require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
	require.Equal(t, "billing.internal:8443", <-hosts)
	for _, bad := range []string{"https://billing.internal", "a b", "user@host", "a/b"} {
		cfg := config(far.URL, func(c *httpsink.Config) { c.Headers = map[string]relay.Secret{"Host": relay.NewSecret(bad)} })
		_, err := httpsink.New(cfg, "ncs-relay/test", slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, "headers[Host]: is not a host", bad)
	}
}

func TestTryCutsAfterMasking(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", 4090)+r.Header.Get("Authorization")+strings.Repeat("x", 100))
	}))
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.BearerToken = relay.NewSecret("canary-bearer") }))
	var shown strings.Builder
	require.NoError(t, s.Try(t.Context(), sinktest.Batch(sinktest.Event(1, "sid"))[0], &shown))
	require.NotContains(t, shown.String(), "cana")
	require.Contains(t, shown.String(), "\n< ...\n", "that there was more is said")
}

// TestMisbehavingServers runs servers that do not speak HTTP as they should. Each call must end, well within the time-out unless
// the row says otherwise, and say something useful.
func TestMisbehavingServers(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	forever := func(c net.Conn, text string) {
		for _, err := io.WriteString(c, text); err == nil; _, err = io.WriteString(c, text) {
		}
	}
	tests := []struct {
		name    string
		timeout time.Duration
		serve   func(net.Conn)
		want    string // of the error; "" = delivered
	}{
		{"closes without an answer", time.Minute, func(c net.Conn) {}, "EOF"},
		{"half a status line", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 20") }, "malformed"},
		{"not HTTP", time.Minute, func(c net.Conn) { io.WriteString(c, "SSH-2.0-\x1b[2J\r\n") }, `malformed HTTP response \"SSH-2.0-\\x1b[2J\"`},
		{"1xx flood", time.Minute, func(c net.Conn) { forever(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n") }, "call to "},
		{"endless headers", time.Minute, func(c net.Conn) { io.WriteString(c, ok); forever(c, "X-A: "+strings.Repeat("a", 1000)+"\r\n") }, "headers exceeded 65536 bytes"},
		{"endless header line", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"X-A: "); forever(c, strings.Repeat("a", 1000)) }, "headers exceeded 65536 bytes"},
		{"endless body, 200", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"\r\n"); forever(c, strings.Repeat("a", 1000)) }, ""},
		{"endless body, 500", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n")
			forever(c, strings.Repeat("a", 1000))
		}, "500"},
		{"body promised and not sent, 200", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Content-Length: 100\r\n\r\nabc"); hold(c) }, ""},
		{"body promised and not sent, 503", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nabc")
			hold(c)
		}, `503 Service Unavailable: "abc"`},
		{"bad chunks, 200", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\nzz\r\n") }, ""},
		{"compressed bomb", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
		}, `500 Internal Server Error: "\x1f\x8b\b\x00"`},
		{"switches protocols", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			hold(c)
		}, "101 Switching Protocols"},
		{"two content lengths", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab") }, ""},
		{"two content lengths, 500", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
		}, "answered 500 Internal Server Error"},
		{"not encoded", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Transfer-Encoding: identity\r\n\r\nok") }, ""},
		{"not encoded, 503", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 503 No\r\nTransfer-Encoding: identity\r\n\r\nno") },
			"answered 503 Service Unavailable"},
		{"chunked twice", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n") }, ""},
		{"chunked and chunked", time.Minute, func(c net.Conn) {
			io.WriteString(c, ok+"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
		}, ""},
		{"not encoded, behind 1xx", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+ok+"Transfer-Encoding: identity\r\n\r\nok")
		}, ""},
		{"a header without a colon", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"odd\r\nContent-Length: 0\r\n\r\n") }, ""},
		{"endless trailers", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
			forever(c, "X-A: "+strings.Repeat("a", 1000)+"\r\n")
		}, `500 Internal Server Error: "a"`},
		{"endless chunk extension", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n1;")
			forever(c, strings.Repeat("a", 1000))
		}, "500 Internal Server Error"},
		{"endless chunks of one byte", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n")
			forever(c, "1;x="+strings.Repeat("a", 1000)+"\r\na\r\n")
		}, "500 Internal Server Error"},
		{"body that trickles, 200", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"\r\n"); trickle(c, "a") }, ""},
		{"body that trickles, 500", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n"); trickle(c, "a") }, "500 Internal Server Error"},
		{"headers that trickle", short, func(c net.Conn) { io.WriteString(c, ok); trickle(c, "X: a\r\n") }, "no answer from "},
		{"1xx that trickle", short, func(c net.Conn) { trickle(c, "HTTP/1.1 102 Processing\r\n\r\n") }, "no answer from "},
		{"100 only", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n") }, "EOF"},
		{"1xx, then 200", time.Minute, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"+ok+"Content-Length: 0\r\n\r\n")
		}, ""},
		{"status 000", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n") }, "answered 0"},
		{"status of two digits", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 20 OK\r\n\r\n") }, "malformed"},
		{"status of four digits", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 2000 OK\r\n\r\n") }, "malformed"},
		{"negative status", time.Minute, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 -20 OK\r\n\r\n") }, "malformed"},
		{"negative length", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Content-Length: -1\r\n\r\n") }, ""},
		{"odd encoding", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"Transfer-Encoding: gzip, chunked\r\n\r\n") }, ""},
		{"breaks off in the headers", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"X-A: b\r\n") }, "EOF"},
		{"reset", time.Minute, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, "call to "},
		{"reset in the headers", time.Minute, func(c net.Conn) { io.WriteString(c, ok+"X-A: b\r\n"); c.(*net.TCPConn).SetLinger(0) }, "call to "},
		{"answer to nothing asked", time.Minute, func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 0\r\n\r\n"+ok+"Content-Length: 0\r\n\r\n")
		}, ""},
		{"never answers", short, hold, "no answer from "},
		{"header trickle", short, func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX-"); hold(c) }, "within 3s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var open atomic.Int64
			addr := listen(t, func(c net.Conn) {
				open.Add(1)
				defer open.Add(-1)
				readCall(c)
				tt.serve(c)
			})
			s := newSink(t, config("http://"+addr, func(c *httpsink.Config) { c.Timeout = tt.timeout }))
			err := send(t, s, sinktest.Event(1, "sid"))
			require.NoError(t, s.Close())
			require.Eventually(t, func() bool { return open.Load() == 0 }, 10*time.Second, time.Millisecond, "a connection is left")
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			require.False(t, relay.IsPermanent(err))
		})
	}
}

// TestARefusedAnswerIsThatOfItsCall lets answers of odd framing follow ones that are right, on one connection, and in TLS.
func TestARefusedAnswerIsThatOfItsCall(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key := ca.issue("billing.internal")
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	statuses := []int{200, 500, 200, 410, 200, 200}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			t.Parallel()
			var call atomic.Int64
			addr := listen(t, func(c net.Conn) {
				if secure {
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}})
				}
				for in := bufio.NewReader(c); ; {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					io.Copy(io.Discard, r.Body)
					n := int(call.Add(1)) - 1
					framing := "Content-Length: 0"
					if n%2 == 1 {
						framing = "Transfer-Encoding: identity"
					}
					fmt.Fprintf(c, "HTTP/1.1 %d It\r\n%s\r\n\r\n", statuses[n], framing)
				}
			})
			scheme := map[bool]string{false: "http://", true: "https://"}[secure]
			s := newSink(t, config(scheme+addr, func(c *httpsink.Config) {
				c.TLS = &keyfile.TLS{CAFile: files(t, ca.pem)[0], ServerName: "billing.internal"}
			}))
			var got []string
			for i := range statuses {
				got = append(got, verdict(send(t, s, sinktest.Event(i, "sid"))))
			}
			require.Equal(t, []string{"delivered", "tried again", "delivered", "paused", "delivered", "delivered"}, got)
			require.EqualValues(t, len(statuses), call.Load(), "nothing is sent twice")
		})
	}
}

// TestRepeatedOnClosedConnection shows why a call carries an Idempotency-Key: the transport repeats it when the
// connection it took from the pool breaks before the first byte of an answer, even though the server had it all.
func TestRepeatedOnClosedConnection(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	keys := make(chan string, 10)
	addr := listen(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			keys <- r.Header.Get("Idempotency-Key")
			if calls.Add(1) == 2 {
				return // took the second call and hung up
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	s := newSink(t, config("http://"+addr))
	first, second := sinktest.Event(1, "sid"), sinktest.Event(2, "sid")
	require.NoError(t, send(t, s, first))
	require.NoError(t, send(t, s, second))
	require.Equal(t, []string{first.ID.String(), second.ID.String(), second.ID.String()}, []string{<-keys, <-keys, <-keys})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2 %v", http2), func(t *testing.T) {
			t.Parallel()
			protos := make(chan int, 1)
			far := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { protos <- r.ProtoMajor }))
			far.EnableHTTP2 = http2
			far.Config.ErrorLog = log.New(io.Discard, "", 0)
			far.StartTLS()
			t.Cleanup(far.Close)

			s := newSink(t, config(far.URL))
			err := send(t, s, sinktest.Event(1, "sid"))
			require.ErrorContains(t, err, "certificate", "an unknown authority is not trusted")
			require.False(t, relay.IsPermanent(err))

			pool := x509.NewCertPool()
			pool.AddCert(far.Certificate())
			trusting := newSink(t, config(far.URL))
			trusting.Trust(pool)
			require.NoError(t, send(t, trusting, sinktest.Event(1, "sid")))
			require.Equal(t, map[bool]int{false: 1, true: 2}[http2], <-protos)
		})
	}
}

// TestConnectionsAreKept: with the default of two idle connections a busy sink dials for nearly every call.
func TestConnectionsAreKept(t *testing.T) {
	t.Parallel()
	const lanes, rounds = 8, 5
	var dialled atomic.Int64
	arrived, answer := make(chan struct{}), make(chan struct{})
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-answer
		io.WriteString(w, "an answer that has to be read before the connection can be used again")
	}))
	far.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			dialled.Add(1)
		}
	}
	far.Start()
	t.Cleanup(far.Close)
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Concurrency = lanes }))
	for round := range rounds { // all lanes in flight, then all idle
		var sends sync.WaitGroup
		for lane := range lanes {
			sends.Go(func() {
				e := sinktest.Event(round, fmt.Sprint(lane))
				if _, err := s.Send(t.Context(), s.Lane(e), sinktest.Batch(e)); err != nil {
					t.Error(err)
				}
			})
		}
		for range lanes {
			<-arrived
		}
		for range lanes {
			answer <- struct{}{}
		}
		sends.Wait()
	}
	require.EqualValues(t, lanes, dialled.Load())
}

// TestHTTP2Streams: a server that allows few calls per connection gets more connections, and no call is stuck.
func TestHTTP2Streams(t *testing.T) {
	t.Parallel()
	const lanes, rounds = 16, 4
	var taken atomic.Int64
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			taken.Add(1)
		}
	}))
	far.EnableHTTP2 = true
	far.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 2}
	far.StartTLS()
	t.Cleanup(far.Close)
	pool := x509.NewCertPool()
	pool.AddCert(far.Certificate())
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.Concurrency = lanes }))
	s.Trust(pool)
	var sends sync.WaitGroup
	for lane := range lanes {
		sends.Go(func() {
			for n := range rounds {
				e := sinktest.Event(n, fmt.Sprint(lane))
				if _, err := s.Send(t.Context(), s.Lane(e), sinktest.Batch(e)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sends.Wait()
	require.EqualValues(t, lanes*rounds, taken.Load())
}

// TestAnswersAreReadNoFurther: of an endless body, no more leaves the far side than what is read and what sockets hold.
func TestAnswersAreReadNoFurther(t *testing.T) {
	t.Parallel()
	written := make(chan int, 1)
	addr := listen(t, func(c net.Conn) {
		readCall(c)
		io.WriteString(c, "HTTP/1.1 500 No\r\n\r\n")
		total := 0
		for n, err := c.Write(make([]byte, 64<<10)); err == nil; n, err = c.Write(make([]byte, 64<<10)) {
			total += n
		}
		written <- total
	})
	require.ErrorContains(t, send(t, newSink(t, config("http://"+addr)), sinktest.Event(1, "sid")), "500")
	require.Less(t, <-written, 16<<20)
}

// TestHandshakesThatHangAreGivenUp: the call ends with its time-out, and the connection with it.
func TestHandshakesThatHangAreGivenUp(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{}, 1)
	addr := listen(t, func(c net.Conn) { hold(c); ended <- struct{}{} })
	s := newSink(t, config("https://"+addr, func(c *httpsink.Config) { c.Timeout = time.Second }))
	require.Equal(t, "tried again", verdict(send(t, s, sinktest.Event(1, "sid"))))
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		require.Fail(t, "the connection stays")
	}
}

// TestAnswerBeforeTheCallIsRead: a receiver with a limit of its own answers the head of a large call. Its verdict counts.
func TestAnswerBeforeTheCallIsRead(t *testing.T) {
	t.Parallel()
	addr := listen(t, func(c net.Conn) {
		c.Read(make([]byte, 500))
		io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		hold(c) // as servers do: hanging up with unread bytes would take the answer away from us too
	})
	e := sinktest.Event(1, "sid")
	e.Body = bytes.Repeat([]byte("x"), 4<<20)
	s := newSink(t, config("http://"+addr))
	for range 20 {
		require.Equal(t, "dead letter", verdict(send(t, s, e)))
	}
}

func TestBatchStopsAtTheFirstFailure(t *testing.T) {
	t.Parallel()
	far := newReceiver(t)
	s := newSink(t, config(far.URL))
	first, second, third := sinktest.Event(1, "sid"), sinktest.Event(2, "sid"), sinktest.Event(3, "sid")
	far.set(http.StatusBadGateway)(second.ID.String())
	taken, err := s.Send(t.Context(), s.Lane(first), sinktest.Batch(first, second, third))
	require.Equal(t, 1, taken)
	require.ErrorContains(t, err, "502")
	require.Len(t, far.all(t), 1)
}

// listen runs serve for every connection, closes it afterwards, and waits at the end of the test for all.
func listen(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

// hold keeps a connection open until the other side closes it.
func hold(c net.Conn) { io.Copy(io.Discard, c) }

// trickle sends text again and again, slowly, for as long as somebody listens.
func trickle(c net.Conn, text string) {
	for _, err := io.WriteString(c, text); err == nil; _, err = io.WriteString(c, text) {
		time.Sleep(10 * time.Millisecond) // is the fault, not a wait for something
	}
}

// readCall reads one call and returns its head.
func readCall(c net.Conn) (head []string, body []byte) {
	in := bufio.NewReader(c)
	length := 0
	for {
		line, err := in.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if err != nil || line == "" {
			break
		}
		fmt.Sscanf(line, "Content-Length: %d", &length)
		head = append(head, line)
	}
	body = make([]byte, length)
	io.ReadFull(in, body)
	return head, body
}

// BenchmarkSend compares the sink with the same calls made by a bare http.Client in the same run, 16 at a time, and with calls that
// carry nothing but the body. The receiver's own time and allocations are in all of them.
func BenchmarkSend(b *testing.B) {
	var header http.Header
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	defer far.Close()
	e := sinktest.Event(1, "sid")
	b.Run("sink", func(b *testing.B) {
		s, err := httpsink.New(config(far.URL), "ncs-relay/test", slog.New(slog.DiscardHandler))
		require.NoError(b, err)
		defer s.Close()
		batch, lane := sinktest.Batch(e), s.Lane(e)
		header = s.Header(batch[0])
		parallel(b, func() error {
			_, err := s.Send(b.Context(), lane, batch)
			return err
		})
	})
	bare := func(header http.Header) func(b *testing.B) {
		return func(b *testing.B) {
			transport := &http.Transport{MaxIdleConns: 16, MaxIdleConnsPerHost: 16}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
			parallel(b, func() error {
				req, err := http.NewRequest("POST", far.URL, bytes.NewReader(e.Body))
				if err != nil {
					return err
				}
				req.Header = header
				answer, err := client.Do(req)
				if err != nil {
					return err
				}
				defer answer.Body.Close()
				_, err = io.Copy(io.Discard, answer.Body)
				return err
			})
		}
	}
	b.Run("bare client, same headers", bare(header))
	b.Run("bare client, no headers", bare(http.Header{"Content-Type": {"application/json"}}))
}

// parallel also reports the CPU time of a call, which other work on the machine changes less than its wall time.
func parallel(b *testing.B, call func() error) {
	b.ReportAllocs()
	began := relaytest.CPU(b)
	b.SetParallelism(16 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64((relaytest.CPU(b)-began).Microseconds())/float64(b.N), "cpu-µs/op")
}
