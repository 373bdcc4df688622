package diskjournal_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// later is when every record of a test is older than any retention.
var later = time.Now().AddDate(10, 0, 0)

// What the contract leaves open: when old segments go, and what is kept of them.
func TestRoom(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, opener){
		"keeps unsettled records when it makes room": testRetention,
		"is not held back by a sink that is gone":    testRemovedSink,
		"scans what was kept in its place":           testScanKept,
		"keeps what a replay has not read":           testReplayRetention,
	} {
		for disk, setup := range map[string]func(*testing.T) opener{"disk": onDisk, "crash file system": onCrashFS} {
			t.Run(name+", "+disk, func(t *testing.T) {
				t.Parallel()
				test(t, setup(t))
			})
		}
	}
}

func testRetention(t *testing.T, open opener) {
	j := open(t)
	stop := journaltest.Start(t, j)
	a, b := journaltest.Sink(t, j, "a"), journaltest.Sink(t, j, "b")
	recs := journaltest.Fill(t, j, 0, 200, "a", "b")
	journaltest.Drain(t, a, 1<<20)
	segments := j.DiskStats().Segments
	require.Greater(t, segments, 3, "segments must be small for this test")
	require.NoError(t, j.Sweep(t.Context(), later))
	require.Equal(t, segments, j.DiskStats().Segments, "b has read nothing")

	journaltest.Drain(t, b, 1<<20)
	for i, r := range recs {
		switch {
		case i%10 == 0:
			a.Bury(journal.DeadLetter{Position: r.Position, At: later})
		case i%10 == 1:
			a.Failed(r.Position, journal.Retry{Attempts: 1})
		default:
			a.Settle(r.Position, journal.Delivered)
		}
		b.Settle(r.Position, journal.Delivered)
	}
	require.NoError(t, j.Sweep(t.Context(), later))
	require.Equal(t, 1, j.DiskStats().Segments)
	check := func() {
		t.Helper()
		var want []*journal.Record
		for i, r := range recs {
			if i%10 < 2 {
				want = append(want, r)
			}
		}
		require.Empty(t, cmp.Diff(want, load(t, j, journaltest.Positions(want))))
	}
	check()
	got, err := j.Load([]journal.Position{recs[2].Position, recs[1].Position})
	require.NoError(t, err)
	require.Empty(t, cmp.Diff([]*journal.Record{nil, recs[1]}, got))
	stop()

	j = open(t)
	journaltest.Start(t, j)
	a = journaltest.Sink(t, j, "a")
	journaltest.Sink(t, j, "b")
	check()
	require.Len(t, a.Pending(), 20)
	for _, p := range a.Pending() {
		a.Settle(p.Position, journal.Delivered)
	}
	before := j.DiskStats().Bytes
	require.NoError(t, j.Sweep(t.Context(), later.AddDate(10, 0, 0)))
	require.NoError(t, j.Sweep(t.Context(), later.AddDate(10, 0, 0)))
	require.Less(t, j.DiskStats().Bytes, before, "what nothing refers to is not kept")
	letters, err := j.DeadLetters("a", journal.Position{}, 100)
	require.NoError(t, err)
	require.Empty(t, letters, "older than their own limit")
	got, err = j.Load([]journal.Position{recs[0].Position})
	require.NoError(t, err)
	require.Equal(t, []*journal.Record{nil}, got)
}

func testRemovedSink(t *testing.T, open opener) {
	j := open(t)
	stop := journaltest.Start(t, j)
	journaltest.Sink(t, j, "a")
	journaltest.Sink(t, j, "b")
	recs := journaltest.Fill(t, j, 0, 100, "a", "b")
	stop()
	j = open(t)
	stop = journaltest.Start(t, j)
	b := journaltest.Sink(t, j, "b")
	for _, r := range journaltest.Drain(t, b, 1<<20) {
		b.Settle(r.Position, journal.Delivered)
	}
	require.NoError(t, j.Sweep(t.Context(), later))
	require.LessOrEqual(t, j.DiskStats().Segments, 2, "the last that was written, and one for what comes")
	stop()
	j = open(t)
	journaltest.Start(t, j)
	a := journaltest.Sink(t, j, "a")
	handed := load(t, j, journaltest.Pending(a))
	handed = append(handed, journaltest.Drain(t, a, 1<<20)...)
	require.Empty(t, cmp.Diff(recs, handed), "it finds everything when it comes back")
	require.EqualValues(t, 100, a.Totals().Pending)
}

func testScanKept(t *testing.T, open opener) {
	j := open(t)
	stop := journaltest.Start(t, j)
	a := journaltest.Sink(t, j, "a")
	recs := journaltest.Fill(t, j, 0, 200, "a")
	journaltest.Drain(t, a, 1<<20)
	for i, r := range recs {
		switch i % 20 {
		case 3:
			a.Bury(journal.DeadLetter{Position: r.Position, At: later})
		case 4: // stays pending
		default:
			a.Settle(r.Position, journal.Delivered)
		}
	}
	require.NoError(t, j.Sweep(t.Context(), later))
	oldest := slices.IndexFunc(recs, func(r *journal.Record) bool {
		return r.EventType%20 != 3 && r.EventType%20 != 4 && j.InLog(r.Position)
	})
	require.Positive(t, oldest, "most is gone")
	var want, got []*journal.Record
	for i, r := range recs {
		if i >= oldest || i%20 == 3 || i%20 == 4 {
			want = append(want, r)
		}
	}
	require.NoError(t, j.Scan(t.Context(), all, func(r *journal.Record) bool { got = append(got, r); return true }))
	require.Empty(t, cmp.Diff(want, got), "what was kept comes in its place")
	stop()
}

func testReplayRetention(t *testing.T, open opener) {
	j := open(t)
	stop := journaltest.Start(t, j)
	a := journaltest.Sink(t, j, "a")
	recs := journaltest.Fill(t, j, 0, 200, "a")
	journaltest.Drain(t, a, 1<<20)
	for _, r := range recs {
		a.Settle(r.Position, journal.Delivered)
	}
	segments := j.DiskStats().Segments
	journaltest.Begin(t, j, journal.ReplaySpec{Sink: "a", To: journal.Cut{recs[150].Position}}, all)
	require.NoError(t, j.Sweep(t.Context(), later))
	require.Equal(t, segments, j.DiskStats().Segments, "it has read nothing")
	stop()
	j = open(t)
	stop = journaltest.Start(t, j)
	r := journaltest.Resume(j, j.Replays()[0], all)
	journaltest.Sink(t, j, "a")
	got := journaltest.DrainReplay(t, r)
	require.Equal(t, journaltest.Positions(recs[:151]), journaltest.Positions(got))
	require.NoError(t, j.Sweep(t.Context(), later))
	require.Less(t, j.DiskStats().Segments, segments)
	require.Empty(t, cmp.Diff(got, load(t, j, journaltest.Pending(r))), "what it has handed out is kept")
	r.Cancel()
	require.NoError(t, j.Sweep(t.Context(), later))
	lost, err := j.Load(journaltest.Positions(got[:1]))
	require.NoError(t, err)
	require.Equal(t, []*journal.Record{nil}, lost)
	stop()
}
