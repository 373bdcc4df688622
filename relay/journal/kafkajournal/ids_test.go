package kafkajournal

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"ncs-relay/relay/journal"
)

// BenchmarkKnownIDs tells what it costs to remember an event, in 24 shards, by id, and by key as well.
func BenchmarkKnownIDs(b *testing.B) {
	for name, byKey := range map[string]bool{"deliver": false, "drop": true} {
		b.Run(name, func(b *testing.B) {
			list := newIDs(func(uint32, offset) bool { return byKey })
			list.keep(b.N, 0)
			before := heap()
			for n := range b.N {
				rec := &journal.Record{Time: time.Now()}
				binary.BigEndian.PutUint64(rec.ID[:], uint64(n))
				rec.Key = rec.ID
				list.copyOf(uint32(n%24), &entry{rec: rec})
			}
			b.ReportMetric(float64(heap()-before)/float64(b.N), "B/id")
			runtime.KeepAlive(list)
		})
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
