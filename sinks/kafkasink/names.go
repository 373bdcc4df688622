package kafkasink

import "ncs-relay/relay"

// HeaderNames are the names of the headers that a's record has.
func (c *Config) HeaderNames(a relay.Attempt) []string {
	var names []string
	headers(&a, c.CloudEvents, func(name, _ string) { names = append(names, name) })
	return names
}
