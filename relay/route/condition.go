package route

import (
	"slices"
	"strconv"
	"strings"

	"ncs-relay/relay/ncs"
)

// condition is one key of a rule's match, compiled.
type condition struct {
	key   string
	wants []string // as configured, for explanations

	// holds decides on an event. An event that lacks the field never satisfies the condition.
	holds func(n *ncs.Notification, source string) bool

	// possible reports whether some event of a kind could satisfy the condition. For product, event and category, which
	// the kind alone decides, it reports whether all would.
	possible func(k kind) bool
}

// decidedByKind reports whether possible is the whole truth about the condition.
func (c *condition) decidedByKind() bool {
	return c.key == "product" || c.key == "event" || c.key == "category"
}

func (c *condition) why(n *ncs.Notification, source string) string {
	wants := "rule wants " + orList(c.wants)
	value := fieldValue(c.key, n, source)
	if value == "" {
		return "event has no " + c.key + ", " + wants
	}
	if c.key == "event" { // told as precisely as the rule asks, or both sides could read the same
		if slices.ContainsFunc(c.wants, func(w string) bool { return strings.Contains(w, ".") }) {
			value = n.Info.Product + "." + value
		}
		if slices.ContainsFunc(c.wants, func(w string) bool { _, ok := trailingNumber(w); return ok }) {
			value += " (" + strconv.Itoa(n.Info.EventType) + ")"
		}
	}
	return c.key + " is " + value + ", " + wants
}

// fieldValue is an event's value for a key of match; "" means that it has none.
func fieldValue(key string, n *ncs.Notification, source string) string {
	switch key {
	case "product":
		return n.Info.Product
	case "event":
		return n.Info.Event
	case "category":
		return n.Info.Category
	case "service_type":
		if n.ServiceType >= 0 {
			return strconv.Itoa(n.ServiceType)
		}
	case "source":
		return source
	case "channel":
		return n.Channel
	case "entity":
		return n.Entity
	}
	return ""
}

func productCondition(wants []string, ids []int) condition {
	return condition{
		key: "product", wants: wants,
		holds:    func(n *ncs.Notification, _ string) bool { return slices.Contains(ids, n.Info.ProductID) },
		possible: func(k kind) bool { return slices.Contains(ids, k.ProductID) },
	}
}

func eventCondition(wants []string, events []ncs.Selector) condition {
	return condition{
		key: "event", wants: wants,
		holds: func(n *ncs.Notification, _ string) bool {
			for i := range events {
				if events[i].Matches(n.Info) {
					return true
				}
			}
			return false
		},
		possible: func(k kind) bool {
			for i := range events {
				if k.selectedBy(events[i], wants[i]) {
					return true
				}
			}
			return false
		},
	}
}

func categoryCondition(wants []string) condition {
	return condition{
		key: "category", wants: wants,
		holds:    func(n *ncs.Notification, _ string) bool { return slices.Contains(wants, n.Info.Category) },
		possible: func(k kind) bool { return slices.Contains(wants, k.Category) },
	}
}

func serviceTypeCondition(wants []string, values []int) condition {
	return condition{
		key: "service_type", wants: wants,
		holds:    func(n *ncs.Notification, _ string) bool { return slices.Contains(values, n.ServiceType) },
		possible: kind.hasServiceType,
	}
}

// sourceCondition is possible for what one of the sources lets in.
func sourceCondition(wants []string, sources []Source) condition {
	var wanted []Source
	for _, s := range sources {
		if slices.Contains(wants, s.Name) {
			wanted = append(wanted, s)
		}
	}
	return condition{
		key: "source", wants: wants,
		holds:    func(_ *ncs.Notification, source string) bool { return slices.Contains(wants, source) },
		possible: func(k kind) bool { return k.arrivesAt(wanted) },
	}
}

func channelCondition(wants []string, globs []glob) condition {
	return condition{
		key: "channel", wants: wants,
		holds: func(n *ncs.Notification, _ string) bool {
			return n.Channel != "" && slices.ContainsFunc(globs, func(g glob) bool { return g.match(n.Channel) })
		},
		possible: kind.hasChannel,
	}
}

func entityCondition(wants []string) condition {
	return condition{
		key: "entity", wants: wants,
		holds:    func(n *ncs.Notification, _ string) bool { return slices.Contains(wants, n.Entity) }, // no want is empty
		possible: func(kind) bool { return true },                                                      // every kind has an entity
	}
}

// glob is a pattern for channel names: `*` stands for any characters, also none, and everything else for itself, upper
// and lower case told apart. `?` and `[]` are not special, because they are legal in channel names and `*` is not: so
// every channel's name is a pattern that matches this channel only, without any quoting.
type glob []string // the literals around the stars: n+1 literals for n stars

func compileGlob(pattern string) glob { return strings.Split(pattern, "*") }

func (g glob) match(s string) bool {
	if len(g) == 1 {
		return s == g[0]
	}
	first, last := g[0], g[len(g)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, literal := range g[1 : len(g)-1] { // the leftmost place of each literal leaves most room for the next
		i := strings.Index(s, literal)
		if i < 0 {
			return false
		}
		s = s[i+len(literal):]
	}
	return true
}

// orList writes "a", "a or b", "a, b or c".
func orList(words []string) string { return list(words, " or ") }

// andList writes "a", "a and b", "a, b and c".
func andList(words []string) string { return list(words, " and ") }

func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	end := len(words) - 1
	return strings.Join(words[:end], ", ") + last + words[end]
}
