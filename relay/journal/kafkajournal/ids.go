package kafkajournal

import (
	"math"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// ids are the events known to this process, by shard: what a copy is recognised by. One bound holds for all shards together, so
// that a hot shard is not blind while others are idle; the event that was met longest ago goes first.
//
// An id is known only when its event is in ncs.events, or ahead of it in the owner's own unbroken row.
type ids struct {
	byKey bool // copies are those of equal key, not of equal id

	mu      sync.Mutex // guards what follows
	max     int
	keepFor time.Duration // 0 = for any time
	count   int
	clock   uint64
	shards  map[uint32]*simplelru.LRU[[16]byte, known]
}

type known struct {
	key, id [16]byte
	pos     offset
	ms      int64
	met     uint64
}

func newIDs(byKey bool) *ids {
	return &ids{byKey: byKey, max: 1_000_000, shards: make(map[uint32]*simplelru.LRU[[16]byte, known])}
}

func (i *ids) keep(n int, d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.max, i.keepFor = n, d
	i.evict()
}

func (i *ids) name(e *entry) [16]byte {
	if i.byKey {
		return e.rec.Key
	}
	return e.rec.ID
}

// copyOf reports whether an event is known, and makes it known.
func (i *ids) copyOf(shard uint32, e *entry) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	lru := i.shard(shard)
	if k, found := lru.Get(i.name(e)); found && (i.keepFor == 0 || e.rec.Time.Sub(time.UnixMilli(k.ms)) <= i.keepFor) {
		k.met = i.tick()
		lru.Add(i.name(e), k)
		return true
	}
	i.put(lru, e)
	return false
}

// add makes an event known that is in ncs.events.
func (i *ids) add(shard uint32, e *entry) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.put(i.shard(shard), e)
}

func (i *ids) put(lru *simplelru.LRU[[16]byte, known], e *entry) { // i.mu is held
	name := i.name(e)
	if !lru.Contains(name) {
		i.count++
	}
	lru.Add(name, known{key: e.rec.Key, id: e.rec.ID, pos: e.pos, ms: e.rec.Time.UnixMilli(), met: i.tick()})
	i.evict()
}

func (i *ids) tick() uint64 {
	i.clock++
	return i.clock
}

func (i *ids) shard(n uint32) *simplelru.LRU[[16]byte, known] { // i.mu is held
	if i.shards[n] == nil {
		i.shards[n], _ = simplelru.NewLRU[[16]byte, known](math.MaxInt, nil) // fails for a size of 0 only
	}
	return i.shards[n]
}

func (i *ids) evict() { // i.mu is held
	for ; i.count > i.max; i.count-- {
		var oldest *simplelru.LRU[[16]byte, known]
		least := uint64(math.MaxUint64)
		for _, lru := range i.shards {
			if _, k, some := lru.GetOldest(); some && k.met < least {
				oldest, least = lru, k.met
			}
		}
		if oldest == nil {
			return
		}
		oldest.RemoveOldest()
	}
}

// forget drops a shard.
func (i *ids) forget(shard uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if lru := i.shards[shard]; lru != nil {
		i.count -= lru.Len()
		delete(i.shards, shard)
	}
}

// newest are the n events of a shard that were met last and not received before since, oldest first.
func (i *ids) newest(shard uint32, n int, since time.Time) []known {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.shards[shard] == nil {
		return nil
	}
	all := i.shards[shard].Values()
	all = all[max(0, len(all)-n):]
	var list []known
	for _, k := range all {
		if k.ms >= since.UnixMilli() {
			list = append(list, k)
		}
	}
	return list
}

// find returns the position of an event in a shard.
func (i *ids) find(shard uint32, id [16]byte) (pos offset, found bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	lru := i.shards[shard]
	if lru == nil {
		return 0, false
	}
	if !i.byKey {
		k, found := lru.Peek(id)
		return k.pos, found
	}
	for _, k := range lru.Values() {
		if k.id == id {
			return k.pos, true
		}
	}
	return 0, false
}

// mostRead is how many ids are read back for a shard at most when it is taken over.
const mostRead = 100_000

// share is how many ids a shard may have, if all have as many.
func (i *ids) share(shards int) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return min(i.max/shards, mostRead)
}
