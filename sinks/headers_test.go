package sinks_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
	"ncs-relay/sinks"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/kafkasink"
)

// What is said of the headers is what arrives.
func TestHeadersAreThoseThatArrive(t *testing.T) {
	t.Parallel()
	received := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r.Header }))
	t.Cleanup(server.Close)
	receiver := new(httpsink.Config)
	receiver.SetDefaults()
	receiver.URL, receiver.CloudEvents, receiver.BearerToken = server.URL, true, relay.NewSecret("canary")
	receiver.Headers = map[string]relay.Secret{"x-team": relay.NewSecret("a"), "Host": relay.NewSecret("b")}
	receiver.StandardWebhooks = &httpsink.StandardWebhooks{Secrets: []relay.Secret{relay.NewSecret("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")}}
	c := sinks.Config{Name: "billing", Kind: receiver}
	sink, err := c.Spec("ncs-relay/test", slog.New(slog.DiscardHandler)).Build()
	require.NoError(t, err)
	t.Cleanup(func() { sink.Close() })

	least := relay.Event{Info: ncs.Builtin().Lookup(3, 31), Source: "main", ReceivedAt: time.Now(), Body: []byte("{}")}
	full := least
	full.Entity, full.ContentType, full.SignatureV1, full.SignatureV2 = "e", "application/json", "1", "2"
	var always, all []string
	for _, h := range c.Headers() {
		all = append(all, h.Name)
		if h.Always {
			always = append(always, h.Name)
		}
	}
	for _, test := range []struct {
		attempt relay.Attempt
		want    []string
	}{
		{relay.Attempt{Event: &least, Number: 1}, always},
		{relay.Attempt{Event: &full, Number: 1, Replay: 3, Test: true, Traceparent: "00-1-2-01"}, all},
	} {
		_, err := sink.Send(t.Context(), sink.Lane(test.attempt.Event), []relay.Attempt{test.attempt})
		require.NoError(t, err)
		header := <-received
		for _, transport := range []string{"User-Agent", "Content-Length", "Accept-Encoding"} {
			header.Del(transport)
		}
		var names []string
		for name := range header {
			names = append(names, name)
		}
		require.ElementsMatch(t, test.want, names)
	}
}

func TestEveryHeaderIsExplained(t *testing.T) {
	t.Parallel()
	for _, c := range []sinks.Config{
		{Kind: &httpsink.Config{CloudEvents: true, StandardWebhooks: &httpsink.StandardWebhooks{}}},
		{Kind: &kafkasink.Config{CloudEvents: true}},
	} {
		headers := c.Headers()
		require.Greater(t, len(headers), 15)
		require.False(t, slices.ContainsFunc(headers, func(h sinks.Header) bool { return h.Text == "as the configuration of the sink says" }), headers)
	}
}
