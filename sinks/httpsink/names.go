package httpsink

import (
	"maps"
	"net/url"
	"slices"
	"time"

	"ncs-relay/relay"
)

// HeaderNames are the names of the headers that a's call has, but those that HTTP itself needs. c must pass Check.
func (c *Config) HeaderNames(a relay.Attempt) []string {
	shown := client{}
	if c.StandardWebhooks != nil {
		shown.webhookKeys = [][]byte{{}}
	}
	header := shown.header(a, c.CloudEvents, time.Time{})
	for name := range c.masked() {
		header.Set(name, hidden)
	}
	header.Del("Host")
	return slices.Sorted(maps.Keys(header))
}

// ShownURL is where events are posted, as logs show it, and its host: some URLs are credentials as a whole.
func (c *Config) ShownURL() (shown, host string) {
	t, err := parseTarget(c.URL)
	if err != nil {
		return hidden, hidden
	}
	u, err := url.Parse(t.example())
	if err != nil {
		return hidden, hidden
	}
	return shownURL(u), u.Host
}
