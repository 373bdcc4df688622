package diskjournal_test

import (
	"bytes"
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

// files returns the content of every file below dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		all[name] = string(b)
		return err
	}))
	return all
}

func TestVerifyAndExportReadEverythingAndChangeNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	_, err := diskjournal.Verify(dir)
	require.Error(t, err, "nothing is there")
	j, err := diskjournal.Open(dir, diskjournal.Options{SegmentSize: 8 << 10})
	require.NoError(t, err)
	stop := journaltest.Start(t, j)
	_, err = j.Sink("a")
	require.NoError(t, err)
	for i := range 60 {
		_, err := journaltest.Append(j, journaltest.Record(i, "a"))
		require.NoError(t, err)
	}
	_, err = diskjournal.Verify(dir)
	require.ErrorIs(t, err, diskjournal.ErrLocked)
	stop()

	before := files(t, dir)
	var got []*journal.Record
	report, err := diskjournal.Export(dir, func(r *journal.Record) error { got = append(got, r); return nil })
	require.NoError(t, err)
	require.True(t, report.Sound())
	require.EqualValues(t, 60, report.Records)
	require.Greater(t, report.Segments, 1)
	require.Len(t, got, 60)
	require.Equal(t, journaltest.Record(7).Body, got[7].Body)
	require.EqualValues(t, 60, report.Sinks[0].Totals.Pending)
	require.Empty(t, report.Unknown)

	// Damage in the middle of the first segment, a foreign file, and no state: all of it said, the rest salvaged.
	segments, err := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	require.NoError(t, err)
	b := []byte(before[segments[0]])
	b[len(b)/2] ^= 0xff
	require.NoError(t, os.WriteFile(segments[0], b, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "state.db")))
	damaged := files(t, dir)
	got = nil
	report, err = diskjournal.Export(dir, func(r *journal.Record) error { got = append(got, r); return nil })
	require.NoError(t, err)
	require.False(t, report.Sound())
	require.Error(t, report.StateError)
	require.Len(t, report.Damage, 1)
	require.EqualValues(t, 1, report.Damage[0].Missing)
	require.Equal(t, filepath.Join("log", filepath.Base(segments[0])), report.Damage[0].File)
	require.Equal(t, []string{"notes.txt"}, report.Unknown)
	require.Len(t, got, 59)
	require.Equal(t, damaged, files(t, dir), "nothing is changed")
}

// deposit leaves a journal with records in several segments, some of them kept beside the log, and dead letters.
func deposit(t *testing.T) (dir string, want []journal.Position) {
	t.Helper()
	dir = filepath.Join(stateDir(t), "data")
	j, err := diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	stop := journaltest.Start(t, j)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	fill := func(from, n int) {
		for i := range n {
			_, err := journaltest.Append(j, journaltest.Record(from+i, "a"))
			require.NoError(t, err)
		}
		for i, r := range journaltest.Drain(t, c, 1<<20) {
			switch i % 10 {
			case 0:
				c.Bury(journal.DeadLetter{Position: r.Position, Reason: "no", At: time.Now().AddDate(20, 0, 0)})
			case 1: // stays pending
			default:
				c.Settle(r.Position, journal.Delivered)
			}
		}
	}
	fill(0, 100)
	require.NoError(t, j.Sweep(t.Context(), time.Now().AddDate(10, 0, 0)))
	fill(100, 100)
	require.NoError(t, j.Scan(t.Context(), all, func(r *journal.Record) bool { want = append(want, r.Position); return true }))
	stop()
	return dir, want
}

func export(t *testing.T, dir string) (*diskjournal.Report, []journal.Position) {
	t.Helper()
	var got []*journal.Record
	report, err := diskjournal.Export(dir, func(r *journal.Record) error { got = append(got, r); return nil })
	require.NoError(t, err)
	return report, journaltest.Positions(got)
}

func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.seg"))
	require.NoError(t, err)
	require.Greater(t, len(names), 3)
	return names
}

func TestExportWithWhatWasKept(t *testing.T) {
	t.Parallel()
	dir, want := deposit(t)
	require.NoError(t, os.Remove(filepath.Join(dir, "LOCK")), "as in a copy")
	before := files(t, dir)
	report, got := export(t, dir)
	require.Equal(t, want, got)
	require.True(t, report.Sound(), "%+v", report)
	require.Positive(t, report.Kept)
	require.EqualValues(t, len(want), report.Kept+report.Records)
	require.Equal(t, want[0], report.First)
	require.Equal(t, want[len(want)-1], report.Last)
	require.Len(t, report.Sinks, 1)
	require.EqualValues(t, 20, report.Sinks[0].Letters)
	require.EqualValues(t, 20, report.Sinks[0].Totals.Pending)
	require.Equal(t, before, files(t, dir))
	failed := fmt.Errorf("no room")
	_, err := diskjournal.Export(dir, func(*journal.Record) error { return failed })
	require.ErrorIs(t, err, failed)
}

func TestVerifyMissesFiles(t *testing.T) {
	t.Parallel()
	dir, want := deposit(t)
	names := segmentFiles(t, dir)
	require.NoError(t, os.Remove(names[1]))
	report, got := export(t, dir)
	require.Len(t, report.Damage, 1)
	require.EqualValues(t, len(want)-len(got), report.Damage[0].Missing)
	require.NotContains(t, got, report.Damage[0].First)

	// The same while running: what was owed is counted as dropped, and the rest is delivered.
	j, err := diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	require.EqualValues(t, len(want)-len(got), j.DiskStats().LostRecords)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	held := c.Pending()
	positions := make([]journal.Position, len(held))
	for i, p := range held {
		positions[i] = p.Position
	}
	recs, err := j.Load(positions)
	require.NoError(t, err)
	require.Contains(t, recs, (*journal.Record)(nil), "lost with the file")
	require.NoError(t, j.Close())

	for _, name := range segmentFiles(t, dir) {
		require.NoError(t, os.Remove(name))
	}
	report, got = export(t, dir)
	require.NotEmpty(t, report.Damage)
	require.EqualValues(t, len(got), report.Kept)

	require.NoError(t, os.Remove(filepath.Join(dir, "FORMAT")))
	report, _ = export(t, dir)
	require.False(t, report.Sound())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("ncs-relay journal 99\n"), 0o600))
	_, err = diskjournal.Verify(dir)
	require.ErrorIs(t, err, diskjournal.ErrNewer)
	_, err = diskjournal.Verify(t.TempDir())
	require.ErrorIs(t, err, diskjournal.ErrForeign)
}

// Whatever happens to the state file, the log is salvaged, and nothing but an error comes of it.
func TestVerifyWithDamagedState(t *testing.T) {
	t.Parallel()
	dir, want := deposit(t)
	name := filepath.Join(dir, "state.db")
	state, err := os.ReadFile(name)
	require.NoError(t, err)
	oldest := len(want) - 100
	check := func(what string, damaged []byte) *diskjournal.Report {
		require.NoError(t, os.WriteFile(name, damaged, 0o600))
		report, got := export(t, dir)
		require.GreaterOrEqual(t, len(got), len(want[oldest:]), what)
		require.Equal(t, want[oldest:], got[len(got)-len(want[oldest:]):], what)
		if report.StateError == nil {
			require.Equal(t, want, got, what)
		}
		return report
	}
	page := os.Getpagesize()
	for off := 0; off < len(state); off += page {
		check(fmt.Sprint("cut at ", off), state[:off])
		for _, fill := range []byte{0, 0xff, 0x10} {
			damaged := bytes.Clone(state)
			copy(damaged[off:], bytes.Repeat([]byte{fill}, page))
			check(fmt.Sprint("page at ", off, " filled with ", fill), damaged)
		}
	}
	require.Error(t, check("empty", nil).StateError)
	require.NoError(t, check("whole", state).StateError)
}
