package relay

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// Filter selects deliveries or events. A zero field selects everything.
type Filter struct {
	Sink    string       `json:"sink,omitempty"`
	Source  string       `json:"source,omitempty"`
	Product string       `json:"product,omitempty"` // catalogue name
	Event   string       `json:"event,omitempty"`   // name, product.name, or number with a product, as in rules
	Entity  string       `json:"entity,omitempty"`
	ID      *ncs.EventID `json:"id,omitempty"`
	Reason  string       `json:"reason,omitempty"` // of dead letters: a part of it
	Since   time.Time    `json:"since,omitzero"`   // received at or after
	Until   time.Time    `json:"until,omitzero"`   // received before
}

// String is the filter for people: its fields by name, "" when it selects everything.
func (f Filter) String() string {
	var fields map[string]string
	b, err := json.Marshal(f)
	if err == nil {
		err = json.Unmarshal(b, &fields)
	}
	if err != nil {
		return err.Error() // a time beyond year 9999
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		parts = append(parts, name+"="+fields[name])
	}
	return strings.Join(parts, " ")
}

// Compile checks a filter, whose names are those of a catalogue, and makes a function of it that looks at a record's header.
func (f Filter) Compile(c *ncs.Catalogue) (func(*journal.Record) bool, error) {
	var products []string
	product := -1
	if f.Product != "" {
		id, err := c.ParseProduct(f.Product)
		if err != nil {
			return nil, err
		}
		products, product = []string{f.Product}, id
	}
	var event *ncs.Selector
	if f.Event != "" {
		s, err := c.ParseEvent(products, f.Event)
		if err != nil {
			return nil, err
		}
		event = &s
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return nil, fmt.Errorf("since %s is not before until %s", f.Since.Format(time.RFC3339), f.Until.Format(time.RFC3339))
	}
	return func(r *journal.Record) bool {
		return (f.Source == "" || r.Source == f.Source) &&
			(product < 0 || r.ProductID == product) &&
			(event == nil || event.Matches(c.Lookup(r.ProductID, r.EventType))) &&
			(f.Entity == "" || r.Entity == f.Entity) &&
			(f.ID == nil || ncs.EventID(r.ID) == *f.ID) &&
			(f.Since.IsZero() || !r.Time.Before(f.Since)) &&
			(f.Until.IsZero() || r.Time.Before(f.Until))
	}, nil
}

// MatchOf compiles the filter that a replay was begun with.
func MatchOf(r journal.Replay, c *ncs.Catalogue) (func(*journal.Record) bool, error) {
	var filter Filter
	if err := json.Unmarshal(r.Spec().Filter, &filter); err != nil {
		return nil, err
	}
	return filter.Compile(c)
}
