// Package kafkasink produces events to Kafka topics.
package kafkasink

// Config of a Kafka sink.
type Config struct {
	Brokers     []string `yaml:"brokers"`
	Topic       string   `yaml:"topic"`
	ClientID    string   `yaml:"client_id"`
	CloudEvents bool     `yaml:"cloudevents"`
}

// SetDefaults fills what the configuration may leave out.
func (c *Config) SetDefaults() { c.ClientID = "ncs-relay" }
