// Package sinks builds sinks from their configuration.
package sinks

import (
	"ncs-relay/relay"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/kafkasink"
)

// Config is one entry of sinks: common settings and exactly one kind.
type Config struct {
	Name           string              `yaml:"name"`
	Owner          string              `yaml:"owner"`
	Order          string              `yaml:"order"`
	Retry          relay.RetryConfig   `yaml:"retry"`
	Backlog        relay.BacklogConfig `yaml:"backlog"`
	PropagateTrace *bool               `yaml:"propagate_trace"`

	Kafka *kafkasink.Config `yaml:"kafka"`
	HTTP  *httpsink.Config  `yaml:"http"`
	File  *filesink.Config  `yaml:"file"`
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.Order = "entity" }
