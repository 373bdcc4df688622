package topics

import (
	"log/slog"
	"regexp"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
)

// Config says where a journal on Kafka is.
type Config struct {
	Brokers      []string        `yaml:"brokers,scalar"` // host:port of a few brokers, also several with commas between them; the rest of the cluster is found through them
	TLS          *keyfile.TLS    `yaml:"tls"`            // encrypts connections
	SASL         *kafkaconn.SASL `yaml:"sasl"`           // authenticates them
	Cluster      string          `yaml:"cluster"`        // the name of all replicas together; it is kept in the topics, and a replica of another cluster does not start
	Prefix       string          `yaml:"prefix"`         // of the topics' names
	CreateTopics *CreateTopics   `yaml:"create_topics"`  // makes topics that do not exist; without it they must
	Unsafe       bool            `yaml:"unsafe"`         // for tests: topics may have a single replica, which is lost with its broker
}

// CreateTopics says how the topics of a journal are made.
type CreateTopics struct {
	Shards      int `yaml:"shards"`      // partitions of each; this can never be changed
	Replication int `yaml:"replication"` // brokers that have each
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.Prefix = "ncs" }

const (
	mostShards     = 100 // a shard takes up to five connections of its owner at once, and a process has 512
	longestPrefix  = 200 // a topic's name has 249 at most
	mostReplicas   = 100
	defaultShards  = 24
	topicWordsRule = "use up to 200 of a-z A-Z 0-9 . _ -"
)

// NameRule says in words what ValidName accepts.
const NameRule = topicWordsRule + ", and begin with a letter or digit"

// ValidName reports whether a replica may be called name: it is a part of what Kafka calls a member of a group.
func ValidName(name string) bool { return len(name) <= longestPrefix && topicWords.MatchString(name) }

var topicWords = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]*$`)

// Check reports what is wrong with c.
func (c *Config) Check(report problem.Report) {
	kafkaconn.CheckBrokers(c.Brokers, report)
	switch {
	case c.Cluster == "":
		report("cluster", "no name given", "any name that all replicas of this relay share and no other relay has, such as production")
	case !relay.ValidName(c.Cluster):
		report("cluster", "name %q is not allowed", relay.NameRule, c.Cluster)
	}
	if !ValidName(c.Prefix) {
		report("prefix", "%q cannot begin the name of a topic", NameRule, c.Prefix)
	}
	if c.CreateTopics != nil && c.CreateTopics.Replication < safeReplicas && !c.Unsafe {
		report("create_topics.replication", "%d replicas are too few: 200 means that two brokers have the event, also while one is away", "use 3, or unsafe: true for tests", c.CreateTopics.Replication)
	}
}

// Warn reports what is legal and probably not meant.
func (c *Config) Warn(report problem.Report) {
	kafkaconn.WarnOfSecrets(c.TLS, c.SASL, report)
	if c.Unsafe {
		report("unsafe", "what was answered 200 is lost with the only broker that has it", "leave it out, with three brokers or more")
	}
}

// SetDefaults fills what the configuration may leave out.
func (c *CreateTopics) SetDefaults() { c.Shards, c.Replication = defaultShards, safeReplicas }

// Check reports what is wrong with c.
func (c *CreateTopics) Check(report problem.Report) {
	if c.Shards < 1 || c.Shards > mostShards {
		report("shards", "%d is not between 1 and %d", "24 is good for up to some ten replicas; it can never be changed", c.Shards, mostShards)
	}
	if c.Replication < 1 || c.Replication > mostReplicas {
		report("replication", "%d is not between 1 and %d", "use 3", c.Replication, mostReplicas)
	}
}

// Options are what the topics must be, for sources whose largest body has maxBody bytes.
func (c *Config) Options(retention time.Duration, maxBody int64) Options {
	o := Options{Brokers: kafkaconn.SplitBrokers(c.Brokers), Prefix: c.Prefix, Replication: safeReplicas, Retention: retention, MaxBody: maxBody, Unsafe: c.Unsafe}
	if c.CreateTopics != nil {
		o.Shards, o.Replication = c.CreateTopics.Shards, c.CreateTopics.Replication
	}
	return o
}

// Dial makes the way to the cluster. It opens no connection; the first request does.
func (c *Config) Dial(log *slog.Logger) *kafkaconn.Cluster {
	return kafkaconn.New(kafkaconn.Config{Brokers: kafkaconn.SplitBrokers(c.Brokers), ClientID: "ncs-relay-journal", TLS: c.TLS, SASL: c.SASL, Logger: log})
}
