// Package httpsink posts events to an HTTP service.
package httpsink

import (
	"time"

	"ncs-relay/relay"
)

// Config of an HTTP sink.
type Config struct {
	URL              string                  `yaml:"url"`
	Timeout          time.Duration           `yaml:"timeout"`
	Concurrency      int                     `yaml:"concurrency"`
	Headers          map[string]relay.Secret `yaml:"headers"`
	BearerToken      relay.Secret            `yaml:"bearer_token"`
	BasicAuth        *BasicAuth              `yaml:"basic_auth"`
	StandardWebhooks *StandardWebhooks       `yaml:"standard_webhooks"`
	CloudEvents      bool                    `yaml:"cloudevents"`
}

// BasicAuth are the credentials of HTTP basic authentication.
type BasicAuth struct {
	Username string       `yaml:"username"`
	Password relay.Secret `yaml:"password"`
}

// StandardWebhooks signs each call as standardwebhooks.com specifies.
type StandardWebhooks struct {
	Secrets []relay.Secret `yaml:"secrets"`
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() {
	c.Timeout = 10 * time.Second
	c.Concurrency = 16
}
