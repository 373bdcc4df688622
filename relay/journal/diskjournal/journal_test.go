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

func TestContractOnDisk(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, func(t *testing.T) journaltest.Opener {
		dir := filepath.Join(t.TempDir(), "data")
		return func(t testing.TB) *diskjournal.Journal {
			j, err := diskjournal.Open(dir, testOptions())
			require.NoError(t, err)
			return j
		}
	})
}
