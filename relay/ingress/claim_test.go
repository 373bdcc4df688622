package ingress

import (
	"testing"
	"time"

	"ncs-relay/relay/relaytest"

	"github.com/stretchr/testify/require"
)

// TestACopyIsRecognisedWithoutAllocations: half of all calls may be copies.
func TestACopyIsRecognisedWithoutAllocations(t *testing.T) {
	d := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour}, time.Now)
	known, flying := relaytest.Identity(1, 1), relaytest.Identity(2, 1)
	c, _ := d.claim(known)
	d.settle(c, nil)
	d.claim(flying)
	for id, want := range map[int]standing{1: isKnown, 2: isInFlight} {
		key := relaytest.Identity(id, 1)
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if _, s := d.claim(key); s != want {
				panic(s)
			}
		}), want.String())
	}
}

// BenchmarkClaim claims and settles new events among 100,000 known ones, and recognises copies.
func BenchmarkClaim(b *testing.B) {
	const keys = 100_000
	d := testDedup(b, DedupConfig{MaxKeys: keys, Window: time.Hour}, time.Now)
	for i := range keys {
		c, _ := d.claim(relaytest.Identity(i, 1))
		d.settle(c, nil)
	}
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		id := relaytest.Identity(-1, 1)
		for i := uint64(0); b.Loop(); i++ {
			for k := range 8 { // another key each time, without the cost of a hash
				id.Key[k] = byte(i >> (8 * k))
			}
			c, s := d.claim(id)
			if s != isNew {
				b.Fatal(s)
			}
			d.settle(c, nil)
		}
	})
	b.Run("copy", func(b *testing.B) {
		b.ReportAllocs()
		id := relaytest.Identity(-2, 1)
		c, _ := d.claim(id)
		d.settle(c, nil)
		for b.Loop() {
			if _, s := d.claim(id); s != isKnown {
				b.Fatal(s)
			}
		}
	})
}
