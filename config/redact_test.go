package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/sinks"
)

// Values are replaced and words are not, also where a value is made of the words of a report.
func TestReportsHideValuesAndNoWords(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "secrets")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "short"), []byte("abc"), 0o600))
	const sink = "sinks: [{name: billing, http: {url: 'https://a.internal', "
	for _, test := range []struct{ value, text, want string }{
		{dir, `sources: [{name: a, path: /a, secret_files: ["${V}/short"]}]`, "secret_files[0]: the secret is shorter than 8 characters (it can be guessed)"},
		{"/such/file/or/directory", `sources: [{name: a, path: /a, secret_files: ["${V}/x"]}]`, `file "${V}/x" cannot be read: no such file or directory`},
		{"openssl rand", smallest + sink + "standard_webhooks: {secrets: [\"${V}\"]}}}]", "is not base64 (make one with: echo whsec_$(openssl rand -base64 32))"},
		{"the name is not allowed", smallest + `sinks: [{name: "${V}"}]`, `name "${V}" is not allowed (use up to 63 of a-z 0-9 _ . - and begin with a letter or digit)`},
		{"7", "sources: [{name: a, path: /a, secrets: ['0123456789abcdef'], max_body: \"${V}\"}]", "${V} bytes is out of range (use 1KiB to 64MiB)"},
		{"1", smallest + `listen: "h:${V}x"`, `listen: "h:${V}x" has no valid port`},
		{"unknown", smallest + "log: {level: \"${V}\", format: '1'}", `level: unknown level "${V}" (one of debug, info, warn, error)`},
		{"10s", smallest + sink + "timeout: 3s}, retry: {initial: \"${V}\", max_interval: 5s}}]", "max_interval: 5s is shorter than initial, which is ${V}"},
		{"signatures", smallest + "routes: [{to: [signaturs]}]\nsinks: [{name: \"${V}\", file: {path: a}}]", `unknown sink "signaturs" (did you mean "${V}"?)`},
		{"payload.abc ==", smallest + sink + "}}]\nroutes: [{when: \"${V}\", to: [billing]}]", "when: unexpected token EOF (at character 14: ${V})"},
		{"unexpected ==", smallest + sink + "}}]\nroutes: [{when: \"${V}\", to: [billing]}]",
			"when: is wrong in a way that is not shown here, because the words would repeat a variable's value or a secret (at character 13: ${V})"},
	} {
		_, report := Parse("relay.yaml", []byte(test.text), "/etc/relay", lookupIn(map[string]string{"V": test.value}), sinks.Kinds)
		require.Contains(t, report.String(), test.want)
		require.NotContains(t, report.String(), "%!")
	}
}
