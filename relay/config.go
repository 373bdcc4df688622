package relay

import "time"

// SourceConfig is one ingress path with its secrets.
type SourceConfig struct {
	Name        string   `yaml:"name"`
	Path        string   `yaml:"path"`
	Secrets     []Secret `yaml:"secrets"`
	SecretFiles []string `yaml:"secret_files,path"`
	Products    []string `yaml:"products"`
	Signature   string   `yaml:"signature"`
	MaxBody     int64    `yaml:"max_body,bytes"`
	TestMatch   string   `yaml:"test_match"`
}

// SetDefaults fills what the configuration may leave out.
func (c *SourceConfig) SetDefaults() {
	c.Signature = "v2"
	c.MaxBody = 1 << 20
}

// DedupConfig bounds the memory of known events.
type DedupConfig struct {
	MaxKeys    int           `yaml:"max_keys"`
	Window     time.Duration `yaml:"window"`
	OnConflict string        `yaml:"on_conflict"`
}

// SetDefaults fills what the configuration may leave out.
func (c *DedupConfig) SetDefaults() {
	c.MaxKeys = 1_000_000
	c.Window = 24 * time.Hour
	c.OnConflict = "deliver"
}

// LimitsConfig bounds what the ingress takes on at once.
type LimitsConfig struct {
	Connections int           `yaml:"connections"`
	InFlight    int           `yaml:"in_flight"`
	ReadTimeout time.Duration `yaml:"read_timeout"`
	IdleTimeout time.Duration `yaml:"idle_timeout"`
}

// SetDefaults fills what the configuration may leave out.
func (c *LimitsConfig) SetDefaults() {
	c.Connections = 10_000
	c.InFlight = 2048
	c.ReadTimeout = 10 * time.Second
	c.IdleTimeout = 90 * time.Second
}

// ShutdownConfig paces the end of the process.
type ShutdownConfig struct {
	Delay   time.Duration `yaml:"delay"`
	Timeout time.Duration `yaml:"timeout"`
}

// SetDefaults fills what the configuration may leave out.
func (c *ShutdownConfig) SetDefaults() {
	c.Delay = 5 * time.Second
	c.Timeout = 20 * time.Second
}

// RetryConfig says how long and how often a sink's deliveries are tried.
type RetryConfig struct {
	Initial     time.Duration `yaml:"initial"`
	MaxInterval time.Duration `yaml:"max_interval"`
	MaxAge      time.Duration `yaml:"max_age"`
	MaxAttempts int           `yaml:"max_attempts"`
}

// SetDefaults fills what the configuration may leave out.
func (c *RetryConfig) SetDefaults() {
	c.Initial = time.Second
	c.MaxInterval = 5 * time.Minute
	c.MaxAge = 24 * time.Hour
}

// BacklogConfig bounds what a sink may owe.
type BacklogConfig struct {
	MaxSize int64 `yaml:"max_size,bytes"`
}

// SetDefaults fills what the configuration may leave out.
func (c *BacklogConfig) SetDefaults() { c.MaxSize = 4 << 30 }

// UnmarshalText sets the secret's value.
func (s *Secret) UnmarshalText(b []byte) error { s.value = string(b); return nil }
