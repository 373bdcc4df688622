package diskjournal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/journaltest"
)

// Dead letters have limits of their own, and stay counted when they are gone.
func TestDeadLettersBeyondTheirLimitsAreDropped(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		dead journal.DeadConfig
		left uint64
	}{
		"none":            {journal.DeadConfig{}, 100},
		"large enough":    {journal.DeadConfig{Retention: 3 * time.Hour, MaxSize: 1 << 20}, 100},
		"size":            {journal.DeadConfig{MaxSize: 100}, 0},
		"time of a half":  {journal.DeadConfig{Retention: 90 * time.Minute}, 50},
		"time of nothing": {journal.DeadConfig{Retention: time.Minute}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := testOptions()
			opts.Dead = tt.dead
			j, _ := openCrashFS(t, opts)
			c, err := journaltest.OpenSink(j, "a")
			require.NoError(t, err)
			now := time.Now()
			for n := range 100 {
				require.NoError(t, appendOne(t, j, n, "a"))
			}
			for n, r := range journaltest.Drain(t, c, 1<<20) {
				c.Bury(journal.DeadLetter{Position: r.Position, Reason: "refused", At: now.Add(-time.Duration(2-n/50) * time.Hour)})
			}
			for range 2 { // the first saves them
				require.NoError(t, j.Sweep(t.Context(), now))
			}
			require.Equal(t, tt.left, j.Sinks()[0].Letters)
			require.Equal(t, 100-tt.left, j.Sinks()[0].LettersLost)
			require.EqualValues(t, 100, journaltest.StatusOf(j, "a").Totals.Dead)
			letters, err := j.DeadLetters("a", journal.Position{}, 1000)
			require.NoError(t, err)
			require.Len(t, letters, int(tt.left))
			if tt.left > 0 {
				require.EqualValues(t, 100, letters[len(letters)-1].Position.Offset, "the oldest go first")
			}
		})
	}
}

func TestDeadLettersKeepWithinTheirSize(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Dead = journal.DeadConfig{MaxSize: 20 << 10}
	j, _ := openCrashFS(t, opts)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	for n := range 300 {
		require.NoError(t, appendOne(t, j, n, "a"))
	}
	for _, r := range journaltest.Drain(t, c, 1<<20) {
		c.Bury(journal.DeadLetter{Position: r.Position, At: time.Now()})
	}
	for range 2 {
		require.NoError(t, j.Sweep(t.Context(), time.Now()))
	}
	letters, err := j.DeadLetters("a", journal.Position{}, 1000)
	require.NoError(t, err)
	size := int64(0)
	for _, l := range letters {
		size += l.Size
	}
	require.LessOrEqual(t, size, opts.Dead.MaxSize)
	require.Greater(t, size, opts.Dead.MaxSize/4, "no more than needed")
	require.EqualValues(t, 300, letters[len(letters)-1].Position.Offset)
}

// A dead letter that the disk damaged must not keep old segments from being removed until the journal is full, and its
// event is still there to be replayed.
func TestDamagedLetterIsMended(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	j, err := diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	c, err := journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	for n := range 100 {
		require.NoError(t, appendOne(t, j, n, "a"))
	}
	for n, r := range journaltest.Drain(t, c, 1<<20) {
		if n == 3 || n == 50 {
			c.Bury(journal.DeadLetter{Position: r.Position, Reason: "a peculiar reason", At: time.Now()})
		} else {
			c.Settle(r.Position, journal.Delivered)
		}
	}
	want, err := j.Load([]journal.Position{at(4)})
	require.NoError(t, err)
	require.NoError(t, j.Close())

	name := filepath.Join(dir, "state.db")
	state, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count(state, []byte("a peculiar reason")))
	state[bytes.Index(state, []byte("a peculiar reason"))] = '?'
	require.NoError(t, os.WriteFile(name, state, 0o600))

	j, err = diskjournal.Open(dir, testOptions())
	require.NoError(t, err)
	defer j.Close()
	_, err = journaltest.OpenSink(j, "a")
	require.NoError(t, err)
	_, err = j.DeadLetters("a", journal.Position{}, 10)
	require.ErrorIs(t, err, diskjournal.ErrDamaged)
	require.NoError(t, j.Mend())
	require.NoError(t, j.Sweep(t.Context(), time.Now().Add(2*time.Hour)))
	require.Equal(t, 1, j.DiskStats().Segments)
	letters, err := j.DeadLetters("a", journal.Position{}, 10)
	require.NoError(t, err)
	require.Len(t, letters, 2)
	require.Equal(t, at(4), letters[0].Position)
	require.Contains(t, letters[0].Reason, "damaged")
	require.Equal(t, int64(len(want[0].Body)), letters[0].Size)
	require.Equal(t, "a peculiar reason", letters[1].Reason)
	got, err := j.Load([]journal.Position{at(4)})
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, j.Audit())
}
