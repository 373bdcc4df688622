package journal

import (
	"time"

	"ncs-relay/relay/problem"
)

// Config bounds the journal on disk.
type Config struct {
	Retention time.Duration `yaml:"retention"`
	MaxSize   int64         `yaml:"max_size,bytes"`
	MinFree   int64         `yaml:"min_free,bytes"` // 0: the smaller of 1 GiB and 5 % of the volume
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() {
	c.Retention = 72 * time.Hour
	c.MaxSize = 20 << 30
}

// Check reports what is wrong with c.
func (c *Config) Check(report problem.Report) {
	const least = 128 << 20 // two segments: one is written while the other is read
	if c.MaxSize < least {
		report("max_size", "%d bytes is too small", "use 128MiB or more", c.MaxSize)
	}
	if c.Retention < time.Minute {
		report("retention", "%v is too short", "use 1m or more; it is how far back a replay can reach", c.Retention)
	}
}

// DeadConfig bounds the dead letters kept.
type DeadConfig struct {
	Retention time.Duration `yaml:"retention"`
	MaxSize   int64         `yaml:"max_size,bytes"`
}

// SetDefaults fills what the configuration may leave out.
func (c *DeadConfig) SetDefaults() {
	c.Retention = 14 * 24 * time.Hour
	c.MaxSize = 2 << 30
}

// Check reports what is wrong with c.
func (c *DeadConfig) Check(report problem.Report) {
	if c.MaxSize < 1<<20 {
		report("max_size", "%d bytes is too small", "use 1MiB or more", c.MaxSize)
	}
	if c.Retention < time.Minute {
		report("retention", "%v is too short", "use 1m or more; after it a dead letter is gone", c.Retention)
	}
}
