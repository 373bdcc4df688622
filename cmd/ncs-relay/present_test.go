package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	require.Equal(t, 80, len([]rune(short(string(make([]byte, 200))))))
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
