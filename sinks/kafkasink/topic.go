package kafkasink

import (
	"regexp"
	"slices"
	"strings"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
)

// unknown stands for every name that is not in the catalogue, so that senders cannot make up topics.
const unknown = "unknown"

const maxTopicLength = 249 // of Kafka: a topic names a directory

var legalTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// topicTemplate is a topic name with placeholders, cut into text and placeholders in turns.
type topicTemplate struct{ parts []string }

func parseTopic(text string) (*topicTemplate, error) {
	t := new(topicTemplate)
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		t.parts = append(t.parts, before)
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		if !closed {
			return nil, problem.Errorf("topic %q has a { without }", text)
		}
		if !slices.Contains([]string{"product", "category", "event"}, name) {
			return nil, problem.Errorf("topic %q: {%s} is not a placeholder", text, name)
		}
		t.parts = append(t.parts, name)
		rest = after
	}
	return t, nil
}

// expand names the topic of an event.
func (t *topicTemplate) expand(info ncs.Info) string {
	if len(t.parts) == 1 {
		return t.parts[0]
	}
	var b strings.Builder
	for i, part := range t.parts {
		if i%2 == 0 {
			b.WriteString(part)
			continue
		}
		b.WriteString(t.value(part, info))
	}
	return b.String()
}

func (t *topicTemplate) value(placeholder string, info ncs.Info) string {
	switch {
	case placeholder == "product" && info.HasProductName():
		return info.Product
	case placeholder == "category" && info.Known:
		return info.Category
	case placeholder == "event" && info.Known:
		return info.Event
	}
	return unknown
}

// expandAll names the topics of the given events, sorted and without repetition.
func (t *topicTemplate) expandAll(infos []ncs.Info) []string {
	topics := make([]string, 0, len(infos))
	for _, info := range infos {
		topics = append(topics, t.expand(info))
	}
	slices.Sort(topics)
	return slices.Compact(topics)
}

// all names the topics of the built-in events, and of events that have no name.
func (t *topicTemplate) all() []string {
	infos := ncs.Builtin().Types()
	for _, product := range ncs.Builtin().ProductNames() {
		infos = append(infos, ncs.Info{Product: product})
	}
	return t.expandAll(append(infos, ncs.Info{}))
}

func checkTopicName(topic string) error {
	switch {
	case len(topic) > maxTopicLength:
		return problem.Errorf("topic %q has %d characters, Kafka allows %d", topic, len(topic), maxTopicLength)
	case topic == "." || topic == ".." || !legalTopic.MatchString(topic):
		return problem.Errorf("%q is not a legal topic", topic)
	}
	return nil
}
