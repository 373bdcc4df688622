package relaytest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Reply is what a call was answered.
type Reply struct {
	Code   int `json:"-"`
	Status string
	Event  string
	Error  string
	Header http.Header `json:"-"`
	Raw    string      `json:"-"`
}

// Request makes a call and reads the answer.
func Request(t testing.TB, method, url string, body []byte, headers ...string) Reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	return ReadReply(t, resp)
}

// ReadReply reads an answer, each of which is JSON.
func ReadReply(t testing.TB, resp *http.Response) Reply {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	r := Reply{Code: resp.StatusCode, Header: resp.Header, Raw: string(b)}
	require.NoError(t, json.Unmarshal(b, &r), "every answer is JSON: %s", b)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	return r
}
