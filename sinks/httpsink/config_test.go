package httpsink_test

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks/httpsink"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	type change = func(*httpsink.Config)
	url := func(url string) change { return func(c *httpsink.Config) { c.URL = url } }
	header := func(name, value string) change {
		return func(c *httpsink.Config) { c.Headers = map[string]relay.Secret{name: relay.NewSecret(value)} }
	}
	webhooks := func(secrets ...string) change {
		return func(c *httpsink.Config) {
			c.StandardWebhooks = &httpsink.StandardWebhooks{}
			for _, secret := range secrets {
				c.StandardWebhooks.Secrets = append(c.StandardWebhooks.Secrets, relay.NewSecret(secret))
			}
		}
	}
	basic := func(user, password string) change {
		return func(c *httpsink.Config) {
			c.BasicAuth = &httpsink.BasicAuth{Username: user, Password: relay.NewSecret(password)}
		}
	}
	bearer := func(token string) change {
		return func(c *httpsink.Config) { c.BearerToken = relay.NewSecret(token) }
	}
	all := func(changes ...change) change {
		return func(c *httpsink.Config) {
			for _, f := range changes {
				f(c)
			}
		}
	}
	tests := map[string]struct {
		change change
		want   []string // paths
	}{
		"defaults":             {all(), nil},
		"IPv6 and port":        {url("http://[::1]:8080/"), nil},
		"query":                {url("https://h/p?a=b"), nil},
		"no url":               {url(""), []string{"url"}},
		"no scheme":            {url("billing.internal/hooks"), []string{"url"}},
		"host and port only":   {url("billing.internal:8080"), []string{"url"}},
		"other scheme":         {url("ftp://canary/"), []string{"url"}},
		"no host":              {url("https:///hooks"), []string{"url"}},
		"port only":            {url("https://:8080/hooks"), []string{"url"}},
		"opaque":               {url("https:canary"), []string{"url"}},
		"credentials":          {url("https://canary:canary@h/"), []string{"url"}},
		"fragment":             {url("https://h/#canary"), []string{"url"}},
		"bad port":             {url("https://canary:canary@h:port/"), []string{"url"}},
		"bad escape":           {url("https://h/%zz?canary"), []string{"url"}},
		"control character":    {url("https://h/\ncanary"), []string{"url"}},
		"timeout":              {func(c *httpsink.Config) { c.Timeout = 0 }, []string{"timeout"}},
		"concurrency 0":        {func(c *httpsink.Config) { c.Concurrency = 0 }, []string{"concurrency"}},
		"concurrency 10001":    {func(c *httpsink.Config) { c.Concurrency = 10_001 }, []string{"concurrency"}},
		"header":               {header("X-Team", "media"), nil},
		"ce extension":         {header("ce-team", "media"), nil},
		"header name":          {header("X Team", "canary"), []string{"headers[X Team]"}},
		"empty header name":    {header("", "canary"), []string{"headers[]"}},
		"header value":         {header("X-Team", "canary\r\nX: y"), []string{"headers[X-Team]"}},
		"header without value": {header("X-Team", ""), []string{"headers[X-Team]"}},
		"ours":                 {header("ncs-relay-anything", "canary"), []string{"headers[ncs-relay-anything]"}},
		"Agora's":              {header("agora-signature-v3", "canary"), []string{"headers[agora-signature-v3]"}},
		"host":                 {header("host", "canary"), []string{"headers[host]"}},
		"content-length":       {header("content-length", "1"), []string{"headers[content-length]"}},
		"content-type":         {header("Content-Type", "canary"), []string{"headers[Content-Type]"}},
		"idempotency-key":      {header("IDEMPOTENCY-KEY", "canary"), []string{"headers[IDEMPOTENCY-KEY]"}},
		"traceparent":          {header("traceparent", "canary"), []string{"headers[traceparent]"}},
		"webhook-id":           {header("webhook-id", "canary"), []string{"headers[webhook-id]"}},
		"ce-id":                {header("ce-id", "canary"), []string{"headers[ce-id]"}},
		"transfer-encoding":    {header("transfer-encoding", "canary"), []string{"headers[transfer-encoding]"}},
		"own authorization":    {header("authorization", "canary"), nil},
		"two authorizations":   {all(header("authorization", "canary"), bearer("canary")), []string{"headers[authorization]"}},
		"bearer":               {bearer("token"), nil},
		"bearer of a file":     {bearer("canary\n"), []string{"bearer_token"}},
		"basic":                {basic("user", "canary"), nil},
		"basic without user":   {basic("", "canary"), nil},
		"basic empty":          {basic("", ""), []string{"basic_auth"}},
		"basic with colon":     {basic("a:b", "canary"), []string{"basic_auth.username"}},
		"bearer and basic":     {all(bearer("canary"), basic("user", "canary")), []string{"basic_auth"}},
		"webhooks":             {webhooks(webhookSecret, oldWebhookSecret), nil},
		"webhooks without":     {webhooks(), []string{"standard_webhooks.secrets"}},
		"webhooks empty":       {webhooks(""), []string{"standard_webhooks.secrets[0]"}},
		"webhooks not base64":  {webhooks(webhookSecret, "whsec_canary!"), []string{"standard_webhooks.secrets[1]"}},
		"webhooks short":       {webhooks("Y2FuYXJ5"), []string{"standard_webhooks.secrets[0]"}},
		"everything at once":   {all(url(""), bearer("\n"), func(c *httpsink.Config) { c.Timeout = -1 }), []string{"url", "timeout", "bearer_token"}},
		"same header twice": {func(c *httpsink.Config) {
			c.Headers = map[string]relay.Secret{"X-A": relay.NewSecret("1"), "x-a": relay.NewSecret("2")}
		}, []string{"headers[x-a]"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config("https://billing.internal/hooks", tt.change)
			var got []string
			cfg.Check(func(path, problem, hint string) {
				got = append(got, path)
				require.NotEmpty(t, problem)
				require.NotContains(t, problem+hint, "canary")
			})
			require.Empty(t, cmp.Diff(tt.want, got))
			s, err := httpsink.New(cfg, "ncs-relay/test", slog.New(slog.DiscardHandler))
			require.Equal(t, tt.want == nil, err == nil, "New and Check differ: %v", err)
			if err == nil {
				require.NoError(t, s.Close())
				return
			}
			require.NotContains(t, err.Error(), "canary")
		})
	}
}
