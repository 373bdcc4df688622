package filesink

import "ncs-relay/relay/problem"

// Config of a file sink.
type Config struct {
	Path     string `yaml:"path,path"`
	MaxSize  int64  `yaml:"max_size,bytes"` // a file that would grow beyond it is archived; 0 = never
	MaxFiles int    `yaml:"max_files"`      // archived files kept, the oldest are removed; 0 = all
}

// SetDefaults fills what the configuration may leave out. Archives are kept for good unless the operator says
// otherwise: what is in them was reported as delivered.
func (c *Config) SetDefaults() { c.MaxSize = 100 << 20 }

const minMaxSize = 4 << 10

// Check reports what is wrong.
func (c *Config) Check(report problem.Report) {
	if c.Path == "" {
		report("path", "is missing", "the file to write to, such as ./archive/events.jsonl")
	}
	if c.MaxSize < 0 || c.MaxSize > 0 && c.MaxSize < minMaxSize {
		report("max_size", "%d bytes are less than %d", "a size such as 100MiB, or 0 for no limit", c.MaxSize, minMaxSize)
	}
	if c.MaxFiles < 0 {
		report("max_files", "%d is negative", "0 keeps all", c.MaxFiles)
	}
	if c.MaxFiles > 0 && c.MaxSize == 0 {
		report("max_files", "has no effect without max_size", "set max_size too")
	}
}
