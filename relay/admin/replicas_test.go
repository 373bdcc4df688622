package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// replica has the deliveries of one shard.
type replica struct {
	operations
	shard uint32
	owed  int
	late  bool // it has not taken its shard over
	held  *journal.Shard
	ends  []journal.Ends // of the commands that it was given

	during func() // what happens while a command is carried out
}

func (g *replica) at(offset int) gateway.EventInfo {
	return gateway.EventInfo{ID: ncs.EventID{byte(g.shard), byte(offset)}, Position: journal.Position{Shard: g.shard, Offset: uint64(offset)},
		ReceivedAt: time.UnixMilli(int64(1000*offset) - int64(g.shard)).UTC()}
}

func (g *replica) Sinks() []gateway.SinkStatus { return g.Status().Sinks }

func (g *replica) Status() (all gateway.Status) {
	s := gateway.SinkStatus{Name: "billing", State: "delivering", Owed: 10, Delivered: 10 - uint64(g.owed), Pending: uint64(g.owed)}
	if g.shard == 2 {
		s.State, s.Oldest = "failing", time.UnixMilli(5)
		all.Unsure = "no leader"
	}
	all.Sinks, all.Unjudged = []gateway.SinkStatus{s}, uint64(g.owed)
	return all
}

func (g *replica) Pending(_ relay.Filter, p gateway.Page, n int) (list []gateway.Delivery, next *gateway.Page, err error) {
	for offset := 1; offset <= g.owed; offset++ {
		if d := (gateway.Delivery{Sink: "billing", EventInfo: g.at(offset)}); d.Position.Compare(p.After) > 0 {
			if len(list) == n {
				return list, &gateway.Page{Sink: "billing", After: list[n-1].Position}, nil
			}
			list = append(list, d)
		}
	}
	return list, nil, nil
}

func (g *replica) SkipPending(_ context.Context, f relay.Filter, ends *journal.Ends) (int, error) {
	g.ends = append(g.ends, *ends)
	if g.during != nil {
		g.during()
	}
	return g.owed, g.note("skip %s", shown(f))
}

func (g *replica) DeadLetter(sink string, p journal.Position) (gateway.DeadLetter, error) {
	if p.Shard != g.shard {
		return gateway.DeadLetter{}, fmt.Errorf("dead letter: %w", gateway.ErrNotFound)
	}
	return gateway.DeadLetter{Sink: sink, EventInfo: g.at(1), Body: []byte("{}")}, nil
}

func (g *replica) DeadLetterGroups(context.Context, relay.Filter) ([]gateway.LetterGroup, error) {
	return []gateway.LetterGroup{{Sink: "billing", Cause: "4xx", Count: g.owed, First: time.UnixMilli(int64(g.shard)).UTC(), Last: time.UnixMilli(9).UTC()}}, nil
}

func (g *replica) Replay(_ context.Context, r gateway.ReplayRequest) (gateway.ReplayResult, error) {
	return gateway.ReplayResult{Matched: map[string]int{"billing": g.owed + r.Elsewhere["billing"]}}, g.note("replay %s", shown(r))
}

func (g *replica) Replays() []gateway.ReplayStatus {
	p := journal.Position{Shard: g.shard, Offset: 7}
	return []gateway.ReplayStatus{{ID: 4, Sink: "billing", Matched: uint64(g.owed), Finished: g.shard == 1, Position: journal.Cut{p}}}
}

func (g *replica) Inspect(context.Context, relay.Filter, int) ([]gateway.Life, bool, error) {
	return []gateway.Life{{EventInfo: g.at(1)}}, false, nil
}

// sharing says who has the shards, and what a replica has taken over.
type sharing struct {
	fleet admin.Fleet
	of    *replica
	asked uint64
	away  bool // the cluster
}

func (s *sharing) Name() string { return s.fleet.Self }

func (s *sharing) Fleet(context.Context) (admin.Fleet, error) { return s.fleet, nil }

func (s *sharing) Held() []*journal.Shard {
	if s.of.late {
		return nil
	}
	return []*journal.Shard{s.of.held}
}

func (s *sharing) Ends(context.Context) (journal.Ends, error) {
	if s.away {
		return journal.Ends{}, errors.New("topic ncs.dead: no leader")
	}
	s.asked++
	return journal.Ends{Events: journal.Cut{{Offset: 7}, {Shard: 1, Offset: s.asked}}, Letters: journal.Cut{{Shard: 2}}}, nil
}

const fleetToken = "fleet-token"

// fleet are three replicas with a shard each; one more shard is nobody's if lost. They answer by handlers that can be replaced.
type fleet struct {
	replicas []*replica
	handlers []http.Handler
	self     http.Handler // of the first
	sharing  *sharing
}

func startFleet(t *testing.T, shards int) *fleet {
	f := &fleet{handlers: make([]http.Handler, 3)}
	var members []admin.Replica
	for i := range 3 {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.handlers[i].ServeHTTP(w, r) }))
		t.Cleanup(server.Close)
		members = append(members, admin.Replica{Name: fmt.Sprint("r", i+1), Address: strings.TrimPrefix(server.URL, "http://"), Shards: []uint32{uint32(i)}})
		f.replicas = append(f.replicas, &replica{shard: uint32(i), owed: 2 + i, held: &journal.Shard{Number: uint32(i), Of: shards}})
	}
	for i := range 3 {
		f.sharing = &sharing{fleet: admin.Fleet{Self: fmt.Sprint("r", i+1), Replicas: members, Shards: shards}, of: f.replicas[i]}
		if i == 0 {
			defer func(of *sharing) { f.sharing = of }(f.sharing)
		}
		f.handlers[i] = admin.New(admin.Config{Listen: "10.0.0.1:9464", Token: relay.NewSecret(fleetToken)}, admin.Options{
			Metrics: http.NotFoundHandler(), Gateway: f.replicas[i], Log: slog.New(slog.DiscardHandler),
			Ready:   func() (bool, string) { return true, "" },
			Status:  func(context.Context) (any, error) { return f.replicas[i].Status(), nil },
			Sharing: f.sharing, Patience: time.Second,
		}).Handler()
	}
	f.self = f.handlers[0]
	return f
}

func (f *fleet) call(t *testing.T, method, path, body string) (status int, answer map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+fleetToken)
	w := httptest.NewRecorder()
	f.self.ServeHTTP(w, r)
	if w.Body.Len() > 0 {
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
	}
	return w.Code, answer
}

func field(list any, name string) (values []any) {
	for _, e := range list.([]any) {
		values = append(values, e.(map[string]any)[name])
	}
	return values
}

func TestOneReplicaAnswersForAll(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	_, answer := f.call(t, "GET", "/api/v1/sinks", "")
	sink := answer["sinks"].([]any)[0].(map[string]any)
	require.Equal(t, []any{30.0, 21.0, 9.0, "failing"}, []any{sink["owed"], sink["delivered"], sink["pending"], sink["state"]})
	require.NotContains(t, answer, "unanswered")

	_, answer = f.call(t, "GET", "/api/v1/status", "")
	require.Equal(t, 30.0, answer["sinks"].([]any)[0].(map[string]any)["owed"])
	require.Equal(t, []any{9.0, "no leader"}, []any{answer["unjudged"], answer["unjudged_error"]})
	require.Equal(t, []any{"r1", "r2", "r3"}, field(answer["replicas"], "name"))
	require.Equal(t, 10.0, answer["replicas"].([]any)[2].(map[string]any)["status"].(map[string]any)["sinks"].([]any)[0].(map[string]any)["owed"])

	var seen []any // over pages
	for path := "/api/v1/pending?limit=4"; path != ""; {
		_, answer = f.call(t, "GET", path, "")
		seen = append(seen, field(answer["pending"], "position")...)
		path = ""
		if next, more := answer["next"].(string); more {
			path = "/api/v1/pending?limit=4&cursor=" + next
		}
	}
	require.Equal(t, []any{"1", "2", "1-1", "1-2", "1-3", "2-1", "2-2", "2-3", "2-4"}, seen, "each once and in order")

	_, answer = f.call(t, "POST", "/api/v1/pending/skip", `{"sink":"billing","entity":"s"}`)
	require.Equal(t, map[string]any{"skipped": 9.0}, answer)
	for _, r := range f.replicas {
		require.Len(t, r.take(), 1, "asked once: an asked replica asks no other")
		require.Len(t, r.acted(t), 1, "each keeps what was done to its shards")
	}
	status, answer := f.call(t, "GET", "/api/v1/dead-letters/billing/2-1", "")
	require.Equal(t, 200, status)
	require.Equal(t, "2-1", answer["position"])
	status, _ = f.call(t, "GET", "/api/v1/dead-letters/billing/9-1", "")
	require.Equal(t, 404, status)
	_, answer = f.call(t, "GET", "/api/v1/dead-letters/groups", "")
	group := answer["groups"].([]any)[0].(map[string]any)
	require.Equal(t, []any{9.0, "1970-01-01T00:00:00Z"}, []any{group["count"], group["first"]})
	_, answer = f.call(t, "GET", "/api/v1/replays", "")
	replay := answer["replays"].([]any)[0].(map[string]any)
	require.Equal(t, []any{9.0, false, "7,1-7,2-7"}, []any{replay["matched"], replay["finished"], replay["position"]})
	_, answer = f.call(t, "GET", "/api/v1/inspect?entity=s&limit=2", "")
	require.Equal(t, []any{"2-1", "1-1"}, field(answer["events"], "position"), "the oldest")
	require.Equal(t, true, answer["more"])
	status, answer = f.call(t, "POST", "/api/v1/sinks/billing/pause", `{"reason":"x"}`)
	require.Equal(t, 204, status)
	require.Nil(t, answer)
	for _, r := range f.replicas {
		require.Equal(t, []string{"pause billing: x"}, r.take())
	}
}

func TestAReplayIsOneJobOfAll(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	_, answer := f.call(t, "POST", "/api/v1/replays", `{"entity":"s"}`)
	require.Equal(t, map[string]any{"billing": 9.0}, answer["matched"])
	require.Equal(t, []string{`replay {"entity":"s"}`}, f.replicas[0].take())
	require.Equal(t, []string{`replay {"entity":"s","dry_run":true}`}, f.replicas[1].take(), "the others count")
	f.handlers[2] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	status, answer := f.call(t, "POST", "/api/v1/replays", `{"entity":"s"}`)
	require.Equal(t, 503, status)
	require.Contains(t, answer["error"], "nothing was begun: shards [2] do not answer: 503")
	require.Empty(t, f.replicas[0].take())
	_, _ = f.call(t, "POST", "/api/v1/dead-letters/replay", `{"sink":"unroutable"}`)
	require.NotContains(t, f.replicas[1].take()[1], "dry_run", "each takes up again what it has")
}

func TestAnAnswerNamesTheShardsThatAreMissing(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 5)
	f.handlers[1] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"error":"starting"}`)
	})
	missing := []any{
		map[string]any{"replica": "r2", "shards": []any{1.0}, "error": "503 Service Unavailable: starting"},
		map[string]any{"shards": []any{3.0, 4.0}, "error": "no replica has these shards at the moment"},
	}
	for path, body := range map[string]string{
		"/api/v1/sinks": "", "/api/v1/status": "", "/api/v1/pending": "", "/api/v1/dead-letters/groups": "", "/api/v1/replays": "",
		"/api/v1/inspect?entity=s": "", "/api/v1/pending/skip": `{"sink":"billing","entity":"s"}`, "/api/v1/sinks/billing/pause": "{}",
	} {
		method := "GET"
		if body != "" {
			method = "POST"
		}
		status, answer := f.call(t, method, path, body)
		require.Equal(t, 200, status, path)
		require.Equal(t, missing, answer["unanswered"], path)
	}
	f.replicas[2].late = true
	_, answer := f.call(t, "GET", "/api/v1/sinks", "")
	require.Contains(t, answer["unanswered"], map[string]any{"replica": "r3", "shards": []any{2.0}, "error": "is taking them over"})
	status, answer := f.call(t, "POST", "/api/v1/pending/skip", `{"sink":""}`)
	require.Equal(t, 400, status, "a mistake is told by the one that was asked")
	require.Contains(t, answer["error"], "a filter is needed")
}

// A command that a replica does not answer is given again, within the ends that it was given with, until whoever has the shard then has
// carried it out.
func TestACommandIsCarriedOutByTheNextOwner(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	second, refused := f.handlers[1], 0
	f.handlers[1] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refused++; refused == 1 {
			second.ServeHTTP(httptest.NewRecorder(), r) // it did something, and ended before it could say so
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		second.ServeHTTP(w, r)
	})
	_, answer := f.call(t, "POST", "/api/v1/pending/skip", `{"sink":"billing","entity":"s"}`)
	require.NotContains(t, answer, "unanswered")
	for _, r := range f.replicas {
		require.Len(t, r.ends, 2)
		require.Equal(t, journal.Ends{Events: journal.Cut{{Offset: 7}, {Shard: 1, Offset: 1}}, Letters: journal.Cut{{Shard: 2}}}, r.ends[0])
		require.Equal(t, r.ends[0], r.ends[1], "the ends of when it was given")
	}

	// A replica that loses its shard while it carries a command out does not answer for it.
	third := f.replicas[2]
	third.during = func() { third.held = &journal.Shard{Number: 2, Of: 3} }
	_, answer = f.call(t, "POST", "/api/v1/pending/skip", `{"sink":"billing","entity":"s"}`)
	require.Equal(t, []any{map[string]any{"replica": "r3", "shards": []any{2.0}, "error": "is taking them over"}}, answer["unanswered"])

	before := len(f.replicas[0].ends)
	f.sharing.away = true
	status, answer := f.call(t, "POST", "/api/v1/pending/skip", `{"sink":"billing","entity":"s"}`)
	require.Equal(t, 500, status)
	require.Equal(t, "nothing was done: topic ncs.dead: no leader", answer["error"])
	require.Len(t, f.replicas[0].ends, before)
}

// Replicas that are told an address of their own machine as another's ask themselves: what they say must not count for the other.
func TestAnAddressThatLeadsToAnotherReplicaIsNamed(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	f.handlers[2] = f.handlers[0]
	_, answer := f.call(t, "GET", "/api/v1/sinks", "")
	require.Equal(t, 20.0, answer["sinks"].([]any)[0].(map[string]any)["owed"])
	missing := answer["unanswered"].([]any)[0].(map[string]any)
	require.Equal(t, []any{2.0}, missing["shards"])
	require.Contains(t, missing["error"], "replica r1 answers: it needs admin.advertise")
}
