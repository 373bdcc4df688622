package httpsink

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http/httpguts"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/telemetry"
)

// Config of an HTTP sink.
type Config struct {
	URL              string                  `yaml:"url,masked"`               // {product}, {event}, {category}, {entity} and {channel} may stand in path and query
	Timeout          time.Duration           `yaml:"timeout"`                  // of one call, from connecting to the last byte of the answer
	Concurrency      int                     `yaml:"concurrency"`              // calls at a time
	Rate             int                     `yaml:"rate"`                     // calls started per second; 0 = no limit
	Burst            int                     `yaml:"burst"`                    // calls started at once after a quiet time; 0 = as many as rate
	IdleTimeout      time.Duration           `yaml:"idle_timeout"`             // an unused connection is closed after it
	MaxConnectionAge time.Duration           `yaml:"max_connection_age"`       // no call begins on a connection that is older
	Headers          map[string]relay.Secret `yaml:"headers"`                  // sent with every call
	HeaderFiles      map[string]string       `yaml:"header_files,path,secret"` // files with the value of a header each
	BearerToken      relay.Secret            `yaml:"bearer_token"`
	BearerTokenFile  string                  `yaml:"bearer_token_file,path,secret"`
	BasicAuth        *BasicAuth              `yaml:"basic_auth"`
	StandardWebhooks *StandardWebhooks       `yaml:"standard_webhooks"`
	CloudEvents      bool                    `yaml:"cloudevents"` // add the ce- headers of CloudEvents 1.0, binary mode
	Verdicts         map[string]string       `yaml:"verdicts"`    // deliver, retry, dead or pause, by status (404) or class (5xx)
	Proxy            relay.Secret            `yaml:"proxy"`       // env, none or a URL; a secret because the URL may hold a password
	TLS              *keyfile.TLS            `yaml:"tls"`
	Egress           Egress                  `yaml:"egress"` // which addresses may be called
}

// BasicAuth are the credentials of HTTP basic authentication.
type BasicAuth struct {
	Username     string       `yaml:"username,credential"`
	Password     relay.Secret `yaml:"password"`
	PasswordFile string       `yaml:"password_file,path,secret"`
}

// StandardWebhooks signs each call as standardwebhooks.com specifies, with every secret: rotation = two for a while.
type StandardWebhooks struct {
	Secrets     []relay.Secret `yaml:"secrets"`                  // base64, with or without the prefix whsec_
	SecretFiles []string       `yaml:"secret_files,path,secret"` // files with one secret each
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() {
	c.Timeout = 10 * time.Second
	c.Concurrency = 16
	// Below the 60 s after which common load balancers close an idle connection, so that mostly we close first.
	c.IdleTimeout = 45 * time.Second
	// A busy connection is never idle: without an end it goes on to an address that the receiver's name has left.
	c.MaxConnectionAge = 5 * time.Minute
}

const (
	maxConcurrency = 10_000
	maxRate        = 1_000_000
)

// Check reports what is wrong, also in the structs below c but TLS: their mistakes show only together. It reads the files
// that c names.
func (c *Config) Check(report problem.Report) {
	c.checkURL(report)
	if c.Timeout <= 0 {
		report("timeout", "%s is not a positive time", "", c.Timeout)
	}
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		report("concurrency", "%d is not between 1 and %d", "", c.Concurrency, maxConcurrency)
	}
	c.checkRate(report)
	if c.IdleTimeout <= 0 {
		report("idle_timeout", "%s is not a positive time", "", c.IdleTimeout)
	}
	if c.MaxConnectionAge <= 0 {
		report("max_connection_age", "%s is not a positive time", "", c.MaxConnectionAge)
	}
	c.checkHeaders(report)
	c.checkAuth(report)
	c.checkWebhooks(report)
	c.checkFiles(report)
	checkVerdicts(c.Verdicts, report)
	if _, err := proxyFunc(c.Proxy); err != nil {
		report("proxy", "%v", "env, none or a URL such as http://proxy.internal:3128", err)
	}
	c.Egress.check(report)
}

// Warn reports what is legal and probably not meant.
func (c *Config) Warn(report problem.Report) {
	if u, err := url.Parse(c.URL); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		report("url", "events travel in clear", "use https")
	}
	if c.TLS != nil && c.TLS.InsecureSkipVerify {
		report("tls.insecure_skip_verify", "the certificate of the receiver is not verified: anybody on the way can read and answer calls", "use ca_file")
	}
	warnVerdicts(c.Verdicts, report)
	if p := c.Proxy.Reveal(); len(c.Egress.Allow)+len(c.Egress.Deny) > 0 && p != "" && p != "env" && p != "none" {
		report("egress", "the relay connects to the proxy only, so that is all it can check", "restrict the proxy itself")
	}
}

func isLoopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// checkURL prints no more of the URL than its scheme: it may hold a token.
func (c *Config) checkURL(report problem.Report) {
	if c.URL == "" {
		report("url", "is missing", "where to post, such as https://billing.internal/hooks/agora")
		return
	}
	t, err := parseTarget(c.URL)
	if err != nil {
		report("url", "%v", "placeholders are {product}, {event}, {category}, {entity} and {channel}, behind the host", err)
		return
	}
	u, err := url.Parse(t.example())
	if err != nil {
		report("url", notURL, "")
		return
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		report("url", "scheme %q is not supported", "http:// or https://", u.Scheme)
	case u.Hostname() == "":
		report("url", "has no host", "")
	}
	if u.User != nil {
		report("url", "holds credentials", "move them to basic_auth, where they are kept out of logs")
	}
	if u.Fragment != "" {
		report("url", "has a fragment (#...), which is never sent", "remove it")
	}
}

func (c *Config) checkRate(report problem.Report) {
	if c.Rate < 0 || c.Rate > maxRate {
		report("rate", "%d is not between 0 and %d", "calls per second; 0 for no limit", c.Rate, maxRate)
	}
	switch {
	case c.Burst < 0 || c.Burst > maxRate:
		report("burst", "%d is not between 0 and %d", "", c.Burst, maxRate)
	case c.Burst > 0 && c.Rate == 0:
		report("burst", "is there without rate", "give the calls per second as rate")
	}
}

// Headers that the relay sets, that the transport owns, or that would change what Agora sent.
var reservedHeaders = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Idempotency-Key",
	"Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
	"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "X-Idempotency-Key",
	"Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Subject", "Ce-Time", "Ce-Type",
}

func reserved(name string) bool {
	return strings.HasPrefix(name, "Ncs-Relay-") || strings.HasPrefix(name, "Agora-Signature") || slices.Contains(reservedHeaders, name)
}

const notSendable = "a line break or another control character is in it"

func (c *Config) checkHeaders(report problem.Report) {
	seen := map[string]string{} // where it is given, by canonical name
	name := func(path, name string) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			report(path, "is not a header name", "")
		case reserved(canonical):
			report(path, "is set by the relay itself", "choose another name")
		case seen[canonical] != "":
			report(path, "is there twice", "header names differ by more than upper and lower case")
		}
		seen[canonical] = path
	}
	for _, n := range slices.Sorted(maps.Keys(c.Headers)) {
		path := "headers[" + n + "]"
		name(path, n)
		switch value := c.Headers[n]; {
		case !value.IsSet():
			report(path, "has no value", "")
		case !sendable(value):
			report(path, "has a value that cannot be sent", notSendable)
		case http.CanonicalHeaderKey(n) == "Host" && (!httpguts.ValidHostHeader(value.Reveal()) || strings.ContainsAny(value.Reveal(), "/@ ")):
			report(path, "is not a host", "a name, with a port if need be; it changes neither where calls go nor the name in the certificate (tls.server_name)")
		}
	}
	for _, n := range slices.Sorted(maps.Keys(c.HeaderFiles)) {
		name("header_files["+n+"]", n)
	}
	if path := seen["Authorization"]; path != "" && (c.hasBearer() || c.BasicAuth != nil) {
		report(path, "is there besides bearer_token or basic_auth", "keep one of them")
	}
}

func (c *Config) hasBearer() bool { return c.BearerToken.IsSet() || c.BearerTokenFile != "" }

func (c *Config) checkAuth(report problem.Report) {
	if c.BearerToken.IsSet() && !sendable(c.BearerToken) {
		report("bearer_token", "has a value that cannot be sent", notSendable)
	}
	if c.BearerToken.IsSet() && c.BearerTokenFile != "" {
		report("bearer_token_file", "is there besides bearer_token", "keep one of them")
	}
	b := c.BasicAuth
	if b == nil {
		return
	}
	if c.hasBearer() {
		report("basic_auth", "is there besides bearer_token", "keep one of them")
	}
	if b.Username == "" && !b.Password.IsSet() && b.PasswordFile == "" {
		report("basic_auth", "has neither username nor password", "")
	}
	if b.Password.IsSet() && b.PasswordFile != "" {
		report("basic_auth.password_file", "is there besides password", "keep one of them")
	}
	if strings.Contains(b.Username, ":") {
		report("basic_auth.username", "has a colon in it, which ends the name on the wire", "")
	}
}

func sendable(s relay.Secret) bool { return httpguts.ValidHeaderFieldValue(s.Reveal()) }

func (c *Config) checkWebhooks(report problem.Report) {
	w := c.StandardWebhooks
	if w == nil {
		return
	}
	if len(w.Secrets)+len(w.SecretFiles) == 0 {
		report("standard_webhooks.secrets", "is missing", "one secret, or two during a rotation")
	}
	for i, secret := range w.Secrets {
		if _, err := webhookKey(secret); err != nil {
			report(fmt.Sprintf("standard_webhooks.secrets[%d]", i), "%v", "make one with: echo whsec_$(openssl rand -base64 32)", err)
		}
	}
}

// webhookKey decodes a Standard Webhooks secret. The prefix is optional, base64 is not; the length is the
// specification's.
func webhookKey(secret relay.Secret) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Reveal(), "whsec_"))
	if err != nil {
		return nil, problem.Errorf("is not base64") // the decoder's own words tell where
	}
	if len(key) < 24 || len(key) > 64 {
		return nil, problem.Errorf("holds %d bytes, not 24 to 64", len(key))
	}
	return key, nil
}

// Key is where c stands in a sink's configuration.
func (c *Config) Key() string { return "http" }

// Traits are those of a sink of c.
func (c *Config) Traits(name, userAgent string, log *slog.Logger) relay.Traits {
	return relay.Traits{
		Build:       func() (relay.Sink, error) { return New(*c, userAgent, log.With("sink", name)) },
		Concurrency: c.Concurrency,
		Breaks:      true,
		SpanKind:    trace.SpanKindClient,
		SpanAttrs:   telemetry.ToHTTP(c.URL),
	}
}

// Document says where calls go, for AsyncAPI.
func (c *Config) Document() (protocol string, hosts []string, address string, operation, message map[string]any) {
	url, host := c.ShownURL()
	protocol, _, _ = strings.Cut(url, "://")
	_, address, _ = strings.Cut(url, host)
	return protocol, []string{host}, address, map[string]any{"http": map[string]any{"method": "POST", "bindingVersion": "0.3.0"}}, nil
}
