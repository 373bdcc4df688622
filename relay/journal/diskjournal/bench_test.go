package diskjournal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/journaltest"
)

func benchmarkJournal(b *testing.B, dir string) *diskjournal.Journal {
	opts := testOptions()
	opts.SegmentSize = 0
	j, err := diskjournal.Open(dir, opts)
	require.NoError(b, err)
	return j
}

func benchmarkRecord(sinks ...string) *journal.Record {
	r := journaltest.Record(1, sinks...)
	r.Body = make([]byte, 600)
	return r
}

// BenchmarkAppend is durable: each append waits for its sync, which it shares with those waiting beside it.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			j := benchmarkJournal(b, filepath.Join(b.TempDir(), "data"))
			journaltest.Start(b, j)
			_, err := j.Sink("a")
			require.NoError(b, err)
			rec := benchmarkRecord("a")
			b.ReportAllocs()
			b.SetBytes(int64(len(rec.Body)))
			b.SetParallelism(callers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := journaltest.Append(j, rec); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkBareSync is what the disk gives: one write of the same size and one sync, in a preallocated file.
func BenchmarkBareSync(b *testing.B) {
	f, err := diskjournal.DiskFS{}.Create(filepath.Join(b.TempDir(), "file"))
	require.NoError(b, err)
	defer f.Close()
	require.NoError(b, f.Allocate(0, 64<<20))
	require.NoError(b, f.Sync())
	buf := make([]byte, 840)
	off := int64(0)
	b.SetBytes(600)
	for b.Loop() {
		if _, err := f.WriteAt(buf, off); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		off = (off + int64(len(buf))) % (60 << 20)
	}
}

// BenchmarkNext reads a backlog.
func BenchmarkNext(b *testing.B) {
	j := benchmarkJournal(b, filepath.Join(b.TempDir(), "data"))
	journaltest.Start(b, j)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(b, err)
	rec := benchmarkRecord("a")
	b.ReportAllocs()
	b.SetBytes(int64(len(rec.Body)))
	n := 0
	for b.Loop() {
		if n == 0 {
			b.StopTimer()
			n = appendMany(b, j, rec, 20_000)
			b.StartTimer()
		}
		recs, err := c.Next(1)
		if err != nil || len(recs) != 1 {
			b.Fatal(len(recs), err)
		}
		c.Settle(recs[0].Position, journal.Delivered)
		n--
	}
}

// BenchmarkOpen starts with a million known keys and a million deliveries owed (P8).
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "data")
	j := benchmarkJournal(b, dir)
	stop := journaltest.Start(b, j)
	_, err := j.Sink("a")
	require.NoError(b, err)
	appendMany(b, j, benchmarkRecord("a"), 1_000_000)
	stop()
	for b.Loop() {
		j := benchmarkJournal(b, dir)
		keys := 0
		require.NoError(b, j.Keys(nil, 1_000_000, time.Time{}, func(_, _ [16]byte, _ time.Time) { keys++ }))
		require.Equal(b, 1_000_000, keys)
		b.StopTimer()
		require.NoError(b, j.Close())
		b.StartTimer()
	}
	_ = os.RemoveAll(dir)
}

func appendMany(b *testing.B, j *diskjournal.Journal, rec *journal.Record, n int) int {
	errs := make(chan error, n)
	for range n {
		require.NoError(b, j.Append(b.Context(), rec, func(_ journal.Position, err error) { errs <- err }))
	}
	for range n {
		require.NoError(b, <-errs)
	}
	return n
}
