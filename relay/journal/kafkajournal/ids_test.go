package kafkajournal

import (
	"encoding/binary"
	"runtime"
	"testing"
	"time"

	"ncs-relay/relay/journal"
)

// BenchmarkKnownIDs tells what it costs to remember an event, in 24 shards.
func BenchmarkKnownIDs(b *testing.B) {
	list := newIDs(nil)
	list.keep(b.N, 0)
	before := heap()
	for n := range b.N {
		rec := &journal.Record{Time: time.Now()}
		binary.BigEndian.PutUint64(rec.ID[:], uint64(n))
		list.add(uint32(n%24), &entry{rec: rec})
	}
	b.ReportMetric(float64(heap()-before)/float64(b.N), "B/id")
	runtime.KeepAlive(list)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
