package ncs

import (
	"fmt"
	"strings"
)

// Schema is a JSON Schema, draft 2020-12. It is encoded as JSON.
type Schema struct {
	Schema      string             `json:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty"`
	Ref         string             `json:"$ref,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name, or a list of names
	Const       any                `json:"const,omitempty"`
	Properties  map[string]*Schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Items       *Schema            `json:"items,omitempty"`
	AnyOf       []*Schema          `json:"anyOf,omitempty"`
	AllOf       []*Schema          `json:"allOf,omitempty"`
	If          *Schema            `json:"if,omitempty"`
	Then        *Schema            `json:"then,omitempty"`
	Defs        map[string]*Schema `json:"$defs,omitempty"`
}

const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// Schema describes the bodies of the event type, as far as they are published. It takes members and values that nobody has
// described, because Agora may add them at any time. $schema is left to whoever makes a document of it.
func (i Info) Schema() *Schema {
	x := i.Explain()
	s := schemaOf(EnvelopeFields())
	s.ID = "urn:ncs-relay:" + i.Product + "." + i.Event
	s.Title, s.Description = i.Product+"."+i.Event, strings.TrimSpace(x.Means+" "+x.When)
	s.Properties["eventType"].Const = i.EventType
	s.Properties["productId"].Const = i.ProductID
	identified := []string{"noticeId", "productId"}
	if i.ProductID == productRecording && i.added == nil {
		s.AnyOf = []*Schema{{Required: identified}, {Required: []string{"notificationId"}}} // the second: the retired format of REST API 1.2.0 and older
	} else {
		s.Required = append(s.Required, identified...)
	}
	payload := schemaOf(x.Fields)
	payload.Description = s.Properties["payload"].Description
	if len(x.Fields) == 0 {
		payload.Description = "not published"
	}
	s.Properties["payload"] = payload
	return s
}

// EnvelopeSchema describes what bodies of all types have in common, those that the catalogue does not know included.
func EnvelopeSchema() *Schema {
	s := schemaOf(EnvelopeFields())
	s.Title, s.Description = "notification", "Any notification of the service."
	return s
}

// SchemaOf describes the bodies of several event types in one document, which also takes bodies of any other type.
func SchemaOf(infos []Info) *Schema {
	doc := &Schema{Schema: schemaDialect, ID: "urn:ncs-relay:events", Title: "Notifications of Agora's notification service", Defs: map[string]*Schema{}}
	for _, i := range infos {
		s := i.Schema()
		doc.Defs[s.Title] = s
		doc.AllOf = append(doc.AllOf, &Schema{
			If: &Schema{
				Properties: map[string]*Schema{"productId": {Const: i.ProductID}, "eventType": {Const: i.EventType}},
				Required:   []string{"productId", "eventType"},
			},
			Then: &Schema{Ref: s.ID},
		})
	}
	return doc
}

// Document makes a document of its own of a schema.
func (s *Schema) Document() *Schema {
	doc := *s
	doc.Schema = schemaDialect
	return &doc
}

func schemaOf(fields []Field) *Schema {
	root := &Schema{Type: "object"}
	for _, f := range fields {
		parent, s := root.at(f.Name)
		s.Type = f.schemaType()
		s.Description = f.Describe()
		if !f.Sometimes && parent.Properties != nil {
			name := f.Name[strings.LastIndexByte(f.Name, '.')+1:]
			parent.Required = append(parent.Required, name)
		}
	}
	return root
}

// at finds or makes the schema of a field, and the one that it is a property of.
func (s *Schema) at(field string) (parent, found *Schema) {
	found = s
	for segment := range strings.SplitSeq(field, ".") {
		name := strings.TrimRight(segment, "[]")
		parent = found
		parent.Type = "object"
		found = parent.Properties[name]
		if found == nil {
			found = new(Schema)
			if parent.Properties == nil {
				parent.Properties = map[string]*Schema{}
			}
			parent.Properties[name] = found
		}
		for range strings.Count(segment, "[]") {
			found.Type = "array"
			if found.Items == nil {
				found.Items = new(Schema)
			}
			found = found.Items
		}
	}
	return parent, found
}

func (f *Field) schemaType() any {
	types := make([]string, len(f.Types))
	for i, t := range f.Types {
		types[i] = strings.Replace(t, "map", "object", 1)
	}
	if len(types) == 1 {
		return types[0]
	}
	return types
}

// Describe is what is known of the field in one line, its codes included.
func (f *Field) Describe() string {
	said := []string{}
	if f.Text != "" {
		said = append(said, f.Text)
	}
	if f.Derived {
		said = append(said, "read off a sample")
	}
	for _, c := range f.Codes {
		_, beside, _ := strings.Cut(c.Field, " beside ")
		if beside != "" {
			beside = " (with " + beside + ")"
		}
		said = append(said, fmt.Sprintf("%s%s: %s", strings.Replace(c.Value, "*", "other", 1), beside, c.Meaning))
	}
	return strings.Join(said, "; ")
}
