package route_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
)

var receivedAt = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	uploaded = `{"noticeId":"a","notifyMs":1,"eventType":31,"sid":"s1","payload":{"serviceType":2,"uid":"1001","sequence":7,` +
		`"sendts":1596555306257,"cname":"class/7","details":{"msgName":"uploaded","status":0,"fileList":[` +
		`{"fileName":"a.m3u8","uid":"0"},{"fileName":"a.mp4","uid":"0"}]},"sid":"s1"},"productId":3}`
	recordingError = `{"noticeId":"b","notifyMs":1,"eventType":1,"sid":"s1","payload":{"serviceType":0,"uid":"1001","sequence":8,` +
		`"sendts":1596555306258,"cname":"class/7","details":{"msgName":"cloud_recording_error","module":1,"errorLevel":5,` +
		`"errorCode":32,"ratio":0.5,"big":9007199254740993,"huge":18446744073709551615,"ok":true,"none":null},"sid":"s1"},"productId":3}`
	channelCreated = `{"noticeId":"c","notifyMs":1,"eventType":101,"payload":{"channelName":"class-9","ts":1560399999},"productId":1}`
	userJoined     = `{"noticeId":"d","notifyMs":1,"eventType":103,"payload":{"channelName":"class-9","uid":42,"clientSeq":3,"ts":1560399999},"productId":1}`
	cdnPublish     = `{"noticeId":"e","notifyMs":1,"eventType":1,"payload":{"entryPoint":"live","streamName":"x"},"productId":7}`
	unknownType    = `{"noticeId":"f","notifyMs":1,"eventType":77,"payload":{"sid":"s9"},"productId":3}`
	unknownProduct = `{"noticeId":"g","notifyMs":1,"eventType":31,"payload":{},"productId":99}`
)

func parse(t testing.TB, body string) *ncs.Notification {
	t.Helper()
	n, err := ncs.Builtin().Parse([]byte(body))
	require.NoError(t, err)
	return n
}

// compile compiles rules that all have their own sink: r0, r1 and so on, unless they name one.
func compile(t testing.TB, unmatched []string, rules ...route.RuleConfig) *route.Router {
	t.Helper()
	o := route.Options{
		Rules: rules, Unmatched: unmatched, Sinks: []string{"a", "b", "c", "rest"},
		Sources: []route.Source{{Name: "recording"}, {Name: "rtc"}},
		Report: func(s route.Severity, path, problem, hint string, values ...any) {
			require.NotEqual(t, route.Error, s, "%s: %s (%s) %v", path, problem, hint, values)
		},
	}
	for i := range o.Rules {
		if o.Rules[i].To == nil {
			o.Rules[i].To = []string{"a"}
		}
	}
	return route.Compile(o)
}

func TestConditions(t *testing.T) {
	t.Parallel()
	type match = route.MatchConfig
	tests := []struct {
		name   string
		match  match
		when   string
		body   string
		source string // "" = recording
		why    string // "" = the rule applies
	}{
		{name: "no match takes everything", body: unknownProduct},
		{name: "product", match: match{Product: []string{"cloud_recording"}}, body: uploaded},
		{name: "other product", match: match{Product: []string{"cloud_recording"}}, body: channelCreated,
			why: "product is rtc, rule wants cloud_recording"},
		{name: "one of products", match: match{Product: []string{"cloud_recording", "rtc"}}, body: channelCreated},
		{name: "none of products", match: match{Product: []string{"cloud_recording", "rtc", "media_pull"}}, body: cdnPublish,
			why: "product is fusion_cdn, rule wants cloud_recording, rtc or media_pull"},
		{name: "unknown product", match: match{Product: []string{"unknown_99"}}, body: unknownProduct},
		{name: "known product by its alias", match: match{Product: []string{"unknown_3"}}, body: uploaded},

		{name: "event", match: match{Event: []string{"uploaded"}}, body: uploaded},
		{name: "other event", match: match{Event: []string{"session_exit"}}, body: uploaded,
			why: "event is uploaded, rule wants session_exit"},
		{name: "qualified event", match: match{Event: []string{"cloud_recording.uploaded"}}, body: uploaded},
		{name: "same event of another product", match: match{Event: []string{"speech_to_text.uploaded"}}, body: uploaded,
			why: "event is cloud_recording.uploaded, rule wants speech_to_text.uploaded"},
		{name: "number with a product", match: match{Product: []string{"cloud_recording"}, Event: []string{"31"}}, body: uploaded},
		{name: "other number", match: match{Product: []string{"cloud_recording"}, Event: []string{"32"}}, body: uploaded,
			why: "event is uploaded (31), rule wants 32"},
		{name: "number of another product", match: match{Product: []string{"unknown_99"}, Event: []string{"31"}}, body: unknownProduct},
		{name: "unknown type", match: match{Event: []string{"unknown_77"}}, body: unknownType},
		{name: "unknown type of a product", match: match{Event: []string{"cloud_recording.unknown_77"}}, body: unknownType},
		{name: "unknown name stays an alias", match: match{Event: []string{"cloud_recording.unknown_31"}}, body: uploaded},
		{name: "one of events", match: match{Event: []string{"session_exit", "uploaded"}}, body: uploaded},

		{name: "category", match: match{Category: []string{"uploader"}}, body: uploaded},
		{name: "other category", match: match{Category: []string{"service", "recorder"}}, body: uploaded,
			why: "category is uploader, rule wants service or recorder"},
		{name: "unknown category", match: match{Category: []string{"unknown"}}, body: unknownType},

		{name: "service type", match: match{ServiceType: []string{"2"}}, body: uploaded},
		{name: "service type zero", match: match{ServiceType: []string{"0"}}, body: recordingError},
		{name: "other service type", match: match{ServiceType: []string{"1", "6"}}, body: uploaded,
			why: "service_type is 2, rule wants 1 or 6"},
		{name: "no service type", match: match{ServiceType: []string{"0"}}, body: channelCreated,
			why: "event has no service_type, rule wants 0"},

		{name: "source", match: match{Source: []string{"rtc"}}, body: uploaded, source: "rtc"},
		{name: "other source", match: match{Source: []string{"rtc"}}, body: uploaded, why: "source is recording, rule wants rtc"},

		{name: "channel", match: match{Channel: []string{"class-9"}}, body: channelCreated},
		{name: "channel glob", match: match{Channel: []string{"class*"}}, body: uploaded},
		{name: "channel is case-sensitive", match: match{Channel: []string{"Class*"}}, body: uploaded,
			why: "channel is class/7, rule wants Class*"},
		{name: "no channel", match: match{Channel: []string{"*"}}, body: cdnPublish, why: "event has no channel, rule wants *"},

		{name: "entity", match: match{Entity: []string{"s1"}}, body: uploaded},
		{name: "entity is no glob", match: match{Entity: []string{"s*"}}, body: uploaded, why: "entity is s1, rule wants s*"},
		{name: "no entity", match: match{Entity: []string{"s1"}}, body: unknownProduct, why: "event has no entity, rule wants s1"},

		{name: "all keys must hold", match: match{Product: []string{"cloud_recording"}, Category: []string{"uploader"}, Channel: []string{"x"}},
			body: uploaded, why: "channel is class/7, rule wants x"},
		{name: "when is asked last", match: match{Product: []string{"rtc"}}, when: "payload.a.b", body: uploaded,
			why: "product is cloud_recording, rule wants rtc"},
		{name: "when", when: "payload.details.errorLevel >= 4", body: recordingError},
		{name: "when false", when: "payload.details.errorLevel > 5", body: recordingError, why: "when is false"},
		{name: "when fails", when: "payload.details.errorLevel >= 4", body: channelCreated,
			why: "when failed: cannot fetch errorLevel from <nil> (at character 17: errorLevel >= 4)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := compile(t, nil, route.RuleConfig{Match: tt.match, When: tt.when})
			n, source := parse(t, tt.body), tt.source
			if source == "" {
				source = "recording"
			}
			v := r.Explain(n, source, receivedAt)
			require.Len(t, v, 1)
			require.Equal(t, tt.why, v[0].Why)
			require.Equal(t, tt.why == "", v[0].Applies)
			require.Equal(t, []string{"a"}, v[0].To)
			require.Equal(t, tt.why == "", r.Route(n, source, receivedAt).Matched)
		})
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, channel string
		want             bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"*", "anything at all", true},
		{"a*", "a", true},
		{"a*", "b", false},
		{"*a", "bca", true},
		{"a*a", "a", false}, // the ends must not share a character
		{"a*a", "aa", true},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "a-c-b", false},
		{"a**c", "abc", true},
		{"*ab*ab*", "ab", false},
		{"*ab*ab*", "aabxab", true},
		{"a/*", "a/b/c", true},    // * takes slashes
		{"room?", "room?", true},  // ? is a character of channel names
		{"room?", "room1", false}, //
		{"[a-z]", "[a-z]", true},
		{"[a-z]", "b", false},
		{"ä*", "äöü", true},
	}
	for _, tt := range tests {
		r := compile(t, nil, route.RuleConfig{Match: route.MatchConfig{Channel: []string{tt.pattern}}})
		n := parse(t, fmt.Sprintf(`{"noticeId":"c","eventType":101,"payload":{"channelName":%q,"ts":1},"productId":1}`, tt.channel))
		require.Equal(t, tt.want, r.Route(n, "rtc", receivedAt).Matched, "%s on %s", tt.pattern, tt.channel)
	}
}

func TestRouteAddsTheSinksOfEveryRuleOnceInConfiguredOrder(t *testing.T) {
	t.Parallel()
	r := compile(t, []string{"rest"},
		route.RuleConfig{Match: route.MatchConfig{Product: []string{"cloud_recording"}}, To: []string{"c", "b"}},
		route.RuleConfig{Match: route.MatchConfig{Event: []string{"uploaded"}}, To: []string{"b", "a"}},
		route.RuleConfig{Match: route.MatchConfig{Product: []string{"rtc"}}, To: []string{"rest"}},
	)
	require.Equal(t, route.Result{Sinks: []string{"a", "b", "c"}, Matched: true}, r.Route(parse(t, uploaded), "recording", receivedAt))
	require.Equal(t, route.Result{Sinks: []string{"b", "c"}, Matched: true}, r.Route(parse(t, recordingError), "recording", receivedAt))
	require.Equal(t, route.Result{Sinks: []string{"rest"}, Matched: true}, r.Route(parse(t, channelCreated), "rtc", receivedAt))
	require.Equal(t, route.Result{Sinks: []string{"rest"}}, r.Route(parse(t, cdnPublish), "recording", receivedAt))
}

func TestUnmatchedEventsWithoutSinks(t *testing.T) {
	t.Parallel()
	r := compile(t, nil, route.RuleConfig{Match: route.MatchConfig{Product: []string{"rtc"}}})
	require.Equal(t, route.Result{}, r.Route(parse(t, uploaded), "recording", receivedAt))
}

// An expression that fails must not take the event away from other rules, nor from unmatched.
func TestFailedExpressionIsNoMatchAndReported(t *testing.T) {
	t.Parallel()
	failing := route.RuleConfig{When: "payload.a.b == 1", To: []string{"a"}}
	r := compile(t, []string{"rest"}, failing)
	got := r.Route(parse(t, uploaded), "recording", receivedAt)
	require.Equal(t, []string{"rest"}, got.Sinks)
	require.False(t, got.Matched)
	require.Len(t, got.Errors, 1)
	require.Equal(t, 0, got.Errors[0].Rule)
	require.EqualError(t, got.Errors[0].Err, "cannot fetch b from <nil> (at character 11: b == 1)")

	r = compile(t, []string{"rest"}, route.RuleConfig{To: []string{"b"}}, failing)
	got = r.Route(parse(t, uploaded), "recording", receivedAt)
	require.Equal(t, []string{"b"}, got.Sinks)
	require.True(t, got.Matched)
	require.Len(t, got.Errors, 1)
	require.Equal(t, 1, got.Errors[0].Rule)
}

// A result belongs to its caller: changing it must not change the router.
func TestResultsAreNotShared(t *testing.T) {
	t.Parallel()
	r := compile(t, []string{"rest"}, route.RuleConfig{Match: route.MatchConfig{Product: []string{"rtc"}}})
	n := parse(t, uploaded)
	r.Route(n, "recording", receivedAt).Sinks[0] = "changed"
	r.Unmatched()[0] = "changed"
	require.Equal(t, []string{"rest"}, r.Route(n, "recording", receivedAt).Sinks)
}

// For random rules and events Route must decide as one who reads the verdicts of Explain.
func TestRouteEqualsExplain(t *testing.T) {
	t.Parallel()
	events := samples(t)
	rng := rand.New(rand.NewPCG(1, 2))
	sinks := make([]string, 300) // more than fit the words kept on the stack
	for i := range sinks {
		sinks[i] = fmt.Sprintf("sink-%03d", i)
	}
	sources := []route.Source{{Name: "recording"}, {Name: "rtc"}}
	matched := 0
	for range 60 {
		rules := make([]route.RuleConfig, 1+rng.IntN(8))
		for i := range rules {
			rules[i] = randomRule(rng, events, sinks)
		}
		unmatched := []string{sinks[rng.IntN(len(sinks))]}
		r := route.Compile(route.Options{Rules: rules, Unmatched: unmatched, Sinks: sinks, Sources: sources})
		require.NotNil(t, r, "%+v", rules)
		for range 40 {
			n, source := events[rng.IntN(len(events))], sources[rng.IntN(2)].Name
			got := r.Route(n, source, receivedAt)
			verdicts := r.Explain(n, source, receivedAt)
			if diff := cmp.Diff(naive(verdicts, unmatched, sinks), withoutErrors(got)); diff != "" {
				t.Fatalf("%s from %s, rules %+v: %s", n.Info.Event, source, rules, diff)
			}
			requireReachable(t, r, n, got.Sinks)
			if got.Matched {
				matched++
			}
		}
	}
	require.Greater(t, matched, 200, "the random rules hardly ever match, so nothing is tested")
}

func naive(verdicts []route.Verdict, unmatched, sinks []string) route.Result {
	var result route.Result
	owed := map[string]bool{}
	for _, v := range verdicts {
		if v.Applies {
			result.Matched = true
			for _, s := range v.To {
				owed[s] = true
			}
		}
		if v.Err != nil {
			result.Errors = append(result.Errors, route.RuleError{Rule: v.Rule})
		}
	}
	if !result.Matched {
		result.Sinks = unmatched
		return result
	}
	for _, s := range sinks {
		if owed[s] {
			result.Sinks = append(result.Sinks, s)
		}
	}
	return result
}

func withoutErrors(r route.Result) route.Result {
	for i := range r.Errors {
		r.Errors[i].Err = nil
	}
	return r
}

// requireReachable checks Reach against what really came.
func requireReachable(t *testing.T, r *route.Router, n *ncs.Notification, sinks []string) {
	t.Helper()
	for _, sink := range sinks {
		reach := r.Reach(sink)
		if n.Info.Known {
			require.True(t, slices.Contains(reach.Known, n.Info), "%s.%s came to %s", n.Info.Product, n.Info.Event, sink)
			continue
		}
		require.True(t, slices.Contains(reach.Unknown, n.Info.Product) || slices.Contains(reach.Unknown, "unknown"),
			"%s.%s came to %s", n.Info.Product, n.Info.Event, sink)
	}
}

// randomRule makes a rule of values that occur in the events, so that it has a chance to apply.
func randomRule(rng *rand.Rand, events []*ncs.Notification, sinks []string) route.RuleConfig {
	n := events[rng.IntN(len(events))]
	var r route.RuleConfig
	maybe := func() bool { return rng.IntN(4) == 0 }
	if maybe() {
		r.Match.Product = []string{n.Info.Product}
	}
	if maybe() {
		events := []string{n.Info.Product + "." + n.Info.Event, n.Info.Event, fmt.Sprintf("%s.%d", n.Info.Product, n.EventType)}
		r.Match.Event = []string{events[rng.IntN(len(events))]}
	}
	if maybe() {
		r.Match.Category = []string{n.Info.Category}
	}
	if maybe() {
		r.Match.ServiceType = []string{fmt.Sprint(max(n.ServiceType, 0))}
	}
	if maybe() {
		r.Match.Channel = []string{n.Channel + "*"}
	}
	if maybe() && n.Entity != "" {
		r.Match.Entity = []string{n.Entity}
	}
	if maybe() {
		r.Match.Source = []string{"rtc"}
	}
	if maybe() {
		whens := []string{`payload.details.status == 0`, `product == "rtc" or event_type > 30`, `entity != ""`, `payload.uid != nil`}
		r.When = whens[rng.IntN(len(whens))]
	}
	for range 1 + rng.IntN(4) {
		if s := sinks[rng.IntN(len(sinks))]; !slices.Contains(r.To, s) {
			r.To = append(r.To, s)
		}
	}
	return r
}

// samples are the protocol's sample bodies and some that the catalogue does not know.
func samples(t testing.TB) []*ncs.Notification {
	t.Helper()
	files, err := filepath.Glob("../ncs/samples/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	events := []*ncs.Notification{parse(t, unknownType), parse(t, unknownProduct)}
	for _, f := range files {
		body, err := os.ReadFile(f)
		require.NoError(t, err)
		events = append(events, parse(t, string(body)))
	}
	return events
}

// Where no expression is involved, an event costs the slice of its sinks and nothing else.
func TestRouteAllocatesOnlyTheSinks(t *testing.T) {
	r := compile(t, nil,
		route.RuleConfig{Match: route.MatchConfig{Product: []string{"cloud_recording"}, Channel: []string{"class*7"}}},
		route.RuleConfig{Match: route.MatchConfig{Product: []string{"rtc"}}, When: "payload.uid == 1"},
		route.RuleConfig{Match: route.MatchConfig{Event: []string{"uploaded"}, ServiceType: []string{"2"}}, To: []string{"b"}},
	)
	n := parse(t, uploaded)
	require.InDelta(t, 1, testing.AllocsPerRun(100, func() { r.Route(n, "recording", receivedAt) }), 0)
	none := parse(t, cdnPublish)
	require.InDelta(t, 0, testing.AllocsPerRun(100, func() { r.Route(none, "recording", receivedAt) }), 0)
}

func BenchmarkRoute(b *testing.B) {
	for _, size := range []int{1, 50, 500} {
		rules := make([]route.RuleConfig, size)
		catalogue := ncs.Builtin().Types()
		for i := range rules {
			info := catalogue[i%len(catalogue)]
			rules[i] = route.RuleConfig{
				Match: route.MatchConfig{Product: []string{info.Product}, Event: []string{info.Event}, Channel: []string{fmt.Sprintf("team-%d-*", i)}},
				To:    []string{"a"},
			}
		}
		rules[0] = route.RuleConfig{Match: route.MatchConfig{Product: []string{"cloud_recording"}}, To: []string{"b"}}
		b.Run(fmt.Sprintf("rules=%d", size), func(b *testing.B) { benchmarkRoute(b, compile(b, nil, rules...)) })
	}
	b.Run("when=1", func(b *testing.B) {
		benchmarkRoute(b, compile(b, nil, route.RuleConfig{When: `payload.details.status == 0 and payload.uid == "1001"`}))
	})
}

func benchmarkRoute(b *testing.B, r *route.Router) {
	n := parse(b, uploaded)
	b.ReportAllocs()
	for b.Loop() {
		if !r.Route(n, "recording", receivedAt).Matched {
			b.Fatal("no rule matched")
		}
	}
}
