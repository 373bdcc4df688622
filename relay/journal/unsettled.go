package journal

import (
	"slices"
	"time"
)

// unsettled are deliveries that were handed out and have no outcome yet. The mutex of their owner guards them.
type unsettled struct {
	open  map[Position]*delivery
	order []Position // of open; holds some that are settled by now
	mixed bool       // order does not ascend
}

type delivery struct {
	size     int64 // of the body
	received int64 // ms; 0 = not known
	retry    *Retry
}

// savedDelivery is a delivery as it is kept.
type savedDelivery struct {
	pos Position
	delivery
}

func deliveryOf(pos Position, payload []byte, size int64) savedDelivery {
	return savedDelivery{pos, delivery{size: size, received: payloadTime(payload)}}
}

func newUnsettled(list []savedDelivery) unsettled {
	u := unsettled{open: make(map[Position]*delivery, len(list)), order: make([]Position, len(list))}
	for i := range list {
		u.open[list[i].pos] = &list[i].delivery // one allocation for all: there may be very many at the start
		u.order[i] = list[i].pos
	}
	return u
}

func (u *unsettled) add(d savedDelivery) {
	u.open[d.pos] = &d.delivery
	u.mixed = u.mixed || (len(u.order) > 0 && u.order[len(u.order)-1] >= d.pos)
	u.order = append(u.order, d.pos)
}

func (u *unsettled) remove(pos Position) *delivery {
	d := u.open[pos]
	if d == nil {
		return nil
	}
	delete(u.open, pos)
	if len(u.order) > 2*len(u.open)+64 {
		u.compact()
	}
	return d
}

func (u *unsettled) compact() {
	if u.mixed {
		slices.Sort(u.order)
		u.order, u.mixed = slices.Compact(u.order), false
	}
	if len(u.order) > len(u.open) {
		u.order = slices.DeleteFunc(u.order, func(pos Position) bool { return u.open[pos] == nil })
	}
}

func (u *unsettled) pending() []Pending {
	u.compact()
	list := make([]Pending, len(u.order))
	for i, pos := range u.order {
		list[i].Position = pos
		if r := u.open[pos].retry; r != nil {
			list[i].Retry = *r
		}
	}
	return list
}

func (u *unsettled) saved() []savedDelivery {
	u.compact()
	list := make([]savedDelivery, len(u.order))
	for i, pos := range u.order {
		list[i] = savedDelivery{pos, *u.open[pos]}
	}
	return list
}

func receivedAt(ms int64) time.Time {
	if ms == 0 { // not known: written by a version that did not keep it
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// oldest is when the first of them was received, zero when there is none.
func (u *unsettled) oldest() time.Time {
	if len(u.open) == 0 {
		return time.Time{}
	}
	if u.mixed {
		u.compact()
	}
	for u.open[u.order[0]] == nil {
		u.order = u.order[1:]
	}
	return receivedAt(u.open[u.order[0]].received)
}
