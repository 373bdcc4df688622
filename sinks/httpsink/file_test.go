package httpsink_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// TestSecretsOfFilesAreFollowed also sees the answers' echoes masked, of the new secrets as of the old ones.
func TestSecretsOfFilesAreFollowed(t *testing.T) {
	t.Parallel()
	headers := make(chan http.Header, 1)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header.Clone()
		w.WriteHeader(http.StatusForbidden)
		_, password, _ := r.BasicAuth()
		w.Write([]byte(strings.Join([]string{password, r.Header.Get("Authorization"), r.Header.Get("X-Key")}, " ")))
	}))
	t.Cleanup(far.Close)
	names := files(t, []byte("canary-1\n"), []byte("canary-key-1\r\n"), []byte(webhookSecret))
	basic := newSink(t, config(far.URL, func(c *httpsink.Config) {
		c.BasicAuth = &httpsink.BasicAuth{Username: "relay", PasswordFile: names[0]}
		c.HeaderFiles = map[string]string{"x-key": names[1]}
		c.StandardWebhooks = &httpsink.StandardWebhooks{SecretFiles: names[2:]}
	}))
	bearer := newSink(t, config(far.URL, func(c *httpsink.Config) { c.BearerTokenFile = names[0] }))
	call := func(s *httpsink.Sink) http.Header {
		s.LookAgain()
		err := send(t, s, sinktest.Event(1, "sid"))
		require.ErrorContains(t, err, "403 Forbidden")
		require.NotContains(t, err.Error(), "canary")
		return <-headers
	}
	requirePassword := func(want string, h http.Header) {
		_, password, _ := (&http.Request{Header: h}).BasicAuth()
		require.Equal(t, want, password)
	}

	h := call(basic)
	requirePassword("canary-1", h)
	require.Equal(t, "canary-key-1", h.Get("X-Key"))
	require.Equal(t, 1, strings.Count(h.Get("Webhook-Signature"), "v1,"))
	require.Equal(t, "Bearer canary-1", call(bearer).Get("Authorization"))

	write(t, names[0], []byte("canary-2"))                                     // replaced
	require.NoError(t, os.WriteFile(names[1], []byte("canary-key-22"), 0o600)) // written over
	h = call(basic)
	requirePassword("canary-2", h)
	require.Equal(t, "canary-key-22", h.Get("X-Key"))
	require.Equal(t, "Bearer canary-2", call(bearer).Get("Authorization"))

	for _, unusable := range []string{"", "canary\nline", strings.Repeat("a", 70_000)} {
		write(t, names[0], []byte(unusable))
		require.Equal(t, "Bearer canary-2", call(bearer).Get("Authorization"))
	}
	require.NoError(t, os.Remove(names[0]))
	require.Equal(t, "Bearer canary-2", call(bearer).Get("Authorization"))
	write(t, names[0], []byte("canary-3"))
	require.Equal(t, "Bearer canary-3", call(bearer).Get("Authorization"))

	before, err := os.Stat(names[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(names[0], []byte("canary-4"), 0o600))
	require.NoError(t, os.Chtimes(names[0], before.ModTime(), before.ModTime()))
	require.Equal(t, "Bearer canary-4", call(bearer).Get("Authorization"), "the same file by number, size and time")
}

func TestConfigIsNotChangedByItsFiles(t *testing.T) {
	t.Parallel()
	names := files(t, []byte("canary"), []byte(webhookSecret))
	cfg := config("https://billing.internal", func(c *httpsink.Config) {
		c.Headers = map[string]relay.Secret{"X-A": relay.NewSecret("a")}
		c.HeaderFiles = map[string]string{"X-B": names[0]}
		c.BasicAuth = &httpsink.BasicAuth{Username: "relay", PasswordFile: names[0]}
		c.StandardWebhooks = &httpsink.StandardWebhooks{Secrets: []relay.Secret{relay.NewSecret(webhookSecret)}, SecretFiles: names[1:]}
	})
	newSink(t, cfg)
	require.Len(t, cfg.Headers, 1, "a reload compares configurations")
	require.False(t, cfg.BasicAuth.Password.IsSet())
	require.Len(t, cfg.StandardWebhooks.Secrets, 1)
}

func TestConnectionsOfOldCredentialsAreClosed(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 10)
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	far.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	far.Start()
	t.Cleanup(far.Close)
	names := files(t, []byte("canary-1"))
	s := newSink(t, config(far.URL, func(c *httpsink.Config) { c.BearerTokenFile, c.IdleTimeout = names[0], time.Hour }))
	require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
	write(t, names[0], []byte("canary-2"))
	s.LookAgain()
	require.NoError(t, send(t, s, sinktest.Event(2, "sid")))
	select {
	case <-closed:
	case <-time.After(30 * time.Second):
		require.Fail(t, "the connection stays")
	}
}
