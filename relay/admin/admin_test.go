package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ncs-relay/relay"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "canary-token"

type fixture struct {
	*admin.Server
	ready   atomic.Bool
	gateway *operations
	status  func(context.Context) (any, error) // set before the first request
	log     bytes.Buffer
	client  *http.Client
	stop    func() error
}

// setup runs a server on a free port of the host.
func setup(t *testing.T, host, token string) *fixture {
	t.Helper()
	f := &fixture{client: &http.Client{Transport: new(http.Transport)}, gateway: new(operations)}
	f.ready.Store(true)
	f.status = func(context.Context) (any, error) { return map[string]int{"accepted": 7}, nil }
	f.Server = admin.New(admin.Config{Listen: net.JoinHostPort(host, "0"), Token: relay.NewSecret(token)}, admin.Options{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up 1\n") }),
		Ready:   func() (bool, string) { return f.ready.Load(), "journal is reopening" },
		Status:  func(ctx context.Context) (any, error) { return f.status(ctx) },
		Gateway: f.gateway,
		Log:     slog.New(slog.NewJSONHandler(&f.log, nil)),
	})
	require.Empty(t, f.Addr())
	require.NoError(t, f.Listen())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	f.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		require.NoError(t, f.stop())
		f.client.CloseIdleConnections()
	})
	return f
}

// do sends a request to the server's port on loopback. Headers come in pairs; "Host" sets the host.
func (f *fixture) do(t *testing.T, method, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	return f.send(t, method, path, "", headers...)
}

// send is do with a body.
func (f *fixture) send(t *testing.T, method, path, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	_, port, err := net.SplitHostPort(f.Addr())
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+port+path, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Host = r.Header.Get("Host")
	resp, err := f.client.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(answer)
}

func TestOpenPages(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/metrics", 200, "up 1\n"},
		{"GET", "/livez", 200, `{"alive":true}`},
		{"GET", "/readyz", 200, `{"ready":true}`},
		{"HEAD", "/readyz", 200, ""},
		{"GET", "/api/v1/status", 200, `{"accepted":7}`},
		{"GET", "/api/v1/status?x=1", 200, `{"accepted":7}`},
		{"POST", "/api/v1/status", 405, `{"error":"method not allowed"}`},
		{"DELETE", "/metrics", 405, `{"error":"method not allowed"}`},
		{"GET", "/api/", 404, `{"error":"not found"}`},
		{"GET", "/", 404, `{"error":"not found"}`},
		{"GET", "/debug/pprof/", 404, `{"error":"not found"}`},
		{"GET", "/readyz/", 404, `{"error":"not found"}`},
	} {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			resp, body := f.do(t, tt.method, tt.path)
			require.Equal(t, tt.status, resp.StatusCode)
			require.Equal(t, strings.TrimSpace(tt.body), strings.TrimSpace(body))
			require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
			require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
			if tt.path != "/metrics" {
				require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			}
			if tt.status == http.StatusMethodNotAllowed {
				require.Equal(t, "GET, HEAD", resp.Header.Get("Allow"))
			}
		})
	}
}

func TestReadinessChanges(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	f.ready.Store(false)
	resp, body := f.do(t, "GET", "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	var got admin.Readiness
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Empty(t, cmp.Diff(admin.Readiness{Reason: "journal is reopening"}, got))
	resp, _ = f.do(t, "GET", "/livez")
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestStatusThatCannotBeGiven(t *testing.T) {
	t.Parallel()
	t.Run("failed", func(t *testing.T) {
		t.Parallel()
		f := setup(t, "127.0.0.1", "")
		f.status = func(context.Context) (any, error) { return nil, errors.New("journal is closed") }
		resp, body := f.do(t, "GET", "/api/v1/status")
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
		require.NotContains(t, body, "journal is closed")
		require.NoError(t, f.stop())
		require.Contains(t, f.log.String(), "journal is closed")
	})
	t.Run("not JSON", func(t *testing.T) {
		t.Parallel()
		f := setup(t, "127.0.0.1", "")
		f.status = func(context.Context) (any, error) { return math.NaN(), nil }
		resp, body := f.do(t, "GET", "/api/v1/status")
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode)
		require.True(t, json.Valid([]byte(body)))
	})
}

// Who may call the API, and who may read the pages that are open.
func TestAccess(t *testing.T) {
	t.Parallel()
	const bearer = "Bearer " + canary
	for _, tt := range []struct {
		name, host, token string
		headers           []string
		api, page         int
	}{
		{"loopback", "127.0.0.1", "", nil, 200, 200},
		{"loopback by name", "localhost", "", []string{"Host", "LOCALHOST:9464"}, 200, 200},
		{"loopback by IPv6", "127.0.0.1", "", []string{"Host", "[::1]"}, 200, 200},
		{"loopback by a rebound name", "127.0.0.1", "", []string{"Host", "evil.example.com"}, 403, 200},
		{"loopback by a rebound name with port", "127.0.0.1", "", []string{"Host", "localhost.example.com:9464"}, 403, 200},
		{"loopback by another address", "127.0.0.1", "", []string{"Host", "192.0.2.1:9464"}, 403, 200},
		{"loopback by a service's name", "127.0.0.1", "", []string{"Host", "ncs-relay.monitoring.svc:9464"}, 403, 200},
		{"an unwanted token on loopback", "127.0.0.1", "", []string{"Authorization", bearer}, 200, 200},
		{"an empty token for none", "127.0.0.1", "", []string{"Host", "evil.example.com", "Authorization", "Bearer "}, 403, 200},
		{"loopback wants a token that is there", "127.0.0.1", canary, nil, 401, 200},
		{"loopback behind a proxy", "127.0.0.1", canary, []string{"Host", "relay.example.com", "Authorization", bearer}, 200, 200},
		{"loopback by a rebound name, wrong token", "127.0.0.1", canary, []string{"Host", "evil.example.com", "Authorization", "Bearer x"}, 403, 200},
		{"open without token", "0.0.0.0", "", nil, 403, 200},
		{"open without token, any header", "0.0.0.0", "", []string{"Authorization", bearer, "Host", "localhost"}, 403, 200},
		{"open without token, empty one sent", "0.0.0.0", "", []string{"Authorization", "Bearer "}, 403, 200},
		{"everywhere without token", "", "", nil, 403, 200},
		{"open with token", "0.0.0.0", canary, []string{"Authorization", bearer}, 200, 200},
		{"open with token, any host", "0.0.0.0", canary, []string{"Authorization", "bearer " + canary, "Host", "relay.example.com"}, 200, 200},
		{"open, no token", "0.0.0.0", canary, nil, 401, 200},
		{"open, wrong token", "0.0.0.0", canary, []string{"Authorization", "Bearer canary-tokem"}, 401, 200},
		{"open, start of the token", "0.0.0.0", canary, []string{"Authorization", "Bearer canary"}, 401, 200},
		{"open, empty token", "0.0.0.0", canary, []string{"Authorization", "Bearer "}, 401, 200},
		{"open, other scheme", "0.0.0.0", canary, []string{"Authorization", "Basic " + canary}, 401, 200},
		{"open, no scheme", "0.0.0.0", canary, []string{"Authorization", canary}, 401, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, tt.host, tt.token)
			for path, want := range map[string]int{
				"/api/v1/status": tt.api, "/metrics": tt.page, "/livez": tt.page, "/readyz": tt.page,
			} {
				resp, body := f.do(t, "GET", path, tt.headers...)
				require.Equal(t, want, resp.StatusCode, path)
				require.NotContains(t, body+fmt.Sprint(resp.Header), canary)
				require.Equal(t, want == http.StatusUnauthorized, resp.Header.Get("WWW-Authenticate") == "Bearer")
			}
			if tt.api == http.StatusForbidden && tt.host == "127.0.0.1" { // the page is guarded as the API is
				resp, _ := f.do(t, "GET", "/", tt.headers...)
				require.Equal(t, http.StatusForbidden, resp.StatusCode)
			}
			if tt.api != http.StatusOK { // which paths there are is not told either
				resp, _ := f.do(t, "GET", "/api/no/such", tt.headers...)
				require.Equal(t, tt.api, resp.StatusCode)
			}
			require.NoError(t, f.stop())
			require.NotContains(t, f.log.String(), canary)
			require.NotContains(t, fmt.Sprintf("%+v", admin.Config{Token: relay.NewSecret(canary)}), canary)
		})
	}
}

func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example.com"},
		{"Origin", "null"},
	} {
		resp, body := f.do(t, "POST", "/api/v1/status", headers...)
		require.Equal(t, http.StatusForbidden, resp.StatusCode, headers)
		require.JSONEq(t, `{"error":"cross-origin request"}`, body)
	}
	resp, _ := f.do(t, "POST", "/api/v1/status", "Sec-Fetch-Site", "same-origin")
	require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode, "an origin of our own may")
}

func TestRunLetsAnswersFinish(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	inside, goOn := make(chan struct{}), make(chan struct{})
	f.status = func(context.Context) (any, error) { close(inside); <-goOn; return "done", nil }
	answer := make(chan string, 1)
	go func() {
		_, body := f.do(t, "GET", "/api/v1/status")
		answer <- body
	}()
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- f.stop() }()
	require.Eventually(t, func() bool { // closed for new calls, while the old one waits
		conn, err := net.Dial("tcp", f.Addr())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 10*time.Second, time.Millisecond)
	close(goOn)
	require.Equal(t, "\"done\"\n", <-answer)
	require.NoError(t, <-stopped)
}

// A probe that is not answered restarts the relay.
func TestCrowdsOfIdleAndSlowClientsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"idle after a call": "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"slow headers":      "GET /livez HTTP/1.1\r\nHost: ",
		"slow body":         "POST /api/v1/replays HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
		"silent":            "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, "127.0.0.1", "")
			for range 600 {
				conn, err := net.Dial("tcp", f.Addr())
				require.NoError(t, err)
				defer conn.Close()
				io.WriteString(conn, request) // fails where the connection was given to another
			}
			for range 3 {
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // the time-outs for the slow begin at 5 s
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, "GET", "http://"+f.Addr()+"/livez", nil)
				require.NoError(t, err)
				resp, err := f.client.Do(r)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, http.StatusOK, resp.StatusCode)
			}
		})
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	other := admin.New(admin.Config{Listen: f.Addr()}, admin.Options{Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, other.Listen(), "admin address")
	require.Error(t, other.Run(t.Context()))
	addr := f.Addr()
	require.NoError(t, f.Listen(), "a second call changes nothing")
	require.Equal(t, addr, f.Addr())
}

// raw sends bytes and reads one HTTP/1 answer.
func (f *fixture) raw(t *testing.T, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", f.Addr())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	resp.Body.Close()
	return resp
}

func TestOldAndNewHTTP(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	require.Equal(t, http.StatusOK, f.raw(t, "GET /livez HTTP/1.0\r\n\r\n").StatusCode, "a probe without Host")
	f.raw(t, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") // HTTP/2 would answer a frame, which is no HTTP/1 answer
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:9464":         "",
		":9464":                  "",
		"[::1]:0":                "",
		"relay.internal:9464":    "",
		"":                       `listen: "" is not an address`,
		"9464":                   `listen: "9464" is not an address`,
		"127.0.0.1":              `listen: "127.0.0.1" is not an address`,
		"127.0.0.1:metrics":      `listen: port "metrics" is not a number from 0 to 65535`,
		"127.0.0.1:65536":        `listen: port "65536" is not a number from 0 to 65535`,
		"http://127.0.0.1:9464/": `listen: "http://127.0.0.1:9464/" is not an address`,
	} {
		t.Run(listen, func(t *testing.T) {
			t.Parallel()
			var got string
			cfg := admin.Config{Listen: listen, Token: relay.NewSecret(canary)}
			cfg.Check(func(path, message, hint string, values ...any) {
				message, hint = problem.Text(nil, message, hint, values...)
				got = path + ": " + message
				require.NotContains(t, message+hint, canary)
			})
			require.Equal(t, want, got)
		})
	}
	var cfg admin.Config
	cfg.SetDefaults()
	cfg.Check(func(path, message, _ string, _ ...any) { t.Errorf("%s: %s", path, message) })
}

// Handler alone judges by the configured address, so it can be mounted in tests.
func TestHandlerWithoutListening(t *testing.T) {
	t.Parallel()
	s := admin.New(admin.Config{Listen: "0.0.0.0:9464"}, admin.Options{Metrics: http.NotFoundHandler()})
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/status", nil))
	require.Equal(t, http.StatusForbidden, w.Code)
}
