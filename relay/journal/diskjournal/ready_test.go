package diskjournal_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/journal/journaltest"
)

// A relay that is not ready gets no traffic: that it can store again must show without any.
func TestReadyNoticesFaultsAndTheirEndByItself(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*disktest.CrashFS, bool){
		"full": func(fs *disktest.CrashFS, on bool) {
			fs.Fail(nil)
			if on {
				fs.Fail(disktest.FailFrom(1, syscall.ENOSPC))
			}
		},
		"read-only": func(fs *disktest.CrashFS, on bool) {
			fs.Fail(nil)
			if on {
				fs.Fail(disktest.FailFrom(1, syscall.EROFS))
			}
		},
		"below min_free": func(fs *disktest.CrashFS, on bool) {
			fs.SetFree(1 << 40)
			if on {
				fs.SetFree(0)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := stateDir(t)
			synctest.Test(t, func(t *testing.T) {
				fs, opts := disktest.NewCrashFS(1), testOptions()
				opts.FS = fs
				j, err := diskjournal.Open(dir, opts)
				require.NoError(t, err)
				fault(fs, true)
				stop := journaltest.Start(t, j)
				synctest.Wait()
				err = j.Ready()
				require.Error(t, err, "before anybody has appended")
				require.Equal(t, name != "read-only", errors.Is(err, journal.ErrFull))
				fault(fs, false)
				time.Sleep(2 * time.Second)
				require.NoError(t, j.Ready())
				_, err = journaltest.Append(j, journaltest.Record(1))
				require.NoError(t, err)

				fault(fs, true)
				time.Sleep(2 * time.Second)
				for n := 2; err == nil && n < 1000; n++ { // a segment has room that is reserved already
					_, err = journaltest.Append(j, journaltest.Record(n))
				}
				require.Error(t, err)
				require.Error(t, j.Ready())
				time.Sleep(5 * time.Second)
				require.Error(t, j.Ready())
				fault(fs, false)
				time.Sleep(2 * time.Second)
				require.NoError(t, j.Ready())
				require.NoError(t, journalAppend(j))
				stop()
			})
		})
	}
}

// A disk that neither takes what is written nor fails is no place to store.
func TestReadyNoticesADiskThatHangs(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	synctest.Test(t, func(t *testing.T) {
		j, fs, stop := startOnCrashFS(t, dir)
		require.NoError(t, journalAppend(j))
		time.Sleep(time.Second)
		answers := make(chan struct{})
		fs.Fail(func(int, disktest.Op) error { <-answers; return nil })
		outcome := make(chan error, 1)
		require.NoError(t, j.Append(t.Context(), journaltest.Record(1), func(_ journal.Position, err error) { outcome <- err }))
		time.Sleep(4 * time.Second)
		require.Empty(t, outcome)
		time.Sleep(2 * time.Second)
		require.ErrorContains(t, j.Ready(), "not answered")
		close(answers)
		require.NoError(t, <-outcome)
		synctest.Wait()
		require.NoError(t, j.Ready())
		stop()
	})
}

// startOnCrashFS is for bubbles, in which no directory can be made that outlives them.
func startOnCrashFS(t *testing.T, dir string) (*diskjournal.Journal, *disktest.CrashFS, func()) {
	t.Helper()
	fs, opts := disktest.NewCrashFS(1), testOptions()
	opts.FS = fs
	j, err := diskjournal.Open(dir, opts)
	require.NoError(t, err)
	return j, fs, journaltest.Start(t, j)
}

func journalAppend(j *diskjournal.Journal) error {
	_, err := journaltest.Append(j, journaltest.Record(5000))
	return err
}

func TestHealthyJournalDoesNotPoll(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	synctest.Test(t, func(t *testing.T) {
		j, fs, stop := startOnCrashFS(t, dir)
		require.NoError(t, journalAppend(j))
		c, err := journaltest.OpenSink(j, "a")
		require.NoError(t, err)
		for n := range 100 { // some are pending, some dead letters, and some of these kept apart from the log
			pos, err := journaltest.Append(j, journaltest.Record(n, "a"))
			require.NoError(t, err)
			journaltest.Drain(t, c, 1)
			if n%2 == 0 {
				c.Bury(journal.DeadLetter{Position: pos, At: time.Now().AddDate(100, 0, 0)})
			}
		}
		require.NoError(t, j.Sweep(t.Context(), time.Now().AddDate(50, 0, 0)))
		require.Equal(t, 1, j.DiskStats().Segments)
		time.Sleep(time.Minute)
		fs.Fail(nil)
		time.Sleep(5 * time.Minute)
		require.Zero(t, fs.Ops())
		stop()
	})
}

// Nobody asks whether there is something to save: whatever changes must say so.
func TestEveryChangeIsSavedInTime(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	synctest.Test(t, func(t *testing.T) {
		j, fs, stop := startOnCrashFS(t, dir)
		c, err := journaltest.OpenSink(j, "a")
		require.NoError(t, err)
		account := j.Account("recording")
		letter := func(pos journal.Position) journal.DeadLetter {
			return journal.DeadLetter{Position: pos, At: time.Now().AddDate(100, 0, 0)}
		}
		var r journaltest.Replayed
		for _, change := range []struct {
			name string
			make func()
		}{
			{"append", func() {
				for n := range 6 {
					_, err := journaltest.Append(j, journaltest.Record(n, "a"))
					require.NoError(t, err)
				}
			}},
			{"next", func() { require.Len(t, journaltest.Drain(t, c, 1<<20), 6) }},
			{"settle", func() { c.Settle(at(1), journal.Delivered) }},
			{"skip", func() { c.Settle(at(2), journal.Skipped) }},
			{"bury", func() { c.Bury(letter(at(3))) }},
			{"bury", func() { c.Bury(letter(at(4))) }},
			{"fail", func() { c.Failed(at(5), journal.Retry{Attempts: 1}) }},
			{"pause", func() { c.SetPaused("because") }},
			{"reject", account.Rejected},
			{"unavailable", account.Unavailable},
			{"test", account.Test},
			{"duplicate", account.Duplicate},
			{"replay", func() {
				r = journaltest.Begin(t, j, journal.ReplaySpec{Sink: "a"}, all)
			}},
			{"read a replay", func() {
				recs, err := r.Next(1 << 20)
				require.NoError(t, err)
				require.NotEmpty(t, recs)
			}},
			{"settle at a replay", func() { r.Settle(at(1), journal.Delivered) }},
			{"bury at a replay", func() { r.Bury(letter(at(3))) }},
			{"fail at a replay", func() { r.Failed(at(4), journal.Retry{Attempts: 1}) }},
			{"cancel", func() { r.Cancel() }},
			{"drop a dead letter", func() { require.NoError(t, j.DropLetters("a", journal.DeadLetter{Position: at(4)})) }},
		} {
			time.Sleep(5 * time.Second)
			var commits atomic.Int32
			fs.Fail(func(_ int, op disktest.Op) error {
				if op == disktest.OpCommit {
					commits.Add(1)
				}
				return nil
			})
			change.make()
			time.Sleep(time.Second)
			require.Positive(t, commits.Load(), change.name)
		}

		// A checkpoint that failed is made again.
		var fails atomic.Int32
		fs.Fail(func(_ int, op disktest.Op) error {
			if op == disktest.OpCommit && fails.Add(1) <= 3 {
				return syscall.EIO
			}
			return nil
		})
		c.Settle(at(5), journal.Delivered)
		time.Sleep(15 * time.Second) // the next sweep looks for what is not needed any more
		fs.Fail(nil)
		time.Sleep(time.Minute)
		require.Zero(t, fs.Ops(), "all is saved")
		require.Greater(t, fails.Load(), int32(3))
		stop()
	})
}

// Keys age by each other, not by the clock: it may have been set, and whoever reads them at the next start does the same.
func TestKeysAgeByTheNewest(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	synctest.Test(t, func(t *testing.T) {
		opts := testOptions()
		opts.FS, opts.KeepKeysFor = disktest.NewCrashFS(1), 24*time.Hour
		add := func(j *diskjournal.Journal, n int) {
			r := journaltest.Record(n)
			r.Time = time.Now()
			_, err := journaltest.Append(j, r)
			require.NoError(t, err)
		}
		keys := func() (n int) {
			j, err := diskjournal.Open(dir, opts)
			require.NoError(t, err)
			defer func() { require.NoError(t, j.Close()) }()
			require.NoError(t, j.Keys(nil, 1000, time.Time{}, func(_, _ [16]byte, _ time.Time) { n++ }))
			return n
		}
		run := func(fn func(j *diskjournal.Journal)) {
			j, err := diskjournal.Open(dir, opts)
			require.NoError(t, err)
			stop := journaltest.Start(t, j)
			fn(j)
			stop()
		}
		run(func(j *diskjournal.Journal) {
			for n := range 10 {
				add(j, n)
				time.Sleep(time.Second) // a checkpoint for each
			}
			time.Sleep(48 * time.Hour)
			j.Account("recording").Test() // and another one
			time.Sleep(time.Second)
		})
		require.Equal(t, 10, keys())
		run(func(j *diskjournal.Journal) { add(j, 10) })
		require.Equal(t, 1, keys())
	})
}
