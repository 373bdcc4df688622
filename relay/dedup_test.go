package relay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ncs-relay/relay/ncs"
)

// identity makes the identity of event number id under key number key.
func identity(key, id int) ncs.Identity {
	k := sha256.Sum256(fmt.Append(nil, "key", key))
	e := sha256.Sum256(fmt.Append(nil, "key", key, "event", id))
	return ncs.Identity{Key: ncs.Key(k[:16]), ID: ncs.EventID(e[:16])}
}

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
				c, s := d.claim(identity(1, 1))
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
		_, s := d.claim(identity(1, 1))
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
	first, s := d.claim(identity(1, 1))
	require.Equal(t, isNew, s)
	for i := range 100 {
		c, _ := d.claim(identity(100+i, 1))
		d.settle(c, nil)
	}
	again, s := d.claim(identity(1, 1))
	require.Equal(t, isInFlight, s)
	require.Same(t, first, again)
}

func TestConflictModes(t *testing.T) {
	t.Parallel()
	deliver := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour, OnConflict: "deliver"}, time.Now)
	drop := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour, OnConflict: "drop"}, time.Now)
	for _, d := range []*dedup{deliver, drop} {
		c, _ := d.claim(identity(1, 1))
		other, s := d.claim(identity(1, 2))
		if d == deliver {
			require.Equal(t, isNew, s)
			d.settle(other, nil)
		} else {
			require.Equal(t, isInFlight, s)
		}
		d.settle(c, nil)
	}
	_, s := deliver.claim(identity(1, 2))
	require.Equal(t, isKnown, s)
	require.EqualValues(t, 1, deliver.stats().conflicts)
	_, s = drop.claim(identity(1, 2))
	require.Equal(t, isKnown, s, "drop keeps strictly one event a key")
}

// naive is the deduplication written for obviousness: a list, newest last.
type naive struct {
	max    int
	window time.Duration
	known  []naiveKey
	flying map[ncs.Identity]bool
}

type naiveKey struct {
	key ncs.Key
	ids []ncs.EventID
	at  time.Time
}

func (n *naive) find(key ncs.Key, now time.Time) int {
	for i, k := range n.known {
		if k.key == key {
			if now.Sub(k.at) >= n.window {
				n.known = append(n.known[:i], n.known[i+1:]...)
				return -1
			}
			n.known = append(append(n.known[:i:i], n.known[i+1:]...), k) // most recently used
			return len(n.known) - 1
		}
	}
	return -1
}

func (n *naive) claim(id ncs.Identity, now time.Time) standing {
	if n.flying[id] {
		return isInFlight
	}
	if i := n.find(id.Key, now); i >= 0 {
		for _, known := range n.known[i].ids {
			if known == id.ID {
				return isKnown
			}
		}
	}
	n.flying[id] = true
	return isNew
}

func (n *naive) settle(id ncs.Identity, stored bool, now time.Time) {
	delete(n.flying, id)
	if !stored {
		return
	}
	if i := n.find(id.Key, now); i >= 0 {
		n.known[i].ids = append(n.known[i].ids, id.ID)
		n.known[i].at = now
		return
	}
	n.known = append(n.known, naiveKey{id.Key, []ncs.EventID{id.ID}, now})
	if len(n.known) > n.max {
		n.known = n.known[1:]
	}
}

func TestDedupAgreesWithANaiveModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_700_000_000, 0)
		config := DedupConfig{MaxKeys: rapid.IntRange(1, 5).Draw(t, "max"), Window: 100 * time.Second, OnConflict: "deliver"}
		d := testDedup(t, config, func() time.Time { return now })
		model := &naive{max: config.MaxKeys, window: config.Window, flying: map[ncs.Identity]bool{}}
		claims := map[ncs.Identity]*claim{}
		ids := rapid.Custom(func(t *rapid.T) ncs.Identity {
			return identity(rapid.IntRange(0, 7).Draw(t, "key"), rapid.IntRange(0, 2).Draw(t, "event"))
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
				id := ids.Draw(t, "id")
				c := claims[id]
				if c == nil {
					t.Skip("not claimed")
				}
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
				now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
			},
			"": func(t *rapid.T) {
				require.LessOrEqual(t, d.known.Len(), config.MaxKeys)
				require.Len(t, d.inFlight, countKeys(claims))
			},
		})
	})
}

func countKeys(claims map[ncs.Identity]*claim) int {
	keys := map[ncs.Key]bool{}
	for id := range claims {
		keys[id.Key] = true
	}
	return len(keys)
}
