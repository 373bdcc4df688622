package diskjournal_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/journal/diskjournal/disktest"
	"ncs-relay/relay/journal/journaltest"
)

func TestContractOnCrashFS(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, contract(onCrashFS))
}

func onCrashFS(t *testing.T) opener {
	dir, opts := stateDir(t), testOptions()
	crashFS := disktest.NewCrashFS(1)
	opts.FS = crashFS
	return func(t testing.TB) *diskjournal.Journal {
		crashFS.Crash() // a close leaves nothing that a crash could take
		crashFS.Restart(0.5)
		j, err := diskjournal.Open(dir, opts)
		require.NoError(t, err)
		return j
	}
}

// stateDir is a directory for the state file, in memory where there is such a file system: its syncs are not what
// these tests are about.
func stateDir(t interface {
	require.TestingT
	Cleanup(func())
}) string {
	dir, err := os.MkdirTemp("/dev/shm", "journal")
	if err != nil {
		dir, err = os.MkdirTemp("", "journal")
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// machine runs a journal on a CrashFS, step by step, and remembers what must be true of it.
type machine struct {
	t interface {
		require.TestingT
		Helper()
		Cleanup(func())
	}
	fs    *disktest.CrashFS
	dir   string
	opts  diskjournal.Options
	j     *diskjournal.Journal
	sinks []journaltest.Owed
	names []string

	next     int                      // number of the next record
	appended map[int][]string         // record -> sinks it is owed to
	acked    map[int]journal.Position // appends that were acknowledged
	seen     map[journal.Position]int // every position ever seen, and its record
	fates    map[string]map[journal.Position]*fate
	taken    map[journal.Position]bool // moved from c to a
	doubt    []doubtful                // moves that failed; one of them may have taken effect
	replays  map[uint32]*replayed
	unsure   bool // an attempt to begin one failed
}

// fate is what became of a delivery that was handed out.
type fate struct {
	settled, buried bool
	raised          bool // a dead letter that a replay has delivered
	saved           bool // a checkpoint after it succeeded
	perhaps         bool // settled, if a move that was reported as failed took effect
}

func newMachine(t interface {
	require.TestingT
	Helper()
	Cleanup(func())
}, seed uint64) *machine {
	opts := testOptions()
	opts.SegmentSize = 4 << 10
	m := &machine{t: t, fs: disktest.NewCrashFS(seed), dir: stateDir(t), opts: opts, names: []string{"a", "b", "c"},
		taken: map[journal.Position]bool{}, replays: map[uint32]*replayed{}, appended: map[int][]string{}, acked: map[int]journal.Position{}, seen: map[journal.Position]int{},
		fates: map[string]map[journal.Position]*fate{"a": {}, "b": {}, "c": {}}}
	m.opts.FS = m.fs
	return m
}

// open opens the journal. With a fault in the way it may fail, and must succeed once that is gone.
func (m *machine) open() bool {
	m.t.Helper()
	j, err := diskjournal.Open(m.dir, m.opts)
	if err != nil {
		return false
	}
	m.j, m.sinks = j, nil
	for _, name := range m.names {
		c, err := journaltest.OpenSink(j, name)
		if err != nil {
			_ = m.j.Close()
			m.j = nil
			return false
		}
		m.sinks = append(m.sinks, c)
	}
	m.sinks[2].Release() // c is a sink that was removed
	return true
}

func (m *machine) append(n int, sinks ...int) {
	m.t.Helper()
	for range n {
		num := m.next
		m.next++
		rec := journaltest.Record(num)
		for _, s := range sinks {
			rec.Sinks = append(rec.Sinks, m.names[s])
			m.appended[num] = append(m.appended[num], m.names[s])
		}
		if len(sinks) == 0 {
			m.appended[num] = nil
		}
		account := m.j.Account(rec.Source)
		account.Received()
		require.NoError(m.t, m.j.Append(context.Background(), rec, func(pos journal.Position, err error) {
			if err != nil {
				account.Unavailable()
			} else {
				m.saw(pos, num)
				m.acked[num] = pos
			}
		}))
	}
	m.j.Step()
}

func (m *machine) saw(pos journal.Position, num int) {
	m.t.Helper()
	if known, ok := m.seen[pos]; ok {
		require.Equal(m.t, known, num, "position %s used twice", pos)
	}
	m.seen[pos] = num
}

// check compares a record with what was appended under its number.
func (m *machine) check(s int, r *journal.Record) {
	m.t.Helper()
	var num int
	_, err := fmt.Sscanf(string(r.Body), `{"noticeId":"%d"`, &num)
	require.NoError(m.t, err)
	owed, ok := m.appended[num]
	require.True(m.t, ok, "record %d was never appended", num)
	require.True(m.t, slices.Contains(owed, m.names[s]) || (s == 0 && m.taken[r.Position]), "record %d is not owed to %s", num, m.names[s])
	require.True(m.t, bytes.Equal(journaltest.Record(num).Body, r.Body))
	if pos, ok := m.acked[num]; ok {
		require.Equal(m.t, pos, r.Position)
	}
	m.saw(r.Position, num)
}

// read hands out records of a sink; a fault may stop it.
func (m *machine) read(s, maxBytes int) {
	m.t.Helper()
	recs, err := m.sinks[s].Next(maxBytes)
	if err != nil {
		require.Empty(m.t, recs)
		return
	}
	last := journal.Position{}
	for _, r := range recs {
		m.check(s, r)
		require.Positive(m.t, r.Position.Compare(last))
		last = r.Position
		m.handOut(s, r.Position)
	}
}

func (m *machine) handOut(s int, pos journal.Position) {
	m.t.Helper()
	f := m.fates[m.names[s]][pos]
	if f == nil {
		f = &fate{}
		m.fates[m.names[s]][pos] = f
	}
	require.False(m.t, f.saved && (f.settled || f.buried), "position %s was settled and saved, and comes back", pos)
	*f = fate{}
}

// unsettled are the positions a sink may settle now.
func (m *machine) unsettled(s int) []journal.Position {
	var list []journal.Position
	for _, p := range m.sinks[s].Pending() {
		list = append(list, p.Position)
	}
	return list
}

func (m *machine) settle(s int, pos journal.Position) {
	m.sinks[s].Settle(pos, journal.Delivered)
	m.fates[m.names[s]][pos].settled = true
}

func (m *machine) bury(s int, pos journal.Position) {
	m.sinks[s].Bury(journal.DeadLetter{Position: pos, Reason: "no", At: time.Now().AddDate(20, 0, 0)})
	m.fates[m.names[s]][pos].buried = true
}

func (m *machine) checkpoint() {
	if m.j.Flush() == nil {
		m.markSaved()
	}
}

func (m *machine) markSaved() {
	for _, fates := range m.fates {
		for _, f := range fates {
			if f.perhaps { // what was saved now says that it was not moved
				*f = fate{}
			}
			f.saved = f.settled || f.buried
		}
	}
	for _, r := range m.replays {
		maps.Copy(r.saved, r.settled)
	}
	m.doubt = nil
}

func (m *machine) sweep() { _ = m.j.Sweep(context.Background(), time.Now().AddDate(10, 0, 0)) }

// crash loses what was not synced, and starts again.
func (m *machine) crash(keep float64) {
	m.t.Helper()
	m.fs.Crash()
	if m.j != nil {
		_ = m.j.Close()
	}
	m.fs.Restart(keep)
	require.True(m.t, m.open())
	m.verify()
}

// restart closes and opens cleanly.
func (m *machine) restart() {
	m.t.Helper()
	m.fs.Fail(nil)
	require.NoError(m.t, m.j.Close())
	m.markSaved()
	require.True(m.t, m.open())
	m.verify()
}

// verify looks at everything the journal holds after a start.
func (m *machine) verify() {
	m.t.Helper()
	require.Zero(m.t, m.j.DiskStats().Damaged, "a crash is not damage")
	require.NoError(m.t, m.j.Audit())
	m.resolveMove()
	m.verifyAccounts()
	m.verifyReplays()
	for s, c := range m.sinks {
		m.verifySink(s, c)
	}
	keys := map[[16]byte]bool{}
	require.NoError(m.t, m.j.Keys(nil, 1<<20, time.Time{}, func(key, _ [16]byte, _ time.Time) { keys[key] = true }))
	for num := range m.acked {
		require.True(m.t, keys[journaltest.Record(num).Key], "key of record %d is forgotten", num)
	}
}

func (m *machine) verifySink(s int, c journaltest.Owed) {
	m.t.Helper()
	name := m.names[s]
	dead := map[journal.Position]bool{}
	letters, err := m.j.DeadLetters(name, journal.Position{}, 1<<20)
	require.NoError(m.t, err)
	for _, l := range letters {
		dead[l.Position] = true
		require.True(m.t, m.fates[name][l.Position] != nil, "dead letter %s was never handed out", l.Position)
	}
	held := m.unsettled(s)
	for _, r := range load(m.t, m.j, append(slices.Clone(held), keysOf(dead)...)) { // what is unsettled or dead can be read
		m.check(s, r)
	}
	for _, pos := range held {
		m.handOut(s, pos)
	}
	for {
		recs, err := c.Next(1000)
		require.NoError(m.t, err)
		if len(recs) == 0 {
			break
		}
		for _, r := range recs {
			m.check(s, r)
			m.handOut(s, r.Position)
			if n := len(held); n > 0 && !(s == 0 && m.taken[held[n-1]]) {
				require.Positive(m.t, r.Position.Compare(held[n-1]))
			}
			held = append(held, r.Position)
		}
	}
	for _, pos := range held {
		require.False(m.t, dead[pos], "position %s is dead and pending", pos)
	}
	for pos, f := range m.fates[name] {
		if f.buried && f.saved && !f.raised {
			require.True(m.t, dead[pos], "dead letter %s is lost", pos)
		}
		f.raised = f.raised && !dead[pos]
	}
	for num, pos := range m.acked {
		if !slices.Contains(m.appended[num], name) {
			continue
		}
		found := slices.Contains(held, pos)
		f := m.fates[name][pos]
		require.True(m.t, found || dead[pos] || (f != nil && (f.settled || f.raised)), "record %d at %s, acknowledged, is lost to %s", num, pos, name)
	}
	for pos, f := range m.fates[name] {
		if f.perhaps && !slices.Contains(held, pos) { // it was, and is on disk
			f.perhaps, f.saved = false, true
		}
	}
	totals := journaltest.StatusOf(m.j, name).Totals
	require.EqualValues(m.t, len(held), totals.Pending, "%+v", totals)
	require.Equal(m.t, totals.Owed, totals.Delivered+totals.Dead+totals.Skipped+totals.Dropped+totals.Pending)
}

func keysOf(set map[journal.Position]bool) (list []journal.Position) {
	for pos := range set {
		list = append(list, pos)
	}
	return list
}

// scenario does a bit of everything; faults may make any step fail.
func scenario(m *machine) {
	if m.j == nil && !m.open() {
		return
	}
	for round := range 4 {
		m.append(3, 0, 1)
		m.append(2, 1, 2)
		m.append(1, 2)
		for s := range 2 {
			m.read(s, 300)
			for i, pos := range m.unsettled(s) {
				switch (i + round) % 4 {
				case 0:
					m.settle(s, pos)
				case 1:
					m.bury(s, pos)
				case 2:
					m.sinks[s].Failed(pos, journal.Retry{Attempts: 1})
				}
			}
		}
		m.checkpoint()
		m.append(8, 0, 1)
		if round%2 == 1 {
			m.read(0, 1<<20)
			m.read(1, 1<<20)
			m.sweep()
		}
		switch round {
		case 0:
			m.replay(0, true)
		case 1:
			m.replay(1, false)
			m.move()
		case 3:
			m.drop()
		}
		for _, r := range m.j.Replays() {
			m.replayOn(r, 600, round)
		}
	}
}

func (m *machine) stop() {
	if m.j != nil {
		_ = m.j.Close()
	}
}

// TestCrashAnywhere crashes at every operation of a scenario, with little, much or some of what was unsynced left.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	everyOperation(t, func(t *testing.T, n int) {
		for i, keep := range []float64{0, 1, 0.5} {
			m := newMachine(t, uint64(n*10+i))
			m.fs.Fail(disktest.FailOnce(n, disktest.ErrCrashed))
			scenario(m)
			m.crash(keep)
			m.append(2, 0, 1)
			require.Contains(t, m.acked, m.next-1)
			m.crash(keep)
			m.stop()
		}
	})
}

// TestFaultAnywhere lets every operation fail, once or from then on, and crashes afterwards.
func TestFaultAnywhere(t *testing.T) {
	t.Parallel()
	everyOperation(t, func(t *testing.T, n int) {
		for i, fault := range []func(int, disktest.Op) error{
			disktest.FailOnce(n, syscall.EIO), disktest.FailFrom(n, syscall.ENOSPC), disktest.FailFrom(n, syscall.EROFS),
		} {
			m := newMachine(t, uint64(n*10+i))
			m.fs.Fail(fault)
			scenario(m)
			m.fs.Fail(nil)
			if m.j == nil {
				require.True(t, m.open(), "the fault is gone")
			}
			m.append(2, 0, 1)
			require.Contains(t, m.acked, m.next-1, "the fault is gone")
			m.crash(0.5)
			m.restart()
			m.stop()
		}
	})
}

func everyOperation(t *testing.T, run func(t *testing.T, n int)) {
	m := newMachine(t, 0)
	m.fs.Fail(nil)
	scenario(m)
	ops := m.fs.Ops()
	require.Len(t, m.acked, m.next)
	m.restart()
	m.stop()
	step := 1
	if testing.Short() {
		step = 7
	}
	for n := 1; n <= ops; n += step {
		if run(t, n); t.Failed() {
			t.Fatalf("with operation %d", n)
		}
	}
}

// TestAnyHistory lets rapid look for a history that breaks a promise.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, rapid.Uint64().Draw(t, "seed"))
		defer m.stop()
		require.True(t, m.open())
		errs := []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := rapid.IntRange(0, 1).Draw(t, "sink")
			action := rapid.SampledFrom([]string{"append", "append", "append", "read", "read", "settle", "settle", "bury", "checkpoint", "checkpoint",
				"sweep", "replay", "replay on", "replay on", "move", "drop", "fault", "faults", "repair", "crash", "crash later", "restart"}).Draw(t, "action")
			if m.j == nil {
				action = "crash"
			}
			switch action {
			case "append":
				m.append(rapid.IntRange(1, 20).Draw(t, "n"), rapid.SampledFrom([][]int{{}, {0}, {1}, {0, 1}, {2}, {0, 2}}).Draw(t, "sinks")...)
			case "read":
				m.read(s, rapid.IntRange(1, 4000).Draw(t, "bytes"))
			case "settle", "bury":
				if list := m.unsettled(s); len(list) > 0 {
					pos := rapid.SampledFrom(list).Draw(t, "position")
					if action == "settle" {
						m.settle(s, pos)
					} else {
						m.bury(s, pos)
					}
				}
			case "checkpoint":
				m.checkpoint()
			case "sweep":
				m.sweep()
			case "replay":
				m.replay(s, rapid.Bool().Draw(t, "dead letters"))
			case "replay on":
				if list := m.j.Replays(); len(list) > 0 {
					m.replayOn(rapid.SampledFrom(list).Draw(t, "replay"), rapid.IntRange(1, 4000).Draw(t, "bytes"), rapid.IntRange(0, 3).Draw(t, "fate"))
				}
			case "move":
				m.move()
			case "drop":
				m.drop()
			case "fault":
				m.fs.Fail(disktest.FailOnce(rapid.IntRange(1, 20).Draw(t, "at"), rapid.SampledFrom(errs).Draw(t, "error")))
			case "faults":
				m.fs.Fail(disktest.FailFrom(rapid.IntRange(1, 20).Draw(t, "at"), rapid.SampledFrom(errs).Draw(t, "error")))
			case "crash later":
				m.fs.Fail(disktest.FailOnce(rapid.IntRange(1, 20).Draw(t, "at"), disktest.ErrCrashed))
			case "repair":
				m.fs.Fail(nil)
			case "crash":
				m.crash(rapid.Float64Range(0, 1).Draw(t, "keep"))
			case "restart":
				if !m.fs.Crashed() {
					m.restart()
				}
			}
		}
		m.crash(0.5)
		m.finishReplays()
	})
}

// TestCrashDuringRecovery crashes, and then again at every operation of the start that follows, three times in a row.
func TestCrashDuringRecovery(t *testing.T) {
	t.Parallel()
	step := 1
	if testing.Short() {
		step = 5
	}
	for i, keep := range []float64{0, 0.5, 1} {
		for n := 1; ; n += step {
			m := newMachine(t, uint64(n*10+i))
			require.True(t, m.open())
			m.append(30, 0, 1)
			m.read(0, 2000)
			m.checkpoint()
			m.append(10, 0, 2)
			m.fs.Fail(failSync())
			m.append(10, 0) // found after the crash, in part
			m.fs.Fail(disktest.FailOnce(5, disktest.ErrCrashed))
			m.append(10, 1)
			reached := m.crashStarting(n, keep)
			m.crashStarting(max(1, n/2), keep)
			m.crashStarting(n, keep)
			m.crash(keep)
			m.append(2, 0, 1)
			require.Contains(t, m.acked, m.next-1)
			m.crash(keep)
			m.stop()
			if t.Failed() {
				t.Fatalf("with operation %d, keep %v", n, keep)
			}
			if !reached {
				break
			}
		}
	}
}

// crashStarting crashes, starts again, and crashes at the nth operation of that. It reports whether there was one.
func (m *machine) crashStarting(n int, keep float64) bool {
	m.t.Helper()
	m.fs.Crash()
	if m.j != nil {
		_ = m.j.Close()
		m.j = nil
	}
	m.fs.Restart(keep)
	m.fs.Fail(disktest.FailOnce(n, disktest.ErrCrashed))
	if m.open() {
		m.append(1, 0)
	}
	return m.fs.Crashed()
}
