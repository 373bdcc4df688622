package sinks_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/httpsink"
	"ncs-relay/sinks/kafkasink"
)

func config(change func(*sinks.Config)) sinks.Config {
	var c sinks.Config
	c.SetDefaults()
	c.Name = "billing"
	change(&c)
	return c
}

func withHTTP(c *sinks.Config) {
	http := &httpsink.Config{}
	http.SetDefaults()
	http.URL = "https://billing.internal/hooks"
	c.Kind = http
}

func withKafka(c *sinks.Config) {
	c.Kind = &kafkasink.Config{Brokers: []string{"kafka.internal:9092"}, Topic: "ncs.{product}"}
}

func TestNewBuildsTheKindConfigured(t *testing.T) {
	t.Parallel()
	withFile := func(c *sinks.Config) { c.Kind = &filesink.Config{Path: filepath.Join(t.TempDir(), "events.jsonl")} }
	tests := map[string]struct {
		with        func(*sinks.Config)
		want        relay.Sink
		concurrency int
	}{
		"kafka": {withKafka, (*kafkasink.Sink)(nil), 64},
		"http":  {withHTTP, (*httpsink.Sink)(nil), 16},
		"file":  {withFile, (*filesink.Sink)(nil), 1},
	}
	for name, tt := range tests {
		c := config(tt.with)
		spec := c.Spec("ncs-relay/test", slog.New(slog.DiscardHandler))
		s, err := spec.Build()
		require.NoError(t, err, name)
		require.IsType(t, tt.want, s, name)
		require.NoError(t, s.Close(), name)
		require.Equal(t, tt.concurrency, spec.Concurrency, name)
	}
}

func TestWhatIsWrongIsNotBuilt(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*sinks.Config){
		"kafka": func(c *sinks.Config) { c.Kind = &kafkasink.Config{} },
		"http":  func(c *sinks.Config) { c.Kind = &httpsink.Config{} },
		"file":  func(c *sinks.Config) { c.Kind = &filesink.Config{} },
	} {
		c := config(with)
		_, err := c.Spec("ncs-relay/test", slog.New(slog.DiscardHandler)).Build()
		require.Error(t, err, name)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		with func(*sinks.Config)
		want []string
	}{
		"good":               {withHTTP, nil},
		"http without order": {func(c *sinks.Config) { withHTTP(c); c.Order = "none" }, nil},
		"no name":            {func(c *sinks.Config) { withHTTP(c); c.Name = "" }, []string{"name"}},
		"reserved name":      {func(c *sinks.Config) { withHTTP(c); c.Name = relay.Unroutable }, []string{"name"}},
		"odd name":           {func(c *sinks.Config) { withHTTP(c); c.Name = "a b\n" }, []string{"name"}},
		"unknown order":      {func(c *sinks.Config) { withHTTP(c); c.Order = "channel" }, []string{"order"}},
		"kafka unordered":    {func(c *sinks.Config) { withKafka(c); c.Order = "none" }, []string{"order"}},
		"file unordered":     {func(c *sinks.Config) { c.Kind = &filesink.Config{Path: "a"}; c.Order = "none" }, []string{"order"}},
	}
	for name, tt := range tests {
		c := config(tt.with)
		var got []string
		c.Check(func(path, _, _ string, _ ...any) { got = append(got, path) })
		require.Equal(t, tt.want, got, name)
	}
}
