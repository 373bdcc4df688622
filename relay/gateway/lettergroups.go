package gateway

import (
	"cmp"
	"context"
	"slices"
	"time"

	"ncs-relay/relay"
)

// LetterGroup are the dead letters of a sink that were given up for one reason, of one kind of event.
type LetterGroup struct {
	Sink    string    `json:"sink"`
	Product string    `json:"product,omitempty"` // "" = quarantined, as of Event
	Event   string    `json:"event,omitempty"`
	Cause   string    `json:"cause,omitempty"` // in a word; of a quarantined body what is wrong with it
	Count   int       `json:"count"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Reason  string    `json:"reason"` // of the last
}

// DeadLetterGroups counts the dead letters that a filter selects by sink, kind of event and cause, the most frequent first.
func (g *Gateway) DeadLetterGroups(ctx context.Context, f relay.Filter) ([]LetterGroup, error) {
	type kind struct{ sink, product, event, cause string }
	groups := make(map[kind]*LetterGroup)
	err := g.eachDeadLetter(f, Page{}, func(d DeadLetter) bool {
		k := kind{d.Sink, d.Product, d.Event, string(d.Cause)}
		if d.Quarantine != "" {
			k.product, k.event, k.cause = "", "", d.Quarantine
		}
		group := groups[k]
		if group == nil {
			group = &LetterGroup{Sink: k.sink, Product: k.product, Event: k.event, Cause: k.cause, First: d.At}
			groups[k] = group
		}
		group.add(LetterGroup{Count: 1, First: d.At, Last: d.At, Reason: d.Reason})
		return ctx.Err() == nil
	})
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return nil, err
	}
	list := make([]LetterGroup, 0, len(groups))
	for _, group := range groups {
		list = append(list, *group)
	}
	slices.SortFunc(list, compareGroups)
	return list, nil
}

// add counts what else is of the group.
func (g *LetterGroup) add(m LetterGroup) {
	g.Count += m.Count
	if m.First.Before(g.First) {
		g.First = m.First
	}
	if !m.Last.Before(g.Last) {
		g.Last, g.Reason = m.Last, m.Reason
	}
}

// compareGroups puts the most frequent first.
func compareGroups(a, b LetterGroup) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Product, b.Product), cmp.Compare(a.Event, b.Event), cmp.Compare(a.Cause, b.Cause))
}

// JoinGroups adds the groups of dead letters of several journals, or parts of one.
func JoinGroups(all, more []LetterGroup) []LetterGroup {
	for _, m := range more {
		at := slices.IndexFunc(all, func(g LetterGroup) bool {
			return g.Sink == m.Sink && g.Product == m.Product && g.Event == m.Event && g.Cause == m.Cause
		})
		if at < 0 {
			all = append(all, m)
			continue
		}
		all[at].add(m)
	}
	slices.SortFunc(all, compareGroups)
	return all
}
