package diskjournal

import (
	"cmp"
	"slices"
	"time"

	"ncs-relay/relay/journal"
)

// unsettled are deliveries that were handed out and have no outcome yet. The mutex of their owner guards them. There
// may be very many, and at the start they come all at once; so they are a list, not a map.
type unsettled struct {
	list  []savedDelivery // ascending
	count int             // of those in the list that are not settled meanwhile
}

type delivery struct {
	size     int64 // of the body; settledSize in a list = settled
	received int64 // ms; 0 = not known
	retry    *journal.Retry
}

const settledSize = -1

// savedDelivery is a delivery as it is kept.
type savedDelivery struct {
	pos position
	delivery
}

func deliveryOf(pos position, payload []byte, size int64) savedDelivery {
	return savedDelivery{pos, delivery{size: size, received: payloadTime(payload)}}
}

// newUnsettled owns list from now on.
func newUnsettled(list []savedDelivery) unsettled { return unsettled{list, len(list)} }

func comparePositions(a, b savedDelivery) int { return cmp.Compare(a.pos, b.pos) }

// add takes deliveries that are not in u, ascending.
func (u *unsettled) add(more []savedDelivery) {
	n := len(u.list)
	u.list = append(u.list, more...)
	u.count += len(more)
	if n > 0 && len(more) > 0 && u.list[n-1].pos >= more[0].pos {
		u.compact() // a settled one may be there a second time
		slices.SortFunc(u.list, comparePositions)
	}
}

// get returns a delivery that is not settled, or nil. It is valid until the next call of another method.
func (u *unsettled) get(pos position) *delivery {
	i, found := slices.BinarySearchFunc(u.list, pos, func(d savedDelivery, pos position) int { return cmp.Compare(d.pos, pos) })
	if !found || u.list[i].size == settledSize {
		return nil
	}
	return &u.list[i].delivery
}

func (u *unsettled) remove(pos position) (d delivery, found bool) {
	p := u.get(pos)
	if p == nil {
		return d, false
	}
	d, *p = *p, delivery{size: settledSize}
	u.count--
	if len(u.list) > 2*u.count+64 {
		u.compact()
	}
	return d, true
}

func (u *unsettled) compact() {
	if len(u.list) > u.count {
		u.list = slices.DeleteFunc(u.list, func(d savedDelivery) bool { return d.size == settledSize })
	}
}

func (u *unsettled) pending() []journal.Pending {
	u.compact()
	list := make([]journal.Pending, len(u.list))
	for i, d := range u.list {
		list[i].Position = at(d.pos)
		if d.retry != nil {
			list[i].Retry = *d.retry
		}
	}
	return list
}

func (u *unsettled) saved() []savedDelivery {
	u.compact()
	return slices.Clone(u.list)
}

// oldest is when the first of them was received, zero when there is none.
func (u *unsettled) oldest() time.Time {
	if u.count == 0 {
		return time.Time{}
	}
	for u.list[0].size == settledSize {
		u.list = u.list[1:]
	}
	return receivedAt(u.list[0].received)
}

func receivedAt(ms int64) time.Time {
	if ms == 0 { // not known: written by a version that did not keep it
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
