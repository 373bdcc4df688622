package gateway

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// TestACopyIsRecognisedWithoutAllocations: half of all calls may be copies.
func TestACopyIsRecognisedWithoutAllocations(t *testing.T) {
	d := testDedup(t, DedupConfig{MaxKeys: 10, Window: time.Hour}, time.Now)
	known, flying := identity(1, 1), identity(2, 1)
	c, _ := d.claim(known)
	d.settle(c, nil)
	d.claim(flying)
	for id, want := range map[int]standing{1: isKnown, 2: isInFlight} {
		key := identity(id, 1)
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
		c, _ := d.claim(identity(i, 1))
		d.settle(c, nil)
	}
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		id := identity(-1, 1)
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
		id := identity(-2, 1)
		c, _ := d.claim(id)
		d.settle(c, nil)
		for b.Loop() {
			if _, s := d.claim(id); s != isKnown {
				b.Fatal(s)
			}
		}
	})
}

// takingSink takes everything at once, in batches of up to 500, and says how many.
type takingSink struct{ took chan int }

func (s *takingSink) Lane(ev *relay.Event) relay.Lane { return relay.Lane{Key: ev.Entity} }
func (s *takingSink) MaxBatch() (int, int)            { return 500, 1 << 20 }
func (s *takingSink) Close() error                    { return nil }
func (s *takingSink) Send(_ context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	s.took <- len(batch)
	return len(batch), nil
}

// BenchmarkLane takes 500 events of one entity from the journal through one lane to a sink that costs nothing, their appends
// and one sync included.
func BenchmarkLane(b *testing.B) {
	const events = 500
	sink := &takingSink{took: make(chan int, events)}
	f := start(b, fixture{}, nil, sinkSpec("all", sink))
	b.ReportAllocs()
	for n := 0; b.Loop(); n += events {
		for i := range events {
			key := identity(n+i, 1)
			rec := &journal.Record{ID: key.ID, Key: key.Key, Time: time.Now(), Source: "main", ProductID: 3, Entity: "recording",
				Sinks: []string{"all"}, Body: body("recording", n+i)}
			if err := f.journal.Append(b.Context(), rec, func(journal.Position, error) {}); err != nil {
				b.Fatal(err)
			}
		}
		for taken := 0; taken < events; {
			taken += <-sink.took
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
	f.end()
}
