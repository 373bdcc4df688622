package ncs

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"
)

// Fact is one thing that the payload of an event states.
type Fact struct {
	Field   string `json:"field"`             // its place in the payload, as the sender spells it: "details.fileList[0].fileName"
	Value   string `json:"value"`             // as sent, but cut, without control characters, and Hidden for credentials
	Meaning string `json:"meaning,omitempty"` // what a code, a bit mask, a share or a Unix time means, where that is published
}

// Hidden is the Value of fields that may hold a credential, such as a stream key.
const Hidden = "(hidden)"

const (
	maxFacts     = 100
	maxFactDepth = 8
)

// Facts lists what the payload states, in its order and decoded for people: at most 100 facts, the last of which then says
// that there are more, and nothing nested deeper than 8 levels. Members it does not know are listed as they are.
func (n *Notification) Facts() []Fact {
	w := factWalker{dec: jsontext.NewDecoder(bytes.NewBuffer(n.Payload), passOn)}
	w.value("", 0) // can fail only where there is no payload: Parse has checked it
	for i := range w.facts {
		f := &w.facts[i]
		f.Meaning = n.Info.meaning(*f, w.facts)
		if hidden[baseName(f.Field)] {
			f.Value, f.Meaning = Hidden, ""
		}
	}
	if len(w.facts) > maxFacts {
		w.facts[maxFacts-1] = Fact{Field: "...", Value: "and more"}
		w.facts = w.facts[:maxFacts]
	}
	return w.facts
}

type factWalker struct {
	dec   *jsontext.Decoder
	facts []Fact
}

// value reports whether it could read on.
func (w *factWalker) value(field string, depth int) bool {
	kind := w.dec.PeekKind()
	if kind != '{' && kind != '[' || depth == maxFactDepth || len(w.facts) > maxFacts {
		raw, err := w.dec.ReadValue()
		if err == nil {
			w.add(field, raw)
		}
		return err == nil
	}
	_, err := w.dec.ReadToken()
	for i := 0; err == nil && w.dec.PeekKind() != kind+2; i++ { // in ASCII, } and ] are two behind { and [
		inner := fmt.Sprintf("%s[%d]", field, i)
		if kind == '{' {
			var name jsontext.Token
			if name, err = w.dec.ReadToken(); err != nil {
				return false
			}
			inner = strings.TrimPrefix(field+"."+printable(name.String()), ".")
		}
		if !w.value(inner, depth+1) {
			return false
		}
	}
	_, end := w.dec.ReadToken()
	return err == nil && end == nil
}

func (w *factWalker) add(field string, raw jsontext.Value) {
	if len(w.facts) > maxFacts {
		return
	}
	text := string(raw)
	switch raw.Kind() {
	case '"':
		b, _ := jsontext.AppendUnquote(nil, raw)
		text = string(b)
	case '{', '[':
		text = "..."
	}
	w.facts = append(w.facts, Fact{Field: field, Value: printable(text)})
}

// printable bounds a text of the sender's, and keeps it from commanding a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, detail(s))
}

// Describe is one line for people on what the event reports beside its name: what its details say, or its payload where
// there are none, such as "progress 5000 (50.00 %)". Lists are only counted, and times left out. It may be empty.
func (n *Notification) Describe() string {
	facts := n.Facts()
	within := ""
	if slices.ContainsFunc(facts, func(f Fact) bool { return strings.HasPrefix(f.Field, "details.") }) {
		within = "details."
	}
	var said []string
	for i, f := range facts {
		field, ok := strings.CutPrefix(f.Field, within)
		list, _, inList := strings.Cut(field, "[")
		switch {
		case !ok || f.Value == "" || f.Value == "null" || f.Value == Hidden || times[baseName(field)] || field == "msgName" || field == "event":
		case inList:
			if i == 0 || !strings.HasPrefix(facts[i-1].Field, within+list+"[") {
				said = append(said, fmt.Sprintf("%s (%d)", list, elements(facts[i:], within+list)))
			}
		case f.Meaning != "":
			said = append(said, fmt.Sprintf("%s %s (%s)", field, f.Value, f.Meaning))
		default:
			said = append(said, field+" "+f.Value)
		}
	}
	return strings.Join(said, ", ")
}

// elements counts those of a list, whose facts stand together.
func elements(facts []Fact, list string) int {
	count, last := 0, ""
	for _, f := range facts {
		rest, ok := strings.CutPrefix(f.Field, list+"[")
		if !ok {
			break
		}
		if index, _, _ := strings.Cut(rest, "]"); index != last {
			count, last = count+1, index
		}
	}
	return count
}

// Codes lists every value with a published meaning of the event type's fields, "*" for all others. Field also says beside
// what it holds.
func (i Info) Codes() []Fact {
	var all []Fact
	for _, t := range codeTables {
		if !t.holdsFor(i) {
			continue
		}
		field := t.field
		if t.beside != "" {
			field += " beside " + t.beside
		}
		for _, v := range t.values {
			all = append(all, Fact{field, v.value, v.meaning})
		}
	}
	return all
}

// meaning is what a fact means beside the others of its event.
func (i Info) meaning(f Fact, others []Fact) string {
	base := baseName(f.Field)
	if times[base] {
		ms, err := strconv.ParseInt(f.Value, 10, 64)
		if t, ok := unixTime(ms); ok && err == nil {
			return t.Format(time.RFC3339Nano)
		}
		return ""
	}
	for _, t := range codeTables {
		if t.holdsFor(i) && strings.EqualFold(t.field, withoutIndexes(f.Field)) && t.standsBeside(others) {
			return t.meaning(f.Value)
		}
	}
	return ""
}

// baseName is the last name of a field, in lower case: fileName is filename in some places, and UtcMs utcMs.
func baseName(field string) string {
	field = withoutIndexes(field)
	return strings.ToLower(field[strings.LastIndexByte(field, '.')+1:])
}

func withoutIndexes(field string) string {
	for {
		before, rest, ok := strings.Cut(field, "[")
		if !ok {
			return field
		}
		_, after, _ := strings.Cut(rest, "]")
		field = before + after
	}
}
