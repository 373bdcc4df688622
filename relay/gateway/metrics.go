package gateway

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/telemetry"
)

// observe shows the numbers that are kept elsewhere, read when somebody asks for the page.
func (g *Gateway) observe(m *telemetry.Metrics, tracing *telemetry.Tracing) {
	perSink := func(collect func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue)) func(telemetry.Observe) {
		return func(observe telemetry.Observe) {
			for _, s := range g.journal.Snapshot().Sinks {
				collect(observe, s, telemetry.LabelSink.String(s.Name))
			}
		}
	}
	m.CounterFunc("deliveries_total", "Deliveries settled, by outcome, over all restarts.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.Totals.Delivered), sink, telemetry.LabelOutcome.String("delivered"))
			observe(float64(s.Totals.Dead), sink, telemetry.LabelOutcome.String("dead"))
			observe(float64(s.Totals.Skipped), sink, telemetry.LabelOutcome.String("skipped"))
			observe(float64(s.Totals.Dropped), sink, telemetry.LabelOutcome.String("dropped"))
		}))
	m.Gauge("pending_deliveries", "Deliveries owed and not settled.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.Totals.Pending), sink)
		}))
	m.Gauge("pending_bytes", "Bytes of the bodies owed and not settled, which the sink's backlog bounds.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.PendingBytes), sink)
		}))
	m.Gauge("oldest_pending_age_seconds", "Age of the oldest delivery not settled; 0 when there is none.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			age := time.Duration(0)
			if !s.Oldest.IsZero() {
				age = max(0, time.Since(s.Oldest))
			}
			observe(age.Seconds(), sink)
		}))
	m.Gauge("dead_letters", "Dead letters kept.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.Letters), sink)
		}))
	m.CounterFunc("dead_letters_dropped_total", "Dead letters that their limits dropped.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			observe(float64(s.LettersLost), sink)
		}))

	m.Gauge("sink_account", "Deliveries over all restarts, by state; one snapshot: owed = delivered + dead + skipped + dropped + pending.",
		perSink(func(observe telemetry.Observe, s journal.SinkStatus, sink attribute.KeyValue) {
			for state, n := range map[string]uint64{"owed": s.Totals.Owed, "delivered": s.Totals.Delivered, "dead": s.Totals.Dead,
				"skipped": s.Totals.Skipped, "dropped": s.Totals.Dropped, "pending": s.Totals.Pending} {
				observe(float64(n), sink, telemetry.LabelState.String(state))
			}
		}))
	m.Gauge("source_account", "Calls over all restarts, by state; one snapshot: received = rejected + unavailable + test + duplicate + "+
		"quarantined + accepted + in_flight.", func(observe telemetry.Observe) {
		for name, a := range g.journal.Snapshot().Accounts {
			for state, n := range map[string]uint64{"received": a.Received, "rejected": a.Rejected, "unavailable": a.Unavailable,
				"test": a.Tests, "duplicate": a.Duplicates, "quarantined": a.Quarantined, "accepted": a.Accepted,
				"in_flight": a.InFlight()} {
				observe(float64(n), telemetry.LabelSource.String(name), telemetry.LabelState.String(state))
			}
		}
	})
	m.CounterFunc("trace_spans_lost_total", "Sampled spans that did not reach the collector.", func(observe telemetry.Observe) {
		observe(float64(tracing.LostSpans()))
	})

	m.CounterFunc("trail_entries_lost_total", "Copies, attempts and levers that inspect will not know of: the disk was too slow or full.", func(observe telemetry.Observe) {
		observe(float64(g.trail.Lost()))
	})

	g.observeShards(m)
	if disk, ok := g.journal.(journal.OnDisk); ok {
		observeDisk(m, disk)
	}
}

// observeShards shows what a journal that several relays share has to say; one on a disk is one shard, which stays.
func (g *Gateway) observeShards(m *telemetry.Metrics) {
	m.Gauge("journal_ready", "1 if the journal takes events, 0 if not.", func(observe telemetry.Observe) {
		ready := 0.0
		if g.journal.Ready() == nil {
			ready = 1
		}
		observe(ready)
	})
	m.Gauge("journal_held_shards", "Shards of the journal that this relay has.", func(observe telemetry.Observe) {
		held, _ := g.journal.Shards()
		observe(float64(len(held)))
	})
	m.Gauge("journal_shards", "Shards of the journal; 0 while this relay has none.", func(observe telemetry.Observe) {
		of := 0
		if held, _ := g.journal.Shards(); len(held) > 0 {
			of = held[0].Of
		}
		observe(float64(of))
	})
	m.Gauge("journal_unjudged", "Stored notifications that are not yet judged: what sinks are owed of them is not known.", func(observe telemetry.Observe) {
		observe(float64(g.journal.Snapshot().Unjudged))
	})
	shared := func(value func(journal.SharedStats) float64) func(telemetry.Observe) {
		return func(observe telemetry.Observe) {
			var stats journal.SharedStats
			if s, ok := g.journal.(journal.Shared); ok {
				stats = s.SharedStats()
			}
			observe(value(stats))
		}
	}
	m.CounterFunc("journal_takeovers_total", "Shards that this relay has taken over.", shared(func(s journal.SharedStats) float64 { return float64(s.TakeOvers) }))
	m.CounterFunc("journal_takeover_seconds_total", "What taking them over took.", shared(func(s journal.SharedStats) float64 { return s.TakeOverTime.Seconds() }))
	m.Gauge("journal_unread_seconds", "How long ago the inbox of a shard was read last, of the shards that this relay has the longest.", shared(func(s journal.SharedStats) float64 { return s.Unread.Seconds() }))
	m.CounterFunc("journal_overlap_total", "Events written by two owners of a shard, and skipped.", shared(func(s journal.SharedStats) float64 { return float64(s.Overlap) }))
}

func observeDisk(m *telemetry.Metrics, disk journal.OnDisk) {
	m.CounterFunc("journal_syncs_total", "Groups of events written with one sync; events per group = appends / syncs.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Syncs))
	})
	m.CounterFunc("journal_faults_total", "Times the disk failed the journal or had no room.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Faults))
	})
	m.Gauge("journal_free_bytes", "Bytes free on the journal's volume.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Free))
	})
	m.Gauge("journal_bytes", "Bytes the journal takes on disk.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().Bytes))
	})
	m.Gauge("journal_max_bytes", "Bytes the journal may take on disk: journal.max_size.", func(observe telemetry.Observe) {
		observe(float64(disk.DiskStats().MaxBytes))
	})
}
