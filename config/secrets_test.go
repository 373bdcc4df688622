package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks"
)

// everyCredential is a file with every setting that takes a secret, a user name or a file with a secret in it. %[1]s is a
// value, %[2]s the name of a file with one, %[3]s and %[4]s the same for Standard Webhooks.
const everyCredential = `
journal: {max_size: 100GiB}
admin: {token: %[1]s}
sources:
  - {name: a, path: /a, secrets: [%[1]s], secret_files: [%[2]s]}
sinks:
  - name: plain
    kafka: {brokers: ["k:9092"], topic: t, tls: {}, sasl: {mechanism: plain, username: %[1]s, password: %[1]s}}
  - name: scram
    kafka: {brokers: ["k:9092"], topic: t, sasl: {mechanism: scram-sha-256, username: %[1]s, password_file: %[2]s}}
  - name: token
    kafka: {brokers: ["k:9092"], topic: t, tls: {}, sasl: {mechanism: oauthbearer, token_file: %[2]s}}
  - name: client
    kafka: {brokers: ["k:9092"], topic: t, tls: {}, sasl: {mechanism: oauthbearer, token_url: "https://id/t", client_id: %[1]s, client_secret: %[1]s}}
  - name: clientfile
    kafka: {brokers: ["k:9092"], topic: t, tls: {}, sasl: {mechanism: oauthbearer, token_url: "https://id/t", client_id: %[1]s, client_secret_file: %[2]s}}
  - name: basic
    http:
      {url: "https://a/b", headers: {X-A: %[1]s}, header_files: {X-B: %[2]s}, basic_auth: {username: %[1]s, password: %[1]s},
       standard_webhooks: {secrets: [%[3]s], secret_files: [%[4]s]}}
  - name: basicfile
    http: {url: "https://a/b", basic_auth: {username: %[1]s, password_file: %[2]s}}
  - name: bearer
    http: {url: "https://a/b", bearer_token: %[1]s}
  - name: bearerfile
    http: {url: "https://a/b", bearer_token_file: %[2]s}
unmatched: [plain, scram, token, client, clientfile, basic, basicfile, bearer, bearerfile]
`

const (
	credentialValues = 14 // uses of %[1]s and %[3]s
	credentialFiles  = 8  // uses of %[2]s and %[4]s
)

const webhookSecret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// credentials parses everyCredential, with each value and each file holding what wrap makes of a secret.
func credentials(t *testing.T, mode os.FileMode, wrap func(string) string) (*Config, *Report) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, content string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(content), mode))
		require.NoError(t, os.Chmod(name, mode)) // whatever the umask
		return fmt.Sprintf("%q", name)
	}
	text := fmt.Sprintf(everyCredential, `"${VALUE}"`, write("file", wrap("kanarienvogel")), `"${WEBHOOK}"`, write("webhook", wrap(webhookSecret)))
	return Parse("relay.yaml", []byte(text), dir, lookupIn(map[string]string{"VALUE": wrap("kanarienvogel"), "WEBHOOK": wrap(webhookSecret)}), sinks.Kinds)
}

// Values that came through a variable, such as one made by kubectl from a file, carry what editors leave as well as files do.
func TestWhatEditorsLeaveAroundASecretIsNoPartOfIt(t *testing.T) {
	t.Parallel()
	for _, wrap := range []func(string) string{
		func(s string) string { return s },
		func(s string) string { return s + "\n" },
		func(s string) string { return s + "\r\n" },
		func(s string) string { return "\ufeff" + s + "\r\n\r\n" },
	} {
		c, report := credentials(t, 0o600, wrap)
		require.NoError(t, report.Err())
		require.Empty(t, report.String(), "of %q", wrap("x"))
		var got []string
		values(reflect.ValueOf(c).Elem(), func(text string) {
			if strings.Contains(text, "kanarienvogel") || strings.Contains(text, "whsec_") {
				got = append(got, text)
			}
		})
		require.Len(t, got, credentialValues+2, "and the source's two in effect")
		for _, text := range got {
			require.Contains(t, []string{"kanarienvogel", webhookSecret}, text)
		}
	}
}

func TestSecretsThatAreNoTextAreRefused(t *testing.T) {
	t.Parallel()
	_, report := credentials(t, 0o600, func(s string) string { return s[:4] + "\x00" + s[4:] })
	require.Equal(t, credentialValues+credentialFiles, strings.Count(report.String(), "holds a NUL byte"), "%s", report)
	utf16 := func(first string) func(string) string {
		return func(s string) string { return first + strings.Join(strings.Split(s, ""), "\x00") }
	}
	for _, first := range []string{"\xff\xfe", "\xfe\xff\x00"} {
		_, report = credentials(t, 0o600, utf16(first))
		require.Equal(t, credentialValues+credentialFiles, strings.Count(report.String(), "is UTF-16"), "%s", report)
		require.NotContains(t, report.String(), "k\x00a")
	}
}

func TestInvisibleEdgesOfSecretsAreWarnedOf(t *testing.T) {
	t.Parallel()
	for _, wrap := range []func(string) string{
		func(s string) string { return " " + s },
		func(s string) string { return s + " \n" },
		func(s string) string { return s + "\u200b" },
		func(s string) string { return s + "\u00a0" },
	} {
		_, report := credentials(t, 0o600, func(s string) string {
			if strings.HasPrefix(s, "whsec_") { // is base64, and so refused
				return s
			}
			return wrap(s)
		})
		require.NoError(t, report.Err())
		require.Equal(t, credentialValues-1+credentialFiles-1, strings.Count(report.String(), "begins or ends with white space"), "%s", report)
		require.NotContains(t, report.String(), "kanarienvogel")
	}
}

func TestEverySecretFileThatEverybodyCanReadIsWarnedOf(t *testing.T) {
	t.Parallel()
	_, report := credentials(t, 0o644, func(s string) string { return s })
	require.NoError(t, report.Err())
	require.Equal(t, credentialFiles, strings.Count(report.String(), "can be read by everybody on this machine"), "%s", report)
	_, report = credentials(t, 0o640, func(s string) string { return s })
	require.Empty(t, report.String())
}

// values calls f with every text in v.
func values(v reflect.Value, f func(string)) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			values(v.Elem(), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			values(v.Index(i), f)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			values(v.MapIndex(key), f)
		}
	case reflect.String:
		f(v.String())
	case reflect.Struct:
		if s, ok := v.Interface().(relay.Secret); ok {
			f(s.Reveal())
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				values(v.Field(i), f)
			}
		}
	}
}

func TestNamedTokensAreSecretsAsAllOthers(t *testing.T) {
	t.Parallel()
	read := func(value string) (*Config, *Report) {
		return Parse("relay.yaml", []byte("sources: [{name: a, path: /a, secrets: [0123456789abcdef]}]\nadmin: {listen: \":1\", tokens: [{name: ada, token: \"${VALUE}\"}]}\n"), t.TempDir(), lookupIn(map[string]string{"VALUE": value}), sinks.Kinds)
	}
	c, report := read("\ufeffkanarienvogel\r\n")
	require.NoError(t, report.Err())
	require.NotContains(t, report.String(), "admin", "there is a token, so the API is not closed")
	require.Equal(t, "kanarienvogel", c.Admin.Tokens[0].Token.Reveal())
	for value, problem := range map[string]string{"kana\x00rien": "holds a NUL byte", " kanarienvogel": "invisible character", "kana": "shorter than 8", "": "no token given"} {
		_, report := read(value)
		require.Contains(t, report.String(), "admin.tokens[0].token: ")
		require.Contains(t, report.String(), problem)
		require.NotContains(t, report.String(), "kanarien")
	}
}
