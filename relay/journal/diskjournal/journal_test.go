package diskjournal_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testOptions() diskjournal.Options {
	return diskjournal.Options{
		Config:      journal.Config{Retention: time.Hour, MinFree: 1},
		Dead:        journal.DeadConfig{Retention: 24 * time.Hour, MaxSize: 1 << 30},
		SegmentSize: 8 << 10,
	}
}

// at is a position on disk.
func at(n uint64) journal.Position { return journal.Position{Offset: n} }

// load reads records of which none may be lost.
func load(t require.TestingT, j *diskjournal.Journal, positions []journal.Position) []*journal.Record {
	recs, err := j.Load(positions)
	require.NoError(t, err)
	require.NotContains(t, recs, (*journal.Record)(nil))
	return recs
}

func TestContractOnDisk(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, contract(onDisk))
}

// opener opens the journal of one directory, again and again.
type opener func(t testing.TB) *diskjournal.Journal

func onDisk(t *testing.T) opener {
	dir := filepath.Join(t.TempDir(), "data")
	return func(t testing.TB) *diskjournal.Journal {
		j, err := diskjournal.Open(dir, testOptions())
		require.NoError(t, err)
		return j
	}
}

// contract is setup for the suite that every journal passes.
func contract(setup func(*testing.T) opener) func(*testing.T) journaltest.Opener {
	return func(t *testing.T) journaltest.Opener {
		open := setup(t)
		return func(t testing.TB) journal.Opened { return open(t) }
	}
}
