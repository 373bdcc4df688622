package kafkajournal

import (
	"cmp"
	"slices"
)

// ringBytes is about how many bytes of the newest events are kept in memory, for all shards.
const ringBytes = 64 << 20

// ring holds the newest events of a shard, for the sinks that are not behind.
type ring struct {
	from    int64 // an offset of ncs.events; all events from there on are in the ring
	entries []entry
	bytes   int
	max     int
}

func (r *ring) push(events []entry) {
	for _, e := range events {
		r.entries = append(r.entries, e)
		r.bytes += sizeOf(e.rec)
	}
	drop := 0
	for ; r.bytes > r.max && drop < len(r.entries); drop++ {
		r.bytes -= sizeOf(r.entries[drop].rec)
		r.from = r.entries[drop].at + 1
	}
	if drop > 0 {
		clear(r.entries[:drop]) // the array may live on
		r.entries = r.entries[drop:]
	}
}

// after returns the events from an offset on, if all are here.
func (r *ring) after(next int64) (events []entry, ok bool) {
	if next < r.from {
		return nil, false
	}
	at, _ := slices.BinarySearchFunc(r.entries, next, func(e entry, next int64) int { return cmp.Compare(e.at, next) })
	return r.entries[at:], true
}

// find returns the event at a position, or nil.
func (r *ring) find(pos offset) *entry {
	at, found := slices.BinarySearchFunc(r.entries, pos, func(e entry, pos offset) int { return cmp.Compare(e.pos, pos) })
	if !found {
		return nil
	}
	return &r.entries[at]
}
