package kafkaconn

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
)

func TestATokenIsTakenWhateverStandsBesideIt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status   int
		reply    string
		lifetime time.Duration // 0 = an error
		words    string
	}{
		"a number":                {200, `{"access_token":"t0k3n","expires_in":3599}`, 3599 * time.Second, ""},
		"a number in a string":    {200, `{"access_token":"t0k3n","expires_in":"3599"}`, 3599 * time.Second, ""},
		"a fraction":              {200, `{"access_token":"t0k3n","expires_in":3600.0}`, time.Hour, ""},
		"an exponent":             {200, `{"access_token":"t0k3n","expires_in":3.6e3}`, time.Hour, ""},
		"no lifetime":             {200, `{"access_token":"t0k3n"}`, time.Minute, ""},
		"null":                    {200, `{"access_token":"t0k3n","expires_in":null}`, time.Minute, ""},
		"words":                   {200, `{"access_token":"t0k3n","expires_in":"an hour"}`, time.Minute, ""},
		"negative":                {200, `{"access_token":"t0k3n","expires_in":-1}`, time.Minute, ""},
		"not a number":            {200, `{"access_token":"t0k3n","expires_in":"NaN"}`, time.Minute, ""},
		"for ever":                {200, `{"access_token":"t0k3n","expires_in":1e300}`, 24 * time.Hour, ""},
		"error of another type":   {200, `{"access_token":"t0k3n","expires_in":60,"error":null,"scope":["a"]}`, time.Minute, ""},
		"created":                 {201, `{"access_token":"t0k3n","expires_in":60}`, time.Minute, ""},
		"refused":                 {401, `{"error":"invalid_client"}`, 0, "answers 401, invalid_client"},
		"refused in words":        {401, `{"error":"the secret t0k3n is wrong"}`, 0, "answers 401"},
		"refused with 200":        {200, `{"error":"invalid_client"}`, 0, "answers invalid_client"},
		"a page":                  {200, `<html>`, 0, "no JSON object"},
		"no token":                {200, `{"id_token":"t0k3n"}`, 0, "no access_token of text"},
		"a token that is no text": {200, `{"access_token":7}`, 0, "no access_token of text"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token, lifetime, err := readToken(test.status, strings.NewReader(test.reply))
			require.Equal(t, test.lifetime, lifetime)
			if test.words == "" {
				require.NoError(t, err)
				require.Equal(t, "t0k3n", token.Reveal())
				return
			}
			require.ErrorContains(t, err, test.words)
			require.NotContains(t, err.Error(), "t0k3n")
		})
	}
}

func TestHowATokenIsAskedFor(t *testing.T) {
	t.Parallel()
	type asked struct{ user, password, body string }
	got := make(chan asked, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		_ = r.ParseForm()
		got <- asked{user, password, r.PostForm.Encode()}
		fmt.Fprint(w, `{"access_token":"t0k3n"}`)
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	base := SASL{Mechanism: "oauthbearer", TokenURL: server.URL, ClientID: "re:lay", ClientSecret: relay.NewSecret("s&cret"), TokenTLS: &keyfile.TLS{CAFile: ca}}
	inBody, withForm, stranger := base, base, base
	inBody.AuthStyle = "body"
	withForm.TokenForm, withForm.Scopes = map[string]string{"audience": "https://kafka", "resource": "x"}, []string{"a", "b"}
	stranger.TokenTLS = nil
	for name, test := range map[string]struct {
		sasl SASL
		want asked
	}{
		"in the header":    {base, asked{"re%3Alay", "s%26cret", "grant_type=client_credentials"}},
		"in the body":      {inBody, asked{"", "", "client_id=re%3Alay&client_secret=s%26cret&grant_type=client_credentials"}},
		"with more fields": {withForm, asked{"re%3Alay", "s%26cret", "audience=https%3A%2F%2Fkafka&grant_type=client_credentials&resource=x&scope=a+b"}},
	} {
		t.Run(name, func(t *testing.T) {
			problems(t, &test.sasl)
			token, err := test.sasl.tokenSource().token(t.Context())
			require.NoError(t, err)
			require.Equal(t, "t0k3n", token.Reveal())
			require.Equal(t, test.want, <-got)
		})
	}
	_, err := stranger.tokenSource().token(t.Context())
	require.ErrorContains(t, err, "certificate", "its authority is not the system's")
}

// problems requires that Check reports at exactly these paths.
func problems(t *testing.T, c *SASL, paths ...string) {
	t.Helper()
	var found []string
	c.Check(func(path, _, _ string, _ ...any) { found = append(found, path) })
	require.Equal(t, paths, found)
}

func TestExtensionsAreSent(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("t0k3n\n"), 0o600))
	c := &SASL{Mechanism: "oauthbearer", TokenFile: file, Extensions: map[string]string{"logicalCluster": "lkc-1", "identityPoolId": "pool-1"}}
	problems(t, c)
	_, message, err := c.mechanism().Start(t.Context())
	require.NoError(t, err)
	require.Equal(t, "n,,\x01auth=Bearer t0k3n\x01identityPoolId=pool-1\x01logicalCluster=lkc-1\x01\x01", string(message))
}

func TestWhatOAuthCannotSendIsReported(t *testing.T) {
	t.Parallel()
	base := func() *SASL {
		return &SASL{Mechanism: "oauthbearer", TokenURL: "https://id.example.com/token", ClientID: "a", ClientSecret: relay.NewSecret("b")}
	}
	c := base()
	c.Extensions = map[string]string{"auth": "x", "a-b": "x", "c": "", "d": "x\x01auth=Bearer y", "ok": "lkc-1"}
	problems(t, c, "extensions[a-b]", "extensions[auth]", "extensions[c]", "extensions[d]")
	c = base()
	c.AuthStyle, c.TokenForm = "query", map[string]string{"grant_type": "password", "audience": "x"}
	problems(t, c, "auth_style", "token_form[grant_type]")
	c = &SASL{Mechanism: "plain", Username: "a", Password: relay.NewSecret("b"), Extensions: map[string]string{"a": "b"}}
	problems(t, c, "mechanism")
}
