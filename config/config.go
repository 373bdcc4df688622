// Package config reads the relay's one YAML file, strictly: a file is used only when nothing in it is wrong, and
// everything that is wrong is reported at once, each with its place, its path and what to do about it. No report ever
// contains a secret or the value of an environment variable.
//
// The settings themselves, their defaults and their rules belong to the packages that use them; this package composes
// their structs and checks what only shows between them. It relies on these conventions:
//
//   - A field is set by the key of its yaml tag. Options of the tag: `bytes`, a size such as 64KiB; `path`, a file
//     relative to the configuration's directory; `scalar`, a list that may be written as a single value, and whose texts
//     may be numbers; `credential`, text that is read like a secret; `masked`, a URL that may be a secret behind its host; with `path`, `secret`, the file holds one secret, and
//     `private`, nobody else may read the file. A time.Duration is written 10s, 5m or 14d; what implements encoding.TextUnmarshaler is text.
//   - A field of type sinks.Kind is set by the keys of the kinds that Load is given; exactly one of them.
//   - SetDefaults() fills a new struct before it is decoded.
//   - Check(report problem.Report) is called on each struct after decoding; path is relative to it. So is
//     Warn, for what is legal and probably not meant.
//
// Watching the file, and what a reload changes in a running relay, is left to the caller.
package config

import (
	"net"
	"strconv"
	"strings"

	"ncs-relay/relay"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
)

// Config is the whole file.
type Config struct {
	Listen      string                 `yaml:"listen"`         // address of the ingress
	TLS         *TLS                   `yaml:"tls"`            // nil = plain HTTP
	HealthPath  string                 `yaml:"health_path"`    // answers load balancers on the ingress; "" = none
	Admin       admin.Config           `yaml:"admin"`          // address of metrics, health and the admin API
	Overlay     string                 `yaml:"catalogue,path"` // file that names products and event types besides those that are built in; "" = none
	DataDir     string                 `yaml:"data_dir,path"`  // the journal; one process at a time. With a journal on Kafka it may be left out
	Replica     string                 `yaml:"replica"`        // the name of this process among those with the same journal on Kafka, and {replica} in paths of file sinks; default: the host name
	Journal     JournalConfig          `yaml:"journal"`        // where the journal is, and its bounds
	DeadLetters journal.DeadConfig     `yaml:"dead_letters"`   // bounds of the dead letters kept
	Dedup       ingress.DedupConfig    `yaml:"dedup"`          // memory of known events
	Limits      ingress.LimitsConfig   `yaml:"limits"`         // what the ingress takes on at once
	Shutdown    gateway.ShutdownConfig `yaml:"shutdown"`       // pace of the end of the process
	Log         telemetry.LogConfig    `yaml:"log"`            // what is logged and how
	Sources     []ingress.SourceConfig `yaml:"sources"`        // ingress paths with their secrets
	Sinks       []sinks.Config         `yaml:"sinks"`          // destinations
	Routes      []route.RuleConfig     `yaml:"routes"`         // every rule that matches adds its sinks
	Unmatched   []string               `yaml:"unmatched"`      // sinks of events that no rule matches

	// Catalogue names what is built in and what Overlay adds.
	Catalogue *ncs.Catalogue `yaml:"-"`

	// Absent are settings that were not judged; only LoadAway leaves some.
	Absent []Absent `yaml:"-"`

	// Router is compiled from Routes and Unmatched.
	Router *route.Router `yaml:"-"`

	kinds   []sinks.Kind
	written map[string]string     // values with variables by path, as they stand in the file
	place   func(string) position // of a path in the file
}

// Absent is a setting that a Config of LoadAway does not have.
type Absent struct {
	Path string // such as sources[0].secrets[0]
	Why  string // for people: "variable NCS_SECRET is not set"
}

// Lacks returns why the first of the settings at, or below, some paths is absent; "" = none is.
func (c *Config) Lacks(paths ...string) string {
	for _, a := range c.Absent {
		for _, p := range paths {
			if a.Path == p || strings.HasPrefix(a.Path, p+".") || strings.HasPrefix(a.Path, p+"[") {
				return a.Path + ": " + a.Why
			}
		}
	}
	return ""
}

// SetDefaults fills what the file may leave out.
func (c *Config) SetDefaults() {
	c.Listen = ":8080"
	c.DataDir = "./data"
}

// Check reports what is wrong with the settings that are no section of their own.
func (c *Config) Check(report problem.Report) {
	checkListen(c.Listen, report)
	if c.HealthPath != "" && !relay.ValidPath(c.HealthPath) {
		report("health_path", "path %q is not allowed", relay.PathRule, c.HealthPath)
	}
	if c.DataDir == "" {
		report("data_dir", "no directory given", "remove the key to get ./data, or none with journal.kafka")
	}
	if len(c.Sources) == 0 {
		report("sources", "no source given", "a relay needs at least one path that takes notifications")
	}
}

func checkListen(address string, report problem.Report) {
	hint := "write host:port, or :port for all addresses"
	if relay.IsPort(address) {
		hint = `write ":%[1]s" for all addresses, or host:%[1]s`
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		report("listen", "%q is not an address", hint, address)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		report("listen", "%q has no valid port", hint, address)
	}
}

// TLS names the files of the ingress certificate.
type TLS struct {
	CertFile string `yaml:"cert_file,path"`        // certificate chain, PEM
	KeyFile  string `yaml:"key_file,path,private"` // its private key, PEM
}

// Check reports what is wrong with t.
func (t *TLS) Check(report problem.Report) {
	if t.CertFile == "" {
		report("cert_file", "no certificate given", "TLS needs cert_file and key_file")
	}
	if t.KeyFile == "" {
		report("key_file", "no key given", "TLS needs cert_file and key_file")
	}
	keyfile.CheckTLS("", t.CertFile, t.KeyFile, report)
}

// Place is where the setting at path stands in the file, or what it would be in: line and column from 1.
func (c *Config) Place(path string) (line, column int) {
	at := c.place(path)
	return at.line, at.column
}

// Files lists the files that belong to the configuration besides itself and can change: those of the sources' secrets and
// the catalogue. The certificate is followed by the ingress itself.
func (c *Config) Files() []string {
	var files []string
	if c.Overlay != "" {
		files = append(files, c.Overlay)
	}
	for _, s := range c.Sources {
		files = append(files, s.SecretFiles...)
	}
	return files
}
