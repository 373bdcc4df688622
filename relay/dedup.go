package relay

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

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
	window        time.Duration
	dropConflicts bool
	now           func() time.Time

	mu        sync.Mutex
	known     *simplelru.LRU[ncs.Key, knownKey]
	inFlight  map[ncs.Key][]*claim // the claims of a key; more than one only in a conflict
	conflicts uint64
}

// knownKey remembers the events stored under a key: nearly always one, more after a conflict.
type knownKey struct {
	at   int64 // when the newest was accepted, Unix seconds
	id   shortID
	more []shortID
}

// shortID is half an event id: it only has to tell the few events of one key apart.
type shortID [8]byte

// maxConflicts bounds the events remembered under one key. A key with more (all-zero counters) forgets the first of
// its conflicts: a copy of that one then passes, which is the safe side.
const maxConflicts = 32

// claim is the right and duty to store one event. err may be read when done is closed.
type claim struct {
	identity ncs.Identity
	conflict bool // another event was stored or is being stored under the same key
	done     chan struct{}
	err      error
}

// standing says what a caller of claim has to do.
type standing int

const (
	isNew      standing = iota // store the event, then settle the claim
	isInFlight                 // wait for the claim of another caller
	isKnown                    // nothing: it is stored
)

func newDedup(c DedupConfig, now func() time.Time) (*dedup, error) {
	known, err := simplelru.NewLRU[ncs.Key, knownKey](c.MaxKeys, nil)
	if err != nil {
		return nil, err
	}
	return &dedup{
		window:        c.Window,
		dropConflicts: c.OnConflict == "drop",
		now:           now,
		known:         known,
		inFlight:      make(map[ncs.Key][]*claim),
	}, nil
}

// configure changes the bounds. Fewer keys forget the least recently used at once.
func (d *dedup) configure(c DedupConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.window, d.dropConflicts = c.Window, c.OnConflict == "drop"
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
	if found && (d.dropConflicts || k.has(id.ID)) {
		return nil, isKnown
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
		d.remember(c.identity, d.now())
	}
	c.err = err
	close(c.done)
}

// restore makes an event of an earlier process known. Calls come in the order of acceptance.
func (d *dedup) restore(id ncs.Identity, acceptedAt time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remember(id, acceptedAt)
}

func (d *dedup) remember(id ncs.Identity, at time.Time) {
	k, found := d.lookup(id.Key)
	switch {
	case !found:
		k = knownKey{at: at.Unix(), id: short(id.ID)}
	case k.has(id.ID):
		return
	default:
		more := k.more[max(0, len(k.more)-maxConflicts+2):]
		k.more = append(slices.Clone(more), short(id.ID))
		k.at = at.Unix() // the window of the newest; the others are known longer than asked, which does no harm
	}
	d.known.Add(id.Key, k)
}

// lookup finds a key that is still within the window. Finding it makes it the most recently used.
func (d *dedup) lookup(key ncs.Key) (knownKey, bool) {
	k, found := d.known.Get(key)
	if found && d.now().Sub(time.Unix(k.at, 0)) >= d.window {
		d.known.Remove(key)
		return knownKey{}, false
	}
	return k, found
}

func (k knownKey) has(id ncs.EventID) bool {
	return k.id == short(id) || slices.Contains(k.more, short(id))
}

func short(id ncs.EventID) shortID { return shortID(id[:8]) }

// dedupStats is a snapshot for metrics.
type dedupStats struct {
	keys      int
	conflicts uint64
	oldest    time.Duration // age of the least recently used key; 0 when there is none
}

func (d *dedup) stats() dedupStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := dedupStats{keys: d.known.Len(), conflicts: d.conflicts}
	if _, k, ok := d.known.GetOldest(); ok {
		s.oldest = max(0, d.now().Sub(time.Unix(k.at, 0)))
	}
	return s
}
