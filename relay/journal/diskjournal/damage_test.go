package diskjournal_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/journal/journaltest"
)

// specimen is a journal that was closed: its first segment, and the state before and after the records were appended.
type specimen struct {
	t       testing.TB
	opts    diskjournal.Options
	recs    []*journal.Record
	segment string // name of the file
	bytes   []byte
	others  map[string][]byte // later segments and FORMAT
	dir     string
	known   []byte // state that knows of the records
	unknown []byte // state that does not
}

// newSpecimen appends n records, each synced by itself.
func newSpecimen(t testing.TB, n int) *specimen {
	s := &specimen{t: t, opts: testOptions(), dir: stateDir(t), others: map[string][]byte{}}
	s.opts.SegmentSize = 2 << 10
	fs := disktest.NewCrashFS(1)
	s.opts.FS = fs
	state := filepath.Join(s.dir, "state.db")
	j, err := diskjournal.Open(s.dir, s.opts)
	require.NoError(t, err)
	_, err = j.Sink("a")
	require.NoError(t, err)
	require.NoError(t, j.Flush())
	s.unknown, err = os.ReadFile(state)
	require.NoError(t, err)
	for i := range n {
		r := journaltest.Record(i, "a")
		require.NoError(t, j.Append(t.Context(), r, func(pos journal.Position, err error) {
			require.NoError(t, err)
			r.Position = pos
		}))
		j.Step()
		s.recs = append(s.recs, r)
	}
	require.NoError(t, j.Close())
	s.known, err = os.ReadFile(state)
	require.NoError(t, err)
	for _, name := range fs.Files() {
		content := fs.Content(name)
		if strings.HasSuffix(name, ".seg") && s.segment == "" {
			s.segment, s.bytes = name, content
		} else {
			s.others[name] = content
		}
	}
	return s
}

// open opens the journal with other bytes in the first segment, and reads everything.
func (s *specimen) open(state, segment []byte) ([]*journal.Record, journal.DiskStats) {
	s.t.Helper()
	require.NoError(s.t, os.WriteFile(filepath.Join(s.dir, "state.db"), state, 0o600))
	fs := disktest.NewCrashFS(1)
	for name, content := range s.others {
		fs.Put(name, content)
	}
	fs.Put(s.segment, segment)
	opts := s.opts
	opts.FS = fs
	j, err := diskjournal.Open(s.dir, opts)
	require.NoError(s.t, err)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(s.t, err)
	recs := journaltest.Drain(s.t, c, 1)
	totals := journaltest.StatusOf(j, "a").Totals
	require.EqualValues(s.t, len(recs), totals.Pending, "what is lost is not pending")
	require.Equal(s.t, totals.Owed, totals.Pending+totals.Dropped)
	require.Empty(s.t, cmp.Diff(recs, load(s.t, j, journaltest.Positions(recs)), cmpopts.EquateEmpty()))
	var next journal.Position
	require.NoError(s.t, j.Append(s.t.Context(), journaltest.Record(1000, "a"), func(pos journal.Position, err error) {
		require.NoError(s.t, err)
		next = pos
	}))
	j.Step()
	if len(recs) > 0 {
		require.Positive(s.t, next.Compare(recs[len(recs)-1].Position))
	}
	stats := j.DiskStats()
	require.NoError(s.t, j.Close())
	return recs, stats
}

// extents finds where each record of the first segment lies, by its body.
func (s *specimen) extents() (ends []int) {
	for _, r := range s.recs {
		i := bytes.Index(s.bytes, r.Body)
		if i < 0 {
			break
		}
		ends = append(ends, i+len(r.Body))
	}
	return ends
}

func without(recs []*journal.Record, i int) []*journal.Record {
	return append(append([]*journal.Record{}, recs[:i]...), recs[i+1:]...)
}

const segmentHeaderSize = 64

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 0x41
	return c
}

// lostTo tells which record a damaged byte belongs to, -1 for none: a header, or padding.
func lostTo(ends []int, off int) int {
	from := segmentHeaderSize
	for i, end := range ends {
		if off >= from && off < end {
			return i
		}
		from = (end + 7) &^ 7
	}
	return -1
}

var segmentStride = flag.Int("segment.stride", 7, "every how many bytes of a segment one is flipped, or it is cut")

func TestDamagedByteLosesOneRecordAndIsReported(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		records int
	}{{"sealed segment", 14}, {"last segment", 5}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSpecimen(t, tt.records)
			ends := s.extents()
			require.Equal(t, tt.records == 5, len(ends) == tt.records, "records spread as the test wants")
			for off := 0; off < ends[len(ends)-1]; off += *segmentStride {
				recs, stats := s.open(s.known, flip(s.bytes, off))
				want, lost := s.recs, lostTo(ends, off)
				if lost >= 0 {
					want = without(s.recs, lost)
					require.EqualValues(t, 1, stats.LostRecords, "offset %d", off)
				}
				require.Empty(t, cmp.Diff(want, recs), "offset %d", off)
				if lost >= 0 || (off < segmentHeaderSize && len(ends) == tt.records) {
					require.Positive(t, stats.Damaged, "offset %d", off)
				}
			}
		})
	}
}

// Without a checkpoint that knows, only the last record can be taken for one that was never finished.
func TestDamageIsToldFromATornTail(t *testing.T) {
	t.Parallel()
	s := newSpecimen(t, 5)
	ends := s.extents()
	for off := segmentHeaderSize; off < ends[4]; off += *segmentStride {
		recs, stats := s.open(s.unknown, flip(s.bytes, off))
		lost := lostTo(ends, off)
		want := s.recs
		if lost >= 0 {
			want = without(s.recs, lost)
		}
		require.Empty(t, cmp.Diff(want, recs), "offset %d", off)
		require.Equal(t, lost >= 0 && lost < 4, stats.Damaged > 0, "offset %d", off)
		require.Equal(t, lost == 4, stats.TornBytes > 0, "offset %d", off)
	}
}

func TestSegmentCutShort(t *testing.T) {
	t.Parallel()
	s := newSpecimen(t, 5)
	ends := s.extents()
	for size := 0; size < ends[4]; size += *segmentStride {
		whole := 0
		for whole < 5 && (ends[whole]+7)&^7 <= size {
			whole++
		}
		recs, stats := s.open(s.known, bytes.Clone(s.bytes[:size]))
		require.Equal(t, journaltest.Positions(s.recs[:whole]), journaltest.Positions(recs), "size %d", size)
		require.Positive(t, stats.Damaged, "size %d: the checkpoint knew better", size)
		require.EqualValues(t, 5-whole, stats.LostRecords, "size %d", size)

		recs, _ = s.open(s.unknown, bytes.Clone(s.bytes[:size]))
		require.Len(t, recs, whole, "size %d", size)
	}
}

// A body may hold what looks like records, by chance or by intent; when the record around it is damaged they are not found.
func TestImageOfARecordInABodyIsNotBelieved(t *testing.T) {
	t.Parallel()
	s := newSpecimen(t, 3)
	ends := s.extents()
	image := s.bytes[(ends[0]+7)&^7 : (ends[1]+7)&^7]
	var body []byte
	for range 8 { // one of them lies where records may begin
		body = append(append(body, image...), 0)
	}
	const marker = "here it is"
	j, crashFS := openCrashFS(t, testOptions())
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	for n, b := range [][]byte{nil, append([]byte(marker), body...), nil} {
		r := journaltest.Record(100+n, "a")
		if b != nil {
			r.Body = b
		}
		require.NoError(t, j.Append(t.Context(), r, func(_ journal.Position, err error) { require.NoError(t, err) }))
		j.Step()
	}
	for _, name := range crashFS.Files() {
		content := crashFS.Content(name)
		if i := bytes.Index(content, []byte(marker)); i >= 0 {
			clear(content[i-250 : i]) // its header, and the end of the record before
			crashFS.Put(name, content)
		}
	}
	recs := journaltest.Drain(t, c, 1<<20)
	require.NotEmpty(t, recs)
	require.Equal(t, journaltest.Record(102).Body, recs[len(recs)-1].Body)
	for _, r := range recs {
		require.NotEqual(t, s.recs[1].Body, r.Body)
	}
}

// Fuzz it with -fuzzminimizetime 1x: salts are random, so coverage differs between runs and minimizing does not end.
func FuzzRecover(f *testing.F) {
	s := newSpecimen(f, 5)
	f.Add(s.bytes, true)
	f.Add(s.bytes[:len(s.bytes)-20], false)
	f.Add(flip(s.bytes, 200), false)
	f.Add(append(bytes.Clone(s.bytes), s.bytes[64:]...), true)
	f.Add([]byte{}, false)
	known := map[journal.Position]*journal.Record{}
	for _, r := range s.recs {
		known[r.Position] = r
	}
	f.Fuzz(func(t *testing.T, segment []byte, knows bool) {
		s := *s
		s.t = t
		state := s.unknown
		if knows {
			state = s.known
		}
		recs, _ := s.open(state, segment)
		for _, r := range recs {
			require.Empty(t, cmp.Diff(known[r.Position], r), "invented")
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(diskjournal.EncodePayload(journaltest.Record(1), 1, 2, 300))
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, 60))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := diskjournal.DecodePayload(at(7), b)
		if err != nil {
			return
		}
		again, err := diskjournal.DecodePayload(at(7), diskjournal.EncodePayload(r, diskjournal.SinkIDs(b)...))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(r, again))
	})
}
