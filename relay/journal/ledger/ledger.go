// Package ledger holds what every journal keeps of the deliveries of one sink in one shard, in memory and encoded: those that are
// not settled, the tally of the others, and the histories of dead letters. It does no I/O and knows no storage; whoever uses
// it guards it against concurrent use.
package ledger

import (
	"cmp"
	"slices"
	"time"

	"ncs-relay/relay/journal"
)

// Offset orders the records of a shard; 0 is before everything.
type Offset uint64

// Tally counts the deliveries of a sink. Owed minus the outcomes is what is pending.
type Tally struct {
	Owed, OwedBytes                   uint64
	Delivered, Dead, Skipped, Dropped uint64
	SettledBytes                      uint64
	Letters, LetterBytes              uint64 // dead letters kept
}

// Settled are the deliveries that have an outcome.
func (t *Tally) Settled() uint64 { return t.Delivered + t.Dead + t.Skipped + t.Dropped }

// Totals are the deliveries as others count them.
func (t *Tally) Totals() journal.Totals {
	return journal.Totals{Owed: t.Owed, Delivered: t.Delivered, Dead: t.Dead, Skipped: t.Skipped, Dropped: t.Dropped, Pending: t.Owed - t.Settled()}
}

// PendingBytes are the bodies of what is pending.
func (t *Tally) PendingBytes() int64 { return int64(t.OwedBytes - t.SettledBytes) }

// Settle counts an outcome other than a dead letter.
func (t *Tally) Settle(o journal.Outcome) {
	switch o {
	case journal.Delivered:
		t.Delivered++
	case journal.Skipped:
		t.Skipped++
	default:
		t.Dropped++
	}
}

func (t *Tally) fields() [9]*uint64 {
	return [...]*uint64{&t.Owed, &t.OwedBytes, &t.Delivered, &t.Dead, &t.Skipped, &t.Dropped, &t.SettledBytes, &t.Letters, &t.LetterBytes}
}

// Delivery is one that was handed out and has no outcome yet.
type Delivery struct {
	At Offset
	Debt
}

// Debt is what is known of a delivery.
type Debt struct {
	Size     int64          // of the body
	Received int64          // ms; 0 = not known
	Retry    *journal.Retry // nil: it has not failed
}

// Unsettled are the deliveries that were handed out and have no outcome yet. There may be very many, and at the start they
// come all at once; so they are a list, not a map.
type Unsettled struct {
	list  []Delivery // ascending; of size settledSize: settled meanwhile
	count int        // of the others
}

const settledSize = -1

// NewUnsettled owns list, which ascends, from now on.
func NewUnsettled(list []Delivery) Unsettled { return Unsettled{list, len(list)} }

// Compare orders deliveries.
func Compare(a, b Delivery) int { return cmp.Compare(a.At, b.At) }

// Len is how many there are.
func (u *Unsettled) Len() int { return u.count }

// Add takes deliveries that are not in u, ascending.
func (u *Unsettled) Add(more ...Delivery) {
	n := len(u.list)
	u.list = append(u.list, more...)
	u.count += len(more)
	if n > 0 && len(more) > 0 && u.list[n-1].At >= more[0].At {
		u.compact() // a settled one may be there a second time
		slices.SortFunc(u.list, Compare)
	}
}

// Get returns a delivery that is not settled, or nil. It is valid until the next call of another method.
func (u *Unsettled) Get(pos Offset) *Debt {
	i, found := slices.BinarySearchFunc(u.list, pos, func(d Delivery, pos Offset) int { return cmp.Compare(d.At, pos) })
	if !found || u.list[i].Size == settledSize {
		return nil
	}
	return &u.list[i].Debt
}

// Remove takes a delivery out.
func (u *Unsettled) Remove(pos Offset) (d Debt, found bool) {
	p := u.Get(pos)
	if p == nil {
		return d, false
	}
	d, *p = *p, Debt{Size: settledSize}
	u.count--
	if len(u.list) > 2*u.count+64 {
		u.compact()
	}
	return d, true
}

func (u *Unsettled) compact() {
	if len(u.list) > u.count {
		u.list = slices.DeleteFunc(u.list, func(d Delivery) bool { return d.Size == settledSize })
	}
}

// Pending lists them for others.
func (u *Unsettled) Pending(shard uint32) []journal.Pending {
	u.compact()
	list := make([]journal.Pending, len(u.list))
	for i, d := range u.list {
		list[i].Position = journal.Position{Shard: shard, Offset: uint64(d.At)}
		if d.Retry != nil {
			list[i].Retry = *d.Retry
		}
	}
	return list
}

// Bytes are the bodies of all.
func (u *Unsettled) Bytes() (n uint64) {
	u.compact()
	for _, d := range u.list {
		n += uint64(d.Size)
	}
	return n
}

// Standing returns how a delivery stands of whoever has read up to a position. It knows of no dead letters: those are settled.
func (u *Unsettled) Standing(pos, read Offset) journal.Standing {
	d := u.Get(pos)
	switch {
	case d != nil && d.Retry != nil:
		return journal.Standing{State: journal.StatePending, Retry: *d.Retry}
	case d != nil:
		return journal.Standing{State: journal.StatePending}
	case read < pos:
		return journal.Standing{State: journal.StateWaiting}
	}
	return journal.Standing{State: journal.StateSettled}
}

// Saved returns a copy of them, ascending.
func (u *Unsettled) Saved() []Delivery {
	u.compact()
	return slices.Clone(u.list)
}

// Oldest is when the first of them was received, zero when there is none.
func (u *Unsettled) Oldest() time.Time {
	if u.First() == 0 {
		return time.Time{}
	}
	return ReceivedAt(u.list[0].Received)
}

// First is where the first of them is, 0 when there is none.
func (u *Unsettled) First() Offset {
	if u.count == 0 {
		return 0
	}
	for u.list[0].Size == settledSize {
		u.list = u.list[1:]
	}
	return u.list[0].At
}

// ReceivedAt is Debt.Received as a time; zero when it is not known.
func ReceivedAt(ms int64) time.Time {
	if ms == 0 { // written by a version that did not keep it
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
