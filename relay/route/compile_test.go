package route_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/route"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// findings compiles and lists what is reported, a line each.
func findings(o route.Options) (string, *route.Router) {
	var b strings.Builder
	severities := map[route.Severity]string{route.Error: "error", route.Warning: "warning", route.Note: "note"}
	o.Report = func(s route.Severity, path, message, hint string, values ...any) {
		message, hint = problem.Text(nil, message, hint, values...)
		fmt.Fprintf(&b, "%s: %s: %s", severities[s], path, message)
		if hint != "" {
			fmt.Fprintf(&b, " [%s]", hint)
		}
		b.WriteByte('\n')
	}
	r := route.Compile(o)
	return b.String(), r
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Fatalf("%s (-want +got), rewrite with -update:\n%s", file, diff)
	}
}

func TestCompileReportsAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	type match = route.MatchConfig
	to := []string{"billing"}
	got, router := findings(route.Options{
		Sinks:     []string{"billing", "archive"},
		Sources:   []route.Source{{Name: "recording"}},
		Unmatched: []string{"archiv"},
		Rules: []route.RuleConfig{
			0:  {},
			1:  {To: []string{"biling", "nothing-like-it", "billing"}},
			2:  {Match: match{Product: []string{"cloud_recordng", "3", "unknown_x"}}, To: to},
			3:  {Match: match{Event: []string{"31"}}, To: to},
			4:  {Match: match{Event: []string{"31"}, Product: []string{"cloud_recording", "rtc"}}, To: to},
			5:  {Match: match{Event: []string{"4711"}}, To: to},
			6:  {Match: match{Event: []string{"uploded", "cloud_recording.uploded", "cloud_recordin.uploaded"}}, To: to},
			7:  {Match: match{Event: []string{"uploaded"}, Product: []string{"rtc"}}, To: to},
			8:  {Match: match{Event: []string{"cloud_recording.uploaded"}, Product: []string{"rtc", "media_pull"}}, To: to},
			9:  {Match: match{Event: []string{"cloud_recording.agent_joined", ""}}, To: to},
			10: {Match: match{Event: []string{"uploaded", "nonsense"}, Product: []string{"cloud-recording"}}, To: to},
			11: {Match: match{Category: []string{"uploder"}, Source: []string{"recordings"}}, To: to},
			12: {Match: match{ServiceType: []string{"2", "uploader", "-1"}}, To: to},
			13: {Match: match{Channel: []string{""}, Entity: []string{""}}, To: to},
			14: {When: `payload.details.errorLevel >=`, To: to},
			15: {When: `evnt == "uploaded"`, To: to},
			16: {When: `event_type`, To: to},
			17: {When: "product == \"rtc\" and\n  event_type == \"31\"", To: to},
			18: {When: `entity matches "["`, To: to},
			19: {When: `xyzzy > 1`, To: to},
			20: {Match: match{Event: []string{"-1"}, Product: []string{"rtc"}}, To: to},
			21: {Match: match{Product: []string{}, Event: []string{}, Entity: []string{}}, To: to},
		},
	})
	require.Nil(t, router)
	golden(t, "testdata/bad_rules.golden", got)
}

func TestCompileWarnsOfRulesThatCannotDoWhatTheySay(t *testing.T) {
	t.Parallel()
	type match = route.MatchConfig
	to := []string{"billing"}
	got, router := findings(route.Options{
		Sinks:   []string{"billing", "archive"},
		Sources: []route.Source{{Name: "recording", Products: []string{"cloud_recording", "fusion_cdn", "unknown_99"}}, {Name: "any"}},
		Rules: []route.RuleConfig{
			0:  {Match: match{Product: []string{"rtc"}, ServiceType: []string{"1"}}, To: to},
			1:  {Match: match{Product: []string{"rtc"}, Category: []string{"uploader"}}, To: to},
			2:  {Match: match{Event: []string{"session_exit"}, Category: []string{"uploader"}}, To: to},
			3:  {Match: match{Product: []string{"cloud_recording"}, Channel: []string{"class-*"}}, To: to},
			4:  {Match: match{Product: []string{"fusion_cdn"}, Channel: []string{"class-*"}}, To: to},
			5:  {Match: match{Product: []string{"rtc"}, Source: []string{"recording"}}, To: to},
			6:  {Match: match{Event: []string{"uploaded", "uploaded"}}, To: []string{"billing", "billing"}},
			7:  {Match: match{Product: []string{"cloud_recording"}, Channel: []string{"class-*"}}, To: to},
			8:  {Match: match{Event: []string{"cloud_recording.unknown_31", "unknown_46"}}, To: to},
			9:  {Match: match{Channel: []string{"room?"}}, To: to},
			10: {Match: match{Product: []string{"unknown_99"}, ServiceType: []string{"1"}}, To: to}, // nothing to say
			11: {Match: match{Product: []string{"media_push_sdk"}, Channel: []string{"x"}}, To: to}, // nothing to say
		},
	})
	require.NotNil(t, router, got)
	golden(t, "testdata/odd_rules.golden", got)
}

func TestProductThatNoSourceLetsIn(t *testing.T) {
	t.Parallel()
	got, router := findings(route.Options{
		Sinks:   []string{"a"},
		Sources: []route.Source{{Name: "recording", Products: []string{"cloud_recording"}}},
		Rules:   []route.RuleConfig{{Match: route.MatchConfig{Product: []string{"rtc"}}, To: []string{"a"}}},
	})
	require.NotNil(t, router)
	require.Equal(t, "warning: routes[0].match: no event can match: no source lets in product rtc\n", got)
}

func TestProductThatASourceLetsInByItsOldName(t *testing.T) {
	t.Parallel()
	got, router := findings(route.Options{
		Sinks:   []string{"a"},
		Sources: []route.Source{{Name: "recording", Products: []string{"unknown_3"}}},
		Rules:   []route.RuleConfig{{Match: route.MatchConfig{Event: []string{"cloud_recording.uploaded"}}, To: []string{"a"}}},
	})
	require.Empty(t, got)
	require.Equal(t, route.Reach{Known: []ncs.Info{ncs.Builtin().Lookup(3, 31)}}, router.Reach("a"))
}

func TestGoodRulesHaveNoFindings(t *testing.T) {
	t.Parallel()
	got, router := findings(route.Options{
		Sinks:   []string{"recording-events", "billing", "archive"},
		Sources: []route.Source{{Name: "recording"}},
		Rules: []route.RuleConfig{
			{Match: route.MatchConfig{Product: []string{"cloud_recording"}}, To: []string{"recording-events"}},
			{Match: route.MatchConfig{Product: []string{"cloud_recording"}, Event: []string{"uploaded", "backuped", "11"}}, To: []string{"billing"}},
			{Match: route.MatchConfig{Event: []string{"cloud_recording.cloud_recording_error"}}, When: "payload.details.errorLevel >= 4", To: []string{"archive"}},
		},
		Unmatched: []string{"archive"},
	})
	require.Empty(t, got)
	require.NotNil(t, router)
}

func TestReach(t *testing.T) {
	t.Parallel()
	type match = route.MatchConfig
	tests := []struct {
		name        string
		rules       []route.RuleConfig
		unmatched   []string
		source      route.Source
		wantKnown   func(ncs.Info) bool // nil = none
		wantUnknown []string
	}{
		{
			name:        "a product and its unknown types",
			rules:       []route.RuleConfig{{Match: match{Product: []string{"rtc"}}, To: []string{"s"}}},
			wantKnown:   func(i ncs.Info) bool { return i.Product == "rtc" },
			wantUnknown: []string{"rtc"},
		},
		{
			name:      "events",
			rules:     []route.RuleConfig{{Match: match{Event: []string{"uploaded"}}, To: []string{"s"}}},
			wantKnown: func(i ncs.Info) bool { return i.Event == "uploaded" },
		},
		{
			name:      "a field only some have",
			rules:     []route.RuleConfig{{Match: match{Product: []string{"media_push"}, Channel: []string{"*"}}, To: []string{"s"}}},
			wantKnown: func(i ncs.Info) bool { return i.Product == "media_push" && i.EventType <= 2 }, wantUnknown: []string{"media_push"},
		},
		{
			name:        "an unknown type by number and a product without a name",
			rules:       []route.RuleConfig{{Match: match{Event: []string{"unknown_500", "unknown_99.5"}}, To: []string{"s"}}},
			wantUnknown: append(productsByName(), "unknown_99", "unknown"),
		},
		{
			name:      "what a source lets in",
			rules:     []route.RuleConfig{{To: []string{"s"}}},
			source:    route.Source{Products: []string{"media_pull"}},
			wantKnown: func(i ncs.Info) bool { return i.Product == "media_pull" }, wantUnknown: []string{"media_pull"},
		},
		{
			name:        "unmatched gets what no rule surely takes",
			rules:       []route.RuleConfig{{Match: match{Product: []string{"rtc"}}, To: []string{"other"}}},
			unmatched:   []string{"s"},
			source:      route.Source{Products: []string{"rtc", "media_pull"}},
			wantKnown:   func(i ncs.Info) bool { return i.Product == "media_pull" },
			wantUnknown: []string{"media_pull"},
		},
		{
			name:        "a rule with an expression may leave anything",
			rules:       []route.RuleConfig{{Match: match{Product: []string{"rtc"}}, When: "payload.uid == 1", To: []string{"other"}}},
			unmatched:   []string{"s"},
			source:      route.Source{Products: []string{"rtc"}},
			wantKnown:   func(i ncs.Info) bool { return i.Product == "rtc" },
			wantUnknown: []string{"rtc"},
		},
		{
			name:        "one unknown type taken leaves the other unknown types",
			rules:       []route.RuleConfig{{Match: match{Event: []string{"rtc.500"}}, To: []string{"other"}}, {Match: match{Event: []string{"channel_create"}}, To: []string{"other"}}},
			unmatched:   []string{"s"},
			source:      route.Source{Products: []string{"rtc"}},
			wantKnown:   func(i ncs.Info) bool { return i.Product == "rtc" && i.EventType != 101 },
			wantUnknown: []string{"rtc"},
		},
		{
			name:        "a product without a name that a source lets in",
			rules:       []route.RuleConfig{{To: []string{"s"}}},
			source:      route.Source{Products: []string{"unknown_5000"}},
			wantUnknown: []string{"unknown_5000"},
		},
		{name: "no rule", rules: []route.RuleConfig{{To: []string{"other"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := route.Compile(route.Options{
				Rules: tt.rules, Unmatched: tt.unmatched, Sinks: []string{"s", "other"}, Sources: []route.Source{tt.source},
			})
			require.NotNil(t, r)
			var want []ncs.Info
			for _, i := range ncs.Builtin().Types() {
				if tt.wantKnown != nil && tt.wantKnown(i) {
					want = append(want, i)
				}
			}
			require.Equal(t, route.Reach{Known: want, Unknown: tt.wantUnknown}, r.Reach("s"))
		})
	}
}

func productsByName() []string {
	var names []string
	for _, p := range ncs.Builtin().Products() {
		names = append(names, p.Name)
	}
	return names
}

func TestCompileTriesConditionsOnTheSamples(t *testing.T) {
	t.Parallel()
	type match = route.MatchConfig
	for _, test := range []struct {
		name, when string
		match      match
		want       string
	}{
		{name: "a member of few events", when: "payload.details.exitStatus > 0", match: match{Event: []string{"session_exit", "uploaded"}},
			want: "warning: routes[0].when: fails, and so does not apply, on 6 of the 8 sample events that its rule takes, such as speech_to_text.uploaded: " +
				"invalid operation: <nil> > int (at character 28: > 0) [write payload.details?.exitStatus != nil and payload.details.exitStatus > 0]"},
		{name: "no more guards than needed", when: `payload.cname == "a" and payload.details.errorLevel >= 4 or payload.details.module == 2`,
			match: match{Event: []string{"cloud_recording_error", "uploading_progress"}}, want: ""},
		{name: "an alternative", when: `payload.details.errorLevel >= 4 or payload.details.code == 6`, match: match{Event: []string{"cloud_recording_error", "web_recorder_stopped"}},
			want: "warning: routes[0].when: fails, and so does not apply, on 2 of the 3 sample events that its rule takes, such as cloud_recording.web_recorder_stopped: " +
				"invalid operation: <nil> >= int (at character 28: >= 4 or payload.details.code =) [write payload.details?.errorLevel != nil and " +
				"(payload.details.errorLevel >= 4 or payload.details.code == 6)]"},
		{name: "another type of value", when: `payload.details.fileList[0].fileName endsWith ".mp4"`, match: match{Event: []string{"transcoder_completed", "recorder_leave", "file_infos"}},
			want: "warning: routes[0].when: fails, and so does not apply, on 4 of the 5 sample events that its rule takes, such as speech_to_text.file_infos: " +
				"cannot fetch fileName from uint8 (at character 29: fileName endsWith \".mp4\") [let match.event name the events that it is for]\n" +
				"warning: routes[0].when: payload.details.fileList is a text in speech_to_text.file_infos: its elements are bytes (numbers), and equal no text [payload.details.fileList[0:1] is a text]"},
		{name: "a name that is nowhere", when: "payload.detials.status > 0", match: match{Event: []string{"uploaded"}, Product: []string{"cloud_recording"}},
			want: "warning: routes[0].when: fails, and so does not apply, on 5 of the 5 sample events that its rule takes, such as cloud_recording.uploaded: " +
				"cannot fetch status from <nil> (at character 17: status > 0) [ncs-relay events show EVENT says what a payload holds]"},
		{name: "it never fails", when: `payload.details?.errorLevel != nil and payload.details.errorLevel >= 4`, want: ""},
		{name: "a byte", when: `payload.cname[0] == "a"`, match: match{Event: []string{"session_exit"}},
			want: "warning: routes[0].when: payload.cname is a text in cloud_recording.session_exit: its elements are bytes (numbers), and equal no text [payload.cname[0:1] is a text]"},
		{name: "a byte, by another way", when: `last(payload.cname) == "a" or get(payload.sid, 0) == "x"`, match: match{Event: []string{"session_exit"}},
			want: "warning: routes[0].when: payload.cname is a text in cloud_recording.session_exit: its elements are bytes (numbers), and equal no text [payload.cname[0:1] is a text]\n" +
				"warning: routes[0].when: payload.sid is a text in cloud_recording.session_exit: its elements are bytes (numbers), and equal no text [payload.sid[0:1] is a text]"},
		{name: "a slice", when: `payload.cname[0:1] == "a"`, match: match{Event: []string{"session_exit"}}},
		{name: "an element of a list", when: `payload.details.fileList[0].fileName != ""`, match: match{Event: []string{"web_recorder_stopped"}}},
		{name: "no sample", when: `payload.a.b > 0`, match: match{Event: []string{"sts_expired"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, router := findings(route.Options{Sinks: []string{"a"}, Rules: []route.RuleConfig{{Match: test.match, When: test.when, To: []string{"a"}}}})
			require.NotNil(t, router)
			require.Equal(t, test.want, strings.TrimSuffix(got, "\n"))
		})
	}
}

// The example of a rule that passed every check though it failed nearly everywhere.
func TestCompileSaysOnHowManySamplesAConditionFails(t *testing.T) {
	t.Parallel()
	got, _ := findings(route.Options{Sinks: []string{"a"}, Rules: []route.RuleConfig{{When: "payload.details.exitStatus > 0", To: []string{"a"}}}})
	require.Contains(t, got, "on 122 of the 124 sample events")
	require.Contains(t, got, "[write payload.details?.exitStatus != nil and payload.details.exitStatus > 0]")
}
