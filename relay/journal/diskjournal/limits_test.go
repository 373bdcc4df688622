package diskjournal_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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

// appendOne appends step by step and returns the outcome.
func appendOne(t *testing.T, j *diskjournal.Journal, n int, sinks ...string) (got error) {
	t.Helper()
	called := 0
	require.NoError(t, j.Append(t.Context(), journaltest.Record(n, sinks...), func(_ journal.Position, err error) { got, called = err, called+1 }))
	j.Step()
	require.Equal(t, 1, called)
	return got
}

func openCrashFS(t *testing.T, opts diskjournal.Options) (*diskjournal.Journal, *disktest.CrashFS) {
	t.Helper()
	fs := disktest.NewCrashFS(1)
	opts.FS = fs
	j, err := diskjournal.Open(stateDir(t), opts)
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j, fs
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	j, fs := openCrashFS(t, testOptions())
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	require.NoError(t, appendOne(t, j, 0, "a"))
	for n, tt := range []struct {
		errno error
		full  bool
	}{{syscall.ENOSPC, true}, {syscall.EDQUOT, true}, {syscall.EIO, false}, {syscall.EROFS, false}} {
		fs.Fail(disktest.FailFrom(1, tt.errno))
		for range 100 {
			err = appendOne(t, j, 100+n, "a")
			if err != nil {
				break
			}
		}
		require.ErrorIs(t, err, tt.errno)
		require.Equal(t, tt.full, errors.Is(err, journal.ErrFull))
		_, err = c.Next(1)
		require.NoError(t, err, "what was stored goes on being delivered")
		fs.Fail(nil)
		require.NoError(t, appendOne(t, j, 200+n, "a"))
	}
	fs.SetFree(0)
	require.ErrorIs(t, appendOne(t, j, 300), journal.ErrFull)
	fs.SetFree(1 << 40)
	require.NoError(t, appendOne(t, j, 301))
}

func TestMaxSize(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.MaxSize = 40 << 10
	j, _ := openCrashFS(t, opts)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	full := func() int {
		for n := range 1000 {
			if err := appendOne(t, j, n, "a"); err != nil {
				require.ErrorIs(t, err, journal.ErrFull)
				return n
			}
		}
		t.Fatal("max_size does not bound")
		return 0
	}
	full()
	require.NoError(t, j.Sweep(t.Context(), time.Now()))
	require.ErrorIs(t, appendOne(t, j, 0, "a"), journal.ErrFull, "nothing that is owed makes room")

	for _, r := range journaltest.Drain(t, c, 1<<20) {
		c.Bury(journal.DeadLetter{Position: r.Position, At: time.Now()})
	}
	dead := journaltest.StatusOf(j, "a").Totals.Dead
	require.Equal(t, dead, j.Sinks()[0].Letters)
	require.NoError(t, j.Sweep(t.Context(), time.Now()))
	require.Less(t, j.DiskStats().Bytes, opts.MaxSize)
	require.Less(t, j.Sinks()[0].Letters, dead, "the oldest dead letters make room")
	require.Positive(t, j.Sinks()[0].Letters)
	require.Equal(t, dead, journaltest.StatusOf(j, "a").Totals.Dead)
	require.Positive(t, full())
}

// Settled history makes room before an append has to be refused, long before it is old enough to go.
func TestSettledHistoryMakesRoomInTime(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*diskjournal.Options, *disktest.CrashFS){
		"max_size": func(o *diskjournal.Options, _ *disktest.CrashFS) { o.MaxSize = 160 << 10 },
		"min_free": func(o *diskjournal.Options, fs *disktest.CrashFS) {
			o.MinFree = 100 << 10
			fs.SetVolume(260 << 10)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := stateDir(t)
			synctest.Test(t, func(t *testing.T) {
				fs, opts := disktest.NewCrashFS(1), testOptions()
				opts.FS, opts.Retention = fs, 1000*time.Hour
				limit(&opts, fs)
				j, err := diskjournal.Open(dir, opts)
				require.NoError(t, err)
				stop := journaltest.Start(t, j)
				c, err := journaltest.OpenSink(j, "a")
				require.NoError(t, err)
				var unsettled []journal.Position
				for n := range 2000 {
					pos, err := journaltest.Append(j, journaltest.Record(n, "a"))
					require.NoError(t, err, "append %d", n)
					journaltest.Drain(t, c, 1<<20)
					if n%200 == 0 {
						unsettled = append(unsettled, pos)
					} else {
						c.Settle(pos, journal.Delivered)
					}
					time.Sleep(50 * time.Millisecond)
				}
				require.NoError(t, j.Ready())
				require.Greater(t, j.DiskStats().Segments, 5, "no more is removed than must be")
				load(t, j, unsettled)
				stop()
			})
		})
	}
}

// What is owed makes no room for min_free, and neither do dead letters: their file does not shrink.
func TestMinFreeTakesNothingThatIsOwedOrDead(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.MinFree = 100 << 10
	j, fs := openCrashFS(t, opts)
	fs.SetVolume(200 << 10)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	n := 0
	for ; err == nil; n++ {
		require.Less(t, n, 1000)
		err = appendOne(t, j, n, "a")
	}
	require.ErrorIs(t, err, journal.ErrFull)
	require.ErrorContains(t, err, "min_free")
	require.NoError(t, j.Sweep(t.Context(), time.Now()))
	require.ErrorIs(t, appendOne(t, j, n, "a"), journal.ErrFull, "it is not read yet")
	for i, r := range journaltest.Drain(t, c, 1<<20) {
		if i%2 == 0 {
			c.Bury(journal.DeadLetter{Position: r.Position, At: time.Now()})
		}
	}
	letters := j.Sinks()[0].Letters
	require.NoError(t, j.Sweep(t.Context(), time.Now()))
	require.NoError(t, appendOne(t, j, n, "a"), "kept beside the log, it takes no segment")
	fs.SetFree(0)
	require.NoError(t, j.Sweep(t.Context(), time.Now()))
	require.Equal(t, letters, j.Sinks()[0].Letters)
	var held []journal.Position
	for _, p := range c.Pending() {
		held = append(held, p.Position)
	}
	load(t, j, held)
}

func TestFullQueueMakesAppendsWait(t *testing.T) {
	t.Parallel()
	j, _ := openCrashFS(t, testOptions())
	outcomes := make(chan error, 1<<20)
	done := func(_ journal.Position, err error) { outcomes <- err }
	queued := 0
	fill := func(ctx context.Context) (err error) {
		for n := 0; err == nil; n++ {
			require.Less(t, n, cap(outcomes), "never full")
			if err = j.Append(ctx, journaltest.Record(n), done); err == nil {
				queued++
			}
		}
		return err
	}
	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, fill(ended), context.Canceled) // full
	require.NotZero(t, queued, "what there is room for is taken")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, j.Append(ctx, journaltest.Record(0), done), context.DeadlineExceeded)
	waiting := make(chan error, 2)
	for range cap(waiting) {
		go func() { waiting <- j.Append(t.Context(), journaltest.Record(0), done) }()
	}
	running, stop := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- j.Run(running) }()
	for range cap(waiting) {
		require.NoError(t, <-waiting)
		queued++
	}
	for range queued {
		require.NoError(t, <-outcomes)
	}
	stop()
	require.NoError(t, <-over)
	require.ErrorIs(t, fill(t.Context()), journal.ErrClosed)
	require.Empty(t, outcomes, "what did not get in time is not appended")
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	j, err := diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	_, err = diskjournal.Open(dir, testOptions())
	require.ErrorIs(t, err, diskjournal.ErrLocked)
	require.ErrorContains(t, err, dir)
	info, err := os.Stat(filepath.Join(dir, "state.db"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, j.Close())

	require.NoError(t, os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("ncs-relay journal 99\n"), 0o600))
	_, err = diskjournal.Open(dir, testOptions())
	require.ErrorIs(t, err, diskjournal.ErrNewer)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "FORMAT"), []byte("tape\n"), 0o600))
	_, err = diskjournal.Open(dir, testOptions())
	require.ErrorIs(t, err, diskjournal.ErrForeign)

	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "thesis.txt"), nil, 0o600))
	_, err = diskjournal.Open(foreign, testOptions())
	require.ErrorIs(t, err, diskjournal.ErrForeign)
	names, err := os.ReadDir(foreign)
	require.NoError(t, err)
	require.Len(t, names, 1, "nothing was added to it")
}

// A replay holds old records back, but not above max_size: then it says how many it has missed.
func TestReplayGivesWayToMaxSize(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.MaxSize = 60 << 10
	j, _ := openCrashFS(t, opts)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	later := time.Now().AddDate(10, 0, 0)
	fill := func(from, n int) {
		for i := range n {
			require.NoError(t, appendOne(t, j, from+i, "a"))
		}
		for _, r := range journaltest.Drain(t, c, 1<<20) {
			if r.Position.Offset%10 == 0 {
				c.Bury(journal.DeadLetter{Position: r.Position, At: later})
			} else {
				c.Settle(r.Position, journal.Delivered)
			}
		}
	}
	fill(0, 100)
	frontier := journaltest.Frontier(t, j)
	r := journaltest.Begin(t, j, journal.ReplaySpec{Sink: "a"}, all)
	recs, err := r.Next(200)
	require.NoError(t, err)
	require.NotEmpty(t, recs)
	before := j.DiskStats().Segments
	require.NoError(t, j.Sweep(t.Context(), later))
	require.Equal(t, before, j.DiskStats().Segments)
	for n := 100; r.Totals().Skipped == 0; n++ {
		require.Less(t, n, 1000)
		if j.Ready() == nil {
			fill(n, 1)
			continue
		}
		require.NoError(t, j.Sweep(t.Context(), time.Now()))
	}
	totals := r.Totals()
	require.Equal(t, totals.Matched, totals.Skipped+totals.Pending)
	load(t, j, journaltest.Positions(recs)) // what it has handed out is kept
	rest, err := r.Next(1 << 20)
	require.NoError(t, err)
	require.EqualValues(t, int(frontier[0].Offset), len(recs)+len(rest)+int(totals.Skipped))
	require.Positive(t, rest[0].Position.Compare(totals.Read[0]))
}

// On a volume that is read-only for days nothing piles up that the first append afterwards would have to see to.
func TestAppendsInVainLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	j, fs := openCrashFS(t, testOptions())
	fs.Fail(disktest.FailFrom(1, syscall.EROFS))
	for n := range 5000 {
		require.ErrorIs(t, appendOne(t, j, n), syscall.EROFS)
	}
	fs.Fail(nil)
	require.NoError(t, appendOne(t, j, 5000))
	require.Less(t, fs.Ops(), 1200)
}
