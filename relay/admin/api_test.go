package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
)

// operations notes what it is asked for, and answers what it is told to.
type operations struct {
	mu     sync.Mutex
	calls  []string // guarded by mu, as levers
	levers []gateway.Lever

	begun   []gateway.ReplayStatus
	err     error
	body    []byte // of dead letters
	entered func(context.Context)
}

func (g *operations) Catalogue() *ncs.Catalogue { return ncs.Builtin() }

func (g *operations) Listen(f relay.Filter) (*ingress.Listener, error) {
	return nil, g.note("listen %s", f)
}
func (g *operations) Heard(*journal.Record) gateway.Heard { return gateway.Heard{} }

func (g *operations) note(format string, args ...any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, fmt.Sprintf(format, args...))
	return g.err
}

// take returns what was asked since the last time.
func (g *operations) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	calls := g.calls
	g.calls = nil
	return calls
}

func shown(f any) string {
	b, err := json.Marshal(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (g *operations) Sinks() []gateway.SinkStatus {
	_ = g.note("status")
	return []gateway.SinkStatus{{Name: "billing", Paused: "why"}}
}

func (g *operations) PauseSink(ctx context.Context, name, reason string, until time.Time) error {
	if g.entered != nil {
		g.entered(ctx)
	}
	if !until.IsZero() {
		return g.note("pause %s: %s, ends in %s", name, reason, time.Until(until).Round(time.Minute))
	}
	return g.note("pause %s: %s", name, reason)
}
func (g *operations) ResumeSink(_ context.Context, name string) error {
	return g.note("resume %s", name)
}
func (g *operations) MoveSink(_ context.Context, from, to string) (moved, skipped uint64, err error) {
	return 3, 1, g.note("move %s to %s", from, to)
}
func (g *operations) DropSink(_ context.Context, name string, after uint32, _ *journal.Ends) (uint64, error) {
	if after > 0 {
		return 4, g.note("drop %s after %d", name, after)
	}
	return 4, g.note("drop %s", name)
}

var info = gateway.EventInfo{ID: ncs.EventID{0xab}, Position: journal.Position{Offset: 8}, Product: "rtc", Event: "channel_create"}

func (g *operations) Pending(f relay.Filter, p gateway.Page, n int) ([]gateway.Delivery, *gateway.Page, error) {
	d := []gateway.Delivery{{Sink: "billing", EventInfo: info}}
	if p.After.IsZero() {
		return d, &gateway.Page{Sink: "billing", After: journal.Position{Offset: 8}}, g.note("pending %s %d", shown(f), n)
	}
	return d, nil, g.note("pending %s %d after %s %s", shown(f), n, p.Sink, p.After)
}

func (g *operations) SkipPending(_ context.Context, f relay.Filter, _ *journal.Ends) (int, error) {
	return 5, g.note("skip %s", shown(f))
}

func (g *operations) DeadLetters(f relay.Filter, p gateway.Page, n int) ([]gateway.DeadLetter, *gateway.Page, error) {
	return nil, nil, g.note("dead %s %d after %s %s", shown(f), n, p.Sink, p.After)
}

func (g *operations) DeadLetter(sink string, p journal.Position) (gateway.DeadLetter, error) {
	return gateway.DeadLetter{Sink: sink, EventInfo: info, Reason: "refused", Body: g.body}, g.note("letter %s %s", sink, p)
}

func (g *operations) DropDeadLetters(f relay.Filter, _ *journal.Ends) (int, error) {
	return 6, g.note("drop dead %s", shown(f))
}

func (g *operations) DeadLetterGroups(_ context.Context, f relay.Filter) ([]gateway.LetterGroup, error) {
	return nil, g.note("groups %s", shown(f))
}

func (g *operations) Audit(l gateway.Lever) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.levers = append(g.levers, l)
}

func (g *operations) Replay(_ context.Context, r gateway.ReplayRequest) (gateway.ReplayResult, error) {
	if err := g.note("replay %s", shown(r)); err != nil {
		return gateway.ReplayResult{}, err
	}
	return gateway.ReplayResult{Matched: map[string]int{"billing": 2}, Replays: g.begun}, nil
}
func (g *operations) Replays() []gateway.ReplayStatus { _ = g.note("replays"); return nil }
func (g *operations) CancelReplay(_ context.Context, id uint32) error {
	return g.note("cancel %d", id)
}

func (g *operations) Inspect(_ context.Context, f relay.Filter, n int) ([]gateway.Life, bool, error) {
	return []gateway.Life{{EventInfo: info}}, true, g.note("inspect %s %d", shown(f), n)
}

// endpoints are all of the API, each with a request that does something.
var endpoints = []struct {
	method, path, body string
	call               string // of the gateway
	status             int
	answer             string
}{
	{"GET", "/api/v1/sinks", "", "status", 200, ""},
	{"POST", "/api/v1/sinks/billing/pause", `{"reason":"migration"}`, "pause billing: migration", 204, ""},
	{"POST", "/api/v1/sinks/orders/pause", `{"reason":"migration","for":"2h"}`, "pause orders: migration, ends in 2h0m0s", 204, ""},
	{"POST", "/api/v1/sinks/billing/resume", "", "resume billing", 204, ""},
	{"POST", "/api/v1/sinks/old/move", `{"to":"billing"}`, "move old to billing", 200, `{"moved":3,"skipped":1}`},
	{"POST", "/api/v1/sinks/old/drop", "{}", "drop old", 200, `{"dropped":4}`},
	{"POST", "/api/v1/sinks/oldest/drop", `{"after":7}`, "drop oldest after 7", 200, `{"dropped":4}`},
	{"GET", "/api/v1/pending?sink=billing&limit=7", "", `pending {"sink":"billing"} 7`, 200, ""},
	{"POST", "/api/v1/pending/skip", `{"sink":"billing","entity":"s1"}`, `skip {"sink":"billing","entity":"s1"}`, 200, `{"skipped":5}`},
	{"GET", "/api/v1/dead-letters", "", `dead {} 100 after  0`, 200, `{"dead_letters":[]}`},
	{"GET", "/api/v1/dead-letters/groups?sink=billing", "", `groups {"sink":"billing"}`, 200, `{"groups":[]}`},
	{"GET", "/api/v1/dead-letters/billing/8", "", "letter billing 8", 200, ""},
	{"POST", "/api/v1/dead-letters/drop", `{"sink":"billing"}`, `drop dead {"sink":"billing"}`, 200, `{"dropped":6}`},
	{"POST", "/api/v1/dead-letters/replay", `{"sink":"billing"}`, `replay {"sink":"billing","dead_letters":true}`, 200, `{"matched":{"billing":2}}`},
	{"GET", "/api/v1/replays", "", "replays", 200, `{"replays":[]}`},
	{"POST", "/api/v1/replays", `{"entity":"s1"}`, `replay {"entity":"s1"}`, 200, `{"matched":{"billing":2}}`},
	{"DELETE", "/api/v1/replays/7", "", "cancel 7", 204, ""},
	{"GET", "/api/v1/inspect?entity=s1", "", `inspect {"entity":"s1"} 100`, 200, ""},
}

func TestOperations(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, tt := range endpoints {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			resp, body := f.send(t, tt.method, tt.path, tt.body)
			require.Equal(t, tt.status, resp.StatusCode, body)
			require.Equal(t, []string{tt.call}, f.gateway.take())
			switch {
			case tt.status == http.StatusNoContent:
				require.Empty(t, body)
			case tt.answer != "":
				require.JSONEq(t, tt.answer, body)
			}
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
				if knows(method, tt.path) {
					continue
				}
				resp, body := f.send(t, method, tt.path, "")
				require.Equal(t, http.StatusMethodNotAllowed, resp.StatusCode)
				require.Contains(t, resp.Header.Get("Allow"), tt.method)
				require.JSONEq(t, `{"error":"method not allowed"}`, body)
			}
			require.Empty(t, f.gateway.take())
		})
	}
}

func knows(method, path string) bool {
	for _, e := range endpoints {
		if e.method == method && e.path == path {
			return true
		}
	}
	return false
}

// acted returns the levers since the last time, without the moment, in words.
func (g *operations) acted(t *testing.T) (levers []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, l := range g.levers {
		require.WithinDuration(t, time.Now(), l.At, time.Minute)
		levers = append(levers, fmt.Sprintf("%s: %s %s>%s [%s] %d r%d %s %v", l.By, l.Action, l.Sink, l.To, l.Filter, l.Count, l.Replay, l.Reason, l.Err))
	}
	g.levers = nil
	return levers
}

// Every endpoint that changes something says once who did what to how many.
func TestLeversAreAudited(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	want := map[string]string{
		"/api/v1/sinks/billing/pause":  "local: pause billing> [] 0 r0 migration <nil>",
		"/api/v1/sinks/orders/pause":   "local: pause orders> [] 0 r0 migration (for 2h) <nil>",
		"/api/v1/sinks/billing/resume": "local: resume billing> [] 0 r0  <nil>",
		"/api/v1/sinks/old/move":       "local: move old>billing [] 4 r0  <nil>",
		"/api/v1/sinks/old/drop":       "local: drop old> [] 4 r0  <nil>",
		"/api/v1/sinks/oldest/drop":    "local: drop oldest> [] 4 r7  <nil>",
		"/api/v1/pending/skip":         "local: skip billing> [entity=s1] 5 r0  <nil>",
		"/api/v1/dead-letters/drop":    "local: drop_dead_letters billing> [] 6 r0  <nil>",
		"/api/v1/dead-letters/replay":  "local: replay_dead_letters billing> [] 2 r3  <nil>",
		"/api/v1/replays":              "local: replay billing> [entity=s1] 2 r3  <nil>",
		"/api/v1/replays/7":            "local: cancel_replay > [] 0 r7  <nil>",
	}
	f.gateway.begun = []gateway.ReplayStatus{{ID: 3, Sink: "billing"}}
	for _, e := range endpoints {
		f.send(t, e.method, e.path, e.body)
		if e.method == "GET" {
			require.Empty(t, f.gateway.acted(t), e.path)
			continue
		}
		require.Equal(t, []string{want[e.path]}, f.gateway.acted(t))

		f.gateway.err = gateway.ErrNoSink
		f.send(t, e.method, e.path, e.body)
		require.Empty(t, f.gateway.acted(t), "nothing was done")
		f.gateway.err = errors.New("disk is gone")
		f.send(t, e.method, e.path, e.body)
		acted := f.gateway.acted(t)
		require.Contains(t, acted[len(acted)-1], "disk is gone")
		f.gateway.err = nil
	}
	for _, path := range []string{"pending/skip", "dead-letters/drop", "dead-letters/replay", "replays"} {
		resp, body := f.send(t, "POST", "/api/v1/"+path, `{"sink":"billing","entity":"s1","dry_run":true}`)
		require.Equal(t, 200, resp.StatusCode, body)
		require.Empty(t, f.gateway.acted(t), "only counted")
	}
	f.send(t, "POST", "/api/v1/replays", `{"sink":"billing","entity":"s1","to":"archive"}`)
	require.Equal(t, []string{"local: replay billing>archive [entity=s1] 2 r3  <nil>"}, f.gateway.acted(t))
	f.gateway.take()
	f.send(t, "POST", "/api/v1/replays", `{"sink":"old","to":"billing","pending":true}`)
	require.Equal(t, []string{`replay {"sink":"old","to":"billing","pending":true}`}, f.gateway.take())
}

// Whoever shows a token is known by its name, and whoever shows none of them gets nowhere.
func TestNamedTokens(t *testing.T) {
	t.Parallel()
	ada, bob := admin.Token{Name: "ada", Token: relay.NewSecret("token-of-ada")}, admin.Token{Name: "night-shift", Token: relay.NewSecret("token-of-bob")}
	for _, cfg := range []admin.Config{
		{Listen: "0.0.0.0:0", Tokens: []admin.Token{ada, bob}},
		{Listen: "127.0.0.1:0", Tokens: []admin.Token{ada, bob}},
		{Listen: "0.0.0.0:0", Token: relay.NewSecret(canary), Tokens: []admin.Token{ada, bob, {Name: "empty"}}},
	} {
		g := &operations{}
		h := admin.New(cfg, admin.Options{Metrics: http.NotFoundHandler(), Gateway: g, Log: slog.New(slog.DiscardHandler)}).Handler()
		for token, by := range map[string]string{"token-of-ada": "ada", "token-of-bob": "night-shift", canary: "admin", "": "", "token-of-eve": ""} {
			if token == canary && !cfg.Token.IsSet() {
				by = ""
			}
			r := httptest.NewRequest("POST", "/api/v1/sinks/billing/resume", nil)
			r.Host = "localhost"
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if by == "" {
				require.Equal(t, 401, w.Code, token)
				require.Empty(t, g.acted(t))
				continue
			}
			require.Equal(t, 204, w.Code, token)
			require.Equal(t, []string{by + ": resume billing> [] 0 r0  <nil>"}, g.acted(t))
		}
	}
}

func TestTokensThatDoNotTellWhoCalls(t *testing.T) {
	t.Parallel()
	token := relay.NewSecret
	cfg := admin.Config{Listen: ":1", Token: token("one"), Tokens: []admin.Token{
		{"ada", token("two")}, {"ada", token("three")}, {"admin", token("four")}, {"local", token("five")}, {"", token("six")}, {"A B", token("seven")},
		{"bob", token("two")}, {"eve", token("one")}, {"zoe", token("")}}}
	var problems []string
	cfg.Check(func(path, what, hint string, values ...any) {
		what, _ = problem.Text(nil, what, hint, values...)
		problems = append(problems, path+": "+what)
	})
	require.Equal(t, []string{
		`tokens[1].name: name "ada" is taken by admin.tokens[0].name`,
		`tokens[2].name: name "admin" is taken by admin.token`,
		`tokens[3].name: name "local" is taken by whoever calls without a token`,
		`tokens[4].name: no name given`,
		`tokens[5].name: name "A B" is not allowed`,
		`tokens[6].token: the token is that of admin.tokens[0]`,
		`tokens[7].token: the token is that of admin.token`,
		`tokens[8].token: no token given`,
	}, problems)
	(&admin.Config{Listen: ":1", Tokens: []admin.Token{{"ada", token("two")}}}).Check(func(path, what, _ string, _ ...any) { t.Error(path, what) })
}

// Whoever may not see the status may do nothing either.
func TestOperationsAreProtected(t *testing.T) {
	t.Parallel()
	open := setup(t, "127.0.0.1", "")
	withToken := setup(t, "0.0.0.0", canary)
	without := setup(t, "0.0.0.0", "")
	for _, tt := range endpoints {
		for _, c := range []struct {
			name    string
			f       *fixture
			headers []string
			status  int
		}{
			{"foreign Host", open, []string{"Host", "evil.example.com"}, 403},
			{"cross-site", open, []string{"Sec-Fetch-Site", "cross-site"}, 403},
			{"foreign origin", open, []string{"Origin", "https://evil.example.com"}, 403},
			{"no token", withToken, nil, 401},
			{"wrong token", withToken, []string{"Authorization", "Bearer x"}, 401},
			{"off loopback, none configured", without, []string{"Authorization", "Bearer x"}, 403},
		} {
			if tt.method == "GET" && c.status == 403 && c.f == open && c.name != "foreign Host" {
				continue // changes nothing, and the browser does not show the answer
			}
			resp, body := c.f.send(t, tt.method, tt.path, tt.body, c.headers...)
			require.Equal(t, c.status, resp.StatusCode, "%s %s %s", c.name, tt.method, tt.path)
			require.Contains(t, body, `{"error":`)
			require.Empty(t, c.f.gateway.take(), "%s %s %s", c.name, tt.method, tt.path)
		}
		resp, _ := withToken.send(t, tt.method, tt.path, tt.body, "Authorization", "Bearer "+canary)
		require.Equal(t, tt.status, resp.StatusCode)
		require.NotEmpty(t, withToken.gateway.take())
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	const query = "sink=billing&source=recording&product=cloud_recording&event=uploaded&entity=s%201&id=ab000000000000000000000000000000" +
		"&reason=404&since=2026-01-02T03:04:05Z&until=2026-01-02T04:04:05%2B01:00&limit=1000&cursor=billing/41"
	resp, body := f.send(t, "GET", "/api/v1/dead-letters?"+query, "")
	require.Equal(t, 400, resp.StatusCode, "until is since")
	require.Contains(t, body, "until: 2026-01-02T04:04:05+01:00 is not after since")

	resp, body = f.send(t, "GET", "/api/v1/dead-letters?"+strings.Replace(query, "T04:04:05", "T05:04:05", 1), "")
	require.Equal(t, 200, resp.StatusCode, body)
	const filter = `{"sink":"billing","source":"recording","product":"cloud_recording","event":"uploaded","entity":"s 1",` +
		`"id":"ab000000000000000000000000000000","reason":"404","since":"2026-01-02T03:04:05Z","until":"2026-01-02T05:04:05+01:00"}`
	require.Equal(t, []string{"dead " + filter + " 1000 after billing 41"}, f.gateway.take())

	resp, body = f.send(t, "POST", "/api/v1/dead-letters/drop", filter)
	require.Equal(t, 200, resp.StatusCode, body)
	require.Equal(t, []string{"drop dead " + filter}, f.gateway.take())

	resp, body = f.send(t, "POST", "/api/v1/replays", strings.Replace(filter, "{", `{"to":"archive","rate":2.5,"dead_letters":true,"dry_run":true,`, 1))
	require.Equal(t, 200, resp.StatusCode, body)
	require.Equal(t, []string{"replay " + strings.TrimSuffix(filter, "}") + `,"to":"archive","dead_letters":true,"rate":2.5,"dry_run":true}`}, f.gateway.take())
}

func TestEverythingIsAskedForInWords(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, path := range []string{"dead-letters/drop", "dead-letters/replay", "replays"} {
		resp, body := f.send(t, "POST", "/api/v1/"+path, `{"all":true}`)
		require.Equal(t, 200, resp.StatusCode, body)
		require.Len(t, f.gateway.take(), 1)
	}
	resp, body := f.send(t, "POST", "/api/v1/pending/skip", `{"sink":"billing","all":true}`)
	require.Equal(t, 200, resp.StatusCode, body)
	require.Equal(t, []string{`skip {"sink":"billing"}`}, f.gateway.take())
}

func TestDryRunCountsAllPages(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	_, body := f.send(t, "POST", "/api/v1/pending/skip", `{"sink":"billing","all":true,"dry_run":true}`)
	require.JSONEq(t, `{"matched":2}`, body)
	require.Equal(t, []string{`pending {"sink":"billing"} 20000`, `pending {"sink":"billing"} 20000 after billing 8`}, f.gateway.take())
	_, body = f.send(t, "POST", "/api/v1/dead-letters/drop", `{"sink":"billing","dry_run":true}`)
	require.JSONEq(t, `{"matched":0}`, body)
}

func TestPages(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	var page struct {
		Pending []gateway.Delivery
		Next    string
	}
	_, body := f.send(t, "GET", "/api/v1/pending?sink=billing", "")
	require.NoError(t, json.Unmarshal([]byte(body), &page))
	require.Empty(t, cmp.Diff([]gateway.Delivery{{Sink: "billing", EventInfo: info}}, page.Pending))
	require.NotEmpty(t, page.Next)
	_, body = f.send(t, "GET", "/api/v1/pending?sink=billing&cursor="+page.Next, "")
	require.NotContains(t, body, "next\"", "the end")
	require.Contains(t, f.gateway.take(), `pending {"sink":"billing"} 100 after billing 8`)
}

func TestBodyOfADeadLetter(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, body := range []string{"{\"a\":\"ü\"}\n", "", "\xff\x00"} {
		f.gateway.body = []byte(body)
		_, answer := f.send(t, "GET", "/api/v1/dead-letters/billing/8", "")
		var letter admin.Letter
		require.NoError(t, json.Unmarshal([]byte(answer), &letter))
		require.Equal(t, body, string(letter.Bytes()))
		require.Equal(t, "refused", letter.Reason)
	}
}

func TestInspectGivesBodiesOnlyWhereOneEventIsAskedFor(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	id := strings.Repeat("0", 32)
	for query, want := range map[string]int{"entity=e&body=true": 400, "id=" + id + "&body=yes": 400, "id=" + id + "&body=true": 200} {
		resp, answer := f.send(t, "GET", "/api/v1/inspect?"+query, "")
		require.Equal(t, want, resp.StatusCode, answer)
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, tt := range []struct{ method, path, body, problem string }{
		{"GET", "dead-letters?snk=billing", "", `"snk": unknown parameter`},
		{"GET", "dead-letters?Sink=billing", "", `"Sink": unknown parameter`},
		{"GET", "dead-letters?sink=a&sink=b", "", "sink: given 2 times"},
		{"GET", "dead-letters?sink=", "", "sink: empty"},
		{"GET", "dead-letters?sink=a;entity=b", "", "query: "},
		{"GET", "dead-letters?sink=%zz", "", "query: "},
		{"GET", "dead-letters?entity=%ff", "", "query: not UTF-8"},
		{"GET", "dead-letters?product=nonsense", "", "product: "},
		{"GET", "dead-letters?event=31", "", "event: "},
		{"GET", "dead-letters?product=rtc&event=cloud_recording.uploaded", "", "event: "},
		{"GET", "dead-letters?id=12", "", "id: "},
		{"GET", "dead-letters?since=2h", "", `since: "2h" is not a time`},
		{"GET", "dead-letters?until=2026-01-02", "", "until: "},
		{"GET", "dead-letters?limit=0", "", "limit: "},
		{"GET", "dead-letters?limit=1001", "", "limit: "},
		{"GET", "dead-letters?limit=x", "", "limit: "},
		{"GET", "dead-letters?cursor=billing", "", "cursor: "},
		{"GET", "dead-letters?cursor=/3", "", "cursor: "},
		{"GET", "dead-letters?cursor=billing/-3", "", "cursor: "},
		{"GET", "dead-letters/billing/x", "", `"x" is not a position`},
		{"GET", "dead-letters/billing/0", "", `"0" is not a position`},
		{"GET", "dead-letters/billing/1?x=1", "", `"x": unknown parameter`},
		{"GET", "pending?reason=404", "", `"reason": unknown parameter`},
		{"GET", "inspect", "", "id or entity is needed"},
		{"GET", "inspect?sink=billing", "", `"sink": unknown parameter`},
		{"GET", "sinks?x=1", "", `"x": unknown parameter`},
		{"GET", "replays?x=1", "", `"x": unknown parameter`},
		{"POST", "dead-letters/drop", "", "a filter is needed"},
		{"POST", "dead-letters/drop", "{}", "a filter is needed"},
		{"POST", "dead-letters/drop", `{"all":false}`, "a filter is needed"},
		{"POST", "dead-letters/drop", `{"all":true,"sink":"a"}`, "all: "},
		{"POST", "dead-letters/drop", `{"all":"yes"}`, "all: "},
		{"POST", "dead-letters/drop", `{"sink":""}`, "sink: empty"},
		{"POST", "dead-letters/drop", `{"sink":"billing","entity":""}`, "entity: empty"},
		{"POST", "dead-letters/drop", `{"sink":7}`, "sink: "},
		{"POST", "dead-letters/drop", `{"sink":["a"]}`, "sink: "},
		{"POST", "dead-letters/drop", `{"snk":"billing","sink":"a"}`, `"snk": unknown member`},
		{"POST", "dead-letters/drop", `{"Sink":"billing"}`, `"Sink": unknown member`},
		{"POST", "dead-letters/drop", `{"sink":"a","sink":"b"}`, "the body is not JSON"},
		{"POST", "dead-letters/drop", `{"sink":"a"}{}`, "the body is not JSON"},
		{"POST", "dead-letters/drop", `{"sink":"a"`, "the body is not JSON"},
		{"POST", "dead-letters/drop", "sink=a", "the body is not JSON"},
		{"POST", "dead-letters/drop", `["sink"]`, "the body is not a JSON object"},
		{"POST", "dead-letters/drop", `null`, "a filter is needed"},
		{"POST", "dead-letters/drop", `{"sink":null}`, "a filter is needed"},
		{"POST", "dead-letters/drop", `{"to":"a"}`, `"to": unknown member`},
		{"POST", "dead-letters/replay", `{"sink":"a","dead_letters":false}`, "dead_letters: "},
		{"POST", "pending/skip", `{"entity":"s1"}`, "sink: needed"},
		{"POST", "pending/skip", `{"sink":"billing"}`, "a filter is needed"},
		{"POST", "pending/skip", `{"sink":"billing","all":true,"id":"ab000000000000000000000000000000"}`, "all: "},
		{"POST", "pending/skip", `{"sink":"billing","reason":"x"}`, "reason: "},
		{"POST", "replays", `{"sink":"a","rate":0}`, "rate: "},
		{"POST", "replays", `{"sink":"a","pending":true}`, "pending: "},
		{"POST", "replays", `{"to":"a","pending":true,"all":true}`, "pending: "},
		{"POST", "replays", `{"sink":"a","to":"a","pending":true}`, "pending: "},
		{"POST", "replays", `{"sink":"unroutable","to":"a","pending":true}`, "pending: "},
		{"POST", "dead-letters/replay", `{"sink":"a","to":"b","pending":true}`, "pending: "},
		{"POST", "sinks/a/drop", `{"after":0}`, "after: 0 is not the number"},
		{"POST", "replays", `{"sink":"a","rate":-1}`, "rate: "},
		{"POST", "replays", `{"sink":"a","rate":"1"}`, "rate: "},
		{"POST", "replays", `{"sink":"a","rate":1e999}`, "rate: "},
		{"POST", "replays", `{"sink":"a","to":""}`, "to: empty"},
		{"POST", "replays", `{"sink":"unroutable","to":"a"}`, "to and rate: "},
		{"POST", "replays", `{"sink":"unroutable","rate":1}`, "to and rate: "},
		{"POST", "replays", `{"sink":"a","reason":"x"}`, "reason: "},
		{"POST", "sinks/old/move", `{}`, "to: "},
		{"POST", "sinks/old/drop", `{"x":1}`, `"x": unknown member`},
		{"POST", "sinks/old/pause", `{"because":"x"}`, `"because": unknown member`},
		{"POST", "sinks/old/pause", `{"for":"2d"}`, `for: "2d" is not a duration from 1s to 8760h, such as 90m or 2h`},
		{"POST", "sinks/old/pause", `{"for":""}`, `for: "" is not a duration`},
		{"POST", "sinks/old/pause", `{"for":"-1h"}`, `for: "-1h" is not a duration`},
		{"DELETE", "replays/x", "", `"x" is not the number`},
		{"DELETE", "replays/4294967296", "", "is not the number"},
	} {
		t.Run(tt.method+" "+tt.path+" "+tt.body, func(t *testing.T) {
			resp, body := f.send(t, tt.method, "/api/v1/"+tt.path, tt.body)
			require.Equal(t, http.StatusBadRequest, resp.StatusCode, body)
			var answer struct{ Error string }
			require.NoError(t, json.Unmarshal([]byte(body), &answer))
			require.Contains(t, answer.Error, tt.problem)
			require.Empty(t, f.gateway.take(), "nothing is done")
		})
	}
	resp, _ := f.send(t, "POST", "/api/v1/dead-letters/drop", `{"sink":"`+strings.Repeat("a", 2<<20)+`"}`)
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
}

func TestFaultsOfOperations(t *testing.T) {
	t.Parallel()
	f := setup(t, "127.0.0.1", "")
	for _, tt := range []struct {
		err    error
		status int
	}{
		{fmt.Errorf("%w: %q", gateway.ErrNoSink, "x"), 404},
		{fmt.Errorf("dead letter: %w", gateway.ErrNotFound), 404},
		{fmt.Errorf("%w: x", gateway.ErrConfigured), 409},
		{errors.New("disk is gone"), 500},
	} {
		f.gateway.err = tt.err
		for _, e := range endpoints {
			if e.call == "status" || e.call == "replays" {
				continue
			}
			resp, body := f.send(t, e.method, e.path, e.body)
			require.Equal(t, tt.status, resp.StatusCode, e.path)
			var answer struct{ Error string }
			require.NoError(t, json.Unmarshal([]byte(body), &answer))
			require.Equal(t, tt.err.Error(), answer.Error)
		}
	}
	require.NoError(t, f.stop())
	require.NotContains(t, f.log.String(), "no sink has")
	require.Contains(t, f.log.String(), "disk is gone")
}

// An operation may take longer than the time-outs against clients that hang, and is told when the client hangs up.
func TestLongOperations(t *testing.T) {
	t.Parallel()
	const timeout = 50 * time.Millisecond
	g := &operations{}
	s := admin.New(admin.Config{Listen: "127.0.0.1:0"}, admin.Options{
		Metrics: http.NotFoundHandler(), Gateway: g, Log: slog.New(slog.DiscardHandler)})
	server := httptest.NewUnstartedServer(s.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = timeout, timeout
	server.Start()
	defer server.Close()
	client := server.Client()

	g.entered = func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-time.After(4 * timeout):
		}
		g.err = ctx.Err()
	}
	resp, err := client.Post(server.URL+"/api/v1/sinks/billing/pause", "", strings.NewReader("{}"))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusNoContent, resp.StatusCode)

	ctx, hangUp := context.WithCancel(t.Context())
	ended := make(chan struct{})
	g.entered = func(ctx context.Context) { hangUp(); <-ctx.Done(); close(ended) }
	req, err := http.NewRequestWithContext(ctx, "POST", server.URL+"/api/v1/sinks/billing/pause", strings.NewReader("{}"))
	require.NoError(t, err)
	_, err = client.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	<-ended
}

func FuzzRequests(f *testing.F) {
	f.Add("sink=a&limit=3", []byte(`{"sink":"a"}`))
	f.Add("since=2026-01-02T03:04:05Z", []byte(`{"all":true}`))
	f.Add("cursor=a/1", []byte(`{"id":"ab000000000000000000000000000000"}`))
	g := &operations{}
	h := admin.New(admin.Config{Listen: "127.0.0.1:0"}, admin.Options{
		Metrics: http.NotFoundHandler(), Gateway: g, Log: slog.New(slog.DiscardHandler)}).Handler()
	f.Fuzz(func(t *testing.T, query string, body []byte) {
		for _, r := range []*http.Request{
			httptest.NewRequest("GET", "/api/v1/dead-letters", nil),
			httptest.NewRequest("POST", "/api/v1/dead-letters/drop", bytes.NewReader(body)),
		} {
			r.Host, r.URL.RawQuery = "localhost", query
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			require.Contains(t, []int{200, 400}, w.Code)
			require.True(t, json.Valid(w.Body.Bytes()))
			for _, call := range g.take() { // what is dropped was named
				require.False(t, call == "drop dead {}" && !bytes.Contains(body, []byte(`true`)))
			}
		}
	})
}
