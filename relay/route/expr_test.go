package route_test

import (
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/route"
)

func TestExprEval(t *testing.T) {
	t.Parallel()
	tests := []struct {
		expr, body string
		want       bool
		err        string
	}{
		{expr: `product == "cloud_recording" and event == "uploaded" and event_type == 31`, body: uploaded, want: true},
		{expr: `category == "uploader" && entity == "s1" && source == "recording"`, body: uploaded, want: true},
		{expr: `entity == ""`, body: unknownProduct, want: true},
		{expr: `payload.uid == "1001"`, body: uploaded, want: true},
		{expr: `payload.uid == 42`, body: userJoined, want: true},
		{expr: `payload.uid == "42"`, body: userJoined, want: false}, // a number there
		{expr: `string(payload.uid) == "42"`, body: userJoined, want: true},
		{expr: `payload.details.errorLevel >= 4`, body: recordingError, want: true},
		{expr: `payload.details.errorLevel in [4, 5]`, body: recordingError, want: true},
		{expr: `payload.details.ratio == 0.5`, body: recordingError, want: true},
		{expr: `payload.details.big == 9007199254740993`, body: recordingError, want: true},
		{expr: `payload.details.big == 9007199254740992`, body: recordingError, want: false}, // as floats they were equal
		{expr: `payload.details.huge > 9007199254740993`, body: recordingError, want: true},
		{expr: `payload.details.ok`, body: recordingError, want: true},
		{expr: `payload.details.none == nil and payload.details.absent == nil`, body: recordingError, want: true},
		{expr: `"errorCode" in payload.details`, body: recordingError, want: true},
		{expr: `payload.absent?.level == 4`, body: recordingError, want: false},
		{expr: `any(payload.details.fileList, .fileName endsWith ".mp4")`, body: uploaded, want: true},
		{expr: `count(payload.details.fileList, .uid == "0") == 2`, body: uploaded, want: true},
		{expr: `len(payload.details.fileList) == 2 and payload.details.fileList[0].fileName matches "^a[.]"`, body: uploaded, want: true},
		{expr: `any(payload.details.fileList, .uid in ["0", "1"])`, body: uploaded, want: true},
		{expr: `all(payload.details.fileList, count(keys(#), # in ["fileName", "uid"]) == 2)`, body: uploaded, want: true},
		{expr: `received_at > date("2026-01-01") and received_at.Year() == 2026`, body: uploaded, want: true},
		{expr: `let d = payload.details; d.status == 0`, body: uploaded, want: true},

		{expr: `payload.absent.level >= 4`, body: uploaded, err: "cannot fetch level from <nil> (at character 16: level >= 4)"},
		{expr: `payload.uid >= 4`, body: uploaded, err: "invalid operation: string >= int (at character 13: >= 4)"},
		{expr: `payload.details`, body: uploaded, err: "invalid operation: bool(map[string]interface {}) (at character 1: payload.details)"},
		{expr: `payload.details.fileList[2] == nil`, body: uploaded, err: "index out of range: 2 (array length is 2) (at character 25: [2] == nil)"},
	}
	for _, tt := range tests {
		t.Run(tt.expr, func(t *testing.T) {
			t.Parallel()
			x, err := route.CompileExpr(tt.expr)
			require.NoError(t, err)
			got, err := x.Eval(parse(t, tt.body), "recording", receivedAt)
			if tt.err != "" {
				require.EqualError(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

// What could run away or differ between the dry run and production is refused at load.
func TestExprRefusesWhatIsUnbounded(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		`all(1..1000000, # > 0)`:                                "the range operator .. is not available (at character 6: ..1000000, # > 0))",
		`now() > received_at`:                                   "function now is not available (at character 1: now() > received_at)",
		`repeat("a", 1000000) == ""`:                            `function repeat is not available (at character 1: repeat("a", 1000000) == "")`,
		`sortBy(payload.l, #)[0] == 1`:                          "function sortBy is not available (at character 1: sortBy(payload.l, #)[0] == 1)",
		`$env.product == "rtc"`:                                 `$env is not available (at character 1: $env.product == "rtc")`,
		`entity matches payload.re`:                             "the pattern of matches must be a literal (at character 8: matches payload.re)",
		`any(payload.a, any(#, any(#, # == 1)))`:                "more than 2 predicates inside each other (at character 16: any(#, any(#, # == 1))))",
		`any(payload.a, any(payload.b, # == 1))`:                "a list outside of the element is walked again for each one: look into the element, as in any(payload.uids, any(#.fileList, ...)) (at character 16:",
		`any(payload.a, # in payload.b)`:                        "a list outside of the element is walked again",
		`all(payload.a, {count(payload.a) > 1})`:                "a list outside of the element is walked again",
		`let b = payload.b; any(payload.a, any(b, # == 1))`:     "a list outside of the element is walked again",
		`any(payload.a, # == sum(payload.b))`:                   "a list outside of the element is walked again",
		`any(payload.a, any(filter(payload.b, # > 1), # == 1))`: "a list outside of the element is walked again",
		strings.Repeat(" ", 5000):                               "5000 bytes long, at most 4096 are allowed",
		`1 == 1` + strings.Repeat(`||1==1`, 300):                "compilation failed: expression exceeds maximum allowed nodes",
	}
	for src, want := range tests {
		_, err := route.CompileExpr(src)
		require.ErrorContains(t, err, want, src)
	}
}

func TestExprIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	r := compile(t, nil,
		route.RuleConfig{When: `any(payload.details.fileList, .fileName matches "mp4$")`},
		route.RuleConfig{When: `let d = payload.details; d.status == 0`, To: []string{"b"}})
	n := parse(t, uploaded)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got := r.Route(n, "recording", receivedAt); len(got.Sinks) != 2 || got.Errors != nil {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzCompileExpr(f *testing.F) {
	for _, seed := range []string{
		`payload.details.errorLevel >= 4`, `any(payload.l, {let x = #; x > 1})`, `1 % 0 == 1`, `"a" matches "("`, `[1,2][5] == 1`,
		`{"a": 1}["a"] == payload?.b ?? 3`, `if true {1 == 1} else {false}`, "\"\\u0000\" == \"", `(((((`, `-9223372036854775808 == 0x`,
		`date("x") > received_at`, `payload | keys() | len() > 0`, `duration("1h") > 0`, `int("x") > 0`, "`", `reduce(payload.l, #acc + #) == 1`,
	} {
		f.Add(seed)
	}
	n := parse(f, uploaded)
	f.Fuzz(func(t *testing.T, src string) {
		x, err := route.CompileExpr(src)
		if err == nil {
			_, err = x.Eval(n, "recording", receivedAt)
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || !utf8.ValidString(err.Error()) || err.Error() == "") {
			t.Fatalf("%q: error is not one line of text: %q", src, err)
		}
	})
}
