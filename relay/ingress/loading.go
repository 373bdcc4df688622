package ingress

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"ncs-relay/relay/ncs"
)

// loading are the known events of earlier processes on their way into the LRU. A million of them take most of a second
// to insert, which is too long to keep NCS waiting; so they are inserted while notifications are taken already. A
// notification whose key is among them waits until all are in. Events accepted meanwhile are kept apart, because
// the LRU's order is the order of insertion, and they are the newest.
type loading struct {
	events []loadedEvent // oldest first
	set    []shortKey    // hash table of their keys, at most half full; the zero key marks a free place
	keys   int           // how many are in it
	recent *simplelru.LRU[shortKey, knownKey]
	done   chan struct{}
}

type loadedEvent struct {
	key shortKey
	knownKey
}

// load takes the events of earlier processes, oldest first; finishLoading inserts them, before
// load is called again. Ages count from the newest event of all, so neither a stand-still nor a clock that was set meanwhile makes keys old.
func (d *dedup) load(events []loadedEvent, maxKeys int) error {
	recent, err := d.newLRU(maxKeys)
	if err != nil || len(events) == 0 {
		return err
	}
	l := &loading{events: events, recent: recent, done: make(chan struct{}), set: make([]shortKey, 2<<bits.Len(uint(len(events))))}
	for _, e := range events {
		if place := l.place(e.key); *place != e.key {
			*place = e.key
			l.keys++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.loading = l
	return nil
}

func loaded(id ncs.Identity, age time.Duration, shard uint32) loadedEvent {
	return loadedEvent{shortKey(id.Key[:8]), knownKey{short(id.ID), -int32(age / time.Second), shard}}
}

// place is where a key is in the set, or would be. Keys are hashes already.
func (l *loading) place(key shortKey) *shortKey {
	mask := uint64(len(l.set) - 1)
	for i := binary.LittleEndian.Uint64(key[:]) & mask; ; i = (i + 1) & mask {
		if l.set[i] == key || l.set[i] == (shortKey{}) {
			return &l.set[i]
		}
	}
}

func (l *loading) mayHold(key ncs.Key) bool {
	short := shortKey(key[:8])
	return l != nil && *l.place(short) == short
}

// atATime is how many keys are seen to before others may have the lock.
const atATime = 512

// finishLoading inserts what load took. It may run while claims are made.
func (d *dedup) finishLoading() {
	d.mu.Lock()
	l := d.loading
	d.mu.Unlock()
	if l == nil {
		return
	}
	for i := 0; i < len(l.events); i += atATime {
		d.mu.Lock()
		for _, e := range l.events[i:min(i+atATime, len(l.events))] {
			d.insert(d.known, e.key, e.id, e.at, e.shard)
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, key := range l.recent.Keys() { // oldest first
		k, _ := l.recent.Peek(key)
		d.known.Add(key, k)
	}
	d.loading = nil
	close(l.done)
}

// loaded is closed when there is nothing to be loaded any more.
func (d *dedup) loaded() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.loading == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return d.loading.done
}
