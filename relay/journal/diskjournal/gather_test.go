package diskjournal_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/journal/journaltest"
)

// slowDisk takes its time for each sync.
type slowDisk struct {
	*disktest.CrashFS
	syncs atomic.Int64
	opens atomic.Int64
}

const syncTime = 400 * time.Microsecond

func (d *slowDisk) Create(name string) (diskjournal.File, error) {
	f, err := d.CrashFS.Create(name)
	return slowFile{f, d}, err
}

func (d *slowDisk) Open(name string) (diskjournal.File, error) {
	d.opens.Add(1)
	return d.CrashFS.Open(name)
}

type slowFile struct {
	diskjournal.File
	of *slowDisk
}

func (f slowFile) Sync() error {
	f.of.syncs.Add(1)
	time.Sleep(syncTime)
	return f.File.Sync()
}

// startSlow runs a journal on a disk that is slow, to which one append was made.
func startSlow(t *testing.T, dir string) (*diskjournal.Journal, *slowDisk) {
	disk, opts := &slowDisk{CrashFS: disktest.NewCrashFS(1)}, testOptions()
	opts.FS, opts.SegmentSize = disk, 0
	j, err := diskjournal.Open(dir, opts)
	require.NoError(t, err)
	stop := journaltest.Start(t, j)
	t.Cleanup(stop)
	journaltest.Fill(t, j, 0, 1)
	time.Sleep(time.Second)
	disk.syncs.Store(0)
	return j, disk
}

// inBubble runs test in fake time, with a directory that outlives it.
func inBubble(t *testing.T, test func(t *testing.T, dir string)) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { test(t, dir) })
}

func TestWhoCallsAloneWaitsForNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, dir string) {
		j, disk := startSlow(t, dir)
		began := time.Now()
		journaltest.Fill(t, j, 1, 50)
		require.EqualValues(t, 50, disk.syncs.Load())
		require.Equal(t, 50*syncTime, time.Since(began))
	})
}

func TestCallsThatComeOneByOneShareASync(t *testing.T) {
	inBubble(t, func(t *testing.T, dir string) {
		j, disk := startSlow(t, dir)
		const calls, apart = 200, 300 * time.Microsecond
		var longest atomic.Int64
		var calling sync.WaitGroup
		for n := range calls {
			calling.Go(func() {
				began := time.Now()
				_, err := journaltest.Append(j, journaltest.Record(n+1))
				require.NoError(t, err)
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			})
			time.Sleep(apart)
		}
		calling.Wait()
		t.Log(calls, "calls,", disk.syncs.Load(), "syncs, the longest took", time.Duration(longest.Load()))
		require.Less(t, disk.syncs.Load(), int64(calls/4))
		require.LessOrEqual(t, time.Duration(longest.Load()), 2*time.Millisecond+2*syncTime)
	})
}

// Callers who come again as soon as they are answered are waited for no longer than it takes until all are there.
func TestCallersWhoComeAgainAreNotHeldUp(t *testing.T) {
	inBubble(t, func(t *testing.T, dir string) {
		j, disk := startSlow(t, dir)
		const callers, each = 8, 50
		began := time.Now()
		var calling sync.WaitGroup
		for c := range callers {
			calling.Go(func() { journaltest.Fill(t, j, 1+c*each, each) })
		}
		calling.Wait()
		t.Log(callers*each, "calls,", disk.syncs.Load(), "syncs in", time.Since(began))
		require.Less(t, disk.syncs.Load(), int64(3*each))
		require.Less(t, time.Since(began), 3*each*syncTime)
	})
}

func TestWhatIsNotOwedIsNotRead(t *testing.T) {
	inBubble(t, func(t *testing.T, dir string) {
		j, disk := startSlow(t, dir)
		a, b := journaltest.Sink(t, j, "a"), journaltest.Sink(t, j, "b")
		wakeA, wakeB := a.Appended(), b.Appended()
		all := journaltest.Fill(t, j, 1, 10, "a")
		<-wakeA
		opens := disk.opens.Load()
		require.Empty(t, journaltest.Drain(t, b, 1<<20))
		require.Equal(t, opens, disk.opens.Load())
		select {
		case <-wakeB:
			require.Fail(t, "woken for what it is not owed")
		default:
		}
		require.Len(t, journaltest.Drain(t, a, 1<<20), len(all))

		mixed := journaltest.Fill(t, j, 11, 1, "b")
		<-wakeB
		require.Equal(t, journaltest.Positions(mixed), journaltest.Positions(journaltest.Drain(t, b, 1<<20)))
	})
}
