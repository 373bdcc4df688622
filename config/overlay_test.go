package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/sinks"
)

const overlayConfig = `catalogue: events.yaml
sources: [{name: a, path: /a, secrets: [0123456789abcdef], products: [signaling]}]
sinks: [{name: f, file: {path: out.jsonl}}]
routes: [{match: {product: signaling, event: [message_sent], category: message}, to: [f]}]
`

// loadOverlaid loads overlayConfig with a catalogue.
func loadOverlaid(t *testing.T, catalogue string) (*Config, string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "events.yaml"), []byte(catalogue), 0o600))
	c, report := Parse("etc/relay.yaml", []byte(overlayConfig), dir, lookupIn(nil), sinks.Kinds)
	return c, strings.ReplaceAll(report.String(), dir, "DIR")
}

func TestACatalogueNamesWhatRulesAndSourcesUse(t *testing.T) {
	t.Parallel()
	c, report := loadOverlaid(t, `
products:
  signaling:
    id: 24
    fields: |
      channelName string the channel
    events:
      210:
        name: message_sent
        category: message
`)
	require.NotNil(t, c, report)
	require.Empty(t, report)
	require.Equal(t, "message_sent", c.Catalogue.Lookup(24, 210).Event)
	require.Equal(t, "message_sent", c.Router.Reach("f").Known[0].Event)
	require.Len(t, c.Files(), 1, "a change of it is a change of the configuration")
}

func TestMistakesOfACatalogueSayWhereAndWhatToDo(t *testing.T) {
	t.Parallel()
	good := "products:\n  signaling:\n    id: 24\n    events:\n      210: {name: message_sent, category: message}\n"
	for catalogue, want := range map[string]string{
		good + "  cloud_recording:\n    events:\n      31: {name: mine}\n":                `etc/events.yaml:8:7: products[cloud_recording].events[31]: the type is built in and called uploaded (remove it: this version of the relay knows it)`,
		good + "  billing:\n    id: 3\n    events: {1: {name: a}}\n":                      `etc/events.yaml:7:9: products[billing].id: product 3 is built in and called cloud_recording (list its events below cloud_recording)`,
		good + "  other:\n    id: 24\n    events: {1: {name: a}}\n":                       `etc/events.yaml:3:9: products[signaling].id: product 24 is called other already (each product once)`,
		good + "  rtc:\n    fields: |\n      a string\n    events:\n      7: {name: a}\n": `etc/events.yaml:6:3: products[rtc]: the product is built in: only events can be added to it (move what is said of all events to each event)`,
		good + "      211: {name: message_sent}\n":                                        `etc/events.yaml:6:19: products[signaling].events[211].name: message_sent is the name of type 210 already (give each type a name of its own)`,
		good + "      211: {name: Sent}\n":                                                `event name "Sent" is not allowed (use a letter and then`,
		good + "      211: {}\n":                                                          `event name "" is not allowed`,
		good + "      sent: {name: sent}\n":                                               `etc/events.yaml:6:7: products[signaling].events[sent]: key "sent" must be a whole number`,
		good + "      211: {name: sent, fields: \"a text b\"}\n":                          `"text" is no JSON type of field a (a line is a place below payload`,
		good + "      211: {name: sent, entity: a..b}\n":                                  `"a..b" is not the place of a field (write names below payload`,
		good + "      211: {name: sent, parts: [user]}\n":                                 `the product has no part "user" (list its fields below parts`,
		good + "      211: {name: sent, catagory: a}\n":                                   `etc/events.yaml:6:25: products[signaling].events[211].catagory: unknown key (did you mean "category"?)`,
		"products: {}\n": `etc/events.yaml:1:1: products: no product given`,
		"products: [\n":  `etc/events.yaml:1:`,
		"- a\n":          `etc/events.yaml:1:1: the file is not a list of keys with values (begin with products:)`,
	} {
		c, report := loadOverlaid(t, catalogue)
		require.Nil(t, c, catalogue)
		require.Contains(t, report, want, catalogue)
		if strings.HasPrefix(catalogue, good) && !strings.Contains(want, "other already") {
			require.NotContains(t, report, "unknown event", "what the file names all the same is not reported again")
		}
	}
	dir := t.TempDir()
	_, report := Parse("relay.yaml", []byte(overlayConfig), dir, lookupIn(nil), sinks.Kinds)
	require.Contains(t, strings.ReplaceAll(report.String(), dir, "DIR"), `relay.yaml:1:12: catalogue: file "DIR/events.yaml" cannot be read: no such file or directory (give a file that names products and events, or remove the line)`)
}
