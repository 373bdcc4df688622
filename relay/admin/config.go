package admin

import "ncs-relay/relay"

// Config of the admin address.
type Config struct {
	Listen string       `yaml:"listen"`
	Token  relay.Secret `yaml:"token"`
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.Listen = "127.0.0.1:9464" }
