// Package filesink appends events to a file, one JSON object a line.
package filesink

// Config of a file sink.
type Config struct {
	Path     string `yaml:"path,path"`
	MaxSize  int64  `yaml:"max_size,bytes"`
	MaxFiles int    `yaml:"max_files"`
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() {
	c.MaxSize = 100 << 20
	c.MaxFiles = 10
}
