package ingress

import (
	"fmt"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// SourceConfig is one ingress path with its secrets.
type SourceConfig struct {
	Name        string         `yaml:"name"`                     // in metrics, headers and rules
	Path        string         `yaml:"path"`                     // of the URL given to Agora, compared exactly
	Secrets     []relay.Secret `yaml:"secrets"`                  // any of them may have signed; rotation = two for a while
	SecretFiles []string       `yaml:"secret_files,path,secret"` // files with a secret each; a newline at the end is no part of it
	Products    []string       `yaml:"products"`                 // products let in; none = all
	Signature   string         `yaml:"signature"`                // v2, or any: SHA-1 is accepted where no V2 signature came
	MaxBody     int64          `yaml:"max_body,bytes"`           // larger calls are refused
	TestMatch   string         `yaml:"test_match"`               // expression that tells further tests of the Console

	// Resolved are all secrets in effect: Secrets and the contents of SecretFiles. The config package fills it.
	Resolved []relay.Secret `yaml:"-"`
}

// SetDefaults fills what the configuration may leave out.
func (c *SourceConfig) SetDefaults() {
	c.Signature = "v2"
	c.MaxBody = 1 << 20
}

// Check reports what is wrong with c. Whether the products exist, the files can be read and the expression compiles is
// seen by the config package.
func (c *SourceConfig) Check(report problem.Report) {
	c.checkNames(report)
	if len(c.Secrets)+len(c.SecretFiles) == 0 {
		report("secrets", "no secret given", "give secrets or secret_files; Agora's Console shows the secret of each product")
	}
	for i, s := range c.Secrets {
		if !s.IsSet() {
			report(fmt.Sprintf("secrets[%d]", i), "the secret is empty", "with an empty secret anybody could sign")
		}
	}
	if c.Products != nil && len(c.Products) == 0 {
		report("products", "is an empty list", "leave the key out to take all products")
	}
	if c.Signature != "v2" && c.Signature != "any" {
		report("signature", "unknown signature rule %q", "use v2 or any", c.Signature)
	}
	const most = 64 << 20 // bodies are read into memory; Agora's have a few KiB
	if c.MaxBody < 1<<10 || c.MaxBody > most {
		report("max_body", "%d bytes is out of range", "use 1KiB to 64MiB", c.MaxBody)
	}
}

func (c *SourceConfig) checkNames(report problem.Report) {
	switch {
	case c.Name == "":
		report("name", "no name given", relay.NameRule)
	case !relay.ValidName(c.Name):
		report("name", "name %q is not allowed", relay.NameRule, c.Name)
	}
	switch {
	case c.Path == "":
		report("path", "no path given", "for example /ncs/recording")
	case !relay.ValidPath(c.Path):
		report("path", "path %q is not allowed", relay.PathRule, c.Path)
	}
}

// DedupConfig bounds the memory of known events.
type DedupConfig struct {
	MaxKeys    int           `yaml:"max_keys"`    // events remembered
	Window     time.Duration `yaml:"window"`      // how long
	OnConflict string        `yaml:"on_conflict"` // events with the same key and other contents: deliver or drop
}

// SetDefaults fills what the configuration may leave out.
func (c *DedupConfig) SetDefaults() {
	c.MaxKeys = 1_000_000
	c.Window = 24 * time.Hour
	c.OnConflict = "deliver"
}

// Check reports what is wrong with c.
func (c *DedupConfig) Check(report problem.Report) {
	const most = 1 << 30 // beyond the memory of any machine
	if c.MaxKeys <= 0 || c.MaxKeys > most {
		report("max_keys", "%d is out of range", "use 1 or more; each key takes some hundred bytes of memory", c.MaxKeys)
	}
	if c.Window <= 0 {
		report("window", "the window is empty", "use the longest time after which a copy may come, such as 24h")
	}
	if c.OnConflict != "deliver" && c.OnConflict != "drop" {
		report("on_conflict", "unknown choice %q", "use deliver or drop", c.OnConflict)
	}
}

// LimitsConfig bounds what the ingress takes on at once.
type LimitsConfig struct {
	Connections   int           `yaml:"connections"`           // open at a time
	InFlight      int           `yaml:"in_flight"`             // calls at a time
	InFlightBytes int64         `yaml:"in_flight_bytes,bytes"` // of the bodies above 16 KiB that are read and stored at a time
	ReadTimeout   time.Duration `yaml:"read_timeout"`          // for the body of a call
	IdleTimeout   time.Duration `yaml:"idle_timeout"`          // of a connection between calls
}

// SetDefaults fills what the configuration may leave out.
func (c *LimitsConfig) SetDefaults() {
	c.Connections = 10_000
	c.InFlight = 2048
	c.InFlightBytes = 256 << 20
	c.ReadTimeout = 10 * time.Second
	c.IdleTimeout = 90 * time.Second
}

// Check reports what is wrong with c.
func (c *LimitsConfig) Check(report problem.Report) {
	if c.Connections <= 0 {
		report("connections", "%d is out of range", "use 1 or more", c.Connections)
	}
	if c.InFlight <= 0 {
		report("in_flight", "%d is out of range", "use 1 or more", c.InFlight)
	}
	if c.InFlightBytes < 1<<20 {
		report("in_flight_bytes", "%d bytes is too small", "use 1MiB or more", c.InFlightBytes)
	}
	if c.ReadTimeout < 10*time.Second {
		report("read_timeout", "%v is too short", "use 10s or more: Agora waits 10s for a call", c.ReadTimeout)
	}
	if c.IdleTimeout <= time.Minute {
		report("idle_timeout", "%v is too short", "use more than 60s: load balancers keep idle connections that long, and a call on one just closed is lost", c.IdleTimeout)
	}
}
