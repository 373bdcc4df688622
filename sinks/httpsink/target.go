package httpsink

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"ncs-relay/relay"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
)

// notURL stands for the errors of url.Parse, which print the URL.
const notURL = "is not a URL: a port, a percent sign or another character in it is wrong"

// target is where to post. Behind the host it may have placeholders, whose values come from outside: whatever
// they are, scheme, host and port stay, and a value stays within its path segment or its part of the query.
type target struct {
	raw      string
	fixed    bool   // no placeholders
	base     string // scheme, host and port
	segments []template
	query    template // nil = none, not even a question mark
}

// template is literal text and, at odd places, names of placeholders.
type template []string

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

var placeholders = map[string]func(*relay.Event) string{
	"{product}":  func(e *relay.Event) string { return e.Info.Product },
	"{event}":    func(e *relay.Event) string { return e.Info.Event },
	"{category}": func(e *relay.Event) string { return e.Info.Category },
	"{entity}":   func(e *relay.Event) string { return e.Entity },
	"{channel}": func(e *relay.Event) string {
		n, err := ncs.Builtin().Parse(e.Body)
		if err != nil {
			return ""
		}
		return n.Channel
	},
}

// parseTarget finds placeholders; it does not see whether the rest is a URL.
func parseTarget(raw string) (target, error) {
	t := target{raw: raw, fixed: !strings.ContainsAny(raw, "{}")}
	scheme, rest, _ := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	t.base = scheme + "://" + rest[:end]
	if t.fixed {
		return t, nil
	}
	if strings.ContainsAny(t.base, "{}") {
		return t, problem.Errorf("has a placeholder in scheme, host or port")
	}
	path, query, hasQuery := strings.Cut(rest[end:], "?")
	for segment := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		parsed, err := parseTemplate(segment)
		if err != nil {
			return t, err
		}
		t.segments = append(t.segments, parsed)
	}
	if hasQuery {
		var err error
		if t.query, err = parseTemplate(query); err != nil {
			return t, err
		}
	}
	return t, nil
}

func parseTemplate(text string) (template, error) {
	var t template
	for {
		at := placeholder.FindStringIndex(text)
		if at == nil {
			if strings.ContainsAny(text, "{}") {
				return nil, problem.Errorf("has a { or } that belongs to no placeholder")
			}
			return append(t, text), nil
		}
		name := text[at[0]:at[1]]
		if strings.ContainsAny(text[:at[0]], "{}") || placeholders[name] == nil {
			return nil, problem.Errorf("has the unknown placeholder %s", name)
		}
		t = append(t, text[:at[0]], name)
		text = text[at[1]:]
	}
}

// example is the URL of some event.
func (t *target) example() string { return placeholder.ReplaceAllString(t.raw, "x") }

// url is where to post e. An event whose values cannot stand in the path has none.
func (t *target) url(e *relay.Event) (string, error) {
	if t.fixed {
		return t.raw, nil
	}
	var b strings.Builder
	b.WriteString(t.base)
	for _, segment := range t.segments {
		text, err := segment.inPath(e)
		if err != nil {
			return "", err
		}
		b.WriteString("/" + text)
	}
	if t.query != nil {
		b.WriteByte('?')
		for i, part := range t.query {
			if i%2 == 1 {
				part = percentEncode(placeholders[part](e))
			}
			b.WriteString(part)
		}
	}
	return b.String(), nil
}

// inPath refuses what a server, or a proxy in front of it, could take for another path: nothing at all, dots, and
// slashes, also where they are encoded, because some decode before they split, and some decode twice.
func (t template) inPath(e *relay.Event) (string, error) {
	if len(t) == 1 {
		return t[0], nil
	}
	var whole, sent strings.Builder
	for i, part := range t {
		if i%2 == 0 {
			whole.WriteString(decoded(part))
			sent.WriteString(part)
			continue
		}
		value := placeholders[part](e)
		if len(value) > maxPathValue {
			return "", fmt.Errorf("%s is too long for a URL", part)
		}
		plain := decoded(value)
		if strings.ContainsFunc(plain, func(r rune) bool { return r == '/' || r == '\\' || r < ' ' || r == 0x7f }) {
			return "", fmt.Errorf("%s has characters that could leave its segment of the URL's path", part)
		}
		whole.WriteString(plain)
		sent.WriteString(percentEncode(value))
	}
	name, _, _ := strings.Cut(whole.String(), ";") // servers of Java take what follows for a parameter: "..;" is ".."
	if slices.Contains([]string{"", ".", ".."}, name) {
		return "", fmt.Errorf("%s leaves an empty segment or one of dots in the URL's path", strings.Join(t, ""))
	}
	return sent.String(), nil
}

const maxPathValue = 1 << 10

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// decoded undoes percent-encoding as often as it was done.
func decoded(s string) string {
	for {
		next := escape.ReplaceAllStringFunc(s, func(e string) string {
			b, _ := hex.DecodeString(e[1:])
			return string(b)
		})
		if next == s {
			return s
		}
		s = next
	}
}
