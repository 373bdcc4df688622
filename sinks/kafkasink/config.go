package kafkasink

import (
	"fmt"
	"net"
	"strconv"

	"ncs-relay/relay/ncs"
)

// Config of a Kafka sink.
type Config struct {
	Brokers     []string `yaml:"brokers"`   // host:port of a few brokers; the rest of the cluster is found through them
	Topic       string   `yaml:"topic"`     // may contain {product}, {category} and {event}
	ClientID    string   `yaml:"client_id"` // shows up in the brokers' logs, metrics and quotas
	CloudEvents bool     `yaml:"cloudevents"`
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.ClientID = "ncs-relay" }

// Check reports what is wrong with c.
func (c *Config) Check(report func(path, problem, hint string)) {
	if len(c.Brokers) == 0 {
		report("brokers", "no broker given", `brokers: ["kafka-1.internal:9092"]`)
	}
	for i, broker := range c.Brokers {
		if problem := checkHostPort(broker); problem != "" {
			report(fmt.Sprintf("brokers[%d]", i), problem, "write host:port, for example kafka-1.internal:9092")
		}
	}
	c.checkTopic(report)
}

func checkHostPort(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return fmt.Sprintf("%q is not host:port", address)
	case host == "":
		return fmt.Sprintf("%q has no host", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Sprintf("%q has no valid port", address)
	}
	return ""
}

func (c *Config) checkTopic(report func(path, problem, hint string)) {
	if c.Topic == "" {
		report("topic", "no topic given", `topic: "ncs.{product}.{category}"`)
		return
	}
	template, err := parseTopic(c.Topic)
	if err != nil {
		report("topic", err.Error(), "the placeholders are {product}, {category} and {event}")
		return
	}
	// Placeholders stand for short names made of legal characters, so one name decides; only the length needs them all.
	for _, topic := range template.all() {
		if problem := checkTopicName(topic); problem != "" {
			report("topic", problem, "a topic has 1 to 249 of the characters a-z A-Z 0-9 . _ -")
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
