package kafkasink

import (
	"context"
	"log/slog"

	"github.com/segmentio/kafka-go/compress"
	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
	"ncs-relay/relay/telemetry"
)

// Config of a Kafka sink.
type Config struct {
	Brokers        []string        `yaml:"brokers,scalar"`        // host:port of a few brokers, also several with commas between them; the rest of the cluster is found through them
	Topic          string          `yaml:"topic"`                 // may contain {product}, {category} and {event}; an entity's events are in order within a topic only
	CreateTopics   *CreateTopics   `yaml:"create_topics"`         // makes topics that do not exist; without it they are waited for
	ClientID       string          `yaml:"client_id"`             // shows up in the brokers' logs, metrics and quotas
	TLS            *keyfile.TLS    `yaml:"tls"`                   // encrypts connections
	SASL           *kafkaconn.SASL `yaml:"sasl"`                  // authenticates them
	Idempotence    bool            `yaml:"idempotence"`           // lets brokers recognize a batch that is sent again
	Compression    string          `yaml:"compression"`           // none, gzip, snappy, lz4 or zstd
	Partitioner    string          `yaml:"partitioner"`           // java, librdkafka or sarama: where these clients put a key
	CloudEvents    bool            `yaml:"cloudevents"`           // adds ce_ headers
	MaxBatchEvents int             `yaml:"max_batch_events"`      // records of a request
	MaxBatchBytes  int64           `yaml:"max_batch_bytes,bytes"` // bodies of a request, before compression
}

// CreateTopics says how topics are made. What is 0 is the cluster's default.
type CreateTopics struct {
	Partitions  int               `yaml:"partitions"`
	Replication int               `yaml:"replication"`
	Configs     map[string]string `yaml:"configs"` // as Kafka calls them, such as retention.ms
}

const (
	mostBatchEvents = 10_000
	mostBatchBytes  = 64 << 20
)

// codecs are the compressions by their names.
var codecs = map[string]compress.Compression{
	"none":   compress.None,
	"gzip":   compress.Gzip,
	"snappy": compress.Snappy,
	"lz4":    compress.Lz4,
	"zstd":   compress.Zstd,
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() {
	c.ClientID = "ncs-relay"
	c.Idempotence = true
	c.Compression = "none"
	c.Partitioner = "java"
	// A record carries about 700 bytes besides its body, so a full batch stays below the brokers' usual 1 MiB.
	c.MaxBatchEvents = 500
	c.MaxBatchBytes = 640 << 10
}

func (c *Config) partitioner() partitioner {
	if p := partitioners[c.Partitioner]; p != nil {
		return p
	}
	return javaPartition
}

// Check reports what is wrong with c.
func (c *Config) Check(report problem.Report) {
	kafkaconn.CheckBrokers(c.Brokers, report)
	c.checkTopic(report)
	if _, known := codecs[c.Compression]; !known {
		report("compression", "unknown compression %q", "use none, gzip, snappy, lz4 or zstd", c.Compression)
	}
	if partitioners[c.Partitioner] == nil {
		report("partitioner", "unknown partitioner %q", "use java, librdkafka or sarama", c.Partitioner)
	}
	if c.MaxBatchEvents < 1 || c.MaxBatchEvents > mostBatchEvents {
		report("max_batch_events", "%d is not between 1 and %d", "the default is 500", c.MaxBatchEvents, mostBatchEvents)
	}
	if c.MaxBatchBytes < 1 || c.MaxBatchBytes > mostBatchBytes {
		report("max_batch_bytes", "%d is not between 1 and 64MiB", "the default is 640KiB", c.MaxBatchBytes)
	}
}

// Warn reports what is legal and probably not meant.
func (c *Config) Warn(report problem.Report) {
	kafkaconn.WarnOfSecrets(c.TLS, c.SASL, report)
}

// Check reports what is wrong with c.
func (c *CreateTopics) Check(report problem.Report) {
	const most = 10_000
	if c.Partitions < 0 || c.Partitions > most {
		report("partitions", "%d is not between 0 and %d", "0 = the cluster's default", c.Partitions, most)
	}
	if c.Replication < 0 || c.Replication > 100 {
		report("replication", "%d is not between 0 and 100", "0 = the cluster's default", c.Replication)
	}
}

func (c *Config) checkTopic(report problem.Report) {
	if c.Topic == "" {
		report("topic", "no topic given", `topic: "ncs.{product}.{category}"`)
		return
	}
	template, err := parseTopic(c.Topic)
	if err != nil {
		report("topic", "%v", "the placeholders are {product}, {category} and {event}", err)
		return
	}
	// Placeholders stand for short names made of legal characters, so one name decides; only the length needs them all.
	for _, topic := range template.all() {
		if err := checkTopicName(topic); err != nil {
			report("topic", "%v", "a topic has 1 to 249 of the characters a-z A-Z 0-9 . _ -", err)
			return
		}
	}
}

// Topics names the topics that events of the given kinds go to, sorted and without repetition. c must have passed Check.
func (c *Config) Topics(infos []ncs.Info) []string {
	template, err := parseTopic(c.Topic)
	if err != nil {
		return nil
	}
	return template.expandAll(infos)
}

// concurrency is the number of partitions produced to at a time. Each waits for its own replicas, and while a broker is
// away all that it leads wait for their next leader, so it is set well above what one broker's round trip needs. It bounds
// the memory of batches in flight.
const concurrency = 64

// Key is where c stands in a sink's configuration.
func (c *Config) Key() string { return "kafka" }

// Traits are those of a sink of c.
func (c *Config) Traits(name, _ string, log *slog.Logger) relay.Traits {
	return relay.Traits{
		Build:       func() (relay.Sink, error) { return New(*c, name, log) },
		Concurrency: concurrency,
		Ordered:     true,
		SpanKind:    trace.SpanKindProducer,
		SpanAttrs:   telemetry.ToKafka(kafkaconn.SplitBrokers(c.Brokers)),
	}
}

// Connect makes a sink of c for its Connect.
func (c *Config) Connect(ctx context.Context, topics []string) []error {
	sink, err := New(*c, "", slog.New(slog.DiscardHandler))
	if err != nil {
		return []error{err}
	}
	defer sink.Close()
	return sink.Connect(ctx, topics)
}

// Document says where records go, for AsyncAPI.
func (c *Config) Document() (protocol string, hosts []string, address string, operation, message map[string]any) {
	protocol = "kafka"
	if c.TLS != nil {
		protocol = "kafka-secure"
	}
	return protocol, kafkaconn.SplitBrokers(c.Brokers), c.Topic, nil, map[string]any{"kafka": map[string]any{
		"key": map[string]any{"type": "string", "description": "what the event is about"}, "bindingVersion": "0.5.0"}}
}
