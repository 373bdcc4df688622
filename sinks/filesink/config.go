package filesink

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// Config of a file sink.
type Config struct {
	Path     string `yaml:"path,path"`      // {replica} is the name of this process
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

// Key is where c stands in a sink's configuration.
func (c *Config) Key() string { return "file" }

// Owns is the file: two writers would spoil it.
func (c *Config) Owns() (path, value string) { return "path", filepath.Clean(c.Path) }

// ForReplica puts the name of a replica into the path.
func (c *Config) ForReplica(name string) (path, template string) {
	const place = "{replica}"
	if strings.Contains(c.Path, place) {
		template = c.Path
	}
	c.Path = strings.ReplaceAll(c.Path, place, name)
	return "path", template
}

// Traits are those of a sink of c.
func (c *Config) Traits(name, _ string, log *slog.Logger) relay.Traits {
	return relay.Traits{
		Build:       func() (relay.Sink, error) { return New(*c, name, log) },
		Concurrency: 1,
		Ordered:     true,
		SpanKind:    trace.SpanKindInternal,
	}
}

// Look reports, without changing anything, why a sink could never write its file, such as that it is another program's. Of
// one that ends within a line it is a note.
func (c *Config) Look() (path string, note bool, err error) {
	err = look(c.Path)
	return "path", errors.Is(err, errTorn), err
}

// Document says where lines go, for AsyncAPI.
func (c *Config) Document() (protocol string, hosts []string, address string, operation, message map[string]any) {
	return "file", []string{"localhost"}, c.Path, nil, nil
}

// Wrap is the schema of a line, which has the body as text.
func (c *Config) Wrap(body map[string]any) map[string]any {
	text := map[string]any{"type": "string", "contentMediaType": "application/json", "contentSchema": body}
	return map[string]any{"type": "object", "required": []string{"id", "body"}, "properties": map[string]any{"id": map[string]any{"type": "string"}, "body": text}}
}
