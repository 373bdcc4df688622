package route

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"ncs-relay/relay/ncs"
)

// kind is an event type as rules can be judged over without an event: one of the catalogue, or (open) all those of a
// product that the catalogue does not know.
type kind struct {
	ncs.Info
	open bool
	of   *ncs.Catalogue
}

// unknownProduct stands for every product that neither the catalogue nor a rule names. No notification can have the id,
// as far as anybody knows; if one did, it would be routed like any other.
const unknownProduct = math.MaxInt32

// kindsOf lists the catalogue, and the open kinds of its products, of those of the given ids, and of all others.
func kindsOf(catalogue *ncs.Catalogue, productIDs []int) []kind {
	var kinds []kind
	for _, info := range catalogue.Types() {
		kinds = append(kinds, kind{Info: info, of: catalogue})
	}
	for _, p := range catalogue.Products() {
		kinds = append(kinds, openKind(catalogue, p.ID))
	}
	named := len(kinds)
	for _, id := range productIDs {
		if !slices.ContainsFunc(kinds, func(k kind) bool { return k.open && k.ProductID == id }) {
			kinds = append(kinds, openKind(catalogue, id))
		}
	}
	slices.SortFunc(kinds[named:], func(a, b kind) int { return a.ProductID - b.ProductID })
	rest := openKind(catalogue, unknownProduct)
	rest.Product = "unknown"
	return append(kinds, rest)
}

func openKind(catalogue *ncs.Catalogue, productID int) kind {
	info := catalogue.Lookup(productID, math.MaxInt32) // a number without a name, for the product's name and the category
	return kind{Info: info, open: true, of: catalogue}
}

func (k kind) hasChannel() bool     { return k.HasChannel() }
func (k kind) hasServiceType() bool { return k.HasServiceType() }

// selectedBy reports whether an event of a rule, compiled and as written, selects the kind or, of an open one, some type.
func (k kind) selectedBy(s ncs.Selector, written string) bool {
	if !k.open {
		return s.Matches(k.Info)
	}
	number, ok := trailingNumber(written) // only numbers and unknown_<number> can select what has no name
	if !ok {
		return false
	}
	info := k.of.Lookup(k.ProductID, number)
	return !info.Known && s.Matches(info)
}

func trailingNumber(s string) (int, bool) {
	name := s[strings.LastIndexByte(s, '.')+1:]
	number, err := strconv.Atoi(strings.TrimPrefix(name, "unknown_"))
	return number, err == nil
}

// arrivesAt reports whether one of the sources lets the kind in.
func (k kind) arrivesAt(sources []Source) bool {
	return slices.ContainsFunc(sources, func(s Source) bool {
		return len(s.Products) == 0 || slices.Contains(productsOf(k.of, s), k.ProductID)
	})
}

func (k kind) String() string { return k.Product + "." + k.Event }

// Reach says which event types may come to a sink.
type Reach struct {
	Known   []ncs.Info // of the catalogue, in its order
	Unknown []string   // products of which types unknown to the catalogue may come; "unknown" = all that are not named
}

// Reach says which event types the rules and unmatched can send to a sink, so that for example the topics of a template
// are known before the first event. It never leaves one out; since it looks at no event, it may name some that never come.
func (r *Router) Reach(sink string) Reach {
	var reach Reach
	for _, k := range r.kinds {
		if !k.arrivesAt(r.sources) || !r.canSend(k, sink) {
			continue
		}
		if k.open {
			reach.Unknown = append(reach.Unknown, k.Product)
		} else {
			reach.Known = append(reach.Known, k.Info)
		}
	}
	return reach
}

func (r *Router) canSend(k kind, sink string) bool {
	taken := false // by a rule that applies to every event of the kind: none is then unmatched
	for i := range r.rules {
		rule := &r.rules[i]
		if !rule.possible(k) {
			continue
		}
		if slices.ContainsFunc(rule.to, func(s int) bool { return r.sinks[s] == sink }) {
			return true
		}
		taken = taken || rule.certain(k)
	}
	return !taken && slices.Contains(r.unmatched, sink)
}

// possible reports whether the rule could apply to an event of the kind.
func (r *rule) possible(k kind) bool {
	for i := range r.conditions {
		if !r.conditions[i].possible(k) {
			return false
		}
	}
	return true
}

// certain reports whether a rule that could apply to the kind applies to every event of it.
func (r *rule) certain(k kind) bool {
	if r.when != nil {
		return false
	}
	for i := range r.conditions {
		if c := &r.conditions[i]; !c.decidedByKind() || c.key == "event" && k.open {
			return false
		}
	}
	return true
}
