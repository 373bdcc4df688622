package diskjournal_test

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/journaltest"
)

var startUpEvents = flag.Int("startup.events", 2000, "undelivered events and known keys with which the start is measured")

// TestStartUp measures a start after kill -9 with a backlog, none of which was read, or all of which is unsettled, and with
// as many known keys:
//
//	go test ./relay/journal -run TestStartUp -startup.events 1000000 -v
//
// It asserts no time: machines differ.
func TestStartUp(t *testing.T) {
	if dir := os.Getenv("JOURNAL_STARTUP_DIR"); dir != "" {
		makeBacklog(t, dir, *startUpEvents, os.Getenv("JOURNAL_STARTUP_READ") == "true")
	}
	t.Run("unread", func(t *testing.T) { testStartUp(t, false) })
	t.Run("unsettled", func(t *testing.T) { testStartUp(t, true) })
}

func testStartUp(t *testing.T, read bool) {
	dir := filepath.Join(t.TempDir(), "data")
	leaveBacklog(t, dir, read)
	timed := func(what string, fn func()) {
		began := time.Now()
		fn()
		t.Logf("%-12s %v", what, time.Since(began).Round(time.Millisecond))
	}
	var j *diskjournal.Journal
	var err error
	timed("open", func() { j, err = diskjournal.Open(dir, startUpOptions()) })
	require.NoError(t, err)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	keys := 0
	count := func(_, _ [16]byte, _ time.Time) { keys++ }
	timed("newest key", func() { require.NoError(t, j.Keys(nil, 1, time.Time{}, count)) })
	timed("keys", func() { require.NoError(t, j.Keys(nil, *startUpEvents, time.Time{}, count)) })
	require.Equal(t, *startUpEvents+1, keys)
	require.EqualValues(t, *startUpEvents+startUpTail, journaltest.StatusOf(j, "a").Totals.Pending)
	timed("first append", func() {
		journaltest.Start(t, j)
		_, err = journaltest.Append(j, startUpRecord(0, "a"))
		require.NoError(t, err)
	})
	timed("oldest", func() { require.Equal(t, int64(1), j.Sinks()[0].Oldest.UnixMilli()) })
	timed("find", func() {
		found, err := j.Find(startUpRecord(*startUpEvents - 1).ID)
		require.NoError(t, err)
		require.Len(t, found, 1)
	})
	if read {
		timed("pending", func() { require.Len(t, c.Pending(), *startUpEvents) })
	}
	timed("checkpoint", func() { require.NoError(t, j.Flush()) })
}

const startUpTail = 500 // events after the last checkpoint, or nearly

// leaveBacklog runs a process that makes one, and kills it.
func leaveBacklog(t *testing.T, dir string, read bool) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestStartUp$", fmt.Sprint("-startup.events=", *startUpEvents))
	cmd.Env = append(os.Environ(), "JOURNAL_STARTUP_DIR="+dir, fmt.Sprint("JOURNAL_STARTUP_READ=", read))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "filled\n", line)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
}

func makeBacklog(t *testing.T, dir string, n int, read bool) {
	j, err := diskjournal.Open(dir, startUpOptions())
	require.NoError(t, err)
	journaltest.Start(t, j)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	errs := make(chan error, n+startUpTail)
	add := func(from, n int) {
		for i := range n {
			r := startUpRecord(from+i, "a")
			require.NoError(t, j.Append(t.Context(), r, func(_ journal.Position, err error) { errs <- err }))
		}
		for range n {
			require.NoError(t, <-errs)
		}
	}
	add(0, n)
	if read {
		for len(journaltest.Drain(t, c, 1<<20)) > 0 {
		}
	}
	require.NoError(t, j.Flush())
	add(n, startUpTail)
	fmt.Println("filled")
	select {}
}

func startUpOptions() diskjournal.Options {
	opts := testOptions()
	opts.SegmentSize, opts.KeepKeys = 0, *startUpEvents
	return opts
}

func startUpRecord(n int, sinks ...string) *journal.Record {
	r := benchmarkRecord(sinks...)
	r.Time = time.UnixMilli(int64(n) + 1)
	r.Body = make([]byte, 800)
	binary.BigEndian.PutUint64(r.Key[8:], uint64(n)+1)
	binary.BigEndian.PutUint64(r.ID[8:], uint64(n)+1)
	return r
}
