package diskjournal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/journal/journaltest"
)

// failSync lets the next sync of a segment fail: half of what it should have made durable is, reads show all of it.
func failSync() func(int, disktest.Op) error {
	failed := false
	return func(_ int, op disktest.Op) error {
		if op == disktest.OpSync && !failed {
			failed = true
			return syscall.EIO
		}
		return nil
	}
}

// After a failed sync the kernel shows bytes that it will never write. A start that believed them handed out records that
// a later crash took away.
func TestRecordsOfAFailedSyncDoNotVanish(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		m := newMachine(t, seed)
		require.True(t, m.open())
		m.append(3, 0)
		m.fs.Fail(failSync())
		m.append(8, 0)
		require.Len(t, m.acked, 3)
		m.restart() // it finds all eleven
		m.restart()
		m.crash(0)
		m.stop()
	}
}

// Once a later segment stands, what a failed sync left behind the end of the one before is not looked at again.
func TestNothingBehindTheEndIsBelieved(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	require.True(t, m.open())
	m.append(3, 0)
	m.fs.Fail(failSync())
	m.append(3, 0)
	m.append(3, 0)
	require.Len(t, m.acked, 6)
	m.restart()
	require.Len(t, load(t, m.j, m.unsettled(0)), 6)
	m.crash(1)
	require.Len(t, m.unsettled(0), 6)
	m.stop()
}

// The same where the segment of the failed sync has no record that was acknowledged, and outlived its successor's creation.
func TestNothingInASkippedSegmentIsBelieved(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	require.True(t, m.open())
	syncs := 0
	m.fs.Fail(func(_ int, op disktest.Op) error {
		if op == disktest.OpSync {
			syncs++
		}
		if (op == disktest.OpSync && syncs == 2) || op == disktest.OpRemove { // the first is that of the header
			return syscall.EIO
		}
		return nil
	})
	m.append(3, 0)
	require.Empty(t, m.acked)
	m.append(2, 0)
	require.Len(t, m.acked, 2)
	m.crash(1)
	require.Len(t, m.unsettled(0), 2)
	m.stop()
}

func TestSettledDuringACommitIsSavedByTheNext(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	require.True(t, m.open())
	m.append(4, 0)
	m.read(0, 1<<20)
	pos := m.unsettled(0)
	m.bury(0, pos[0])
	m.fs.Fail(func(_ int, op disktest.Op) error {
		if op == disktest.OpCommit && !m.fates["a"][pos[1]].buried {
			m.bury(0, pos[1])
			m.settle(0, pos[2])
		}
		return nil
	})
	m.checkpoint()
	m.fs.Fail(nil)
	m.checkpoint()
	m.crash(0)
	require.Equal(t, journal.Totals{Owed: 4, Delivered: 1, Dead: 2, Pending: 1}, journaltest.StatusOf(m.j, "a").Totals)
	m.stop()
}

func TestFaultsLeaveNoFilesBehind(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	require.True(t, m.open())
	m.append(1, 0)
	for range 5 {
		m.fs.Fail(failSync())
		m.append(1, 0)
		m.append(1, 0)
		m.fs.Fail(disktest.FailFrom(3, syscall.ENOSPC))
		m.append(30, 0)
		m.append(1, 0)
	}
	m.fs.Fail(nil)
	m.append(1, 0)
	files := 0
	for _, name := range m.fs.Files() {
		if strings.HasSuffix(name, ".seg") {
			files++
		}
	}
	require.Equal(t, m.j.DiskStats().Segments, files)
	m.crash(0.5)
	m.stop()
}

func TestReleasedSinkComesBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t, 1)
	require.True(t, m.open())
	m.append(60, 0, 1)
	m.read(1, 1<<20)
	m.sinks[0].Release()
	m.sweep()
	m.read(1, 1<<20)
	for len(m.unsettled(1)) < 60 {
		m.read(1, 1<<20)
	}
	m.sweep()
	require.Equal(t, 1, m.j.DiskStats().Segments, "it holds nothing back")
	_, err := m.j.Sink("a")
	require.NoError(t, err)
	m.crash(0) // and still is owed everything
	require.Len(t, m.unsettled(0), 60)
	m.stop()
}

// A sink whose creation seemed to fail is the same sink when it is opened again.
func TestSinkThatSeemedNotToBeCreated(t *testing.T) {
	t.Parallel()
	for _, fails := range []disktest.Op{disktest.OpCommit, disktest.OpAfter} {
		m := newMachine(t, 1)
		require.True(t, m.open())
		m.fs.Fail(func(_ int, op disktest.Op) error {
			if op == fails {
				return syscall.EIO
			}
			return nil
		})
		_, err := m.j.Sink("new")
		require.ErrorIs(t, err, syscall.EIO)
		m.fs.Fail(nil)
		m.append(1)
		_, err = m.j.Sink("new")
		require.NoError(t, err)
		require.NoError(t, m.j.Append(t.Context(), journaltest.Record(1000, "new"), func(_ journal.Position, err error) { require.NoError(t, err) }))
		m.j.Step()
		require.NoError(t, m.j.Close())
		j, err := diskjournal.Open(m.dir, m.opts)
		require.NoError(t, err)
		again, err := journaltest.OpenSink(j, "new")
		require.NoError(t, err)
		require.Len(t, journaltest.Drain(t, again, 1), 1)
		require.NoError(t, j.Close())
	}
}

// After a sync of the state that failed, the file is written anew before anything builds on it; a write that failed, as on a
// full disk, leaves it as it is.
func TestStateIsWrittenAnewAfterAFailedSync(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		anew bool
	}{
		{syscall.EIO, true},
		{&fs.PathError{Op: "write", Path: "state.db", Err: syscall.ENOSPC}, false},
	} {
		m := newMachine(t, 1)
		require.True(t, m.open())
		m.append(4, 0)
		m.read(0, 1<<20)
		m.checkpoint()
		before, err := os.Stat(filepath.Join(m.dir, "state.db"))
		require.NoError(t, err)
		m.settle(0, at(1))
		failed := false
		m.fs.Fail(func(_ int, op disktest.Op) error {
			if op == disktest.OpAfter && !failed {
				failed = true
				return tt.err
			}
			return nil
		})
		require.Error(t, m.j.Flush())
		m.fs.Fail(nil)
		m.checkpoint()
		after, err := os.Stat(filepath.Join(m.dir, "state.db"))
		require.NoError(t, err)
		require.Equal(t, !tt.anew, os.SameFile(before, after))
		m.crash(0)
		require.Equal(t, []journal.Position{at(2), at(3), at(4)}, m.unsettled(0))
		m.stop()
	}
}
