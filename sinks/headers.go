package sinks

import (
	"slices"
	"strings"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
)

type headed interface{ HeaderNames(relay.Attempt) []string }

// Header is a header that a sink sends.
type Header struct {
	Name   string
	Text   string // what it holds
	Always bool   // it comes with every event
}

// Headers lists the headers of what the sink sends; none for kinds without. c must pass Check.
func (c *Config) Headers() []Header {
	event := relay.Event{Info: ncs.Builtin().Lookup(3, 31), Source: "s", ReceivedAt: time.Unix(0, 0)}
	least := c.headerNames(relay.Attempt{Event: &event, Number: 1})
	full := event
	full.Entity, full.ContentType, full.SignatureV1, full.SignatureV2 = "e", "application/json", "1", "2"
	var list []Header
	for _, name := range c.headerNames(relay.Attempt{Event: &full, Number: 1, Replay: 1, Test: true, Traceparent: "t"}) {
		list = append(list, Header{Name: name, Text: headerText(name), Always: slices.Contains(least, name)})
	}
	return list
}

func (c *Config) headerNames(a relay.Attempt) []string {
	if kind, ok := c.Kind.(headed); ok {
		return kind.HeaderNames(a)
	}
	return nil
}

func headerText(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if text := headerTexts[strings.TrimPrefix(strings.TrimPrefix(name, "ncs-relay-"), "ncs-")]; text != "" {
		return text
	}
	return "as the configuration of the sink says"
}

// headerTexts say what headers hold, by their names without the prefix of their kind of sink.
var headerTexts = map[string]string{
	"agora-signature":    "HMAC-SHA1 of the body by Agora's secret, hexadecimal, as Agora sent it",
	"agora-signature-v2": "HMAC-SHA256 of the body by Agora's secret, hexadecimal, as Agora sent it",
	"content-type":       "of the body, as Agora sent it",
	"event-id":           "32 hex digits, the same for every copy of the event",
	"product":            "such as cloud_recording",
	"event":              "the event's name, such as uploaded",
	"event-type":         "Agora's number, such as 31",
	"category":           "such as uploader",
	"entity":             "what the event is about, percent-encoded; absent if there is nothing",
	"source":             "name of the relay's source",
	"received-at":        "when the relay received it: RFC 3339 in UTC, with milliseconds",
	"attempt":            "1 for the first try",
	"replay":             "number of the replay, on what an operator has delivered again",
	"test":               "true on what ncs-relay sinks test sends",
	"idempotency-key":    "the same for every try of a delivery; a replay has one of its own",
	"traceparent":        "W3C trace context, if traces are exported",
	"webhook-id":         "Standard Webhooks: the Idempotency-Key",
	"webhook-timestamp":  "Standard Webhooks: Unix seconds of the try",
	"webhook-signature":  "Standard Webhooks: signatures of id, timestamp and body",
	"ce-specversion":     "CloudEvents 1.0",
	"ce-id":              "CloudEvents: the event id",
	"ce-source":          "CloudEvents: /ncs/ and the source",
	"ce-type":            "CloudEvents: agora.ncs.<product>.<event>",
	"ce-subject":         "CloudEvents: the entity",
	"ce-time":            "CloudEvents: when the relay received it",
}
