package ncs

import (
	"fmt"
	"slices"
	"strings"
)

// Selector is a set of event types as a rule names it.
type Selector struct {
	products []int  // nil = every product
	event    string // by name, unless byNumber
	number   int
	byNumber bool // every type of that number in products
	unknown  bool // every type of that number that has no published name
}

// ParseProduct returns the id of a product by its name, or by "unknown_<id>", which stays an alias when the product gets a name.
func (c *Catalogue) ParseProduct(name string) (int, error) {
	for _, p := range c.orBuiltin().products {
		if p.Name == name {
			return p.ID, nil
		}
	}
	if id, ok := unknownNumber(name); ok {
		return id, nil
	}
	return 0, fmt.Errorf("unknown product %q", name)
}

// ParseEvent reads an event of a rule that is for the given products (by name; none = all of them):
//
//   - "uploaded": the types of that name, of any of the products;
//   - "cloud_recording.uploaded": of that product;
//   - "31" or "cloud_recording.31": by number, which needs one product, as numbers mean something else in each;
//   - "unknown_46": the types 46 that have no published name. With a product ("cloud_recording.unknown_46", or given
//     products) it means the type 46 even when that has a name by now, so that rules outlive an upgrade.
//
// An error says what is wrong with the name; Products and Types list what would be right.
func (c *Catalogue) ParseEvent(productNames []string, s string) (Selector, error) {
	ids, err := c.parseProducts(productNames)
	if err != nil {
		return Selector{}, err
	}
	name := s
	if product, rest, ok := strings.Cut(s, "."); ok {
		id, err := c.ParseProduct(product)
		if err != nil {
			return Selector{}, fmt.Errorf("event %q: %w", s, err)
		}
		if len(ids) > 0 && !slices.Contains(ids, id) {
			return Selector{}, fmt.Errorf("event %q is not of product %s", s, strings.Join(productNames, ", "))
		}
		ids, name = []int{id}, rest
	}
	if number, ok := wholeNumber([]byte(name)); ok {
		if len(ids) != 1 {
			return Selector{}, fmt.Errorf("event %s means something else in each product: name one product with it", name)
		}
		return Selector{products: ids, number: number, byNumber: true}, nil
	}
	if number, ok := unknownNumber(name); ok {
		return Selector{products: ids, number: number, byNumber: len(ids) > 0, unknown: len(ids) == 0}, nil
	}
	sel := Selector{products: ids, event: name}
	if !slices.ContainsFunc(c.orBuiltin().types, sel.Matches) {
		return Selector{}, fmt.Errorf("unknown event %q", s)
	}
	return sel, nil
}

func (c *Catalogue) parseProducts(names []string) ([]int, error) {
	var ids []int
	for _, name := range names {
		id, err := c.ParseProduct(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Matches reports whether an event type is in the set.
func (s Selector) Matches(i Info) bool {
	if len(s.products) > 0 && !slices.Contains(s.products, i.ProductID) {
		return false
	}
	switch {
	case s.byNumber:
		return i.EventType == s.number
	case s.unknown:
		return i.EventType == s.number && (!i.Known || i.unpublished())
	}
	return i.Event == s.event
}

// unknownNumber reads the number of "unknown_<number>", written as Lookup writes it.
func unknownNumber(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, unknownPrefix)
	if !ok {
		return 0, false
	}
	return wholeNumber([]byte(digits))
}
