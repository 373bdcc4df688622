package gateway

import (
	"time"

	"ncs-relay/relay/problem"
)

// ShutdownConfig paces the end of the process.
type ShutdownConfig struct {
	Delay   time.Duration `yaml:"delay"`   // storing goes on so long after readiness is gone
	Timeout time.Duration `yaml:"timeout"` // for calls and attempts in flight to end, after the delay
}

// SetDefaults fills what the configuration may leave out.
func (c *ShutdownConfig) SetDefaults() {
	c.Delay = 5 * time.Second
	c.Timeout = 20 * time.Second
}

// Check reports what is wrong with c.
func (c *ShutdownConfig) Check(report problem.Report) {
	if c.Timeout < time.Second {
		report("timeout", "%v is too short", "use 1s or more: calls and attempts in flight are cut off after it", c.Timeout)
	}
}
