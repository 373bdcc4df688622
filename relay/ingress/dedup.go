package ingress

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// dedup keeps each event once. It works in two phases, because the usual mistake is to remember a key before the
// event is on disk: the write fails, the caller sends again, is told "duplicate", and the event is gone.
//
//	claim   says whether an event is new (the caller leads and must store it), in flight (somebody else is
//	        storing it: wait for the outcome) or known (a copy of a stored event)
//	settle  ends a claim: stored, and the key is known from now on; or not, and the next copy leads again
//
// A claim in flight is held beside the LRU, so that no number of other keys can evict it. Claims are bounded by the
// callers: a claim exists only while an append is queued or a request waits to queue it.
//
// One lock guards everything: an operation takes some hundred nanoseconds, and unlike shards, whose shares of the
// capacity fill unevenly, one LRU keeps exactly max_keys keys.
type dedup struct {
	maxKeys       int
	window        time.Duration
	dropConflicts bool
	now           func() time.Time
	began         time.Time // times are kept as seconds since then, by the monotonic clock: a step of the clock forgets nothing

	mu        sync.Mutex
	known     *simplelru.LRU[shortKey, knownKey]
	others    map[shortKey][]shortID // further events of the known keys that have had a conflict
	inFlight  map[ncs.Key][]*claim   // the claims of a key; more than one only in a conflict
	loading   *loading               // nil: the keys of earlier processes are all in known
	conflicts uint64
}

// knownKey remembers the event stored first under a key. Nearly all keys have one only.
type knownKey struct {
	id    shortID
	at    int32 // when the newest was accepted, seconds since dedup.began; negative = before
	shard uint32
}

// Half of a key and half of an id are kept: a million of them must not cost more than 150 bytes each. Two events are
// taken for one only if both halves are equal, 128 bits; if just the keys' halves are, that is one more conflict.
type (
	shortKey [8]byte
	shortID  [8]byte
)

// maxConflicts bounds the events remembered under one key. A key with more (all-zero counters) forgets the first of
// its conflicts: a copy of that one then passes, which is the safe side.
const maxConflicts = 32

// claim is the right and duty to store one event. err may be read when done is closed.
type claim struct {
	identity ncs.Identity
	conflict bool // another event was stored or is being stored under the same key
	done     chan struct{}
	err      error
	position journal.Position // of the event, once done is closed without err
}

// standing says what a caller of claim has to do.
type standing int

const (
	isNew      standing = iota // store the event, then settle the claim
	isInFlight                 // wait for the claim of another caller
	isKnown                    // nothing: it is stored
	isLoading                  // wait until the keys of earlier processes are loaded, then ask again
)

// String is what the standing is called in logs, metrics and traces.
func (s standing) String() string { return [...]string{"new", "in_flight", "known", "loading"}[s] }

func newDedup(c DedupConfig, now func() time.Time) (*dedup, error) {
	d := &dedup{
		maxKeys:       c.MaxKeys,
		window:        c.Window,
		dropConflicts: c.OnConflict == "drop",
		now:           now,
		began:         now(),
		others:        make(map[shortKey][]shortID),
		inFlight:      make(map[ncs.Key][]*claim),
	}
	known, err := d.newLRU(c.MaxKeys)
	d.known = known
	return d, err
}

func (d *dedup) newLRU(size int) (*simplelru.LRU[shortKey, knownKey], error) {
	return simplelru.NewLRU(size, func(key shortKey, _ knownKey) { delete(d.others, key) })
}

// configure changes the bounds. Fewer keys forget the least recently used at once.
func (d *dedup) configure(c DedupConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.maxKeys, d.window, d.dropConflicts = c.MaxKeys, c.Window, c.OnConflict == "drop"
	d.known.Resize(c.MaxKeys)
}

// claim is atomic: of any number of simultaneous copies exactly one is told isNew.
func (d *dedup) claim(id ncs.Identity) (*claim, standing) {
	d.mu.Lock()
	defer d.mu.Unlock()

	flying := d.inFlight[id.Key]
	for _, c := range flying {
		if c.identity.ID == id.ID || d.dropConflicts {
			return c, isInFlight
		}
	}
	k, found := d.lookup(id.Key)
	if found && (d.dropConflicts || d.has(shortKey(id.Key[:8]), k, short(id.ID))) {
		return nil, isKnown
	}
	if d.loading.mayHold(id.Key) {
		return nil, isLoading
	}
	c := &claim{identity: id, done: make(chan struct{}), conflict: found || len(flying) > 0}
	d.inFlight[id.Key] = append(flying, c)
	return c, isNew
}

// settle ends a claim; err nil means that the event is on disk.
func (d *dedup) settle(c *claim, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	key := c.identity.Key
	d.inFlight[key] = slices.DeleteFunc(d.inFlight[key], func(o *claim) bool { return o == c })
	if len(d.inFlight[key]) == 0 {
		delete(d.inFlight, key)
	}
	if err == nil {
		if c.conflict {
			d.conflicts++
		}
		d.remember(c.identity, d.clock(), c.position.Shard)
	}
	c.err = err
	close(c.done)
}

// forget forgets what is known of the events of a shard.
func (d *dedup) forget(shard uint32) {
	d.mu.Lock()
	keys := d.known.Keys()
	d.mu.Unlock()
	for some := range slices.Chunk(keys, atATime) {
		d.mu.Lock()
		for _, key := range some {
			if k, found := d.known.Peek(key); found && k.shard == shard {
				d.known.Remove(key)
			}
		}
		d.mu.Unlock()
	}
}

// clock is the seconds since the start.
func (d *dedup) clock() int32 { return int32(d.now().Sub(d.began) / time.Second) }

func (d *dedup) remember(id ncs.Identity, at int32, shard uint32) {
	known := d.known
	if d.loading != nil {
		known = d.loading.recent
	}
	d.insert(known, shortKey(id.Key[:8]), short(id.ID), at, shard)
}

func (d *dedup) insert(known *simplelru.LRU[shortKey, knownKey], key shortKey, id shortID, at int32, shard uint32) {
	k, found := known.Peek(key)
	if found && d.age(k) >= d.window { // ran out while the event was being stored
		delete(d.others, key)
		k, found = knownKey{}, false
	}
	switch {
	case !found:
		k.id = id
	case d.has(key, k, id):
		return
	default:
		others := d.others[key]
		d.others[key] = append(others[max(0, len(others)-maxConflicts+2):], id)
	}
	k.shard = shard
	k.at = at // the window of the newest; the others are known longer than asked, which does no harm
	known.Add(key, k)
}

// lookup finds a key that is still within the window. Finding it makes it the most recently used.
func (d *dedup) lookup(id ncs.Key) (knownKey, bool) {
	key, known := shortKey(id[:8]), d.known
	k, found := known.Get(key)
	if !found && d.loading != nil {
		known = d.loading.recent
		k, found = known.Get(key)
	}
	if found && d.age(k) >= d.window {
		known.Remove(key)
		return knownKey{}, false
	}
	return k, found
}

func (d *dedup) age(k knownKey) time.Duration { return time.Duration(d.clock()-k.at) * time.Second }

func (d *dedup) has(key shortKey, k knownKey, id shortID) bool {
	return k.id == id || slices.Contains(d.others[key], id)
}

// ageOf is how long a key is known; 0 when it is not, or not any more.
func (d *dedup) ageOf(key ncs.Key) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, found := d.known.Peek(shortKey(key[:8]))
	if !found && d.loading != nil {
		k, found = d.loading.recent.Peek(shortKey(key[:8]))
	}
	if !found {
		return 0
	}
	return max(0, d.age(k))
}

func short(id ncs.EventID) shortID { return shortID(id[:8]) }

// dedupStats is a snapshot for metrics.
type dedupStats struct {
	keys      int
	maxKeys   int
	window    time.Duration
	conflicts uint64
	oldest    time.Duration // age of the least recently used key; 0 when there is none
}

func (d *dedup) stats() dedupStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := dedupStats{keys: d.known.Len(), maxKeys: d.maxKeys, window: d.window, conflicts: d.conflicts}
	if _, k, ok := d.known.GetOldest(); ok {
		s.oldest = d.age(k)
	} else if d.loading != nil {
		s.oldest = d.age(d.loading.events[0].knownKey)
	}
	if d.loading != nil {
		s.keys = d.loading.keys + d.loading.recent.Len() // for a moment with those that max_keys will push out
	}
	return s
}
