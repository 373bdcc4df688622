package trail

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func yes() bool { return true }

// run keeps a trail until stop is called.
func run(t *testing.T, dir string, room func() bool) (_ *Trail, stop func()) {
	t.Helper()
	trail := New(dir, room, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- trail.Run(ctx) }()
	return trail, func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func noLevers(Entry, map[ID][]Entry) []ID { return nil }

func of(t *testing.T, trail *Trail, id ID) []Entry {
	t.Helper()
	found, _, err := trail.Of(t.Context(), []ID{id}, noLevers)
	require.NoError(t, err)
	return found[id]
}

func TestWhatWasNotedIsFoundAlsoByTheNextProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "trail")
	trail, stop := run(t, dir, yes)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	copied := Entry{Event: ID{1}, What: Copy, At: at, Source: "recording", Standing: "known"}
	failed := Entry{Event: ID{1}, What: Attempt, At: at.Add(time.Second), Sink: "billing", Number: 1, Outcome: "failed", Reason: "5xx", Error: "a\n\"b\" \x1b[31m", Took: .5}
	other := Entry{Event: ID{2}, What: Attempt, At: at, Sink: "billing", Number: 1, Outcome: "delivered"}
	for _, e := range []Entry{copied, other, failed} {
		trail.Note(e)
	}
	require.Equal(t, []Entry{copied, failed}, of(t, trail, ID{1}), "also what waits to be written")
	stop()

	trail, stop = run(t, dir, yes)
	defer stop()
	taken := Entry{Event: ID{1}, What: Attempt, At: at.Add(time.Hour), Sink: "billing", Number: 2, Replay: 1, Outcome: "delivered"}
	trail.Note(taken)
	found, since, err := trail.Of(t.Context(), []ID{{1}, {2}, {3}}, noLevers)
	require.NoError(t, err)
	require.Equal(t, map[ID][]Entry{{1}: {copied, failed, taken}, {2}: {other}, {3}: nil}, found)
	require.Zero(t, since)
	require.Zero(t, trail.Lost())
}

// A lever stands once, however many events it is about, and is there when Keep returns, although nothing runs.
func TestALeverIsOfAllEventsItIsAbout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := New(dir, yes, slog.New(slog.DiscardHandler))
	tried := Entry{Event: ID{1}, What: Attempt, Sink: "billing", Number: 1, Outcome: "failed"}
	lever := Entry{What: Lever, By: "ada", Action: "skip", Sink: "billing", Count: 2}
	first.Note(tried)
	first.Keep(lever)
	require.NoError(t, first.close())
	second := New(dir, yes, slog.New(slog.DiscardHandler))
	found, _, err := second.Of(t.Context(), []ID{{1}, {2}, {3}}, func(e Entry, known map[ID][]Entry) []ID {
		require.Equal(t, lever, e)
		require.Equal(t, map[ID][]Entry{{1}: {tried}, {2}: nil, {3}: nil}, known)
		return []ID{{1}, {2}, {9}}
	})
	require.NoError(t, err)
	require.Equal(t, map[ID][]Entry{{1}: {tried, lever}, {2}: {lever}, {3}: nil}, found)
}

func TestTheTrailSaysHowFarBackItGoes(t *testing.T) {
	t.Parallel()
	trail := New(t.TempDir(), yes, slog.New(slog.DiscardHandler))
	trail.limit = 1000
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var since time.Time
	var kept map[ID][]Entry
	for i := range 100 {
		trail.Note(Entry{Event: ID{1}, What: Copy, At: began.Add(time.Duration(i) * time.Second)})
		var err error
		kept, since, err = trail.Of(t.Context(), []ID{{1}}, noLevers)
		require.NoError(t, err)
		if i < 5 {
			require.Zero(t, since)
		}
	}
	require.Equal(t, kept[ID{1}][0].At, since)
	require.True(t, since.After(began))
	require.NoError(t, trail.close())
}

func TestTornAndForeignLinesSpoilNoOther(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	torn := `{"event":"01000000000000000000000000000000","what":"att`
	junk := strings.Repeat("x", 200_000) + "\n" + `{"event":"zz` + "\n\n" + torn
	require.NoError(t, os.WriteFile(filepath.Join(dir, "new.jsonl"), []byte(junk), 0o600))
	trail, stop := run(t, dir, yes)
	defer stop()
	trail.Note(Entry{Event: ID{1}, What: Copy})
	require.Len(t, of(t, trail, ID{1}), 1)
}

func TestDiskTakenIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	trail, stop := run(t, dir, yes)
	trail.limit = 10_000
	for i := range 1000 {
		trail.Note(Entry{Event: ID{byte(i)}, What: Copy, Source: fmt.Sprint(i)})
		trail.flush()
	}
	require.Equal(t, "999", of(t, trail, ID{999 % 256})[0].Source, "the newest is there")
	stop()
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), trail.limit)
		require.EqualValues(t, 0o600, info.Mode().Perm())
	}
	require.Zero(t, trail.Lost())
}

func TestOfAnEventTriedForDaysTheNewestAreShown(t *testing.T) {
	t.Parallel()
	trail, stop := run(t, t.TempDir(), yes)
	defer stop()
	for i := range 3 * maxEntries {
		trail.Note(Entry{Event: ID{1}, What: Attempt, Number: i + 1})
	}
	got := of(t, trail, ID{1})
	require.Len(t, got, maxEntries)
	require.Equal(t, 2*maxEntries+1, got[0].Number)
}

func TestNothingIsWrittenWithoutRoomAndTheLossIsCounted(t *testing.T) {
	t.Parallel()
	var room atomic.Bool
	dir := filepath.Join(t.TempDir(), "trail")
	trail, stop := run(t, dir, room.Load)
	defer stop()
	trail.Note(Entry{Event: ID{1}, What: Copy})
	trail.flush()
	require.NoDirExists(t, dir)
	require.EqualValues(t, 1, trail.Lost())
	room.Store(true)
	trail.Note(Entry{Event: ID{1}, What: Copy})
	require.Len(t, of(t, trail, ID{1}), 1)
}

func TestADiskThatFailsCostsOneLineAndIsTriedAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "trail")
	require.NoError(t, os.WriteFile(dir, nil, 0o600)) // no directory can be made here
	var log strings.Builder
	trail := New(dir, yes, slog.New(slog.NewTextHandler(&log, nil)))
	for range 10 {
		trail.Note(Entry{Event: ID{1}, What: Copy})
		trail.flush()
	}
	require.EqualValues(t, 10, trail.Lost())
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.NoError(t, os.Remove(dir))
	trail.Note(Entry{Event: ID{1}, What: Copy})
	require.Len(t, of(t, trail, ID{1}), 1)
	require.NoError(t, trail.close())
}

func TestWhatComesTooFastIsLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // time stands still: nothing is written meanwhile
		trail := New(t.TempDir(), yes, slog.New(slog.DiscardHandler))
		for range 200_000 {
			trail.Note(Entry{Event: ID{1}, What: Attempt, Error: strings.Repeat("x", 10_000)})
		}
		require.Positive(t, trail.Lost())
		require.LessOrEqual(t, trail.pending.Len(), bufferSize+1)
	})
}

func TestNoTrail(t *testing.T) {
	t.Parallel()
	var none *Trail
	none.Note(Entry{})
	require.Zero(t, none.Lost())
	require.Empty(t, of(t, none, ID{1}))
}

func BenchmarkNote(b *testing.B) {
	trail := New(b.TempDir(), yes, slog.New(slog.DiscardHandler))
	e := Entry{Event: ID{1}, What: Attempt, At: time.Now(), Sink: "recording-events", Number: 1, Outcome: "delivered", Took: .0123}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		trail.Note(e)
		if n++; n%10_000 == 0 {
			trail.flush()
		}
	}
	_ = trail.close()
}

func BenchmarkOf(b *testing.B) {
	trail := New(b.TempDir(), yes, slog.New(slog.DiscardHandler))
	for i := range 500_000 {
		trail.Note(Entry{Event: ID{byte(i), byte(i >> 8), byte(i >> 16)}, What: Attempt, At: time.Now(), Sink: "recording-events", Number: 1, Outcome: "delivered", Took: .0123})
		if i%10_000 == 0 {
			trail.flush()
		}
	}
	for b.Loop() {
		_, _, err := trail.Of(b.Context(), []ID{{1}}, noLevers)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(trail.size)/1e6, "MB")
	_ = trail.close()
}
