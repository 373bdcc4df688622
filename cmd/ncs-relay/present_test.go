package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

func TestDurationsForPeople(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 900 * time.Millisecond: "0s", 59 * time.Second: "59s", time.Minute: "1m0s",
		3*time.Minute + 12*time.Second + time.Millisecond: "3m12s", 59*time.Minute + 59*time.Second: "59m59s",
		time.Hour: "1h0m", 23*time.Hour + 59*time.Minute: "23h59m", 51 * time.Hour: "2d3h",
	} {
		require.Equal(t, want, age(d))
	}
	now := time.Now()
	require.Equal(t, "-", ago(time.Time{}, now))
	require.Equal(t, "5s", ago(now.Add(-5*time.Second), now))
	require.Equal(t, "-", until(time.Time{}, now))
	require.Equal(t, "now", until(now.Add(-time.Hour), now))
	require.Equal(t, "in 5s", until(now.Add(5*time.Second), now))
}

func TestSizesForPeople(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 3 << 50: "3072.0 TiB"} {
		require.Equal(t, want, size(n))
	}
}

func TestTextFromOutsideCommandsNoTerminal(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a �[31m b c�d ü", clean("a \x1b[31m\nb\tc\u202ed ü"))
	require.Equal(t, 78, len([]rune(short(string(make([]byte, 200))))))
}

func TestMoments(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2h": "2026-01-10T10:00:00Z", "90s": "2026-01-10T11:58:30Z", "3d": "2026-01-07T12:00:00Z", "0d": "2026-01-10T12:00:00Z",
		"2026-01-02T03:04:05Z": "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+01:00": "2026-01-02T02:04:05Z",
	} {
		at, err := parseMoment(text, now)
		require.NoError(t, err, text)
		require.Equal(t, want, at.UTC().Format(time.RFC3339))
	}
	for _, text := range []string{"-2h", "2", "d", "-1d", "1.5d", "99999999d", "yesterday", "2026-01-02"} {
		_, err := parseMoment(text, now)
		require.Error(t, err, text)
	}
}

// On a terminal no line is wider than it, and nothing is lost but the ends of long texts; in a pipe each row is a line.
func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	rows := [][]string{
		strings.Split("AGE,SINK,EVENT,ENTITY,ATTEMPTS,NEXT,EVENT ID,SAYS,LAST ERROR", ","),
		{"3m12s", "billing", "cloud_recording.recorder_audio_stream_state_changed", strings.Repeat("ä", 64), "12", "in 5s", strings.Repeat("0", 32), "streamUid 7", strings.Repeat("x", 500)},
		{"1s", "archive", "rtc.channel_create", "room", "1", "now", strings.Repeat("1", 32), "-", "-"},
	}
	for _, width := range []int{40, 80, 120} {
		text := layOut(rows, width)
		require.LessOrEqual(t, widest(text), width)
		for _, cell := range []string{"billing", "rtc.channel_create", strings.Repeat("0", 32), "streamUid 7", "in 5s"} {
			require.Contains(t, text, cell)
		}
	}
	require.Equal(t, 3, strings.Count(layOut(rows, 0), "\n"))
	require.Contains(t, layOut(rows, 0), strings.Repeat("x", 500))

	status := [][]string{
		strings.Split("SINK,OWED,DELIVERED,DEAD,SKIPPED,DROPPED,PENDING,OLDEST,DEAD LETTERS,STATE", ","),
		{"billing", "12345678", "12345678", "12", "0", "0", "1234", "3m12s", "12", "failing since 5m0s (connection)"},
	}
	require.Equal(t, `SINK     OWED      DELIVERED  DEAD  SKIPPED  DROPPED  PENDING  OLDEST
  DEAD LETTERS  STATE
billing  12345678  12345678   12    0        0        1234     3m12s
  12            failing since 5m0s (connection)
`, layOut(status, 80))
	var events [][]string
	for _, i := range ncs.Builtin().Types() {
		events = append(events, []string{i.Product, fmt.Sprint(i.ProductID), fmt.Sprint(i.EventType), i.Event, i.Category})
	}
	require.Equal(t, len(events), strings.Count(layOut(events, 80), "\n"), "the list of events fits without folding")
}
