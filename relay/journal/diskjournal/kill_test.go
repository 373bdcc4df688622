package diskjournal_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/journaltest"
)

// appendForever is the process that TestKill kills: it prints the number of each record that was acknowledged, and
// settles some of what it reads.
func appendForever(dir string) error {
	j, err := diskjournal.Open(dir, testOptions())
	if err != nil {
		return err
	}
	c, err := journaltest.OpenSink(j, "a")
	if err != nil {
		return err
	}
	go func() { _ = j.Run(context.Background()) }()
	var mu sync.Mutex
	start := os.Getenv("JOURNAL_KILL_START")
	var first int
	if _, err := fmt.Sscan(start, &first); err != nil {
		return err
	}
	account := j.Account("recording")
	for n := first; ; n++ {
		account.Received()
		err := j.Append(context.Background(), journaltest.Record(n, "a"), func(_ journal.Position, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				fmt.Println(n)
			}
		})
		if err != nil {
			return err
		}
		recs, err := c.Next(1000)
		if err != nil {
			return err
		}
		for _, r := range recs {
			if r.Position.Offset%3 == 0 {
				c.Settle(r.Position, journal.Delivered)
			}
		}
	}
}

func TestKill(t *testing.T) {
	if dir := os.Getenv("JOURNAL_KILL_DIR"); dir != "" {
		t.Fatal(appendForever(dir))
	}
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	acked := map[int]bool{}
	for round := range 4 {
		killAfter(t, dir, round*1_000_000, 300+100*round, acked)
		checkKilled(t, dir, acked)
	}
}

// killAfter runs the process and kills it after some acknowledgements.
func killAfter(t *testing.T, dir string, first, count int, acked map[int]bool) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe, "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "JOURNAL_KILL_DIR="+dir, fmt.Sprintf("JOURNAL_KILL_START=%d", first))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() { // what it still wrote before it died counts too
		var n int
		_, err := fmt.Sscan(lines.Text(), &n)
		require.NoError(t, err, lines.Text())
		acked[n] = true
		if count--; count == 0 {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait())
	require.LessOrEqual(t, count, 0)
}

func checkKilled(t *testing.T, dir string, acked map[int]bool) {
	t.Helper()
	j, err := diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	held := c.Pending()
	recs := journaltest.Drain(t, c, 1<<20)
	totals := journaltest.StatusOf(j, "a").Totals
	require.EqualValues(t, len(held)+len(recs), totals.Pending)
	require.Equal(t, totals.Owed, totals.Delivered+totals.Pending)
	require.GreaterOrEqual(t, totals.Owed, uint64(len(acked)))
	account := j.Snapshot().Accounts["recording"]
	require.Zero(t, account.InFlight(), "%+v", account)
	require.Equal(t, totals.Owed, account.Accepted+account.Quarantined)

	// Whatever is settled by now: the log still has every record.
	var all []journal.Position
	for n := range journaltest.Frontier(t, j)[0].Offset {
		all = append(all, journal.Position{Offset: n + 1})
	}
	loaded, err := j.Load(all)
	require.NoError(t, err)
	there := map[int]bool{}
	for _, r := range loaded {
		if r == nil { // a number lost with a process
			continue
		}
		var n int
		_, err := fmt.Sscanf(string(r.Body), `{"noticeId":"%d"`, &n)
		require.NoError(t, err)
		require.False(t, there[n], "record %d is there twice", n)
		there[n] = true
	}
	for n := range acked {
		require.True(t, there[n], "record %d was acknowledged and is gone", n)
	}
	require.NoError(t, j.Close())
}
