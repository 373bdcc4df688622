package diskjournal_test

import (
	"maps"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
)

// replayed is what a replay must and did hand out.
type replayed struct {
	sink    int
	must    []journal.Position // settled and readable when it began
	seen    map[journal.Position]bool
	settled map[journal.Position]bool
	saved   map[journal.Position]bool // settled, and a checkpoint after it succeeded
}

func newReplayed(sink int) *replayed {
	return &replayed{sink: sink, seen: map[journal.Position]bool{}, settled: map[journal.Position]bool{}, saved: map[journal.Position]bool{}}
}

// replay begins one, which may fail.
func (m *machine) replay(s int, letters bool) {
	m.t.Helper()
	var must []journal.Position
	for pos, f := range m.fates[m.names[s]] {
		if f.saved && !f.raised && f.buried == letters && (f.settled || f.buried) && (letters || s > 0 || !m.taken[pos]) {
			must = append(must, pos)
		}
	}
	recs, _ := m.j.Load(must) // without those that are gone
	r, err := m.j.AddReplay(journal.ReplaySpec{Sink: m.names[s], DeadLetters: letters, CreatedAt: time.Now()})
	if err != nil {
		m.unsure = true
		return
	}
	require.Nil(m.t, m.replays[r.ID()], "number %d is used again", r.ID())
	known := newReplayed(s)
	for _, rec := range recs {
		if rec != nil && (letters || m.j.InLog(rec.Position)) {
			known.must = append(known.must, rec.Position)
		}
	}
	m.replays[r.ID()] = known
}

func all(*journal.Record) bool { return true }

// replayOn reads on, and settles some of what is pending.
func (m *machine) replayOn(replay journal.Replay, maxBytes, how int) {
	m.t.Helper()
	r := journaltest.Resume(m.j, replay, all)
	known := m.replays[r.ID()]
	recs, err := r.Next(maxBytes)
	if err != nil {
		require.Empty(m.t, recs)
		return
	}
	for _, rec := range recs {
		m.check(known.sink, rec)
		f := m.fates[m.names[known.sink]][rec.Position]
		require.True(m.t, f != nil && (f.settled || f.buried), "position %s is replayed and was not settled", rec.Position)
		m.replaySeen(r.Replay, rec.Position)
	}
	for i, p := range r.Pending() {
		switch (i + how) % 3 {
		case 0:
			r.Settle(p.Position, journal.Delivered)
			known.settled[p.Position] = true
			if f := m.fates[m.names[known.sink]][p.Position]; f.buried {
				f.raised = true
			}
		case 1:
			r.Bury(journal.DeadLetter{Position: p.Position, Reason: "again", At: time.Now().AddDate(20, 0, 0)})
			known.settled[p.Position] = true
		}
	}
	m.replayBalanced(r.Replay)
}

func (m *machine) replaySeen(r journal.Replay, pos journal.Position) {
	m.t.Helper()
	known := m.replays[r.ID()]
	require.False(m.t, known.saved[pos], "replay %d hands %s out that was settled and saved", r.ID(), pos)
	delete(known.settled, pos)
	known.seen[pos] = true
}

func (m *machine) replayBalanced(r journal.Replay) {
	m.t.Helper()
	n := r.Totals()
	require.Equal(m.t, n.Matched, n.Delivered+n.Failed+n.Skipped+n.Pending, "%+v", n)
}

func (m *machine) verifyReplays() {
	m.t.Helper()
	list := m.j.Replays()
	for _, r := range list {
		if m.replays[r.ID()] == nil && m.unsure { // it was reported as failed, and is on disk
			m.replays[r.ID()] = newReplayed(slices.Index(m.names, r.Spec().Sink))
		}
	}
	m.unsure = false
	require.Len(m.t, list, len(m.replays))
	for _, r := range list {
		m.replayBalanced(r)
		known := m.replays[r.ID()]
		known.settled = maps.Clone(known.saved) // of the rest nothing is known
		r := journaltest.Resume(m.j, r, all)
		var held []journal.Position
		for _, p := range r.Pending() {
			m.replaySeen(r.Replay, p.Position)
			held = append(held, p.Position)
		}
		load(m.t, m.j, held)
	}
}

// finishReplays reads what replays have left: nothing may be missing.
func (m *machine) finishReplays() {
	m.t.Helper()
	for _, replay := range m.j.Replays() {
		r := journaltest.Resume(m.j, replay, all)
		known := m.replays[r.ID()]
		for !slices.Equal(r.Totals().Read, r.Spec().To) {
			recs, err := r.Next(1 << 20)
			require.NoError(m.t, err)
			for _, rec := range recs {
				known.seen[rec.Position] = true
			}
		}
		for _, pos := range known.must {
			f := m.fates[m.names[known.sink]][pos]
			require.True(m.t, known.seen[pos] || f.raised, "replay %d misses position %s", r.ID(), pos)
		}
		for _, p := range r.Pending() {
			r.Settle(p.Position, journal.Skipped)
		}
		require.True(m.t, r.Finished())
		m.replayBalanced(r.Replay)
	}
}

// move makes a owe what the removed sink c is owed.
func (m *machine) move() {
	m.t.Helper()
	want, front := m.movable(), journaltest.Frontier(m.t, m.j)
	positions, _, err := m.j.Move("c", "a")
	if err != nil {
		m.doubt = append(m.doubt, doubtful{want, front})
		m.settleC(fate{settled: true, perhaps: true}, func(_ journal.Position, owed []string) bool { return slices.Contains(owed, "a") })
		return
	}
	for _, pos := range want {
		require.Contains(m.t, positions, pos)
	}
	m.moved(positions, front)
	m.markSaved()
}

// doubtful is a move that failed, and may have taken effect all the same.
type doubtful struct {
	want  []journal.Position // of acknowledged records that only c was owed
	front journal.Cut        // what came behind it was not moved
}

// movable are the acknowledged records that only c is owed.
func (m *machine) movable() (list []journal.Position) {
	for num, pos := range m.acked {
		owed := m.appended[num]
		f := m.fates["c"][pos]
		if slices.Contains(owed, "c") && !slices.Contains(owed, "a") && (f == nil || !f.settled || f.perhaps) {
			list = append(list, pos)
		}
	}
	return list
}

func (m *machine) moved(positions []journal.Position, front journal.Cut) {
	for _, pos := range positions {
		m.taken[pos] = true
		m.fates["a"][pos] = &fate{}
	}
	m.settleC(fate{settled: true, saved: true}, func(pos journal.Position, _ []string) bool { return pos.Compare(front[0]) <= 0 })
}

// settleC settles what c is owed, of the records that which selects by position and by whom they are owed to.
func (m *machine) settleC(how fate, which func(pos journal.Position, owed []string) bool) {
	for num, pos := range m.acked {
		owed := m.appended[num]
		if !slices.Contains(owed, "c") || !which(pos, owed) {
			continue
		}
		if f := m.fates["c"][pos]; f == nil || !f.settled || f.perhaps {
			settled := how
			m.fates["c"][pos] = &settled
		}
	}
}

// resolveMove finds out what became of moves that were reported as failed: one of them may have taken effect, as a whole.
func (m *machine) resolveMove() {
	m.t.Helper()
	pending := m.unsettled(0)
	var found []journal.Position
	for _, move := range m.doubt {
		for _, pos := range move.want {
			if slices.Contains(pending, pos) && !slices.Contains(found, pos) {
				found = append(found, pos)
			}
		}
	}
	if len(found) > 0 {
		slices.SortFunc(found, journal.Position.Compare)
		likely := slices.DeleteFunc(slices.Clone(m.doubt), func(move doubtful) bool {
			return !slices.Equal(found, slices.SortedFunc(slices.Values(move.want), journal.Position.Compare))
		})
		require.NotEmpty(m.t, likely, "a part was moved: %v, of %v", found, m.doubt)
		first, last := likely[0].front, likely[len(likely)-1].front
		m.moved(m.newAtA(pending), first)
		m.settleC(fate{settled: true, perhaps: true}, func(pos journal.Position, owed []string) bool {
			return pos.Compare(first[0]) > 0 && pos.Compare(last[0]) <= 0 && slices.Contains(owed, "a")
		})
	}
	m.doubt = nil
}

// newAtA are the positions pending at a that it was not handed before.
func (m *machine) newAtA(pending []journal.Position) []journal.Position {
	return slices.DeleteFunc(slices.Clone(pending), func(pos journal.Position) bool { return m.fates["a"][pos] != nil })
}

// drop gives up what c is owed.
func (m *machine) drop() {
	m.t.Helper()
	if _, err := m.j.DropPending("c"); err != nil {
		m.settleC(fate{settled: true}, func(journal.Position, []string) bool { return true })
		return
	}
	m.settleC(fate{settled: true, saved: true}, func(journal.Position, []string) bool { return true })
	m.markSaved()
}

// verifyAccounts: calls of an earlier process are not in flight, and what was acknowledged was counted.
func (m *machine) verifyAccounts() {
	m.t.Helper()
	n := m.j.Snapshot().Accounts["recording"]
	require.Zero(m.t, n.InFlight(), "%+v", n)
	stored := n.Accepted + n.Quarantined
	require.GreaterOrEqual(m.t, stored, uint64(len(m.acked)))
	require.LessOrEqual(m.t, stored, uint64(m.next))
}
