package diskjournal_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/journaltest"
)

// A log beside which the state is missing, emptied or older must not be taken for one that owes nothing.
func TestStateThatIsNotOfThisLogIsRefused(t *testing.T) {
	t.Parallel()
	dir, want := deposit(t)
	name := filepath.Join(dir, "state.db")
	refused := func() {
		t.Helper()
		before := files(t, dir)
		_, err := diskjournal.Open(dir, testOptions())
		require.ErrorIs(t, err, diskjournal.ErrDamaged)
		require.Equal(t, before, files(t, dir), "nothing is changed")
		report, got := export(t, dir)
		require.Error(t, report.StateError)
		require.False(t, report.Sound())
		require.Subset(t, got, want[len(want)-100:], "salvaged")
	}
	state, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(name, 0))
	refused()
	require.NoError(t, os.Remove(name))
	_, err = diskjournal.Open(dir, testOptions())
	require.ErrorIs(t, err, diskjournal.ErrDamaged)

	require.NoError(t, os.WriteFile(name, state, 0o600))
	j, err := diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	stop := journaltest.Start(t, j)
	_, err = j.Sink("new")
	require.NoError(t, err)
	_, err = journaltest.Append(j, journaltest.Record(1000, "new"))
	require.NoError(t, err)
	stop()
	require.NoError(t, os.WriteFile(name, state, 0o600)) // it does not know the sink "new"
	refused()
}

var errLost = errors.New("a record is lost")

// observe opens a journal, reads all of it, and tells what is there.
func observe(dir string) (what string, err error) {
	j, err := diskjournal.Open(dir, testOptions())
	if err != nil {
		return "", err
	}
	defer func() { _ = j.Close() }()
	c, err := journaltest.OpenSink(j, "a")
	if err != nil {
		return "", err
	}
	var held []journal.Position
	for _, p := range c.Pending() {
		held = append(held, p.Position)
	}
	recs, err := j.Load(held)
	if err != nil {
		return "", err
	}
	if slices.Contains(recs, nil) {
		return "", errLost
	}
	more, err := c.Next(1 << 30)
	if err != nil {
		return "", err
	}
	letters, err := j.DeadLetters("a", journal.Position{}, 1<<20)
	if err != nil {
		return "", err
	}
	what = fmt.Sprint(journaltest.Positions(append(recs, more...)))
	for _, l := range letters {
		what += fmt.Sprint(" ", l.Position, l.Reason)
	}
	return what + fmt.Sprintf(" %+v", journaltest.StatusOf(j, "a").Totals), j.Flush()
}

var stateStride = flag.Int("state.stride", 199, "every how many bytes of the state one is flipped")

// Whatever byte of the state is flipped: what is found is what was there, or what the transaction before had written, or
// an error says that it is damaged.
//
// It runs alone: following a damaged page bbolt may read, and have us sum, memory of other tests, which the race detector
// takes for a race of theirs.
func TestFlippedByteInTheStateIsNeverBelieved(t *testing.T) {
	dir, _ := deposit(t)
	_, err := observe(dir) // so that the last two transactions differ little
	require.NoError(t, err)
	saved := files(t, dir)
	good, err := observe(dir)
	require.NoError(t, err)
	name := filepath.Join(dir, "state.db")
	state := []byte(saved[name])
	outcomes := map[string]int{}
	restore := func() {
		require.NoError(t, os.Remove(name)) // when bbolt panics the old one stays locked
		for file, content := range saved {
			require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		}
	}
	for off := 0; off < len(state); off += *stateStride {
		restore()
		damaged := bytes.Clone(state)
		damaged[off] ^= 1 << (off % 8)
		require.NoError(t, os.WriteFile(name, damaged, 0o600))
		report, err := diskjournal.Verify(dir)
		require.NoError(t, err, "offset %d", off)
		found, err := observe(dir)
		switch {
		case err != nil:
			outcomes["error"]++
			if !errors.Is(err, errLost) {
				require.ErrorContains(t, err, "state", "offset %d", off)
			}
		case found == good:
			outcomes["no harm"]++
		case off < 2*os.Getpagesize():
			outcomes["the transaction before"]++
		default:
			outcomes["found by the audit"]++
			require.Error(t, report.StateError, "offset %d: %s\ninstead of %s", off, found, good)
		}
	}
	t.Log(outcomes)
	require.Positive(t, outcomes["error"])

	for size := 0; size < len(state); size += os.Getpagesize() / 2 {
		restore()
		require.NoError(t, os.Truncate(name, int64(size)))
		if found, err := observe(dir); err == nil {
			require.Equal(t, good, found, "cut at %d", size)
		}
	}
}

func TestFlippedByteInFormat(t *testing.T) {
	t.Parallel()
	dir, _ := deposit(t)
	name := filepath.Join(dir, "FORMAT")
	format, err := os.ReadFile(name)
	require.NoError(t, err)
	for off := range format {
		require.NoError(t, os.WriteFile(name, flip(format, off), 0o600))
		before := files(t, dir)
		_, err := diskjournal.Open(dir, testOptions())
		if off == len(format)-1 { // the line end says nothing
			continue
		}
		require.Error(t, err, "offset %d", off)
		require.Equal(t, before, files(t, dir))
	}
	require.NoError(t, os.Remove(name))
	_, err = diskjournal.Open(dir, testOptions())
	require.ErrorIs(t, err, diskjournal.ErrForeign)
}
