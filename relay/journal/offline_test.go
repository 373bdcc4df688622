package journal_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// files gives the content of every file below dir.
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
	_, err := journal.Verify(dir)
	require.Error(t, err, "nothing is there")
	j, err := journal.Open(dir, journal.Options{SegmentSize: 8 << 10})
	require.NoError(t, err)
	stop := journaltest.Start(t, j)
	c, err := j.Sink("a")
	require.NoError(t, err)
	for i := range 60 {
		_, err := journaltest.Append(j, journaltest.Record(i, c.ID()))
		require.NoError(t, err)
	}
	_, err = journal.Verify(dir)
	require.ErrorIs(t, err, journal.ErrLocked)
	stop()

	before := files(t, dir)
	var got []*journal.Record
	report, err := journal.Export(dir, func(r *journal.Record) error { got = append(got, r); return nil })
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
	report, err = journal.Export(dir, func(r *journal.Record) error { got = append(got, r); return nil })
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
