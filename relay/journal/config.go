package journal

import "time"

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
