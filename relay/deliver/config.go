package deliver

import (
	"time"

	"ncs-relay/relay/problem"
)

// RetryConfig says how long and how often a sink's deliveries are tried.
type RetryConfig struct {
	Initial     time.Duration `yaml:"initial"`      // wait after the first failure
	MaxInterval time.Duration `yaml:"max_interval"` // longest wait between attempts
	MaxAge      time.Duration `yaml:"max_age"`      // an older delivery is given up when it fails; 0 = never
	MaxAttempts int           `yaml:"max_attempts"` // a delivery is given up after so many; 0 = never
}

// SetDefaults fills what the configuration may leave out.
func (c *RetryConfig) SetDefaults() {
	c.Initial = time.Second
	c.MaxInterval = 5 * time.Minute
	c.MaxAge = 24 * time.Hour
}

// Check reports what is wrong with c.
func (c *RetryConfig) Check(report problem.Report) {
	if c.Initial < time.Millisecond {
		report("initial", "%v is too short", "use 1ms or more", c.Initial)
	}
	if c.MaxInterval < c.Initial {
		report("max_interval", "%v is shorter than initial, which is %v", "", c.MaxInterval, c.Initial)
	}
	if c.MaxAttempts < 0 {
		report("max_attempts", "%d is negative", "use 0 for no limit", c.MaxAttempts)
	}
}

// BacklogConfig bounds what a sink may owe.
type BacklogConfig struct {
	MaxSize int64 `yaml:"max_size,bytes"` // of what is owed; beyond it the oldest are given up
}

// SetDefaults fills what the configuration may leave out.
func (c *BacklogConfig) SetDefaults() { c.MaxSize = 4 << 30 }

// Check reports what is wrong with c.
func (c *BacklogConfig) Check(report problem.Report) {
	if c.MaxSize < 1<<20 {
		report("max_size", "%d bytes is too small", "use 1MiB or more", c.MaxSize)
	}
}
