package sinks_test

import (
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
	c.HTTP = &httpsink.Config{URL: "https://billing.internal/hooks"}
	c.HTTP.SetDefaults()
}

func withKafka(c *sinks.Config) {
	c.Kafka = &kafkasink.Config{Brokers: []string{"kafka.internal:9092"}, Topic: "ncs.{product}"}
}

func TestNewBuildsTheKindConfigured(t *testing.T) {
	t.Parallel()
	withFile := func(c *sinks.Config) { c.File = &filesink.Config{Path: filepath.Join(t.TempDir(), "events.jsonl")} }
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
		s, err := sinks.New(c, sinks.Options{})
		require.NoError(t, err, name)
		require.IsType(t, tt.want, s, name)
		require.NoError(t, s.Close(), name)
		require.Equal(t, tt.concurrency, c.Concurrency(), name)
	}
}

func TestNewGivesNoSinkWithAnError(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*sinks.Config){
		"nothing": func(*sinks.Config) {},
		"kafka":   func(c *sinks.Config) { c.Kafka = &kafkasink.Config{} },
		"http":    func(c *sinks.Config) { c.HTTP = &httpsink.Config{} },
		"file":    func(c *sinks.Config) { c.File = &filesink.Config{} },
	} {
		s, err := sinks.New(config(with), sinks.Options{})
		require.Error(t, err, name)
		require.True(t, s == nil, "%s: a nil pointer in an interface", name)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	both := func(c *sinks.Config) { withHTTP(c); withKafka(c) }
	tests := map[string]struct {
		with func(*sinks.Config)
		want []string
	}{
		"good":               {withHTTP, nil},
		"http without order": {func(c *sinks.Config) { withHTTP(c); c.Order = "none" }, nil},
		"no name":            {func(c *sinks.Config) { withHTTP(c); c.Name = "" }, []string{"name"}},
		"reserved name":      {func(c *sinks.Config) { withHTTP(c); c.Name = relay.Unroutable }, []string{"name"}},
		"odd name":           {func(c *sinks.Config) { withHTTP(c); c.Name = "a b\n" }, []string{"name"}},
		"no destination":     {func(*sinks.Config) {}, []string{""}},
		"two destinations":   {both, []string{""}},
		"unknown order":      {func(c *sinks.Config) { withHTTP(c); c.Order = "channel" }, []string{"order"}},
		"kafka unordered":    {func(c *sinks.Config) { withKafka(c); c.Order = "none" }, []string{"order"}},
		"file unordered":     {func(c *sinks.Config) { c.File = &filesink.Config{Path: "a"}; c.Order = "none" }, []string{"order"}},
	}
	for name, tt := range tests {
		c := config(tt.with)
		var got []string
		c.Check(func(path, _, _ string, _ ...any) { got = append(got, path) })
		require.Equal(t, tt.want, got, name)
	}
}
