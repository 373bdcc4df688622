package ncs

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"ncs-relay/relay/problem"
)

// Overlay is what is written of products and event types, by name and by number: events.yaml for those that are built in, and a file
// of the operator's for what Agora has added since the release.
type Overlay struct {
	Products map[string]ProductText `yaml:"products"` // by name
}

// ProductText is what is written of a product.
type ProductText struct {
	ID     int               `yaml:"id"`     // productId
	Title  string            `yaml:"title"`  // for people
	Page   string            `yaml:"page"`   // of Agora, that describes its events
	Entity string            `yaml:"entity"` // field below payload that says what an event is about: events are ordered by it
	Fields string            `yaml:"fields"` // of every event: a line a field, with its place below payload, JSON types ("?" behind them: not in every event), and its meaning
	Notes  []string          `yaml:"notes"`  // on every event
	Parts  map[string]string `yaml:"parts"`  // fields that several events have
	Events map[int]EventText `yaml:"events"` // by eventType
}

// EventText is what is written of an event type.
type EventText struct {
	Name     string   `yaml:"name"`     // as in rules
	Category string   `yaml:"category"` // as in rules; "" = unknown
	Entity   string   `yaml:"entity"`   // in place of the product's
	Means    string   `yaml:"means"`    // what has happened
	When     string   `yaml:"when"`     // when it comes, if more is said of that
	Page     string   `yaml:"page"`     // in place of the product's
	Fields   string   `yaml:"fields"`   // besides those of the product and of parts
	Parts    []string `yaml:"parts"`    // of the product's
	Replaces string   `yaml:"replaces"` // the part that stands in place of the product's fields
	Notes    []string `yaml:"notes"`    // what is undocumented or contradictory about it
}

// addedType is what only an overlay says of a type. The identity of its events is what it is without the overlay: a name
// must not make another event of a copy.
type addedType struct {
	Explanation
	entity []string // place below payload; nil = as for unknown types
}

// maxName leaves room for three names in a Kafka topic.
const maxName = 64

var (
	overlayName  = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	overlayPlace = regexp.MustCompile(`^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$`)
	fieldPlace   = regexp.MustCompile(`^[A-Za-z0-9_*]+(\[\])*(\.[A-Za-z0-9_*]+(\[\])*)*$`)
	jsonTypes    = []string{"string", "integer", "number", "boolean", "object", "array", "map", "null"}
)

// Catalogue returns Builtin with the products and event types of the overlay, and reports what is wrong with it. What is wrong is left
// out, so that what else refers to the overlay can be judged all the same.
func (o *Overlay) Catalogue(report problem.Report) *Catalogue {
	a := adder{c: &Catalogue{
		products: slices.Clone(builtin.products), names: maps.Clone(builtin.names),
		types: slices.Clone(builtin.types), index: maps.Clone(builtin.index),
	}, report: report}
	if len(o.Products) == 0 {
		report("products", "no product given", "list products with their events, or remove catalogue from the configuration")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Products)) {
		a.product(name, o.Products[name])
	}
	slices.SortFunc(a.c.products, func(x, y Product) int { return x.ID - y.ID })
	slices.SortFunc(a.c.types, func(x, y Info) int { return cmp.Or(x.ProductID-y.ProductID, x.EventType-y.EventType) })
	return a.c
}

// adder puts an overlay into a catalogue.
type adder struct {
	c      *Catalogue
	report problem.Report
}

func (a *adder) product(name string, text ProductText) {
	at := "products[" + name + "]"
	report := a.report.In(at)
	if id, err := builtin.ParseProduct(name); err == nil && builtin.names[id] == name {
		text = a.builtinProduct(report, id, text)
	} else if !a.newProduct(report, name, &text) {
		return
	}
	if len(text.Events) == 0 {
		report("events", "no event types of %s given", "list them by their number", name)
	}
	for _, part := range slices.Sorted(maps.Keys(text.Parts)) {
		checkFields(report, "parts["+part+"]", text.Parts[part])
	}
	checkFields(report, "fields", text.Fields)
	checkEntity(report, text.Entity)
	for _, number := range slices.Sorted(maps.Keys(text.Events)) {
		a.event(a.report.In(fmt.Sprintf("%s.events[%d]", at, number)), Product{text.ID, name}, number, &text)
	}
}

// builtinProduct returns what an overlay may say of a product that is built in.
func (a *adder) builtinProduct(report problem.Report, id int, text ProductText) ProductText {
	if text.ID != 0 && text.ID != id {
		report("id", "%d is not the id of a product that is built in: that is %d", "remove the line", text.ID, id)
	}
	if text.Title+text.Page+text.Entity+text.Fields != "" || len(text.Notes)+len(text.Parts) > 0 {
		report("", "the product is built in: only events can be added to it", "move what is said of all events to each event")
	}
	return ProductText{ID: id, Title: table().Products[builtin.names[id]].Title, Events: text.Events}
}

// newProduct reports whether the product can be added.
func (a *adder) newProduct(report problem.Report, name string, text *ProductText) bool {
	taken, again := a.c.names[text.ID]
	_, isBuiltin := builtin.names[text.ID]
	switch {
	case !validName(name):
		report("", "product name %q is not allowed", nameHint, name)
	case text.ID <= 0:
		report("id", "no id given", "id is the productId in the bodies")
	case isBuiltin:
		report("id", "product %d is built in and called %s", "list its events below %[2]s", text.ID, taken)
	case again:
		report("id", "product %d is called %s already", "each product once", text.ID, taken)
	default:
		a.c.names[text.ID] = name
		a.c.products = append(a.c.products, Product{text.ID, name})
		return true
	}
	return false
}

func (a *adder) event(report problem.Report, p Product, number int, text *ProductText) {
	event := text.Events[number]
	checkFields(report, "fields", event.Fields)
	checkEntity(report, event.Entity)
	for i, part := range event.Parts {
		checkPart(report, fmt.Sprintf("parts[%d]", i), part, text)
	}
	if event.Replaces != "" {
		checkPart(report, "replaces", event.Replaces, text)
	}
	info := Info{ProductID: p.ID, Product: p.Name, EventType: number, Event: event.Name, Category: cmp.Or(event.Category, unknownCategory), Known: true}
	taken := slices.IndexFunc(a.c.types, func(i Info) bool { return i.ProductID == p.ID && i.Event == event.Name })
	known, isBuiltin := builtin.index[pair{p.ID, number}]
	switch {
	case number < 0:
		report("", "%d is not an event type", "eventType is a whole number from 0", number)
	case isBuiltin:
		report("", "the type is built in and called %s", "remove it: this version of the relay knows it", known.info.Event)
	case !validName(event.Name):
		report("name", "event name %q is not allowed", nameHint, event.Name)
	case taken >= 0:
		report("name", "%s is the name of type %d already", "give each type a name of its own", event.Name, a.c.types[taken].EventType)
	case event.Category != "" && !validName(event.Category):
		report("category", "category %q is not allowed", nameHint, event.Category)
	default:
		info.added = &addedType{Explanation: text.explain(event)}
		if place := cmp.Or(event.Entity, text.Entity); place != "" {
			info.added.entity = strings.Split(place, ".")
		}
		a.c.types = append(a.c.types, info)
		a.c.index[pair{p.ID, number}] = row{info: info}
	}
}

const nameHint = "use a letter and then letters, digits and _, all lower case, at most 64, and not unknown: that is for what has no name"

func validName(name string) bool {
	return len(name) <= maxName && overlayName.MatchString(name) && !strings.HasPrefix(name, unknownCategory)
}

func checkPart(report problem.Report, path, part string, p *ProductText) {
	if _, ok := p.Parts[part]; !ok {
		report(path, "the product has no part %q", "list its fields below parts of the product", part)
	}
}

func checkEntity(report problem.Report, place string) {
	if place != "" && !overlayPlace.MatchString(place) {
		report("entity", "%q is not the place of a field", "write names below payload with dots between them, such as agent_id or room.id", place)
	}
}

// checkFields reports lines that are no field.
func checkFields(report problem.Report, path, block string) {
	for _, f := range fieldsOf(block) {
		bad := slices.IndexFunc(f.Types, func(t string) bool { return !slices.Contains(jsonTypes, t) })
		switch {
		case !fieldPlace.MatchString(f.Name):
			report(path, "%q is not the place of a field", "a line is a place below payload, its JSON types and its meaning: room.id string the room", f.Name)
		case bad >= 0:
			report(path, "%q is no JSON type of field %s", "a line is a place below payload, its JSON types and its meaning; types are %[3]s", f.Types[bad], f.Name, strings.Join(jsonTypes, ", "))
		}
	}
}
