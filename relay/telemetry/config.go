package telemetry

import (
	"log/slog"

	"ncs-relay/relay/problem"
)

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

// Check reports unknown levels and formats.
func (c *LogConfig) Check(report problem.Report) {
	if _, ok := c.level(); !ok {
		report("level", "unknown level %q", "one of debug, info, warn, error", c.Level)
	}
	switch c.Format {
	case "auto", "json", "text":
	default:
		report("format", "unknown format %q", "one of auto, json, text", c.Format)
	}
}

func (c *LogConfig) level() (_ slog.Level, ok bool) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	default:
		return 0, false
	}
}
