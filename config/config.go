// Package config reads the relay's YAML file.
package config

import (
	"ncs-relay/relay"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/route"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
)

// Config is the whole file.
type Config struct {
	Listen      string               `yaml:"listen"`
	TLS         *TLS                 `yaml:"tls"`
	HealthPath  string               `yaml:"health_path"`
	Admin       admin.Config         `yaml:"admin"`
	DataDir     string               `yaml:"data_dir,path"`
	Journal     journal.Config       `yaml:"journal"`
	DeadLetters journal.DeadConfig   `yaml:"dead_letters"`
	Dedup       relay.DedupConfig    `yaml:"dedup"`
	Limits      relay.LimitsConfig   `yaml:"limits"`
	Shutdown    relay.ShutdownConfig `yaml:"shutdown"`
	Log         telemetry.LogConfig  `yaml:"log"`
	Sources     []relay.SourceConfig `yaml:"sources"`
	Sinks       []sinks.Config       `yaml:"sinks"`
	Routes      []route.RuleConfig   `yaml:"routes"`
	Unmatched   []string             `yaml:"unmatched"`
}

// TLS names the files of the ingress certificate.
type TLS struct {
	CertFile string `yaml:"cert_file,path"`
	KeyFile  string `yaml:"key_file,path"`
}
