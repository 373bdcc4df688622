package simulate_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/simulate"
)

const secret = "a secret"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func plan(c simulate.Config) []simulate.Entity {
	c.Start = start
	return slices.Collect(simulate.Plan(c))
}

// all is a plan in which everything happens.
var all = simulate.Config{
	Secret: secret, Recordings: 40, Channels: 10, Seed: 7, Start: start,
	CopyRate: 0.2, ResendRate: 0.2, ShuffleRate: 0.2, BadSignatureRate: 0.2, FailoverRate: 0.3,
}

func TestPlanFollowsFromSeed(t *testing.T) {
	t.Parallel()
	first, again := plan(all), plan(all)
	require.Equal(t, bodies(first), bodies(again))
	require.Equal(t, steps(first), steps(again))

	other := all
	other.Seed++
	for i, e := range plan(other)[:other.Recordings] {
		require.NotEqual(t, first[i].Name, e.Name, "recording ids of different seeds")
	}
}

func bodies(entities []simulate.Entity) map[string][]string {
	all := map[string][]string{}
	for _, e := range entities {
		for i := range e.Events {
			all[e.Name] = append(all[e.Name], string(e.Events[i].Body(1)))
		}
	}
	return all
}

func steps(entities []simulate.Entity) map[string][]simulate.Step {
	all := map[string][]simulate.Step{}
	for _, e := range entities {
		all[e.Name] = e.Steps
	}
	return all
}

// What a rate does to the calls must leave the events alone, and the calls other rates asked for.
func TestRatesChangeStepsOnly(t *testing.T) {
	t.Parallel()
	calm := simulate.Config{Recordings: 40, Channels: 10, Seed: 7, FailoverRate: 0.3}
	calmPlan, allPlan := plan(calm), plan(all)
	require.Equal(t, bodies(calmPlan), bodies(allPlan))
	for _, e := range calmPlan {
		for i, s := range e.Steps {
			require.Equal(t, simulate.Step{Event: i}, s)
		}
	}
	copies := calm
	copies.CopyRate = all.CopyRate
	require.Equal(t, copiedEvents(plan(copies)), copiedEvents(allPlan))

	redundant := calm
	redundant.Redundant = true
	for _, e := range plan(redundant) {
		for _, s := range e.Steps {
			require.Equal(t, 1, s.Copies)
		}
	}
}

func copiedEvents(entities []simulate.Entity) map[string]bool {
	copied := map[string]bool{}
	for _, e := range entities {
		for _, s := range e.Steps {
			if s.Copies > 0 {
				copied[fmt.Sprint(e.Name, s.Event)] = true
			}
		}
	}
	return copied
}

func TestStepsSendEachEventFirstOnceAndLateWithinTheWindow(t *testing.T) {
	t.Parallel()
	shuffled, kinds := 0, map[simulate.Kind]int{}
	for _, e := range plan(all) {
		var order []int
		for _, s := range e.Steps {
			kinds[s.Kind]++
			if s.Kind == simulate.First {
				order = append(order, s.Event)
			}
			if s.Kind == simulate.Resend {
				require.Contains(t, order, s.Event, "resent before it was sent")
			}
		}
		for place, event := range order {
			require.LessOrEqual(t, place-event, 4, "late by more than the window: %v", order)
			if place != event {
				shuffled++
			}
		}
		slices.Sort(order)
		for i, event := range order {
			require.Equal(t, i, event)
		}
		require.Len(t, order, len(e.Events))
	}
	require.Positive(t, shuffled)
	require.Len(t, kinds, 5, "not every kind of step occurs: %v", kinds)
}

func TestEventsAreThoseOfTheService(t *testing.T) {
	t.Parallel()
	ids := map[ncs.EventID]bool{}
	types := map[string]int{}
	for _, e := range plan(simulate.Config{Recordings: 150, Channels: 20, FailoverRate: 0.3}) {
		for i := range e.Events {
			body := e.Events[i].Body(1_772_000_000_000)
			var compact bytes.Buffer
			require.NoError(t, json.Compact(&compact, body))
			require.Equal(t, compact.String(), string(body))

			n, err := ncs.Builtin().Parse(body)
			require.NoError(t, err, "%s", body)
			require.True(t, n.Info.Known, "%s", body)
			require.Equal(t, e.Name, n.Entity)
			require.NotEmpty(t, n.Channel)
			require.False(t, n.IsTest())
			require.Equal(t, int64(1_772_000_000_000), n.NotifyMs)
			if n.Info.Product == "cloud_recording" {
				require.Equal(t, n.Info.Event, msgName(t, n))
			}
			types[n.Info.Product+"."+n.Info.Event]++

			id := n.Identify("s")
			require.False(t, ids[id.ID], "two events with one id: %s", body)
			ids[id.ID] = true
			again, err := ncs.Builtin().Parse(e.Events[i].Body(1_772_000_000_001))
			require.NoError(t, err)
			require.Equal(t, id, again.Identify("s"), "the id of a copy differs")
		}
	}
	for _, event := range []string{
		"recorder_started", "recorder_slice_start", "recorder_audio_stream_state_changed", "recorder_video_stream_state_changed",
		"recorder_leave", "uploader_started", "uploading_progress", "uploaded", "backuped", "session_exit", "session_failover",
		"cloud_recording_file_infos", "cloud_recording_status_update", "cloud_recording_error", "cloud_recording_warning",
		"web_recorder_started", "web_recorder_stopped", "rtmp_publish_status",
	} {
		require.Positive(t, types["cloud_recording."+event], event)
	}
	for _, event := range []string{
		"channel_create", "broadcaster_join_channel", "audience_join_channel", "client_role_change_to_broadcaster",
		"client_role_change_to_audience", "broadcaster_leave_channel", "audience_leave_channel", "channel_destroy",
	} {
		require.Positive(t, types["rtc."+event], event)
	}
}

func msgName(t *testing.T, n *ncs.Notification) string {
	t.Helper()
	var p struct {
		Details struct {
			MsgName string `json:"msgName"`
		} `json:"details"`
	}
	require.NoError(t, json.Unmarshal(n.Payload, &p))
	return p.Details.MsgName
}

// The bodies have the members of captured ones, in their order.
func TestBodiesLookLikeCapturedOnes(t *testing.T) {
	t.Parallel()
	for file, eventType := range map[string]int{"3-40-recorder_started.json": 40, "1-102-channel_destroy-captured.json": 102} {
		want, err := os.ReadFile("../ncs/samples/" + file)
		require.NoError(t, err)
		found := false
		for _, e := range plan(simulate.Config{Recordings: 5, Channels: 1}) {
			for i := range e.Events {
				if e.Events[i].Type == eventType {
					found = true
					require.Equal(t, shape(want), shape(e.Events[i].Body(1)))
				}
			}
		}
		require.True(t, found, file)
	}
}

var scalar = regexp.MustCompile(`:("[^"]*"|[0-9]+)`)

// shape is a body without its values.
func shape(body []byte) string { return string(scalar.ReplaceAll(bytes.TrimSpace(body), []byte(":"))) }

// Only a failover makes events that share a key: the new recorder counts from 0 again.
func TestConflictsComeFromFailoversOnly(t *testing.T) {
	t.Parallel()
	require.Zero(t, conflicts(t, simulate.Config{Recordings: 100, Channels: 20}))
	require.Positive(t, conflicts(t, simulate.Config{Recordings: 20, FailoverRate: 1}))
}

func conflicts(t *testing.T, c simulate.Config) int {
	t.Helper()
	keys, n := map[ncs.Key]bool{}, 0
	for _, e := range plan(c) {
		for i := range e.Events {
			parsed, err := ncs.Builtin().Parse(e.Events[i].Body(1))
			require.NoError(t, err)
			key := parsed.Identify("s").Key
			if keys[key] {
				n++
			}
			keys[key] = true
		}
	}
	return n
}

// fakeRelay answers as the relay does, and keeps what it saw.
type fakeRelay struct {
	mu       sync.Mutex
	accepted map[string][]byte // event id: body
	order    map[string][]string
	bodies   map[string][][]byte // event id: of all verified calls
	verified int
}

func newFakeRelay() *fakeRelay {
	return &fakeRelay{accepted: map[string][]byte{}, order: map[string][]string{}, bodies: map[string][][]byte{}}
}

func (f *fakeRelay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	status, answer := f.answer(body, r.Header)
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

func (f *fakeRelay) answer(body []byte, h http.Header) (int, []byte) {
	if h.Get("Agora-Signature") != mac(sha1.New, body) || h.Get("Agora-Signature-V2") != mac(sha256.New, body) {
		return http.StatusUnauthorized, []byte(`{"error":"invalid signature"}`)
	}
	n, err := ncs.Builtin().Parse(body)
	if err != nil {
		return http.StatusBadRequest, nil
	}
	id := n.Identify("s").ID.String()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified++
	f.bodies[id] = append(f.bodies[id], body)
	if _, known := f.accepted[id]; known {
		return http.StatusOK, fmt.Appendf(nil, `{"status":"duplicate","event":%q}`, id)
	}
	f.accepted[id] = body
	f.order[n.Entity] = append(f.order[n.Entity], id)
	return http.StatusOK, fmt.Appendf(nil, `{"status":"accepted","event":%q}`, id)
}

func mac(h func() hash.Hash, body []byte) string {
	m := hmac.New(h, []byte(secret))
	m.Write(body)
	return hex.EncodeToString(m.Sum(nil))
}

// requireBalanced checks the sums a Tally promises.
func requireBalanced(t *testing.T, tally simulate.Tally) {
	t.Helper()
	calls := 0
	for _, n := range tally.Statuses {
		calls += n
	}
	require.Equal(t, tally.Calls, calls, "sum over statuses")
	require.Equal(t, tally.Calls, tally.First+tally.Copies+tally.Resends+tally.Retries+tally.Forged, "sum over causes")
}

func TestRunOverHTTP(t *testing.T) {
	t.Parallel()
	relay := newFakeRelay()
	server := httptest.NewServer(relay)
	defer server.Close()

	var mu sync.Mutex
	accepted, order := map[string][]byte{}, map[string][]string{}
	c := all
	c.URL = server.URL + "/ncs/recording"
	c.OnAccepted = func(s simulate.Sent) {
		mu.Lock()
		defer mu.Unlock()
		accepted[s.EventID] = s.Body
		order[s.Entity] = append(order[s.Entity], s.EventID)
	}
	var last simulate.Progress
	tally, err := simulate.Run(t.Context(), c, func(p simulate.Progress) { last = p })
	require.NoError(t, err)

	var events, copies, resends, forged int
	wantOrder := map[string][]string{}
	for _, e := range plan(c) {
		events += len(e.Events)
		for _, s := range e.Steps {
			copies += s.Copies
			switch s.Kind {
			case simulate.First:
				n, err := ncs.Builtin().Parse(e.Events[s.Event].Body(1))
				require.NoError(t, err)
				wantOrder[e.Name] = append(wantOrder[e.Name], n.Identify("s").ID.String())
			case simulate.Resend:
				resends++
			default:
				forged++
			}
		}
	}
	requireBalanced(t, tally)
	require.Empty(t, tally.Wrong)
	require.Equal(t, 50, tally.Entities)
	require.Equal(t, []int{events, events, copies, resends, 0, forged},
		[]int{tally.Events, tally.First, tally.Copies, tally.Resends, tally.Retries, tally.Forged})
	require.Equal(t, map[int]int{200: events + copies + resends, 401: forged}, tally.Statuses)
	require.Equal(t, map[string]int{"accepted": events, "duplicate": copies + resends}, tally.Outcomes)
	require.Zero(t, tally.GivenUp)
	require.Zero(t, tally.Unacknowledged)
	require.Positive(t, tally.Latency.P50)
	require.LessOrEqual(t, tally.Latency.P99, tally.Latency.Max)
	require.Equal(t, simulate.Progress{Done: 50, Total: 50, Tally: tally}, last)

	require.Equal(t, relay.accepted, accepted, "the books differ from what the receiver accepted")
	require.Empty(t, cmp.Diff(wantOrder, relay.order), "order of first arrival")
	require.Empty(t, cmp.Diff(wantOrder, order), "order of OnAccepted")
	require.Equal(t, relay.verified, events+copies+resends)
	requireCopiesDifferInNotifyMsOnly(t, relay.bodies)
}

var notifyMs = regexp.MustCompile(`"notifyMs":[0-9]+`)

func requireCopiesDifferInNotifyMsOnly(t *testing.T, bodies map[string][][]byte) {
	t.Helper()
	copies := 0
	for id, sendings := range bodies {
		seen := map[string]bool{}
		for _, body := range sendings {
			require.False(t, seen[string(body)], "%s was sent twice with one notifyMs", id)
			seen[string(body)] = true
			require.Equal(t, notifyMs.ReplaceAllString(string(sendings[0]), ""), notifyMs.ReplaceAllString(string(body), ""))
		}
		copies += len(sendings) - 1
	}
	require.Positive(t, copies)
}

func TestRetriesAreThoseOfTheService(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		var bodies []string
		tally, err := simulate.Run(t.Context(), simulate.Config{
			Secret: secret, Channels: 1, Concurrency: 1, Start: start,
			Send: func(_ context.Context, body []byte, _ http.Header) (int, []byte, error) {
				at = append(at, time.Since(began))
				bodies = append(bodies, string(body))
				return http.StatusServiceUnavailable, nil, nil
			},
		}, nil)
		require.NoError(t, err)
		require.Equal(t, []time.Duration{0, 0, 2 * time.Second, 6 * time.Second, 6 * time.Second}, at[:5]) // the fifth is the next event
		events := len(plan(simulate.Config{Channels: 1})[0].Events)
		require.Equal(t, []int{4 * events, events, 3 * events, events, events},
			[]int{tally.Calls, tally.First, tally.Retries, tally.GivenUp, tally.Unacknowledged})
		require.Equal(t, map[int]int{503: 4 * events}, tally.Statuses)
		require.Empty(t, tally.Wrong)
		requireBalanced(t, tally)
		slices.Sort(bodies)
		require.Len(t, slices.Compact(bodies), 4*events, "attempts with the same notifyMs")
	})
}

func TestRetryAfterTransientFault(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		relay, calls := newFakeRelay(), 0
		c := simulate.Config{Secret: secret, Recordings: 3, Concurrency: 1, Start: start}
		c.Send = func(_ context.Context, body []byte, h http.Header) (int, []byte, error) {
			calls++
			switch calls % 5 {
			case 1:
				return http.StatusServiceUnavailable, nil, nil
			case 2:
				relay.answer(body, h) // stored, but the answer is lost
				return 0, nil, errors.New("connection reset")
			}
			status, answer := relay.answer(body, h)
			return status, answer, nil
		}
		tally, err := simulate.Run(t.Context(), c, nil)
		require.NoError(t, err)
		requireBalanced(t, tally)
		require.Positive(t, tally.Statuses[0])
		require.Equal(t, tally.Statuses[0]+tally.Statuses[503], tally.Retries)
		require.Zero(t, tally.GivenUp)
		require.Zero(t, tally.Unacknowledged)
		require.Len(t, relay.accepted, tally.Events)
		require.Empty(t, tally.Wrong)
	})
}

func TestCallTimesOutAsTheServiceDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tally, err := simulate.Run(t.Context(), simulate.Config{
			Secret: secret, Channels: 1, Concurrency: 1, Start: start,
			Send: func(ctx context.Context, _ []byte, _ http.Header) (int, []byte, error) {
				<-ctx.Done()
				return 0, nil, ctx.Err()
			},
		}, nil)
		require.NoError(t, err)
		require.Equal(t, map[int]int{0: tally.Calls}, tally.Statuses)
		require.Equal(t, time.Duration(tally.First)*(40+6)*time.Second, tally.Elapsed)
		require.Zero(t, tally.Latency)
	})
}

func TestRateIsKeptOverAllEntities(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		relay := newFakeRelay()
		c := all
		c.Rate = 50
		c.Send = func(_ context.Context, body []byte, h http.Header) (int, []byte, error) {
			status, answer := relay.answer(body, h)
			return status, answer, nil
		}
		reports := 0
		tally, err := simulate.Run(t.Context(), c, func(simulate.Progress) { reports++ })
		require.NoError(t, err)
		require.Equal(t, time.Duration(tally.Calls-1)*20*time.Millisecond, tally.Elapsed)
		require.InDelta(t, tally.Elapsed.Seconds()*10, reports, 2)
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		c := all
		c.Send = func(ctx context.Context, _ []byte, _ http.Header) (int, []byte, error) {
			<-ctx.Done()
			return 0, nil, ctx.Err()
		}
		tally, err := simulate.Run(ctx, c, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 25*time.Second, tally.Elapsed)
		require.Zero(t, tally.Entities)
		requireBalanced(t, tally)
	})
}

func TestWrongAnswersAreFound(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) simulate.SendFunc {
		return func(context.Context, []byte, http.Header) (int, []byte, error) { return status, []byte(body), nil }
	}
	var mu sync.Mutex
	calls := 0
	numbered := func(context.Context, []byte, http.Header) (int, []byte, error) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		return 200, fmt.Appendf(nil, `{"status":"duplicate","event":"%d"}`, calls), nil
	}
	tests := []struct {
		name          string
		send          simulate.SendFunc
		copies        bool
		forged        bool
		wrong         string // "" = none
		outcome       string
		oncePerEvent  bool // else once per call
		callsPerEvent int
	}{
		{name: "forged call taken", send: answer(200, `{"status":"duplicate"}`), forged: true, wrong: simulate.WrongForgedTaken,
			outcome: simulate.Duplicate, oncePerEvent: true, callsPerEvent: 2},
		{name: "good call refused", send: answer(401, `{}`), wrong: simulate.WrongGoodRefused, callsPerEvent: 4},
		{name: "accepted twice", send: answer(200, `{"status":"accepted","event":"e"}`), copies: true, wrong: simulate.WrongAcceptedTwice,
			outcome: simulate.Accepted, oncePerEvent: true, callsPerEvent: 2},
		{name: "two ids", send: numbered, copies: true, wrong: simulate.WrongTwoIDs, outcome: simulate.Duplicate, oncePerEvent: true, callsPerEvent: 2},
		{name: "quarantined", send: answer(200, `{"status":"quarantined","event":"e"}`), wrong: simulate.WrongNotTaken,
			outcome: simulate.Quarantined, callsPerEvent: 1},
		{name: "taken for a test", send: answer(200, `{"status":"test"}`), wrong: simulate.WrongNotTaken, outcome: simulate.Test, callsPerEvent: 1},
		{name: "another receiver", send: answer(200, `ok`), outcome: simulate.Other, callsPerEvent: 1},
		{name: "not only 200 counts", send: answer(204, ``), callsPerEvent: 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := simulate.Config{Secret: secret, Recordings: 2, Start: start, RetryInterval: 1, Redundant: tt.copies, Send: tt.send}
			if tt.forged {
				c.BadSignatureRate = 1
			}
			tally, err := simulate.Run(t.Context(), c, nil)
			require.NoError(t, err)
			requireBalanced(t, tally)
			require.Equal(t, tt.callsPerEvent*tally.Events, tally.Calls)
			wrong, outcomes := map[string]int{}, map[string]int{}
			switch {
			case tt.wrong != "" && tt.oncePerEvent:
				wrong[tt.wrong] = tally.Events
			case tt.wrong != "":
				wrong[tt.wrong] = tally.Calls
			}
			require.Equal(t, wrong, tally.Wrong)
			if tt.outcome != "" {
				outcomes[tt.outcome] = tally.Calls - tally.Forged
			}
			require.Equal(t, outcomes, tally.Outcomes)
		})
	}
}

func TestRedirectIsNoAnswer(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	tally, err := simulate.Run(t.Context(), simulate.Config{URL: server.URL, Secret: secret, Channels: 1, RetryInterval: 1}, nil)
	require.NoError(t, err)
	require.Equal(t, map[int]int{307: tally.Calls}, tally.Statuses)
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(nil)
	server.Close()
	var mu sync.Mutex
	heard := 0
	tally, err := simulate.Run(t.Context(), simulate.Config{
		URL: server.URL, Secret: secret, Channels: 1, RetryInterval: 1,
		OnAnswer: func(s simulate.Sent) {
			mu.Lock()
			defer mu.Unlock()
			if s.Status == 0 && s.Outcome == "" && len(s.Body) > 0 {
				heard++
			}
		},
	}, nil)
	require.NoError(t, err)
	require.Equal(t, map[int]int{0: tally.Calls}, tally.Statuses)
	require.Equal(t, tally.Calls, heard)
	require.Equal(t, tally.Events, tally.Unacknowledged)
}

func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	good := simulate.Config{URL: "http://127.0.0.1:1/x", Secret: "s"}
	for want, change := range map[string]func(*simulate.Config){
		`"relay:8080" is not an http or https URL`: func(c *simulate.Config) { c.URL = "relay:8080" },
		`"ftp://x" is not an http or https URL`:    func(c *simulate.Config) { c.URL = "ftp://x" },
		"no secret to sign with":                   func(c *simulate.Config) { c.Secret = "" },
		"negative numbers make no sense here":      func(c *simulate.Config) { c.Recordings = -1 },
		"rate 1.5 is not between 0 and 1":          func(c *simulate.Config) { c.CopyRate = 1.5 },
	} {
		c := good
		change(&c)
		_, err := simulate.Run(t.Context(), c, nil)
		require.EqualError(t, err, want)
	}
	_, err := simulate.Run(t.Context(), good, nil) // nothing to play is no mistake
	require.NoError(t, err)
}

func BenchmarkPlan(b *testing.B) {
	b.ReportAllocs()
	events := 0
	for b.Loop() {
		for e := range simulate.Plan(simulate.Config{Recordings: 10, Start: start}) {
			events += len(e.Events)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}
