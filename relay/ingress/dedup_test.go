package ingress

import (
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/relaytest"
)

func testDedup(t require.TestingT, c DedupConfig, now func() time.Time) *dedup {
	d, err := newDedup(c, now)
	require.NoError(t, err)
	return d
}

func TestSimultaneousCopiesHaveOneLeaderAndShareItsFate(t *testing.T) {
	t.Parallel()
	for _, fate := range []error{nil, errors.New("disk full")} {
		d := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour}, time.Now)
		var leaders, failures atomic.Int32
		var wg, arrived sync.WaitGroup
		arrived.Add(64)
		for range 64 {
			wg.Go(func() {
				c, s := d.claim(relaytest.Identity(1, 1))
				arrived.Done()
				if s == isNew {
					leaders.Add(1)
					arrived.Wait() // every copy is there before the write ends
					d.settle(c, fate)
				}
				<-c.done
				if c.err != nil {
					failures.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, leaders.Load())
		_, s := d.claim(relaytest.Identity(1, 1))
		if fate == nil {
			require.Zero(t, failures.Load())
			require.Equal(t, isKnown, s)
		} else {
			require.EqualValues(t, 64, failures.Load(), "a copy was told 200 for an event that is not on disk")
			require.Equal(t, isNew, s, "the event can never be stored any more")
		}
	}
}

func TestClaimInFlightIsNotEvicted(t *testing.T) {
	t.Parallel()
	d := testDedup(t, DedupConfig{MaxKeys: 2, Window: time.Hour}, time.Now)
	first, s := d.claim(relaytest.Identity(1, 1))
	require.Equal(t, isNew, s)
	for i := range 100 {
		c, _ := d.claim(relaytest.Identity(100+i, 1))
		d.settle(c, nil)
	}
	again, s := d.claim(relaytest.Identity(1, 1))
	require.Equal(t, isInFlight, s)
	require.Same(t, first, again)
}

func TestConflictModes(t *testing.T) {
	t.Parallel()
	deliver := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour, OnConflict: "deliver"}, time.Now)
	drop := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour, OnConflict: "drop"}, time.Now)
	for _, d := range []*dedup{deliver, drop} {
		c, _ := d.claim(relaytest.Identity(1, 1))
		other, s := d.claim(relaytest.Identity(1, 2))
		if d == deliver {
			require.Equal(t, isNew, s)
			d.settle(other, nil)
		} else {
			require.Equal(t, isInFlight, s)
		}
		d.settle(c, nil)
	}
	_, s := deliver.claim(relaytest.Identity(1, 2))
	require.Equal(t, isKnown, s)
	require.EqualValues(t, 1, deliver.stats().conflicts)
	_, s = drop.claim(relaytest.Identity(1, 2))
	require.Equal(t, isKnown, s, "drop keeps strictly one event a key")
}

// naive is the deduplication written for obviousness: lists, newest last.
type naive struct {
	max    int
	window time.Duration
	drop   bool
	known  []naiveKey
	flying []ncs.Identity

	accepted []naiveEvent // as the journal has them
	loading  []naiveEvent // not known yet
}

type naiveKey struct {
	key ncs.Key
	ids []ncs.EventID
	at  time.Time
}

type naiveEvent struct {
	id ncs.Identity
	at time.Time
}

func (n *naive) find(key ncs.Key, now time.Time) int {
	for i, k := range n.known {
		if k.key == key {
			if now.Sub(k.at) >= n.window {
				n.known = slices.Delete(n.known, i, i+1)
				return -1
			}
			n.known = append(slices.Delete(n.known, i, i+1), k) // most recently used
			return len(n.known) - 1
		}
	}
	return -1
}

func (n *naive) claim(id ncs.Identity, now time.Time) standing {
	if slices.ContainsFunc(n.flying, func(f ncs.Identity) bool { return f == id || (n.drop && f.Key == id.Key) }) {
		return isInFlight
	}
	if slices.ContainsFunc(n.loading, func(e naiveEvent) bool { return e.id.Key == id.Key }) {
		return isLoading
	}
	if i := n.find(id.Key, now); i >= 0 && (n.drop || slices.Contains(n.known[i].ids, id.ID)) {
		return isKnown
	}
	n.flying = append(n.flying, id)
	return isNew
}

func (n *naive) settle(id ncs.Identity, stored bool, now time.Time) {
	n.flying = slices.DeleteFunc(n.flying, func(f ncs.Identity) bool { return f == id })
	if stored {
		n.accepted = append(n.accepted, naiveEvent{id, now})
		n.remember(id, now, now)
	}
}

func (n *naive) remember(id ncs.Identity, at, now time.Time) {
	if i := n.find(id.Key, now); i >= 0 {
		if !slices.Contains(n.known[i].ids, id.ID) {
			n.known[i].ids, n.known[i].at = append(n.known[i].ids, id.ID), at
		}
		return
	}
	n.known = append(n.known, naiveKey{id.Key, []ncs.EventID{id.ID}, at})
	n.known = n.known[max(0, len(n.known)-n.max):]
}

// restart forgets all but what the journal has: the newest events, whose ages count from the newest of them.
func (n *naive) restart(now time.Time) {
	n.known, n.flying, n.loading = nil, nil, nil
	for _, e := range n.accepted[max(0, len(n.accepted)-n.max):] {
		if age := n.accepted[len(n.accepted)-1].at.Sub(e.at); age <= n.window {
			n.loading = append(n.loading, naiveEvent{e.id, now.Add(-age)})
		}
	}
}

// loaded puts them before what came meanwhile.
func (n *naive) loaded(now time.Time) {
	recent := n.known
	n.known = nil
	for _, e := range n.loading {
		n.remember(e.id, e.at, now)
	}
	n.known = append(n.known, recent...)
	n.known = n.known[max(0, len(n.known)-n.max):]
	n.loading = nil
}

func TestDedupAgreesWithANaiveModel(t *testing.T) {
	t.Parallel()
	for range 20 { // histories are short, and cost next to nothing
		rapid.Check(t, dedupAgrees)
	}
}

func dedupAgrees(t *rapid.T) {
	now := time.Unix(1_700_000_000, 0)
	config := DedupConfig{MaxKeys: rapid.IntRange(1, 4).Draw(t, "max"), Window: 100 * time.Second,
		OnConflict: rapid.SampledFrom([]string{"deliver", "drop"}).Draw(t, "on conflict")}
	clock := func() time.Time { return now }
	d := testDedup(t, config, clock)
	model := &naive{max: config.MaxKeys, window: config.Window, drop: config.OnConflict == "drop"}
	claims := map[ncs.Identity]*claim{}
	ids := rapid.Custom(func(t *rapid.T) ncs.Identity {
		return relaytest.Identity(rapid.IntRange(0, 5).Draw(t, "key"), rapid.IntRange(0, 1).Draw(t, "event"))
	})
	t.Repeat(map[string]func(*rapid.T){
		"claim": func(t *rapid.T) {
			id := ids.Draw(t, "id")
			c, s := d.claim(id)
			require.Equal(t, model.claim(id, now), s)
			if s == isNew {
				claims[id] = c
			}
		},
		"settle": func(t *rapid.T) {
			if len(model.flying) == 0 {
				t.Skip("nothing is claimed")
			}
			id := rapid.SampledFrom(model.flying).Draw(t, "id")
			c := claims[id]
			delete(claims, id)
			stored := rapid.Bool().Draw(t, "stored")
			var err error
			if !stored {
				err = errors.New("not stored")
			}
			d.settle(c, err)
			model.settle(id, stored, now)
		},
		"time passes": func(t *rapid.T) {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 50, 99, 100, 101}).Draw(t, "seconds")) * time.Second)
		},
		"restart": func(t *rapid.T) { // what is in flight dies with the process
			clear(claims)
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 99, 1000}).Draw(t, "seconds")) * time.Second)
			d = testDedup(t, config, clock)
			model.restart(now)
			var events []loadedEvent
			for _, e := range model.loading {
				events = append(events, loaded(e.id, now.Sub(e.at), 0))
			}
			require.NoError(t, d.load(events, config.MaxKeys))
		},
		"loaded": func(t *rapid.T) {
			d.finishLoading()
			model.loaded(now)
			<-d.loaded()
		},
		"": func(t *rapid.T) {
			require.LessOrEqual(t, d.known.Len(), config.MaxKeys)
			require.Len(t, d.inFlight, countKeys(claims))
		},
	})
}

func countKeys(claims map[ncs.Identity]*claim) int {
	keys := map[ncs.Key]bool{}
	for id := range claims {
		keys[id.Key] = true
	}
	return len(keys)
}

// A counter that is always zero gives one key to any number of events. It may cost a bounded amount of memory, and forgetting
// must let events pass, not lose them.
func TestConflictsOfAKeyAreBounded(t *testing.T) {
	t.Parallel()
	d := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour, OnConflict: "deliver"}, time.Now)
	const events = 10 * maxConflicts
	for i := range events {
		c, s := d.claim(relaytest.Identity(1, i))
		require.Equal(t, isNew, s)
		d.settle(c, nil)
	}
	remembered := 0
	for i := range events {
		if c, s := d.claim(relaytest.Identity(1, i)); s == isKnown {
			remembered++
		} else {
			require.Equal(t, isNew, s)
			require.Less(t, i, events-maxConflicts+1, "the newest are remembered")
			d.settle(c, errors.New("not stored"))
		}
	}
	require.Equal(t, maxConflicts, remembered)
	require.Len(t, d.others, 1)
	for i := range 10 { // other keys displace it, with all it holds
		c, _ := d.claim(relaytest.Identity(100+i, 1))
		d.settle(c, nil)
	}
	require.Empty(t, d.others)
}

// Not parallel: it measures the memory of the process.
func TestMemoryOfAKey(t *testing.T) {
	const keys = 1_000_000
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	d := testDedup(t, DedupConfig{MaxKeys: keys, Window: time.Hour}, time.Now)
	for i := range uint64(keys) {
		id := ncs.Identity{}
		binary.LittleEndian.PutUint64(id.Key[:], i*0x9e3779b97f4a7c15)
		binary.LittleEndian.PutUint64(id.ID[:], i)
		c, _ := d.claim(id)
		d.settle(c, nil)
	}
	each := float64(heap()-before) / keys
	t.Logf("%.1f bytes for each of %d keys", each, d.known.Len())
	require.Equal(t, keys, d.known.Len())
	require.LessOrEqual(t, each, 150.0)
}

// What is logged at start and stands in status and metrics, while the keys are still on their way into the LRU.
func TestKeysBeingLoadedAreCounted(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	d := testDedup(t, DedupConfig{MaxKeys: 100, Window: time.Hour}, func() time.Time { return now })
	require.NoError(t, d.load([]loadedEvent{loaded(relaytest.Identity(1, 1), time.Minute, 0), loaded(relaytest.Identity(2, 1), time.Minute, 0),
		loaded(relaytest.Identity(2, 2), 30*time.Second, 0), loaded(relaytest.Identity(3, 1), 0, 0)}, 100))
	require.Equal(t, dedupStats{keys: 3, maxKeys: 100, window: time.Hour, oldest: time.Minute}, d.stats(), "one of them has two events")
	c, standing := d.claim(relaytest.Identity(4, 1))
	require.Equal(t, isNew, standing)
	d.settle(c, nil)
	require.Equal(t, dedupStats{keys: 4, maxKeys: 100, window: time.Hour, oldest: time.Minute}, d.stats())
	d.finishLoading()
	require.Equal(t, dedupStats{keys: 4, maxKeys: 100, window: time.Hour, oldest: time.Minute}, d.stats())
}
