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
	byKey func(shard uint32, pos offset) bool // whether copies of a record are those of equal key, not of equal id; nil: never

	mu      sync.Mutex // guards what follows
	max     int
	keepFor time.Duration // 0 = for any time
	count   int
	shards  map[uint32]*shardIDs
}

// shardIDs are those of one shard, by id, and by key while that is asked for: when the rule changes, all owners know the same.
type shardIDs struct {
	*simplelru.LRU[[16]byte, known]
	byKey map[[16]byte][16]byte // the ids; nil = copies are those of equal id
}

func newShardIDs() *shardIDs {
	lru, _ := simplelru.NewLRU[[16]byte, known](math.MaxInt, nil) // fails for a size of 0 only
	return &shardIDs{LRU: lru}
}

// ask makes copies be those of equal key, or of equal id.
func (s *shardIDs) ask(byKey bool) {
	switch {
	case !byKey:
		s.byKey = nil
	case s.byKey == nil:
		s.byKey = make(map[[16]byte][16]byte, s.Len())
		for _, k := range s.Values() {
			s.byKey[k.key] = k.id
		}
	}
}

// lookup finds what an event is a copy of.
func (s *shardIDs) lookup(e *entry) (k known, found bool) {
	id := e.rec.ID
	if s.byKey != nil {
		id, found = s.byKey[e.rec.Key]
		if !found {
			return k, false
		}
	}
	return s.Get(id)
}

func (s *shardIDs) put(k known) {
	s.Add(k.id, k)
	if s.byKey != nil {
		s.byKey[k.key] = k.id
	}
}

func (s *shardIDs) removeOldest() {
	if _, k, some := s.RemoveOldest(); some && s.byKey[k.key] == k.id {
		delete(s.byKey, k.key)
	}
}

type known struct {
	key, id [16]byte
	pos     offset
	ms      int64
	met     int64 // in ms; of what is read back, when it was stored
}

func newIDs(byKey func(uint32, offset) bool) *ids {
	return &ids{byKey: byKey, max: 1_000_000, shards: make(map[uint32]*shardIDs)}
}

func (i *ids) keep(n int, d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.max, i.keepFor = n, d
	i.evict()
}

// copyOf reports whether an event is known, by the rule that holds for it, and makes it known.
func (i *ids) copyOf(shard uint32, e *entry) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.shard(shard)
	list.ask(i.byKey != nil && i.byKey(shard, e.pos))
	if k, found := list.lookup(e); found && (i.keepFor == 0 || e.rec.Time.Sub(time.UnixMilli(k.ms)) <= i.keepFor) {
		k.met = time.Now().UnixMilli()
		list.put(k)
		return true
	}
	i.put(list, e, time.Now())
	return false
}

// add makes an event known that is in ncs.events.
func (i *ids) add(shard uint32, e *entry) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.put(i.shard(shard), e, time.Now())
}

// recall makes an event known that was judged long ago, unless all that is known is younger, and there is no room.
func (i *ids) recall(shard uint32, e *entry) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.count >= i.max {
		if _, met := i.oldest(); met >= e.rec.Stored.UnixMilli() {
			return
		}
	}
	i.put(i.shard(shard), e, e.rec.Stored)
}

func (i *ids) put(list *shardIDs, e *entry, met time.Time) { // i.mu is held
	if !list.Contains(e.rec.ID) {
		i.count++
	}
	list.put(known{key: e.rec.Key, id: e.rec.ID, pos: e.pos, ms: e.rec.Time.UnixMilli(), met: met.UnixMilli()})
	i.evict()
}

func (i *ids) shard(n uint32) *shardIDs { // i.mu is held
	if i.shards[n] == nil {
		i.shards[n] = newShardIDs()
	}
	return i.shards[n]
}

func (i *ids) evict() { // i.mu is held
	for ; i.count > i.max; i.count-- {
		list, _ := i.oldest()
		if list == nil {
			return
		}
		list.removeOldest()
	}
}

// oldest finds the event that goes first.
func (i *ids) oldest() (list *shardIDs, met int64) { // i.mu is held
	met = math.MaxInt64
	for _, lru := range i.shards {
		if _, k, some := lru.GetOldest(); some && k.met < met {
			list, met = lru, k.met
		}
	}
	return list, met
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
	list := i.shards[shard]
	if list == nil {
		return 0, false
	}
	k, found := list.Peek(id)
	return k.pos, found
}

// back is how many ids are read back for a shard that is taken over: as many as each would have if all had as many, or those of the
// recent events, as far as they are not older than what is known.
func (i *ids) back(shards int, recent int64) int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return min(max(int64(i.max/shards), recent), int64(i.max))
}
