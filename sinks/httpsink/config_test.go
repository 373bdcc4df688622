package httpsink_test

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
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
	verdicts := func(pairs ...string) change {
		return func(c *httpsink.Config) {
			c.Verdicts = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				c.Verdicts[pairs[i]] = pairs[i+1]
			}
		}
	}
	proxy := func(address string) change {
		return func(c *httpsink.Config) { c.Proxy = relay.NewSecret(address) }
	}
	egress := func(allow, deny []string) change {
		return func(c *httpsink.Config) { c.Egress = httpsink.Egress{Allow: allow, Deny: deny} }
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
		"host":                 {header("host", "https://canary"), []string{"headers[host]"}},
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
		"rate":                 {func(c *httpsink.Config) { c.Rate = 50 }, nil},
		"rate and burst":       {func(c *httpsink.Config) { c.Rate, c.Burst = 50, 5 }, nil},
		"rate negative":        {func(c *httpsink.Config) { c.Rate = -1 }, []string{"rate"}},
		"burst alone":          {func(c *httpsink.Config) { c.Burst = 5 }, []string{"burst"}},
		"burst negative":       {func(c *httpsink.Config) { c.Rate, c.Burst = 1, -1 }, []string{"burst"}},
		"idle_timeout":         {func(c *httpsink.Config) { c.IdleTimeout = 0 }, []string{"idle_timeout"}},
		"placeholders":         {url("https://h:8443/{product}/x-{entity}.json?c={channel}&e={event}&{category}"), nil},
		"placeholder in host":  {url("https://{product}.internal/"), []string{"url"}},
		"placeholder in port":  {url("https://h:{entity}/"), []string{"url"}},
		"placeholder, scheme":  {url("{event}://h/"), []string{"url"}},
		"placeholder in user":  {url("https://{entity}@h/"), []string{"url"}},
		"placeholder alone":    {url("{entity}"), []string{"url"}},
		"placeholder unknown":  {url("https://h/{sid}"), []string{"url"}},
		"brace open":           {url("https://h/{entity"), []string{"url"}},
		"brace closed":         {url("https://h/entity}/{event}"), []string{"url"}},
		"braces nested":        {url("https://h/{{entity}}"), []string{"url"}},
		"placeholder fragment": {url("https://h/#{entity}"), []string{"url"}},
		"verdicts":             {verdicts("404", "dead", "5xx", "retry", "202", "pause", "3xx", "deliver"), nil},
		"verdict unknown":      {verdicts("404", "drop"), []string{"verdicts[404]"}},
		"verdict, status":      {verdicts("40x", "dead", "99", "dead", "600", "dead"), []string{"verdicts[40x]", "verdicts[600]", "verdicts[99]"}},
		"proxy":                {proxy("http://relay:canary@proxy.internal:3128"), nil},
		"proxy socks":          {proxy("socks5://proxy.internal:1080"), nil},
		"proxy env":            {proxy("env"), nil},
		"proxy none":           {proxy("none"), nil},
		"proxy without scheme": {proxy("proxy.internal:3128"), []string{"proxy"}},
		"proxy no URL":         {proxy("canary"), []string{"proxy"}},
		"egress":               {egress([]string{"10.0.0.0/8", "::1"}, []string{"10.1.0.0/16"}), nil},
		"egress wrong":         {egress([]string{"10.0.0.0/33"}, nil), []string{"egress.allow[0]"}},
		"egress names":         {egress(nil, []string{"10.0.0.1", "billing.internal"}), []string{"egress.deny[1]"}},
		"egress mapped":        {egress(nil, []string{"::ffff:10.0.0.0/104"}), []string{"egress.deny[0]"}},
		"certificate, no key":  {func(c *httpsink.Config) { c.TLS = &keyfile.TLS{CertFile: "x"} }, []string{"tls"}},
		"tls files missing":    {func(c *httpsink.Config) { c.TLS = &keyfile.TLS{CAFile: "none", CertFile: "none", KeyFile: "none"} }, []string{"tls.ca_file", "tls.cert_file", "tls.key_file"}},
		"tls files wrong": {func(c *httpsink.Config) {
			c.TLS = &keyfile.TLS{CAFile: "sink.go", CertFile: "sink.go", KeyFile: "sink.go"}
		}, []string{"tls.ca_file", "tls.cert_file"}},
		"insecure with ca":     {func(c *httpsink.Config) { c.TLS = &keyfile.TLS{CAFile: "none", InsecureSkipVerify: true} }, []string{"tls.insecure_skip_verify", "tls.ca_file"}},
		"token file missing":   {func(c *httpsink.Config) { c.BearerTokenFile = "none" }, []string{"bearer_token_file"}},
		"token file directory": {func(c *httpsink.Config) { c.BearerTokenFile = "." }, []string{"bearer_token_file"}},
		"token file with text": {func(c *httpsink.Config) { c.BearerTokenFile = "sink.go" }, []string{"bearer_token_file"}},
		"token twice":          {func(c *httpsink.Config) { c.BearerTokenFile = "sink.go"; c.BearerToken = relay.NewSecret("a") }, []string{"bearer_token_file", "bearer_token_file"}},
		"header twice":         {all(header("X-A", "a"), func(c *httpsink.Config) { c.HeaderFiles = map[string]string{"x-a": "none"} }), []string{"header_files[x-a]", "header_files[x-a]"}},
		"webhook file": {func(c *httpsink.Config) {
			c.StandardWebhooks = &httpsink.StandardWebhooks{SecretFiles: []string{"sink.go"}}
		}, []string{"standard_webhooks.secret_files[0]"}},
		"password twice": {func(c *httpsink.Config) {
			c.BasicAuth = &httpsink.BasicAuth{Username: "a", Password: relay.NewSecret("b"), PasswordFile: "none"}
		}, []string{"basic_auth.password_file", "basic_auth.password_file"}},
		"everything at once": {all(url(""), bearer("\n"), func(c *httpsink.Config) { c.Timeout = -1 }), []string{"url", "timeout", "bearer_token"}},
		"same header twice": {func(c *httpsink.Config) {
			c.Headers = map[string]relay.Secret{"X-A": relay.NewSecret("1"), "x-a": relay.NewSecret("2")}
		}, []string{"headers[x-a]"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config("https://billing.internal/hooks", tt.change)
			var got []string
			report := problem.Report(func(path, message, hint string, values ...any) {
				got = append(got, path)
				message, hint = problem.Text(nil, message, hint, values...)
				require.NotEmpty(t, message)
				require.NotContains(t, message+hint, "canary")
				require.NotContains(t, message+hint, "%!")
			})
			cfg.Check(report)
			if cfg.TLS != nil {
				cfg.TLS.Check(report.In("tls"))
			}
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
