package ncs

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
)

//go:embed events.yaml
var eventsYAML []byte

// Explanation is what is known of an event type beyond its name.
type Explanation struct {
	Title  string   `json:"title"`           // of the product
	Means  string   `json:"means"`           // what has happened
	When   string   `json:"when,omitempty"`  // when it comes, if more is said of that
	Page   string   `json:"page"`            // of Agora, that describes it
	Notes  []string `json:"notes,omitempty"` // what is undocumented or contradictory about it
	Fields []Field  `json:"fields"`          // below payload; none = the payload is not published

	ProductNotes []string `json:"product_notes,omitempty"` // as Notes, about all events of the product
}

// Field is a field of a body.
type Field struct {
	Name      string   `json:"field"`           // its place, such as "details.fileList[].fileName"
	Types     []string `json:"types"`           // JSON types; integer for numbers that are whole by their meaning
	Sometimes bool     `json:"sometimes"`       // not in every event of the type
	Text      string   `json:"text,omitempty"`  // what it holds, if that is said
	Common    bool     `json:"common"`          // in every event of the product
	Derived   bool     `json:"derived"`         // not listed for the type, but read off its samples
	Codes     []Fact   `json:"codes,omitempty"` // its values with a published meaning (see Info.Codes)
}

// explained is events.yaml.
type explained struct {
	Envelope struct {
		Fields string
		Notes  []string
	}
	Overlay `yaml:",inline"`
}

var table = sync.OnceValue(func() *explained {
	t := new(explained)
	if err := yaml.UnmarshalWithOptions(eventsYAML, t, yaml.Strict()); err != nil {
		panic("BUG: events.yaml: " + err.Error()) // a test reads it
	}
	return t
})

// EnvelopeFields are those around the payload, which all events have in common.
func EnvelopeFields() []Field { return fieldsOf(table().Envelope.Fields) }

// Explain says what is published of an event type, and what its samples show. Of a type that the catalogue does not know it
// says nothing.
func (i Info) Explain() Explanation {
	if i.added != nil {
		return i.added.Explanation
	}
	product, ok := table().Products[i.Product]
	if !ok || !i.Known {
		return Explanation{}
	}
	x := product.explain(product.Events[i.EventType])
	if !i.published() {
		x.Fields = nil
		return x
	}
	x.Fields = withDerived(x.Fields, i.samples())
	addCodes(x.Fields, i.Codes())
	return x
}

// explain puts together what is written of an event and of its product.
func (p *ProductText) explain(e EventText) Explanation {
	x := Explanation{Title: p.Title, Means: e.Means, When: e.When, Page: cmp.Or(e.Page, p.Page), Notes: e.Notes, ProductNotes: p.Notes}
	if e.Replaces == "" {
		x.Fields = p.common()
	} else {
		x.Fields = fieldsOf(p.Parts[e.Replaces])
	}
	for _, part := range e.Parts {
		x.Fields = append(x.Fields, fieldsOf(p.Parts[part])...)
	}
	x.Fields = append(x.Fields, fieldsOf(e.Fields)...)
	return x
}

// common are the fields that the published events of a product have in common.
func (p *ProductText) common() []Field {
	fields := fieldsOf(p.Fields)
	for i := range fields {
		fields[i].Common = true
	}
	return fields
}

func addCodes(fields []Field, codes []Fact) {
	for i := range fields {
		f := &fields[i]
		for _, c := range codes {
			field, _, _ := strings.Cut(c.Field, " beside ")
			if strings.EqualFold(field, f.Name) {
				f.Codes = append(f.Codes, c)
			}
		}
	}
}

// Sample is the body that shows the type best, if there is one: the plain one of several.
func (i Info) Sample() (Sample, bool) {
	all := i.samples()
	if len(all) == 0 {
		return Sample{}, false
	}
	plain := fmt.Sprintf("%d-%d-%s", i.ProductID, i.EventType, i.Event)
	return all[max(slices.IndexFunc(all, func(s Sample) bool { return s.Name == plain }), 0)], true
}

// published reports whether the payload of the type is.
func (i Info) published() bool {
	return i.Known && !i.unpublished() && len(i.samples()) > 0
}

// samples are those of the type.
func (i Info) samples() []Sample {
	return slices.DeleteFunc(Samples(), func(s Sample) bool { return s.Info != i })
}

func (s Sample) payload() any {
	var v any
	if err := json.Unmarshal(s.Payload, &v); err != nil {
		panic("BUG: " + s.Name + ": " + err.Error())
	}
	return v
}

// fieldsOf reads the lines of a block of events.yaml.
func fieldsOf(block string) []Field {
	var fields []Field
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		types, text, _ := strings.Cut(rest, " ")
		always := strings.TrimSuffix(types, "?")
		fields = append(fields, Field{Name: name, Types: strings.Split(always, "|"), Sometimes: always != types, Text: text})
	}
	return fields
}

// withDerived adds the fields that only samples show, each behind its neighbours.
func withDerived(fields []Field, samples []Sample) []Field {
	for _, s := range samples {
		derive("", s.payload(), func(name, kind string) bool {
			if at := indexOf(fields, name); at >= 0 {
				f := &fields[at]
				if f.Derived && !slices.Contains(f.Types, kind) {
					f.Types = append(f.Types, kind)
				}
				return !slices.Contains(f.Types, "map")
			}
			at := len(fields)
			for parent := parentOf(name); parent != ""; parent = parentOf(parent) {
				if near := lastBelow(fields, parent); near >= 0 {
					at = near + 1
					break
				}
			}
			fields = slices.Insert(fields, at, Field{Name: name, Types: []string{kind}, Sometimes: true, Derived: true})
			return true
		})
	}
	return fields
}

func indexOf(fields []Field, name string) int {
	return slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
}

// lastBelow is the place of the last field that is parent or stands below it.
func lastBelow(fields []Field, parent string) int {
	for i := len(fields) - 1; i >= 0; i-- {
		rest, ok := strings.CutPrefix(fields[i].Name, parent)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return i
		}
	}
	return -1
}

func parentOf(name string) string {
	return strings.TrimSuffix(name[:max(strings.LastIndexByte(name, '.'), 0)], "[]")
}

// derive calls found for each member below a value with its JSON type. It goes into those for which found returns true.
func derive(name string, value any, found func(name, kind string) bool) {
	switch v := value.(type) {
	case map[string]any:
		for _, member := range slices.Sorted(maps.Keys(v)) {
			inner := strings.TrimPrefix(name+"."+member, ".")
			if found(inner, jsonType(v[member])) {
				derive(inner, v[member], found)
			}
		}
	case []any:
		for _, element := range v {
			derive(name+"[]", element, found)
		}
	}
}

// jsonType names the type of a value as JSON Schema does; every number is a number, as a sample says too little of others.
func jsonType(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case nil:
		return "null"
	}
	return "number"
}
