package gateway

import (
	"context"
	"testing"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/relaytest"
)

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
			key := relaytest.Identity(n+i, 1)
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
