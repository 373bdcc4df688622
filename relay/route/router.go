// Package route decides which sinks are owed an event.
//
// A Router is compiled once from the routes of the configuration, with every mistake in them reported, and then only
// read. Route decides, Explain says why, and Reach says what can come to a sink at all; they work on the same compiled
// conditions, so that what `check` and `route` tell is what production does.
//
// The package is pure: it keeps no state, does no I/O and knows sinks and sources by name only. Counting and logging
// the errors of rules, and what becomes of an event that no sink is owed, is left to its callers.
package route

import (
	"time"

	"ncs-relay/relay/ncs"
)

// Router holds compiled rules. It is immutable and may be used concurrently.
type Router struct {
	rules     []rule
	unmatched []string
	sinks     []string // in the order of Options.Sinks; rules name them by index
	sources   []Source
	catalogue *ncs.Catalogue
	kinds     []kind // for Reach
}

// rule is one compiled entry of routes.
type rule struct {
	conditions []condition
	when       *Expr // nil = none
	to         []int // indexes into Router.sinks
}

// Result says where an event goes.
type Result struct {
	Sinks   []string    // each once, in the order of the configured sinks; may be empty
	Matched bool        // at least one rule applied; if false, Sinks are those of unmatched
	Errors  []RuleError // rules whose expression failed on this event and which therefore did not apply
}

// RuleError is the failure of a rule's expression on one event.
type RuleError struct {
	Rule int // index into routes
	Err  error
}

// Route applies every rule to an event. Rules cannot shadow each other: each one that applies adds its sinks.
func (r *Router) Route(n *ncs.Notification, source string, receivedAt time.Time) Result {
	var result Result
	owed := make([]uint64, (len(r.sinks)+63)/64) // a bit per sink; up to 256 sinks it stays on the stack
	count := 0
	e := evaluation{n: n, source: source, receivedAt: receivedAt}
	for i := range r.rules {
		rule := &r.rules[i]
		if rule.failing(&e) != nil {
			continue
		}
		applies, err := rule.whenHolds(&e)
		if err != nil {
			result.Errors = append(result.Errors, RuleError{Rule: i, Err: err})
		}
		if !applies {
			continue
		}
		result.Matched = true
		for _, s := range rule.to {
			if bit := uint64(1) << (s % 64); owed[s/64]&bit == 0 {
				owed[s/64] |= bit
				count++
			}
		}
	}
	if !result.Matched {
		result.Sinks = append(result.Sinks, r.unmatched...)
		return result
	}
	result.Sinks = make([]string, 0, count)
	for s, name := range r.sinks {
		if owed[s/64]&(1<<(s%64)) != 0 {
			result.Sinks = append(result.Sinks, name)
		}
	}
	return result
}

// Verdict says whether a rule applies to an event, and if not, what stands against it.
type Verdict struct {
	Rule    int // index into routes
	Applies bool
	To      []string // the rule's sinks
	Key     string   // the first key that does not hold: "product" ... "entity" or "when"; "" if the rule applies
	Why     string   // for people, such as "event is uploaded, rule wants session_exit"; "" if the rule applies
	Err     error    // set when the expression failed
}

// Explain returns the verdict of every rule, in the order of the configuration.
func (r *Router) Explain(n *ncs.Notification, source string, receivedAt time.Time) []Verdict {
	e := evaluation{n: n, source: source, receivedAt: receivedAt}
	verdicts := make([]Verdict, len(r.rules))
	for i := range r.rules {
		verdicts[i] = r.rules[i].explain(&e)
		verdicts[i].Rule = i
		for _, s := range r.rules[i].to {
			verdicts[i].To = append(verdicts[i].To, r.sinks[s])
		}
	}
	return verdicts
}

// Catalogue names the products and events that the rules are about.
func (r *Router) Catalogue() *ncs.Catalogue { return r.catalogue }

// Rules says how many rules there are.
func (r *Router) Rules() int { return len(r.rules) }

// Unmatched are the sinks of events to which no rule applies.
func (r *Router) Unmatched() []string { return append([]string(nil), r.unmatched...) }

func (r *rule) explain(e *evaluation) Verdict {
	if c := r.failing(e); c != nil {
		return Verdict{Key: c.key, Why: c.why(e.n, e.source)}
	}
	applies, err := r.whenHolds(e)
	switch {
	case err != nil:
		return Verdict{Key: "when", Why: "when failed: " + err.Error(), Err: err}
	case !applies:
		return Verdict{Key: "when", Why: "when is false"}
	}
	return Verdict{Applies: true}
}

// failing returns the first condition that does not hold, nil if all do.
func (r *rule) failing(e *evaluation) *condition {
	for i := range r.conditions {
		if c := &r.conditions[i]; !c.holds(e.n, e.source) {
			return c
		}
	}
	return nil
}

func (r *rule) whenHolds(e *evaluation) (bool, error) {
	if r.when == nil {
		return true, nil
	}
	return r.when.eval(e)
}
