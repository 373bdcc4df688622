package route

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/spelling"
)

// Source is an ingress path as far as rules are concerned.
type Source struct {
	Name     string
	Products []string // what it lets in, by name; empty = everything
}

// Severity says how much a finding weighs.
type Severity int

// Severities of findings.
const (
	Error   Severity = iota // the configuration cannot be used
	Warning                 // a rule that does not do what it seems to
	Note                    // worth knowing, and often meant
)

// Report takes one finding. The path is that of the configuration, such as "routes[2].match.event[0]"; the rest is as in
// problem.Report.
type Report func(s Severity, path, problem, hint string, values ...any)

// Options are what a Router is compiled from.
type Options struct {
	Rules     []RuleConfig
	Unmatched []string       // sinks of events to which no rule applies; may be empty
	Sinks     []string       // names of the configured sinks, in their order; a finding about one has the path "sinks[i]"
	Sources   []Source       // the configured sources; none = everything may arrive
	Catalogue *ncs.Catalogue // names products and events; nil = ncs.Builtin
	Report    Report         // nil = findings are not wanted
}

// Compile compiles rules and reports everything that is wrong or odd about them. It returns nil if there was an Error.
func Compile(o Options) *Router {
	c := compiler{Options: o}
	r := &Router{
		rules:     make([]rule, len(o.Rules)),
		unmatched: dedupe(o.Unmatched),
		sinks:     slices.Clone(o.Sinks),
		sources:   slices.Clone(o.Sources),
		catalogue: o.Catalogue,
	}
	for i, rc := range o.Rules {
		r.rules[i] = c.rule(fmt.Sprintf("routes[%d]", i), rc)
	}
	c.sinkNames("unmatched", o.Unmatched)
	if c.failed {
		return nil
	}
	if len(r.sources) == 0 {
		r.sources = []Source{{}}
	}
	r.kinds = kindsOf(o.Catalogue, append(c.products, productsOf(o.Catalogue, r.sources...)...))
	for i := range r.rules {
		c.reachability(fmt.Sprintf("routes[%d].match", i), &r.rules[i], r)
	}
	if c.Report != nil && slices.ContainsFunc(r.rules, func(r rule) bool { return r.when != nil }) {
		samples := r.samples()
		for i := range r.rules {
			if r.rules[i].when != nil {
				c.rehearse(fmt.Sprintf("routes[%d].when", i), &r.rules[i], samples)
			}
		}
	}
	c.sameConditions()
	c.unusedSinks()
	return r
}

// compiler carries the findings of a compilation.
type compiler struct {
	Options
	failed   bool
	products []int // ids that rules name
}

func (c *compiler) report(s Severity, path, problem, hint string, values ...any) {
	c.failed = c.failed || s == Error
	if c.Report != nil {
		c.Report(s, path, problem, hint, values...)
	}
}

func (c *compiler) rule(path string, rc RuleConfig) rule {
	var r rule
	m := rc.Match
	at := func(key string) string { return path + ".match." + key }
	if c.given(at("product"), m.Product) {
		r.conditions = append(r.conditions, productCondition(m.Product, c.productIDs(at("product"), m.Product)))
	}
	if c.given(at("event"), m.Event) {
		r.conditions = append(r.conditions, eventCondition(m.Event, c.events(at("event"), m)))
	}
	if c.given(at("category"), m.Category) {
		c.names(at("category"), m.Category, "category", categories(c.Catalogue))
		r.conditions = append(r.conditions, categoryCondition(m.Category))
	}
	if c.given(at("service_type"), m.ServiceType) {
		r.conditions = append(r.conditions, serviceTypeCondition(m.ServiceType, c.serviceTypes(at("service_type"), m.ServiceType)))
	}
	if c.given(at("source"), m.Source) {
		c.names(at("source"), m.Source, "source", c.sourceNames())
		r.conditions = append(r.conditions, sourceCondition(m.Source, c.Sources))
	}
	if c.given(at("channel"), m.Channel) {
		r.conditions = append(r.conditions, channelCondition(m.Channel, c.globs(at("channel"), m.Channel)))
	}
	if c.given(at("entity"), m.Entity) {
		c.notEmpty(at("entity"), m.Entity)
		r.conditions = append(r.conditions, entityCondition(m.Entity))
	}
	r.when = c.when(path+".when", rc.When)
	r.to = c.to(path+".to", rc.To)
	return r
}

// given reports whether a rule has a key. An empty list is refused: as a key that is not there it would take everything,
// and it may be all that is left of a template.
func (c *compiler) given(path string, values []string) bool {
	if values != nil && len(values) == 0 {
		c.report(Error, path, "is an empty list", "leave the key out to take all")
	}
	return len(values) > 0
}

func (c *compiler) productIDs(path string, names []string) []int {
	ids := make([]int, len(names))
	for i, name := range names {
		id, err := c.Catalogue.ParseProduct(name)
		if err != nil {
			c.report(Error, index(path, i), "unknown product %q", c.productHint(name), name)
			continue
		}
		ids[i] = id
		c.products = append(c.products, id)
	}
	c.repeated(path, names)
	return ids
}

func (c *compiler) productHint(name string) string {
	if id, err := strconv.Atoi(name); err == nil {
		return "products go by name: " + c.Catalogue.Lookup(id, 0).Product
	}
	return spelling.Hint(name, c.Catalogue.ProductNames())
}

// events compiles the events of a match. Where a product is wrong already, they are judged without the products.
func (c *compiler) events(path string, m MatchConfig) []ncs.Selector {
	selectors := make([]ncs.Selector, len(m.Event))
	products := slices.DeleteFunc(slices.Clone(m.Product), func(name string) bool {
		_, err := c.Catalogue.ParseProduct(name)
		return err != nil
	})
	unsure := len(products) < len(m.Product)
	for i, event := range m.Event {
		s, err := c.Catalogue.ParseEvent(products, event)
		if err == nil {
			selectors[i] = s
			c.namedByNow(index(path, i), event, s)
			if product, _, ok := strings.Cut(event, "."); ok {
				id, _ := c.Catalogue.ParseProduct(product)
				c.products = append(c.products, id)
			}
			continue
		}
		problem, hint, values := c.eventProblem(products, event)
		if !unsure || strings.HasPrefix(problem, "unknown") {
			c.report(Error, index(path, i), problem, hint, values...)
		}
	}
	c.repeated(path, m.Event)
	return selectors
}

// eventProblem says what is wrong with an event that ParseEvent refused.
func (c *compiler) eventProblem(products []string, event string) (problem, hint string, values []any) {
	if number, err := strconv.Atoi(event); err == nil && len(products) != 1 {
		return "event %s needs exactly one product, because numbers mean something else in each product", c.numberHint(number), []any{event}
	}
	if _, err := c.Catalogue.ParseEvent(nil, event); err == nil {
		return "%s is an event of %s, not of %s", "", []any{event, andList(c.productsWith(event)), orList(products)}
	}
	product, name, qualified := strings.Cut(event, ".")
	if !qualified {
		return "unknown event %q", spelling.Hint(event, c.eventNames(products)), []any{event}
	}
	if _, err := c.Catalogue.ParseProduct(product); err != nil {
		return "unknown product %q in event %q", spelling.Hint(product, c.Catalogue.ProductNames()), []any{product, event}
	}
	hint, values = spelling.Hint(name, c.eventNames([]string{product})), []any{event}
	if of := c.productsWith(name); hint == "" && len(of) > 0 {
		hint, values = "%s is an event of %s", append(values, name, andList(of))
	}
	return "unknown event %q", hint, values
}

func (c *compiler) numberHint(number int) string {
	var meanings []string
	for _, info := range c.Catalogue.Types() {
		if info.EventType == number {
			meanings = append(meanings, info.Product+"."+info.Event)
		}
	}
	if len(meanings) == 0 {
		return "add one product"
	}
	return "add one product, or write " + orList(meanings)
}

// productsWith lists the products that have an event of that name, which may name a product itself.
func (c *compiler) productsWith(event string) []string {
	if product, _, ok := strings.Cut(event, "."); ok {
		return []string{product}
	}
	var products []string
	for _, info := range c.Catalogue.Types() {
		if info.Event == event && !slices.Contains(products, info.Product) {
			products = append(products, info.Product)
		}
	}
	return products
}

// namedByNow tells of unknown_<number> of types that have a name, which such a rule was most likely written before.
func (c *compiler) namedByNow(path, event string, s ncs.Selector) {
	if !strings.Contains(event, "unknown_") {
		return
	}
	for _, info := range c.Catalogue.Types() {
		if s.Matches(info) {
			c.report(Note, path, "%s has a name by now", "write "+info.Product+"."+info.Event, event)
		}
	}
}

func (c *compiler) serviceTypes(path string, values []string) []int {
	numbers := make([]int, len(values))
	for i, v := range values {
		number, err := strconv.Atoi(v)
		if err != nil || number < 0 {
			c.report(Error, index(path, i), "service type %q is not a number", "for example 2, the uploader", v)
		}
		numbers[i] = number
	}
	c.repeated(path, values)
	return numbers
}

func (c *compiler) globs(path string, patterns []string) []glob {
	globs := make([]glob, len(patterns))
	c.notEmpty(path, patterns)
	for i, p := range patterns {
		if strings.ContainsAny(p, `?[\`) {
			c.report(Note, index(path, i), "only * is special in channel %q: the rest is taken literally", "", p)
		}
		globs[i] = compileGlob(p)
	}
	c.repeated(path, patterns)
	return globs
}

func (c *compiler) when(path, src string) *Expr {
	if src == "" {
		return nil
	}
	x, err := CompileExpr(src)
	if err != nil {
		c.report(Error, path, "%v", exprHint(err), err)
	}
	return x
}

func exprHint(err error) string {
	unknown, ok := strings.CutPrefix(err.Error(), "unknown name ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(unknown, " ")
	if hint := spelling.Hint(name, slices.Concat(variableNames, allowed)); hint != "" {
		return hint
	}
	return "available are " + andList(variableNames)
}

func (c *compiler) to(path string, names []string) []int {
	if len(names) == 0 {
		c.report(Error, path, "no sink", "name at least one of: %s", strings.Join(c.Sinks, ", "))
	}
	c.sinkNames(path, names)
	var to []int
	for _, name := range names {
		if s := slices.Index(c.Sinks, name); s >= 0 {
			to = append(to, s)
		}
	}
	return to
}

func (c *compiler) sinkNames(path string, names []string) { c.names(path, names, "sink", c.Sinks) }

// names checks that every name is one of those known.
func (c *compiler) names(path string, names []string, what string, known []string) {
	for i, name := range names {
		if !slices.Contains(known, name) {
			hint, values := "", []any{name}
			if meant := spelling.Nearest(name, known); meant != "" {
				hint, values = "did you mean %q?", append(values, meant)
			}
			c.report(Error, index(path, i), "unknown "+what+" %q", hint, values...)
		}
	}
	c.repeated(path, names)
}

func (c *compiler) notEmpty(path string, values []string) {
	for i, v := range values {
		if v == "" {
			c.report(Error, index(path, i), "is empty", "an event that lacks the field never matches; leave the key out to take all")
		}
	}
}

func (c *compiler) repeated(path string, values []string) {
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			c.report(Warning, index(path, i), "%q is listed twice", "", v)
		}
	}
}

// reachability warns of conditions that event types can never satisfy.
func (c *compiler) reachability(path string, r *rule, router *Router) {
	selected := slices.DeleteFunc(slices.Clone(router.kinds), func(k kind) bool {
		return slices.ContainsFunc(r.conditions, func(c condition) bool { return c.decidedByKind() && !c.possible(k) })
	})
	if len(selected) == 0 {
		c.report(Warning, path, "no event can match: there is none with %s", "", andList(wantsOf(r)))
		return
	}
	if !slices.ContainsFunc(selected, func(k kind) bool { return k.arrivesAt(router.sources) }) {
		c.report(Warning, path, "no event can match: no source lets in %s", "", andList(wantsOf(r)))
		return
	}
	for _, condition := range r.conditions {
		if condition.decidedByKind() {
			continue
		}
		able, unable := 0, []kind(nil)
		for _, k := range selected {
			switch {
			case !condition.possible(k):
				unable = append(unable, k)
			case !k.open || condition.key == "source":
				able++
			}
		}
		if len(unable) > 0 {
			c.unable(path+"."+condition.key, condition.key, able, unable, router.kinds)
		}
	}
}

// unable reports the event types that a rule selects and that cannot satisfy one of its keys.
func (c *compiler) unable(path, key string, able int, unable, kinds []kind) {
	reason := "they have no " + key
	if key == "source" {
		reason = "the source does not let them in"
	}
	if able == 0 {
		c.report(Warning, path, "no event the rule names can match: "+reason+" ("+summary(unable, kinds)+")", "")
		return
	}
	if key != "source" { // taking only what a source lets in is what a source in a rule is for
		c.report(Note, path, "never holds for "+summary(unable, kinds)+": "+reason, "")
	}
}

// wantsOf lists what a rule asks of the kind of an event.
func wantsOf(r *rule) []string {
	var wants []string
	for _, c := range r.conditions {
		if c.decidedByKind() {
			wants = append(wants, c.key+" "+orList(c.wants))
		}
	}
	return wants
}

// summary names kinds, and a product in place of all of its types.
func summary(some, all []kind) string {
	var names []string
	for _, k := range some {
		name := k.String()
		if count(some, k.ProductID) == count(all, k.ProductID) {
			name = k.Product + ".*"
		}
		if !k.open && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// count counts the kinds of a product that have a name.
func count(kinds []kind, productID int) int {
	n := 0
	for _, k := range kinds {
		if k.ProductID == productID && !k.open {
			n++
		}
	}
	return n
}

func (c *compiler) sameConditions() {
	first := map[string]int{}
	for i, rc := range c.Rules {
		conditions := fmt.Sprintf("%q %q", rc.Match, rc.When)
		if j, ok := first[conditions]; ok {
			c.report(Warning, fmt.Sprintf("routes[%d]", i), fmt.Sprintf("same conditions as routes[%d]", j), "put the sinks of both into one rule")
			continue
		}
		first[conditions] = i
	}
}

func (c *compiler) unusedSinks() {
	used := slices.Clone(c.Unmatched)
	for _, rc := range c.Rules {
		used = append(used, rc.To...)
	}
	for i, name := range c.Sinks {
		if !slices.Contains(used, name) {
			c.report(Warning, index("sinks", i), "no rule sends anything to sink %q", "", name)
		}
	}
}

// productsOf returns the ids of the products that sources name.
func productsOf(catalogue *ncs.Catalogue, sources ...Source) []int {
	var ids []int
	for _, s := range sources {
		for _, name := range s.Products {
			if id, err := catalogue.ParseProduct(name); err == nil { // a wrong name is reported with its source
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func (c *compiler) sourceNames() []string {
	names := make([]string, len(c.Sources))
	for i, s := range c.Sources {
		names[i] = s.Name
	}
	return names
}

// eventNames lists the event names of some products; none = of all.
func (c *compiler) eventNames(products []string) []string {
	var names []string
	for _, info := range c.Catalogue.Types() {
		if len(products) == 0 || slices.Contains(products, info.Product) {
			names = append(names, info.Event)
		}
	}
	return names
}

func categories(of *ncs.Catalogue) []string {
	names := []string{of.Lookup(unknownProduct, 0).Category}
	for _, info := range of.Types() {
		names = append(names, info.Category)
	}
	return dedupe(names)
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// dedupe keeps the first of equal strings.
func dedupe(s []string) []string {
	var out []string
	for _, v := range s {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
