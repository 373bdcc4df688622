package ingress

import (
	"hash/maphash"
	"sync"
	"time"
)

// order notices events that come after a later one of the same entity, by the payload's clock. It remembers the latest
// time of so many entities and no more: two that share a place push each other out, and some disorder goes unnoticed.
type order struct {
	mu     sync.Mutex // guards latest
	latest [4096]struct {
		entity uint64
		at     int64 // Unix milliseconds
	}
}

var orderSeed = maphash.MakeSeed()

// late notes an event and reports whether a later one of its entity came before.
func (o *order) late(entity string, at time.Time) bool {
	if entity == "" {
		return false
	}
	hash, ms := maphash.String(orderSeed, entity), at.UnixMilli()
	o.mu.Lock()
	defer o.mu.Unlock()
	place := &o.latest[hash%uint64(len(o.latest))]
	if place.entity == hash && ms < place.at {
		return true
	}
	place.entity, place.at = hash, ms
	return false
}
