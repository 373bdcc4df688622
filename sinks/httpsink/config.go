package httpsink

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"ncs-relay/relay"
)

// Config of an HTTP sink.
type Config struct {
	URL              string                  `yaml:"url"`
	Timeout          time.Duration           `yaml:"timeout"`     // of one call, from connecting to the last byte of the answer
	Concurrency      int                     `yaml:"concurrency"` // calls at a time
	Headers          map[string]relay.Secret `yaml:"headers"`     // sent with every call
	BearerToken      relay.Secret            `yaml:"bearer_token"`
	BasicAuth        *BasicAuth              `yaml:"basic_auth"`
	StandardWebhooks *StandardWebhooks       `yaml:"standard_webhooks"`
	CloudEvents      bool                    `yaml:"cloudevents"` // add the ce- headers of CloudEvents 1.0, binary mode
}

// BasicAuth are the credentials of HTTP basic authentication.
type BasicAuth struct {
	Username string       `yaml:"username"`
	Password relay.Secret `yaml:"password"`
}

// StandardWebhooks signs each call as standardwebhooks.com specifies, with every secret: rotation = two for a while.
type StandardWebhooks struct {
	Secrets []relay.Secret `yaml:"secrets"` // base64, with or without the prefix whsec_
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() {
	c.Timeout = 10 * time.Second
	c.Concurrency = 16
}

const maxConcurrency = 10_000

// Check reports what is wrong, also in the structs below c: their mistakes show only together.
func (c *Config) Check(report func(path, problem, hint string)) {
	c.checkURL(report)
	if c.Timeout <= 0 {
		report("timeout", fmt.Sprintf("%s is not a positive time", c.Timeout), "")
	}
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		report("concurrency", fmt.Sprintf("%d is not between 1 and %d", c.Concurrency, maxConcurrency), "")
	}
	c.checkHeaders(report)
	c.checkAuth(report)
	c.checkWebhooks(report)
}

// notURL stands for the errors of url.Parse, which print the URL.
const notURL = "is not a URL: a port, a percent sign or another character in it is wrong"

// checkURL prints no more of the URL than its scheme: it may hold a token.
func (c *Config) checkURL(report func(path, problem, hint string)) {
	if c.URL == "" {
		report("url", "is missing", "where to post, such as https://billing.internal/hooks/agora")
		return
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		report("url", notURL, "")
		return
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		report("url", fmt.Sprintf("scheme %q is not supported", u.Scheme), "http:// or https://")
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

// Headers that the relay sets, that the transport owns, or that would change what Agora sent.
var reservedHeaders = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Host", "Idempotency-Key",
	"Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Upgrade", "User-Agent",
	"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "X-Idempotency-Key",
	"Ce-Id", "Ce-Source", "Ce-Specversion", "Ce-Subject", "Ce-Time", "Ce-Type",
}

func reserved(name string) bool {
	return strings.HasPrefix(name, "Ncs-Relay-") || strings.HasPrefix(name, "Agora-Signature") || slices.Contains(reservedHeaders, name)
}

func (c *Config) checkHeaders(report func(path, problem, hint string)) {
	seen := map[string]string{} // the name as written, by canonical name
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		path, canonical := "headers["+name+"]", http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			report(path, "is not a header name", "")
		case reserved(canonical):
			report(path, "is set by the relay itself", "choose another name")
		case seen[canonical] != "":
			report(path, "is there twice", "header names differ by more than upper and lower case")
		case !c.Headers[name].IsSet():
			report(path, "has no value", "")
		case !sendable(c.Headers[name]):
			report(path, "has a value that cannot be sent", "a line break or another control character is in it")
		}
		seen[canonical] = name
	}
	if name := seen["Authorization"]; name != "" && (c.BearerToken.IsSet() || c.BasicAuth != nil) {
		report("headers["+name+"]", "is there besides bearer_token or basic_auth", "keep one of them")
	}
}

func (c *Config) checkAuth(report func(path, problem, hint string)) {
	if c.BearerToken.IsSet() && !sendable(c.BearerToken) {
		report("bearer_token", "has a value that cannot be sent", "a line break or another control character is in it")
	}
	if c.BasicAuth == nil {
		return
	}
	if c.BearerToken.IsSet() {
		report("basic_auth", "is there besides bearer_token", "keep one of them")
	}
	if c.BasicAuth.Username == "" && !c.BasicAuth.Password.IsSet() {
		report("basic_auth", "has neither username nor password", "")
	}
	if strings.Contains(c.BasicAuth.Username, ":") {
		report("basic_auth.username", "has a colon in it, which ends the name on the wire", "")
	}
}

func sendable(s relay.Secret) bool { return httpguts.ValidHeaderFieldValue(s.Reveal()) }

func (c *Config) checkWebhooks(report func(path, problem, hint string)) {
	if c.StandardWebhooks == nil {
		return
	}
	if len(c.StandardWebhooks.Secrets) == 0 {
		report("standard_webhooks.secrets", "is missing", "one secret, or two during a rotation")
	}
	for i, secret := range c.StandardWebhooks.Secrets {
		if _, err := webhookKey(secret); err != nil {
			report(fmt.Sprintf("standard_webhooks.secrets[%d]", i), err.Error(), "make one with: echo whsec_$(openssl rand -base64 32)")
		}
	}
}

// webhookKey decodes a Standard Webhooks secret. The prefix is optional, base64 is not; the length is the
// specification's.
func webhookKey(secret relay.Secret) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Reveal(), "whsec_"))
	if err != nil {
		return nil, errors.New("is not base64") // the decoder's own words tell where
	}
	if len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("holds %d bytes, not 24 to 64", len(key))
	}
	return key, nil
}
