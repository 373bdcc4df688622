package httpsink_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/sinktest"
)

// posted returns the target of the call for e, as it was on the wire, and the error.
func posted(t *testing.T, path string, e *relay.Event) (string, error) {
	t.Helper()
	var target string
	far := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { target = r.RequestURI }))
	defer far.Close()
	s := newSink(t, config(far.URL+path))
	err := send(t, s, e)
	require.NoError(t, s.Close())
	return target, err
}

func TestPlaceholders(t *testing.T) {
	t.Parallel()
	tests := []struct{ path, entity, want string }{ // want "": dead letter
		{"/{product}/{category}/{event}", "x", "/cloud_recording/recorder/recorder_slice_start"},
		{"/rooms/{channel}/x", "x", "/rooms/room/x"},
		{"?room={channel}&e={entity}", "a&b=c#d", "/?room=room&e=a%26b%3Dc%23d"},
		{"/e/{entity}?a=b", "sid 1+ä?#;:@", "/e/sid%201%2B%C3%A4%3F%23%3B%3A%40?a=b"},
		{"/e/{entity}", "http://evil.example/", ""},
		{"/e/{entity}", "", ""},
		{"/e/{entity}", ".", ""},
		{"/e/{entity}", "..", ""},
		{"/e/{entity}", "%2e%2E", ""},
		{"/e/{entity}", "a/../../b", ""},
		{"/e/{entity}", "a%2fb", ""},
		{"/e/{entity}", "a%252fb", ""},
		{"/e/{entity}", "a%25252Fb", ""},
		{"/e/{entity}", `a\b`, ""},
		{"/e/{entity}", "a%5cb", ""},
		{"/e/{entity}", "a\r\nHost: evil", ""},
		{"/e/{entity}", "a%00", ""},
		{"/e/{entity}", strings.Repeat("a", 2000), ""},
		{"/e/{entity}", "..;", ""},
		{"/e/{entity}", "..%3bx=y", ""},
		{"/e/{entity}", ";x", ""},
		{"/e/{entity}", "\x00", ""},
		{"/e/{entity}", "a\tb", ""},
		{"/e/{entity}", "a;b", "/e/a%3Bb"},
		{"/e/{entity}", "@evil.example:80", "/e/%40evil.example%3A80"},
		{"/e/{entity}", "\uff0e\uff0e\u2215\u2024", "/e/%EF%BC%8E%EF%BC%8E%E2%88%95%E2%80%A4"}, // look like ../.
		{"/e/{entity}", "{channel}", "/e/%7Bchannel%7D"},
		{"/e/.{entity}", ".", ""},
		{"/e/.{entity}", ".;", ""},
		{"/e/%2e{entity}", ".", ""},
		{"/e/{entity}{channel}", "", "/e/room"},
		{"/e/x{entity}", "", "/e/x"},
		{"/e/{entity}x", "..", "/e/..x"},
		{"/e/{entity}", "50%", "/e/50%25"},
		{"/e/{entity}", "...", "/e/..."},
		{"/e?{entity}", "../a/b%2f", "/e?..%2Fa%2Fb%252f"},
		{"/e?x={entity}", "", "/e?x="},
	}
	for _, tt := range tests {
		got, err := posted(t, tt.path, sinktest.Event(1, tt.entity))
		if tt.want == "" {
			require.Equal(t, "dead letter", verdict(err), "%s with %q", tt.path, tt.entity)
			require.ErrorContains(t, err, "no URL for this event")
			require.Equal(t, relay.ReasonEvent, relay.ReasonOf(err))
			require.Empty(t, got)
			continue
		}
		require.NoError(t, err, "%s with %q", tt.path, tt.entity)
		require.Equal(t, tt.want, got)
	}
}

func TestChannelOfABodyWithoutOneIsMissing(t *testing.T) {
	t.Parallel()
	e := sinktest.Event(1, "sid")
	e.Body = []byte("not JSON")
	_, err := posted(t, "/{channel}", e)
	require.Equal(t, "dead letter", verdict(err))
}

// FuzzPlaceholders: whatever an entity is, it is one segment of the path and one value of the query, and nothing else of the
// URL changes.
func FuzzPlaceholders(f *testing.F) {
	for _, entity := range []string{"sid", "..", "a/b", "%2f", "%252e%252e", "\\", "?x=y#z", "@evil.example", "ä\x00\xff", ";", "//", "%", "%%32%66", "{event}", "..;/", "\u2025", "\xc0\xae"} {
		f.Add(entity)
	}
	s, err := httpsink.ParseTarget("https://billing.internal:8443/a/{entity}/b?x={entity}&y=1")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, entity string) {
		raw, err := s(&relay.Event{Entity: entity})
		if err != nil {
			return
		}
		u, err := url.Parse(raw)
		require.NoError(t, err)
		require.Equal(t, "https", u.Scheme)
		require.Equal(t, "billing.internal:8443", u.Host)
		require.Nil(t, u.User)
		require.Empty(t, u.Fragment)
		require.Equal(t, "/a/"+entity+"/b", u.Path)
		require.Equal(t, 4, len(strings.Split(u.EscapedPath(), "/")))
		require.Equal(t, url.Values{"x": {entity}, "y": {"1"}}, u.Query())
		// What a server does that decodes once more than it should, and then cleans the path.
		again, err := url.PathUnescape(u.Path)
		if err != nil {
			again = u.Path
		}
		require.Equal(t, 4, len(strings.Split(strings.ReplaceAll(again, `\`, "/"), "/")))
		segment, _, _ := strings.Cut(strings.Split(again, "/")[2], ";")
		require.NotContains(t, []string{"", ".", ".."}, segment)
	})
}
