package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/kafkasink"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	env := lookupIn(map[string]string{"A": "alpha", "_b1": "beta", "EMPTY": "", "SLY": "${A}", "LINES": "a: b\nc: d"})
	for in, want := range map[string]string{
		"":                          "",
		"plain $ {A} $A $$":         "plain $ {A} $A $$",
		"${A}":                      "alpha",
		"-${A}-${_b1}-":             "-alpha-beta-",
		"${EMPTY}":                  "",
		"${EMPTY:-x}":               "x",
		"${NONE:-x y:z}":            "x y:z",
		"${NONE:-}":                 "",
		"${A:-x}":                   "alpha",
		"${A:?message}":             "alpha",
		"$${A}":                     "${A}",
		"$${A} ${A}":                "${A} alpha",
		"$$${A}":                    "$${A}", // one of the two escapes, the other stays
		"${SLY}":                    "${A}",  // what is in a variable is not expanded again
		"${LINES}":                  "a: b\nc: d",
		"${NONE":                    "error: " + errVariable.Error(),
		"${}":                       "error: " + errVariable.Error(),
		"${1A}":                     "error: " + errVariable.Error(),
		"${A-x}":                    "error: " + errVariable.Error(),
		"${NONE:x}":                 "error: " + errVariable.Error(),
		"${NONE:-${A}}":             "error: " + errNested.Error(),
		"${A:-${NONE:-x}}":          "error: " + errNested.Error(),
		"${NONE:?set ${A}}":         "error: " + errNested.Error(),
		"${NONE:-$${x}}":            "error: " + errNested.Error(),
		"${NONE}":                   "error: variable NONE is not set",
		"${NONE:?ask the operator}": "error: variable NONE is not set: ask the operator",
		"${EMPTY:?needed}":          "error: variable EMPTY is not set: needed",
	} {
		e, err := expand(in, env)
		got := e.value
		if err != nil {
			got = "error: " + err.Error()
		}
		require.Equal(t, want, got, "of %q", in)
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]any{
		"0": time.Duration(0), "10s": 10 * time.Second, "1h30m": 90 * time.Minute, "1.5s": 1500 * time.Millisecond,
		"14d": 14 * 24 * time.Hour, "1d12h": 36 * time.Hour, "106751d": 106751 * 24 * time.Hour,
		"": errDuration, "d": errDuration, "x": errDuration, "1w": errDuration, "1d-1h": errDuration, "12h1d": errDuration,
		"1.5d": errDuration, "10 s": errDuration, "+5s": 5 * time.Second,
		"10": errUnit, "1.5": errUnit, "-1s": errNegative, "106752d": errRange, "106751d24h": errRange, "99999999999999999999d": errRange,
	} {
		got, err := parseDuration(in)
		requireResult(t, in, want, got, err)
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]any{
		"0": int64(0), "512": int64(512), "5B": int64(5), "64KiB": int64(65536), "4GiB": int64(4 << 30), "8388607TiB": int64(8388607 << 40),
		"1KB": int64(1000), "2MB": int64(2e6), "3GB": int64(3e9), "9223372036854775807": int64(1<<63 - 1),
		"": errSize, "KiB": errSize, "1K": errSize, "1Gi": errSize, "1kb": errSize, "1.5GiB": errSize, "1 MiB": errSize, "+1": errSize,
		"-1": errNegative, "8388608TiB": errRange, "9223372036854775808": errRange, "1BB": errSize,
	} {
		got, err := parseSize(in)
		requireResult(t, in, want, got, err)
	}
}

func requireResult(t *testing.T, in string, want, got any, err error) {
	t.Helper()
	if wantErr, ok := want.(error); ok {
		require.ErrorIs(t, err, wantErr, "of %q", in)
		return
	}
	require.NoError(t, err, "of %q", in)
	require.Equal(t, want, got, "of %q", in)
}

const smallest = "sources: [{name: a, path: /a, secrets: ['0123456789abcdef']}]\n"

// parse parses a file that has only one source besides text.
func parse(t *testing.T, text string, env map[string]string) (*Config, *Report) {
	t.Helper()
	return Parse("relay.yaml", []byte(smallest+text), "/etc/relay", lookupIn(env), sinks.Kinds)
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, report := parse(t, "sinks: [{name: f, file: {path: events.jsonl}}, {name: h, http: {url: 'https://a.internal'}}]\nroutes: [{to: [f, h]}]", nil)
	require.NoError(t, report.Err())
	got, err := c.Redacted()
	require.NoError(t, err)
	golden(t, "testdata/defaults.txt", string(got))
	require.Equal(t, "/etc/relay/data", c.DataDir)
	require.Equal(t, "/etc/relay/events.jsonl", c.Sinks[0].Kind.(*filesink.Config).Path)
	require.Equal(t, "0123456789abcdef", c.Sources[0].Resolved[0].Reveal())
}

// TestVariablesOfEveryType replaces whole values by variables: they mean what the same text in the file would mean.
func TestVariablesOfEveryType(t *testing.T) {
	t.Parallel()
	env := map[string]string{"N": "5", "T": "true", "D": "14d", "S": "64KiB", "P": "x/y", "SECRET": "a: b\n- c\n#d"}
	c, report := parse(t, `
dedup: {max_keys: "${N}", window: "${D}"}
data_dir: ${P}
sinks:
  - name: h${N}
    propagate_trace: ${T}
    http: {url: "https://a.internal", basic_auth: {username: u, password: "${SECRET}"}}
routes: [{match: {service_type: "${N}"}, to: ["h${N}"]}]
journal: {min_free: "${S}"}
`, env)
	require.NoError(t, report.Err())
	require.Equal(t, 5, c.Dedup.MaxKeys)
	require.Equal(t, 14*24*time.Hour, c.Dedup.Window)
	require.Equal(t, "/etc/relay/x/y", c.DataDir)
	require.True(t, *c.Sinks[0].PropagateTrace)
	require.Equal(t, int64(64<<10), c.Journal.MinFree)
	require.Equal(t, []string{"5"}, c.Routes[0].Match.ServiceType)
	require.Equal(t, "a: b\n- c\n#d", c.Sinks[0].Kind.(*httpsink.Config).BasicAuth.Password.Reveal(), "a variable cannot change the structure")
}

func TestRedactedLoadsAgain(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"good_complete.yaml", "good_variables.yaml", "good_warnings.yaml", "good_kafka_journal.yaml"} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		require.NoError(t, err)
		first, report := Parse(file, data, secretsDir(t), lookupIn(testEnv), sinks.Kinds)
		require.NoError(t, report.Err())
		printed, err := first.Redacted()
		require.NoError(t, err)
		for _, secret := range []string{testEnv["NCS_SECRET"], testEnv["ADMIN_TOKEN"], "fedcba"} {
			require.NotContains(t, string(printed), secret)
		}
		second, report := Parse("printed", printed, "/elsewhere", lookupIn(testEnv), sinks.Kinds)
		require.NoError(t, report.Err(), "%s", printed)
		again, err := second.Redacted()
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(string(printed), string(again)))
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), mode))
		require.NoError(t, os.Chmod(filepath.Join(dir, name), mode)) // whatever the umask
	}
	write("unix", "first-secret\n", 0o600)
	write("windows", "second-secret\r\n", 0o600)
	write("inner", "third\nsecret", 0o644)
	write("large", strings.Repeat("x", 64<<10+1), 0o600)
	file := "sources:\n  - {name: a, path: /a, secrets: [literal-secret], secret_files: [%s]}"

	c, report := Parse("relay.yaml", fmt.Appendf(nil, file, "unix, windows, inner"), dir, lookupIn(nil), sinks.Kinds)
	require.NoError(t, report.Err())
	var resolved []string
	for _, s := range c.Sources[0].Resolved {
		resolved = append(resolved, s.Reveal())
	}
	require.Equal(t, []string{"literal-secret", "first-secret", "second-secret", "third\nsecret"}, resolved)
	require.Equal(t, []string{filepath.Join(dir, "unix"), filepath.Join(dir, "windows"), filepath.Join(dir, "inner")}, c.Files())
	require.Equal(t, 1, strings.Count(report.String(), "can be read by everybody"), report)
	require.Contains(t, report.String(), "secret_files[2]")

	_, report = Parse("relay.yaml", fmt.Appendf(nil, file, "large"), dir, lookupIn(nil), sinks.Kinds)
	require.ErrorContains(t, report.Err(), "has more than 65536 bytes")

	// Which of several is missing is told, though the directory has a part in common with the variable's name.
	for file, env := range map[string]map[string]string{
		`file "/run/secrets/ncs"`:         nil,
		`file "${NCS_SECRETS_DIR}/ncs"`:   {"NCS_SECRETS_DIR": "/run/secrets"},
		`file "${NCS_SECRETS_DIR}/extra"`: {"NCS_SECRETS_DIR": "/nowhere"},
	} {
		_, report = Parse("relay.yaml", fmt.Appendf(nil, "sources:\n  - {name: a, path: /a, secret_files: [%s, %s]}",
			`"${NCS_SECRETS_DIR:-/run/secrets}/ncs"`, `"${NCS_SECRETS_DIR:-/run/secrets}/extra"`), dir, lookupIn(env), sinks.Kinds)
		require.ErrorContains(t, report.Err(), ": "+file+" cannot be read")
	}
}

func TestLoadNamesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	c, report := Load(filepath.Join(t.TempDir(), "none.yaml"), lookupIn(nil), sinks.Kinds)
	require.Nil(t, c)
	require.ErrorContains(t, report.Err(), "none.yaml: cannot be read: no such file or directory")
}

func TestLoadTakesPathsRelativeToTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "relay.yaml")
	require.NoError(t, os.WriteFile(file, []byte(smallest), 0o600))
	c, report := Load(file, lookupIn(nil), sinks.Kinds)
	require.NoError(t, report.Err())
	require.Equal(t, filepath.Join(dir, "data"), c.DataDir)
}

// TestBounds gives files that would take a YAML parser minutes or its stack.
func TestBounds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ data, want string }{
		"size":         {"# " + strings.Repeat("x", maxFile), "the file has more than"},
		"entries":      {strings.Repeat("a: b\n", maxTokens/3+1), "too many entries"},
		"flow depth":   {strings.Repeat("[", maxTokens-1), "nested too deeply"},
		"dashes":       {strings.Repeat("- ", maxTokens-1), "nested too deeply"},
		"tags":         {strings.Repeat("!a ", maxTokens-1), "tags (!) are not supported"},
		"one key":      {strings.Repeat("sinks: []\n", 2000), " more"},
		"unknown keys": {numbered("key%d: b\n", 2000), " more"},
		"many sinks":   {"sinks:\n" + numbered("- name: ${X}%d\n", 2000), " more"},
		"many secrets": {"sources:\n" + numbered("- secrets: [a secret %d]\n", 2000), " more"},
		"deep blocks":  {indented(1000), "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, report := Parse("relay.yaml", []byte(test.data), "", lookupIn(map[string]string{"X": "a-long-name"}), sinks.Kinds)
			require.Nil(t, c)
			require.True(t, strings.Contains(report.String(), test.want), "%.500s", report)
			require.LessOrEqual(t, len(report.Problems), maxProblems+1)
		})
	}
}

func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// indented nests n mappings, which takes n²/2 bytes.
func indented(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%*sa:\n", i, "")
	}
	return b.String()
}

// TestReportsNeverShowValues puts a canary into every value of files with every kind of error: first through a variable,
// then as secrets in the file itself.
func TestReportsNeverShowValues(t *testing.T) {
	t.Parallel()
	const canary = "kanarienvogel"
	files, err := filepath.Glob("testdata/bad_*.yaml")
	require.NoError(t, err)
	values := []string{canary, canary + "://" + canary, "https://" + canary + ":pw@" + canary + "/" + canary + "?%zz", canary + "\n: " + canary,
		canary + `"` + canary, "/" + canary + "/../" + canary, strings.ToUpper(canary), canary + "=" + canary, `payload.` + canary + ` ==`, "{" + canary + "}",
		canary + ":99999", strings.Repeat(canary, 30)}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, value := range values {
			requireNoCanary(t, canary, withVariables(string(data)), value)
		}
	}
	for _, value := range values {
		requireNoCanary(t, canary, everySetting, value)
	}
}

// withVariables makes every quoted or bare value at the end of a line, or after a key in braces, a variable.
func withVariables(file string) string {
	lines := strings.Split(file, "\n")
	for i, line := range lines {
		if key, value, found := strings.Cut(line, ": "); found && !strings.ContainsAny(value, "{[|") {
			lines[i] = key + `: "${CANARY}"`
		}
	}
	return strings.Join(lines, "\n")
}

// everySetting is a file in which everything that can be a variable is one.
const everySetting = `
listen: "${CANARY}"
tls: {cert_file: "${CANARY}", key_file: "x${CANARY}"}
health_path: "${CANARY}"
admin: {listen: "${CANARY}", token: "${CANARY}"}
data_dir: "${CANARY}"
journal: {retention: "${CANARY}", max_size: "${CANARY}", min_free: "${CANARY}"}
dead_letters: {retention: "${CANARY}", max_size: "${CANARY}"}
dedup: {max_keys: "${CANARY}", window: "${CANARY}", on_conflict: "${CANARY}"}
limits: {connections: "${CANARY}", in_flight: "${CANARY}", read_timeout: "${CANARY}", idle_timeout: "${CANARY}"}
shutdown: {delay: "${CANARY}", timeout: "${CANARY}"}
log: {level: "${CANARY}", format: "${CANARY}"}
sources:
  - name: "${CANARY}"
    path: "${CANARY}"
    secrets: ["${CANARY}", {a: "${CANARY}"}, "${CANARY:?${CANARY}"]
    secret_files: ["${CANARY}"]
    products: ["${CANARY}"]
    signature: "${CANARY}"
    max_body: "${CANARY}"
    test_match: "${CANARY}"
  - {name: "${CANARY}", path: "${CANARY}", secrets: "${CANARY}"}
sinks:
  - name: "${CANARY}"
    owner: "${CANARY}"
    order: "${CANARY}"
    retry: {initial: "${CANARY}", max_interval: "${CANARY}", max_age: "${CANARY}", max_attempts: "${CANARY}"}
    backlog: {max_size: "${CANARY}"}
    propagate_trace: "${CANARY}"
    kafka:
      brokers: ["${CANARY}"]
      topic: "${CANARY}"
      client_id: "${CANARY}"
      cloudevents: "${CANARY}"
      compression: "${CANARY}"
      partitioner: "${CANARY}"
      create_topics: {partitions: "${CANARY}", configs: {a: "${CANARY}"}}
      tls: {ca_file: "${CANARY}", cert_file: "x${CANARY}", key_file: "${CANARY}", server_name: "${CANARY}"}
      sasl: {mechanism: "${CANARY}", username: "${CANARY}", password: "${CANARY}", password_file: "${CANARY}"}
  - {name: o, kafka: {topic: "{${CANARY}}", sasl: {mechanism: oauthbearer, token_url: "${CANARY}", auth_style: "${CANARY}", client_secret_file: "${CANARY}",
      extensions: {auth: "${CANARY}"}, token_form: {scope: "${CANARY}"}}}}
  - name: b
    http:
      url: "${CANARY}"
      timeout: "${CANARY}"
      concurrency: "${CANARY}"
      headers: {Host: "${CANARY}", X-A: "${CANARY}"}
      bearer_token: "${CANARY}"
      basic_auth: {username: "${CANARY}", password: "${CANARY}"}
      standard_webhooks: {secrets: ["${CANARY}"], secret_files: ["${CANARY}"]}
      header_files: {X-B: "${CANARY}"}
      verdicts: {"404": "${CANARY}"}
      proxy: "${CANARY}"
      egress: {allow: ["${CANARY}"], deny: ["x${CANARY}"]}
  - {name: u, http: {url: "https://a/{${CANARY}}"}}
  - {name: c, file: {path: "${CANARY}", max_size: "${CANARY}", max_files: "${CANARY}"}}
  - {name: d, file: {path: "${CANARY}"}}
routes:
  - match: {product: "${CANARY}", event: ["${CANARY}", "cloud_recording.${CANARY}"], category: "${CANARY}", service_type: "${CANARY}",
      source: "${CANARY}", channel: ["${CANARY}", "${CANARY}"], entity: "${CANARY}"}
    when: "${CANARY}"
    to: ["${CANARY}"]
  - {when: "payload.a + ${CANARY}", to: [b, "x${CANARY}"]}
unmatched: ["${CANARY}", "${CANARY}"]
`

func requireNoCanary(t *testing.T, canary, file, value string) {
	t.Helper()
	_, report := Parse("relay.yaml", []byte(file), t.TempDir(), lookupIn(map[string]string{"CANARY": value}), sinks.Kinds)
	require.NotEmpty(t, report.Problems)
	for line := range strings.Lines(report.String()) {
		require.NotContains(t, strings.ToLower(line), canary, "value %q", value)
	}
}

func TestReportsNeverShowSecretsOfTheFile(t *testing.T) {
	t.Parallel()
	const canary = "kanarienvogel"
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte(strings.Repeat(canary, 6000)), 0o600))
	for _, text := range []string{
		"secrets: " + canary, "secrets: {" + canary + ": x}", "secrets: ['" + canary + "${X}']", "secrets: ['${" + canary + " x}']",
		"secrets: [\"" + canary, "secrets: [[" + canary + "]]", "secrets: [" + canary + ": x]", "secrets: [&a " + canary + "]",
		"secrets: [!x " + canary + "]", "secrets: [" + canary + "]\n    secrets: [" + canary + "]", "secret: " + canary,
		"secrets: |\n      " + canary, "secret_files: [file]", "secrets: [\" " + canary + "\"]\n    signature: x",
		"secrets: [" + canary + "\x00]",
	} {
		file := "sources:\n  - name: a\n    path: /a\n    " + text
		c, report := Parse("relay.yaml", []byte(file), dir, lookupIn(nil), sinks.Kinds)
		require.Nil(t, c, "%s", file)
		// A key is no secret: where somebody writes one as a key, only that key is shown.
		shown := strings.ReplaceAll(report.String(), "sources[0].secrets["+canary, "")
		require.NotContains(t, shown, canary, "%s", file)
	}
	c, report := Parse("relay.yaml", []byte(smallest+"admin: {token: 123456}"), dir, lookupIn(nil), sinks.Kinds)
	require.Nil(t, c)
	require.ErrorContains(t, report.Err(), "admin.token: <secret> is a number, not text")
}

// TestConfigDoesNotPrintSecrets covers the ways in which a Config may come into a log.
func TestConfigDoesNotPrintSecrets(t *testing.T) {
	t.Parallel()
	c, report := parse(t, "", nil)
	require.NoError(t, report.Err())
	for _, format := range []string{"%v", "%+v", "%s"} {
		require.NotContains(t, fmt.Sprintf(format, c.Sources), "0123456789abcdef")
	}
	require.IsType(t, []relay.Secret{}, c.Sources[0].Resolved)
}

// FuzzParse checks that no file makes Parse panic, that what does not load has an error, and that every problem is
// placed inside the file.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(f, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(everySetting))
	env := lookupIn(testEnv)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		c, report := Parse("relay.yaml", data, dir, env, sinks.Kinds)
		require.Equal(t, c == nil, report.Err() != nil)
		lines := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
		for _, p := range report.Problems {
			if p.Line == 0 {
				continue
			}
			require.LessOrEqual(t, p.Line, len(lines), "%+v", p)
			require.LessOrEqual(t, p.Column, utf8.RuneCountInString(lines[p.Line-1])+1, "%+v", p)
			require.Positive(t, p.Column)
		}
		if c != nil {
			_, err := c.Redacted()
			require.NoError(t, err)
		}
	})
}

func TestPortsThatClash(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		listen, admin string
		clash         bool
	}{
		{":8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "0.0.0.0:8080", true},
		{"127.0.0.1:8080", "[::]:8080", true},
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "127.0.0.2:8080", false},
		{":8080", "127.0.0.1:8081", false},
		{"127.0.0.1:0", "127.0.0.1:0", false}, // each gets a port of its own
	} {
		_, report := parse(t, fmt.Sprintf("listen: %q\nadmin: {listen: %q, token: a-long-admin-token}\n", test.listen, test.admin), nil)
		require.Equal(t, test.clash, strings.Contains(report.String(), "is taken by the ingress"), "%+v\n%s", test, report)
	}
}

// Inside { } the lexer ends a text at its colon, which for YAML it does only before a space.
func TestTextsWithColonsInsideBraces(t *testing.T) {
	t.Parallel()
	c, report := parse(t, `
admin: {listen: 127.0.0.1:9464}
sinks:
  - {name: k, kafka: {brokers: [k1:9092, k2:9092 , "k3:9092"], topic: t}}
  - {name: one, kafka: {brokers: k1:9092, topic: t}}
  - name: variable
    kafka: {brokers: "${BROKERS}", topic: t}
  - {name: h, http: {url: https://a.internal/x, egress: {allow: [fd00::/8], deny: [::1, 1::]}}}
routes: [{match: {entity: [10:30 maths, 12:30, a:b:c]}, to: [k, one, variable, h]}]
`, map[string]string{"BROKERS": "k1:9092, k2:9092"})
	require.NoError(t, report.Err())
	require.Equal(t, []string{"k1:9092", "k2:9092", "k3:9092"}, c.Sinks[0].Kind.(*kafkasink.Config).Brokers)
	require.Equal(t, []string{"k1:9092"}, c.Sinks[1].Kind.(*kafkasink.Config).Brokers)
	require.Equal(t, []string{"k1:9092, k2:9092"}, c.Sinks[2].Kind.(*kafkasink.Config).Brokers)
	require.Equal(t, []string{"fd00::/8"}, c.Sinks[3].Kind.(*httpsink.Config).Egress.Allow)
	require.Equal(t, []string{"::1", "1::"}, c.Sinks[3].Kind.(*httpsink.Config).Egress.Deny)
	require.Equal(t, []string{"10:30 maths", "12:30", "a:b:c"}, c.Routes[0].Match.Entity)
}

// A URL may be all that a caller needs: what is printed of it is what logs print.
func TestRedactedMasksURLs(t *testing.T) {
	t.Parallel()
	c, report := parse(t, `
sinks:
  - {name: a, http: {url: "https://hooks.example.com/services/kanarienvogel?key=kanarienvogel"}}
  - {name: b, http: {url: "https://${HOST}/kanarienvogel/{entity}"}}
  - {name: c, http: {url: "${URL}"}}
  - {name: d, kafka: {brokers: ["k:9092"], topic: t, tls: {}, sasl: {mechanism: oauthbearer, token_url: "https://id/kanarienvogel", client_id: u, client_secret: "0123456789"}}}
unmatched: [a, b, c, d]
`, map[string]string{"HOST": "h", "URL": "https://h/kanarienvogel"})
	require.NoError(t, report.Err())
	printed, err := c.Redacted()
	require.NoError(t, err)
	require.NotContains(t, string(printed), "kanarienvogel")
	for _, want := range []string{"url: https://hooks.example.com/<secret>?<secret>\n", "url: https://${HOST}/<secret>\n", "url: ${URL}\n", "token_url: https://id/<secret>\n"} {
		require.Contains(t, string(printed), want)
	}
}

// A hint must not lead to the next mistake.
func TestHintsLeadToWhatIsRight(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"listen: 8080":                              `2:9: listen: "8080" is not an address (write ":8080" for all addresses, or host:8080)`,
		"listen: '8080'":                            `2:9: listen: "8080" is not an address (write ":8080" for all addresses, or host:8080)`,
		"admin: {listen: 9464}":                     `2:17: admin.listen: "9464" is not an address (write "127.0.0.1:9464", or ":9464" for all addresses)`,
		"health_path: 80":                           `2:14: health_path: path "80" is not allowed (begin with /,`,
		"log: {level: true}":                        `2:14: log.level: unknown level "true" (one of`,
		"sinks: [{name: 12}]":                       `2:16: sinks[0].name: "12" is a number, not text (put it in quotes)`,
		"admin:\n  listen: ':9'\n   token: x":       "4:4: the line is not indented like those that it belongs to (indent",
		"admin:\n   listen: ':9'\n  token: x":       "4:3: the line is not indented like those that it belongs to (indent",
		"sinks:\n  - name: a\n     file: {path: x}": "4:6: the line is not indented like",
		"sinks:\n  - name: a\n   file: {path: x}":   "4:4: the line is not indented like",
		"data_dir: ${X}\n  listen: ':80'":           "3:3: the line is not indented like",
		" data_dir: x":                              "2:2: the line is not indented like",
	} {
		_, report := parse(t, text, nil)
		require.Contains(t, report.String(), "relay.yaml:"+want)
		require.NotContains(t, report.String(), "%!")
	}
}

// TestHashIsOfWhatReplicasHaveInCommon compares configurations of replicas.
func TestHashIsOfWhatReplicasHaveInCommon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hash := func(replica, listen, window, secret string) string {
		c, report := Parse("relay.yaml", []byte(`
listen: "`+listen+`"
admin: {listen: "127.0.0.1:9464", advertise: "`+replica+`:9464", token: `+secret+`}
replica: `+replica+`
dedup: {window: `+window+`}
journal: {kafka: {brokers: ["k1:9092"], cluster: test}}
sources: [{name: recording, path: /ncs, secrets: [`+secret+`]}]
sinks: [{name: archive, file: {path: "archive/{replica}.jsonl"}}]
routes: [{to: [archive]}]
`), dir, lookupIn(nil), sinks.Kinds)
		require.NotNil(t, c, "%s", report)
		return c.Hash()
	}
	one := hash("relay-0", ":8080", "1h", "a-secret-for-tests")
	require.Regexp(t, "^[0-9a-f]{12}$", one)
	require.Equal(t, one, hash("relay-1", ":8081", "1h", "another-secret-for-tests"))
	require.NotEqual(t, one, hash("relay-0", ":8080", "2h", "a-secret-for-tests"))
}

// Replicas on one machine reach each other by any address of it, others do not.
func TestAnAddressThatOtherReplicasCannotCallIsWarnedOf(t *testing.T) {
	t.Parallel()
	for admin, warning := range map[string]string{
		`":9464"`:                             `at ":9464": what is asked of others is without its shards, and says so (advertise: "${POD_IP}:9464"; nothing`,
		`"0.0.0.0:9465"`:                      `at "0.0.0.0:9465": what is asked of others is without its shards, and says so (advertise: "${POD_IP}:9465"; nothing`,
		`"127.0.0.1:9464"`:                    `at "127.0.0.1:9464": what is asked of others is without its shards, and says so (listen: ":9464", advertise: "${POD_IP}:9464"; nothing`,
		`"10.1.2.3:9464"`:                     "",
		`":9464", advertise: "10.1.2.3:9464"`: "",
	} {
		_, report := parse(t, `admin: {listen: `+admin+`}
journal: {kafka: {brokers: ["k1:9092"], cluster: test}, retention: 3d}
sinks: [{name: b, http: {url: "https://b.example/"}}]
routes: [{to: [b]}]
`, nil)
		if warning == "" {
			require.NotContains(t, report.String(), "advertise", admin)
		} else {
			require.Contains(t, report.String(), "only replicas on the same machine can reach this one "+warning, admin)
		}
	}
}
