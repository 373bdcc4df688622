package telemetry

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // auto (text on a terminal), json, text
}

// SetDefaults fills what the configuration may leave out.
func (c *LogConfig) SetDefaults() {
	c.Level = "info"
	c.Format = "auto"
}
