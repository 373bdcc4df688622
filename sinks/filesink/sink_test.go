package filesink_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/sinktest"
)

func config(path string, change ...func(*filesink.Config)) filesink.Config {
	var cfg filesink.Config
	cfg.SetDefaults()
	cfg.Path = path
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func newSink(t *testing.T, cfg filesink.Config) *filesink.Sink {
	s, err := filesink.New(cfg, "archive", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func send(t *testing.T, s *filesink.Sink, events ...*relay.Event) error {
	taken, err := s.Send(t.Context(), s.Lane(nil), sinktest.Batch(events...))
	if err == nil {
		require.Equal(t, len(events), taken)
	} else {
		require.Zero(t, taken)
		require.False(t, relay.IsPermanent(err))
	}
	return err
}

// read reads a file as its users would, and fails on a line that is not whole.
func read(t *testing.T, path string) []sinktest.Received {
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	if len(content) > 0 {
		require.EqualValues(t, '\n', content[len(content)-1], "the last line has no end")
	}
	var all []sinktest.Received
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		all = append(all, readLine(t, lines.Bytes()))
	}
	require.NoError(t, lines.Err())
	return all
}

func readLine(t *testing.T, line []byte) sinktest.Received {
	var l struct {
		ID         string            `json:"id"`
		Product    string            `json:"product"`
		Event      string            `json:"event"`
		EventType  json.Number       `json:"event_type"`
		Category   string            `json:"category"`
		Entity     string            `json:"entity"`
		Source     string            `json:"source"`
		ReceivedAt string            `json:"received_at"`
		Replay     json.Number       `json:"replay"`
		Test       json.RawMessage   `json:"test"`
		Headers    map[string]string `json:"headers"`
		Body       *string           `json:"body"`
		BodyBase64 []byte            `json:"body_base64"`
	}
	in := json.NewDecoder(bytes.NewReader(line))
	in.DisallowUnknownFields()
	require.NoError(t, in.Decode(&l), "line %.100q", line)
	require.True(t, (l.Body == nil) != (l.BodyBase64 == nil), "one of body and body_base64 in %.100q", line)
	body := l.BodyBase64
	if l.Body != nil {
		body = []byte(*l.Body)
	}
	return sinktest.Received{
		ID: l.ID, Product: l.Product, Event: l.Event, EventType: l.EventType.String(), Category: l.Category, Entity: l.Entity,
		Source: l.Source, ReceivedAt: l.ReceivedAt, Replay: l.Replay.String(), Test: string(l.Test), Body: body,
		ContentType: l.Headers["content-type"], SignatureV1: l.Headers["agora-signature"], SignatureV2: l.Headers["agora-signature-v2"],
	}
}

func ids(received []sinktest.Received) []string {
	all := []string{}
	for _, r := range received {
		all = append(all, r.ID)
	}
	return all
}

func idsOf(events ...*relay.Event) []string {
	all := []string{}
	for _, e := range events {
		all = append(all, e.ID.String())
	}
	return all
}

func TestContract(t *testing.T) {
	sinktest.Run(t, sinktest.Harness{OneLane: true, New: func(t *testing.T, logger *slog.Logger) sinktest.Fixture {
		path := filepath.Join(t.TempDir(), "archive", "events.jsonl")
		s, err := filesink.New(config(path), "archive", logger)
		require.NoError(t, err)
		d := &disk{}
		s.Wrap(d.wrap)
		return sinktest.Fixture{
			Sink:     s,
			Received: func(t *testing.T) []sinktest.Received { return read(t, path) },
			Fail:     func(id string) { d.set(failing{onWrite: id, keep: 300}) },
			Heal:     func() { d.set(failing{}) },
		}
	}})
}

// failing says what a disk does wrong.
type failing struct {
	onWrite  string // a write with these bytes in it fails ...
	keep     int    // ... after so many of its bytes
	sync     bool
	truncate bool
}

var errDisk = errors.New("disk is broken")

type disk struct {
	mu sync.Mutex
	failing
}

func (d *disk) set(f failing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failing = f
}

func (d *disk) get() failing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failing
}

func (d *disk) wrap(f filesink.File) filesink.File { return diskFile{f, d} }

type diskFile struct {
	filesink.File
	disk *disk
}

func (f diskFile) Write(p []byte) (int, error) {
	fault := f.disk.get()
	if fault.onWrite == "" || !bytes.Contains(p, []byte(fault.onWrite)) {
		return f.File.Write(p)
	}
	n, err := f.File.Write(p[:min(fault.keep, len(p))])
	return n, errors.Join(err, errDisk)
}

func (f diskFile) Sync() error {
	if f.disk.get().sync {
		return errDisk
	}
	return f.File.Sync()
}

func (f diskFile) Truncate(size int64) error {
	if f.disk.get().truncate {
		return errDisk
	}
	return f.File.Truncate(size)
}

// TestLine fixes the bytes of a line, which others parse.
func TestLine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	s := newSink(t, config(path))
	text, binary := sinktest.Event(1, "sid-1"), sinktest.Event(2, "sid-2")
	text.Body = []byte("{\"a\":\"<&>\u2028\\n\"}\n")
	binary.Body, binary.ContentType, binary.SignatureV1 = []byte{0xff, 0x00}, "", ""
	batch := sinktest.Batch(text, binary)
	batch[1].Replay = 2
	_, err := s.Send(t.Context(), s.Lane(text), batch)
	require.NoError(t, err)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	want := `{"id":"` + text.ID.String() + `","product":"cloud_recording","event":"recorder_slice_start","event_type":42,"category":"recorder",` +
		`"entity":"sid-1","source":"recording","received_at":"2026-11-23T12:00:01.007Z","headers":{"content-type":"application/json",` +
		`"agora-signature":"` + text.SignatureV1 + `","agora-signature-v2":"` + text.SignatureV2 + `"},"body":"{\"a\":\"<&>\u2028\\n\"}\n"}` + "\n" +
		`{"id":"` + binary.ID.String() + `","product":"cloud_recording","event":"recorder_slice_start","event_type":42,"category":"recorder",` +
		`"entity":"sid-2","source":"recording","received_at":"2026-11-23T12:00:02.007Z","replay":2,"headers":{` +
		`"agora-signature-v2":"` + binary.SignatureV2 + `"},"body_base64":"/wA="}` + "\n"
	require.Empty(t, cmp.Diff(want, string(got)))
}

// FuzzBody: whatever the bytes, they come back.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{"", "{}", "\x00\x7f", "\u2028\u2029<>&\"\\/", "\ufffd", "\xff", "\xed\xa0\x80", "\xf0\x9f\x98\x80", "a\nb\r"} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "events.jsonl")
	s, err := filesink.New(config(path), "archive", slog.New(slog.DiscardHandler))
	require.NoError(f, err)
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, body []byte) {
		require.NoError(t, s.Close())
		require.NoError(t, os.RemoveAll(path))
		e := sinktest.Event(1, "sid")
		e.Body = body
		require.NoError(t, send(t, s, e))
		require.True(t, bytes.Equal(body, read(t, path)[0].Body))
	})
}

func TestTornLastLine(t *testing.T) {
	t.Parallel()
	e := sinktest.Event(1, "sid")
	whole := lines(t, e)
	long := `{"id":"` + strings.Repeat("a", 200<<10)
	tests := []struct {
		name, content, want string
	}{
		{"empty file", "", ""},
		{"whole lines", whole + whole, whole + whole},
		{"half a line", whole + whole[:len(whole)/2], whole},
		{"all but the newline", whole + whole[:len(whole)-1], whole},
		{"one byte", whole + "{", whole},
		{"only half a line", whole[:40], ""},
		{"half a line longer than a scan step", whole + long, whole},
		{"zeros after a power cut", whole + strings.Repeat("\x00", 5000), whole},
		{"newline at a scan step", whole + `{"id":"` + strings.Repeat("a", 64<<10-len(`{"id":"`)), whole},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.jsonl")
			require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o640))
			var log bytes.Buffer
			s, err := filesink.New(config(path), "archive", slog.New(slog.NewTextHandler(&log, nil)))
			require.NoError(t, err)
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, tt.want, string(got))
			if cut := len(tt.content) - len(tt.want); cut > 0 {
				require.Contains(t, log.String(), fmt.Sprintf("bytes=%d", cut))
			} else {
				require.Empty(t, log.String())
			}
			require.NoError(t, send(t, s, e))
			require.NoError(t, s.Close())
			got, err = os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, tt.want+whole, string(got))
		})
	}
}

// lines are what the sink writes for events.
func lines(t *testing.T, events ...*relay.Event) string {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	s := newSink(t, config(path))
	require.NoError(t, send(t, s, events...))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

// TestForeignFileIsLeftAlone: the path was pointed at a file of somebody else's, such as the configuration.
func TestForeignFileIsLeftAlone(t *testing.T) {
	t.Parallel()
	ours := lines(t, sinktest.Event(1, "sid"))
	for _, content := range []string{"first\nsecond without an end", "listen: :8080\n", "x", "{}\n", ours + "a note without an end"} {
		path := filepath.Join(t.TempDir(), "notes.txt")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o640))
		_, err := filesink.New(config(path), "archive", slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, path+" was not written by a file sink; choose another path")
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
}

func TestNewFindsBadPaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	notDir := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(notDir, nil, 0o640))
	for name, path := range map[string]string{"a directory": dir, "below a file": filepath.Join(notDir, "events.jsonl"), "a device": os.DevNull} {
		_, err := filesink.New(config(path), "archive", slog.New(slog.DiscardHandler))
		require.Error(t, err, name)
	}
}

// TestDiskThatIsAway: what may pass is no reason not to start. The path leads to a volume that is not there yet.
func TestDiskThatIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, volume := filepath.Join(dir, "events.jsonl"), filepath.Join(dir, "volume")
	require.NoError(t, os.Symlink(filepath.Join(volume, "events.jsonl"), path))
	var log bytes.Buffer
	s, err := filesink.New(config(path), "archive", slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	require.Contains(t, log.String(), "the file cannot be written; events wait until it can")
	e := sinktest.Event(1, "sid")
	require.ErrorIs(t, send(t, s, e), os.ErrNotExist)
	require.NoError(t, os.Mkdir(volume, 0o750))
	require.NoError(t, send(t, s, e))
	require.NoError(t, s.Close())
	require.Equal(t, idsOf(e), ids(read(t, filepath.Join(volume, "events.jsonl"))))
}

// TestSymbolicLink: what is set aside stays beside the file, on its volume, and the link stays.
func TestSymbolicLink(t *testing.T) {
	t.Parallel()
	path, volume := filepath.Join(t.TempDir(), "events.jsonl"), t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(volume, "big.jsonl"), path))
	s := newSink(t, config(path, func(c *filesink.Config) { c.MaxSize = 4 << 10 }))
	var want, got []string
	for n := range 20 {
		e := sinktest.Event(n, "sid")
		want = append(want, e.ID.String())
		require.NoError(t, send(t, s, e))
	}
	files, err := filepath.Glob(filepath.Join(volume, "big*.jsonl"))
	require.NoError(t, err)
	require.Greater(t, len(files), 2)
	for _, file := range files {
		got = append(got, ids(read(t, file))...)
	}
	require.Equal(t, want, got)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.NotZero(t, info.Mode()&os.ModeSymlink)

	other := filepath.Join(t.TempDir(), "other.jsonl") // the link is changed while the sink writes
	require.NoError(t, errors.Join(os.Remove(path), os.Symlink(other, path)))
	e := sinktest.Event(100, "sid")
	require.NoError(t, send(t, s, e))
	require.Equal(t, idsOf(e), ids(read(t, other)))
}

// TestFullDisk fills a real file system.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	volume := t.TempDir()
	if err := syscall.Mount("tmpfs", volume, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs the right to mount a file system: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(volume, syscall.MNT_DETACH)) })
	filler, path := filepath.Join(volume, "filler"), filepath.Join(volume, "events.jsonl")
	require.NoError(t, os.WriteFile(filler, make([]byte, 128<<10), 0o600))
	s := newSink(t, config(path, func(c *filesink.Config) { c.MaxSize = 32 << 10 }))
	var want []string
	full := 0
	for n := 0; n < 200; {
		batch := []*relay.Event{sinktest.Event(n, "sid"), sinktest.Event(n+1, "sid"), sinktest.Event(n+2, "sid")}
		if err := send(t, s, batch...); err != nil {
			require.ErrorIs(t, err, syscall.ENOSPC)
			if full++; full == 3 {
				require.NoError(t, os.Remove(filler))
			}
			continue
		}
		n += 3
		want = append(want, idsOf(batch...)...)
	}
	require.Equal(t, 3, full, "the disk was never full")
	require.NoError(t, s.Close())
	files, err := filepath.Glob(filepath.Join(volume, "events*.jsonl"))
	require.NoError(t, err)
	var got []string
	for _, file := range append(files[1:], files[0]) { // "events-" comes after "events."
		got = append(got, ids(read(t, file))...)
	}
	require.ElementsMatch(t, want, got, "each once")
}

// TestAnyHistory: writes, failures, restarts in the middle of a line, rotation and logrotate in any order. Whatever happened, every
// line is whole, and what was reported is there, in order.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		dir := t.TempDir()
		path := filepath.Join(dir, "events.jsonl")
		cfg := config(path, func(c *filesink.Config) { c.MaxSize = 6 << 10 })
		d := &disk{}
		start := func() *filesink.Sink {
			s, err := filesink.New(cfg, "archive", slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			s.Wrap(d.wrap)
			return s
		}
		s := start()
		var files []string // that were set aside, in the order in which they were
		setAside := func() {
			all, err := filepath.Glob(filepath.Join(dir, "events?*.jsonl")) // by name, which is by time
			require.NoError(t, err)
			for _, file := range all {
				if !slices.Contains(files, file) {
					files = append(files, file)
				}
			}
		}
		var reported []string
		next, half := 0, false
		for step := range 60 {
			switch action := random.IntN(10); {
			case action < 6:
				var batch []*relay.Event
				for n := range 1 + random.IntN(4) {
					batch = append(batch, sinktest.Event(next+n, "sid"))
				}
				if random.IntN(3) == 0 {
					d.set(failing{onWrite: `{"id"`, keep: random.IntN(3000), truncate: random.IntN(2) == 0})
				}
				if random.IntN(6) == 0 {
					d.set(failing{sync: true, truncate: random.IntN(2) == 0})
				}
				err := send(t, s, batch...)
				half = err != nil && d.get().truncate
				if err == nil {
					reported = append(reported, idsOf(batch...)...)
					next += len(batch)
				}
				d.set(failing{})
				setAside()
			case action < 8: // a crash in the middle of a write, and a start
				require.NoError(t, s.Close())
				if !half {
					line := lines(t, sinktest.Event(next, "sid"))
					f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
					require.NoError(t, err)
					_, err = io.WriteString(f, line[:random.IntN(len(line)+1)])
					require.NoError(t, errors.Join(err, f.Close()))
				}
				s = start()
				half = false
			case half: // moved away now, and forgotten by a restart, its half line would stay
			default: // logrotate
				moved := filepath.Join(dir, fmt.Sprintf("moved-%03d", step))
				if os.Rename(path, moved) == nil {
					files = append(files, moved)
				}
			}
		}
		if next > 0 { // and the last word is a success, which cleans up
			e := sinktest.Event(next, "sid")
			require.NoError(t, send(t, s, e))
			reported = append(reported, e.ID.String())
			setAside()
			var got []string
			for _, file := range append(files, path) {
				for _, id := range ids(read(t, file)) {
					if !slices.Contains(got, id) {
						got = append(got, id)
					}
				}
			}
			require.GreaterOrEqual(t, len(got), len(reported), "seed %d", seed)
			require.Equal(t, reported, got[:len(reported)], "seed %d", seed) // what follows was written and not reported
		}
		require.NoError(t, s.Close())
	}
}

func TestFailedWritesLeaveNoHalfLine(t *testing.T) {
	t.Parallel()
	faults := map[string]failing{
		"nothing written":              {onWrite: `{"id"`},
		"a short write":                {onWrite: `{"id"`, keep: 100},
		"whole lines and half a one":   {onWrite: `{"id"`, keep: 1500},
		"all written, sync fails":      {sync: true},
		"short write, cannot cut back": {onWrite: `{"id"`, keep: 100, truncate: true},
		"sync fails, cannot cut back":  {sync: true, truncate: true},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.jsonl")
			s := newSink(t, config(path))
			d := &disk{}
			s.Wrap(d.wrap)
			before, a, b := sinktest.Event(1, "sid"), sinktest.Event(2, "sid"), sinktest.Event(3, "sid")
			require.NoError(t, send(t, s, before))
			d.set(fault)
			for range 3 {
				require.ErrorIs(t, send(t, s, a, b), errDisk)
			}
			if !fault.truncate {
				require.Equal(t, idsOf(before), ids(read(t, path)))
			}
			d.set(failing{})
			require.NoError(t, send(t, s, a, b))
			require.Equal(t, idsOf(before, a, b), ids(read(t, path)))
		})
	}
}

// TestCrashDuringAppend restarts after every possible length of a last write.
func TestCrashDuringAppend(t *testing.T) {
	t.Parallel()
	taken, unsure := sinktest.Event(1, "sid"), sinktest.Event(2, "sid")
	all := lines(t, taken, unsure)
	first := strings.Index(all, "\n") + 1
	path := filepath.Join(t.TempDir(), "events.jsonl")
	for size := first; size <= len(all); size++ {
		require.NoError(t, os.WriteFile(path, []byte(all[:size]), 0o640))
		s := newSink(t, config(path))
		require.NoError(t, send(t, s, unsure))
		require.NoError(t, s.Close())
		want := idsOf(taken, unsure)
		if size == len(all) {
			want = idsOf(taken, unsure, unsure)
		}
		require.Equal(t, want, ids(read(t, path)), "crash after %d bytes", size)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	s := newSink(t, config(path, func(c *filesink.Config) { c.MaxSize = 4 << 10 }))
	clock := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s.SetClock(func() time.Time { clock = clock.Add(-time.Second); return clock }) // a clock that goes back
	var want []string
	for n := range 40 {
		e := sinktest.Event(n, "sid")
		want = append(want, e.ID.String())
		require.NoError(t, send(t, s, e))
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Greater(t, len(files), 5)
	require.Equal(t, []string{
		"events-20261123T115959.000Z.jsonl", "events-20261123T115959.001Z.jsonl", "events-20261123T115959.002Z.jsonl",
	}, []string{filepath.Base(files[0]), filepath.Base(files[1]), filepath.Base(files[2])})
	var got []string
	for _, file := range files { // by name: archives in the order of time, then the current one
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.LessOrEqual(t, info.Size(), int64(4<<10))
		require.Positive(t, info.Size())
		got = append(got, ids(read(t, file))...)
	}
	require.Equal(t, want, got)
}

func TestBatchLargerThanTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	s := newSink(t, config(path, func(c *filesink.Config) { c.MaxSize = 4 << 10 }))
	e := sinktest.Event(1, "sid")
	e.Body = bytes.Repeat([]byte("x"), 10<<10)
	require.NoError(t, send(t, s, e))
	require.NoError(t, send(t, s, e))
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, files, 2)
}

func TestMaxFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "events.jsonl")
	for _, foreign := range []string{"events-old.jsonl", "events-20200101T000000.000Z.jsonl.gz", "events-audit-20200101T000000.000Z.jsonl", "other-20200101T000000.000Z.jsonl",
		"29990101T000000.000Z.jsonl", "events-29990101T000000.000Z"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, foreign), nil, 0o640))
	}
	s := newSink(t, config(path, func(c *filesink.Config) { c.MaxSize, c.MaxFiles = 4<<10, 2 }))
	var last []string
	for n := range 60 {
		e := sinktest.Event(n, "sid")
		require.NoError(t, send(t, s, e))
		last = append(last, e.ID.String())
	}
	archives, err := filepath.Glob(filepath.Join(dir, "events-2???????T??????.???Z.jsonl"))
	require.NoError(t, err)
	require.Len(t, archives, 2)
	require.NotContains(t, strings.Join(archives, " "), "-2999", "archives are not named after files of others")
	var got []string
	for _, file := range append(archives, path) {
		got = append(got, ids(read(t, file))...)
	}
	require.Equal(t, last[len(last)-len(got):], got, "the newest stay")
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, all, 2+1+6, "files of others stay")
}

func TestMovedByOthers(t *testing.T) {
	t.Parallel()
	first, second := sinktest.Event(1, "sid"), sinktest.Event(2, "sid")
	moves := map[string]struct {
		do   func(path string) error
		want func(path string) map[string][]string
	}{
		"renamed": {
			func(path string) error { return os.Rename(path, path+".1") },
			func(path string) map[string][]string {
				return map[string][]string{path + ".1": idsOf(first), path: idsOf(second)}
			},
		},
		"removed": {os.Remove, func(path string) map[string][]string { return map[string][]string{path: idsOf(second)} }},
		"removed with its directory": {
			func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
			func(path string) map[string][]string { return map[string][]string{path: idsOf(second)} },
		},
		"replaced": {
			func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o640)) },
			func(path string) map[string][]string { return map[string][]string{path: idsOf(second)} },
		},
		"copied and truncated": {
			func(path string) error { return os.Truncate(path, 0) },
			func(path string) map[string][]string { return map[string][]string{path: idsOf(second)} },
		},
	}
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "archive", "events.jsonl")
			s := newSink(t, config(path))
			require.NoError(t, send(t, s, first))
			require.NoError(t, move.do(path))
			require.NoError(t, send(t, s, second))
			for file, want := range move.want(path) {
				require.Equal(t, want, ids(read(t, file)), file)
			}
		})
	}
}

// TestTruncatedThenFailing: after copytruncate a failed write must not be cut back to an end that is no more, which would
// fill the file with zeros.
func TestTruncatedThenFailing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	s := newSink(t, config(path))
	d := &disk{}
	s.Wrap(d.wrap)
	first, second := sinktest.Event(1, "sid"), sinktest.Event(2, "sid")
	require.NoError(t, send(t, s, first))
	require.NoError(t, os.Truncate(path, 0))
	d.set(failing{onWrite: `{"id"`, keep: 100})
	require.ErrorIs(t, send(t, s, second), errDisk)
	d.set(failing{})
	require.NoError(t, send(t, s, second))
	require.Equal(t, idsOf(second), ids(read(t, path)))
}

// TestMovedWithHalfALine: the file is moved away before what a failed write left in it could be cut off.
func TestMovedWithHalfALine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	s := newSink(t, config(path))
	d := &disk{}
	s.Wrap(d.wrap)
	first, second := sinktest.Event(1, "sid"), sinktest.Event(2, "sid")
	require.NoError(t, send(t, s, first))
	d.set(failing{onWrite: `{"id"`, keep: 100, truncate: true})
	require.ErrorIs(t, send(t, s, second), errDisk)
	require.NoError(t, os.Rename(path, path+".1"))
	d.set(failing{})
	require.NoError(t, send(t, s, second))
	require.Equal(t, idsOf(first), ids(read(t, path+".1")))
	require.Equal(t, idsOf(second), ids(read(t, path)))
}

// TestOneWriter: two sinks on one file. The second waits with a clear error, and takes over when the first ends, as
// on a reload.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first := newSink(t, config(path))
	a, b := sinktest.Event(1, "sid"), sinktest.Event(2, "sid")
	require.NoError(t, send(t, first, a))
	second := newSink(t, config(path))
	require.ErrorContains(t, send(t, second, b), "another sink or process is writing this file")
	require.NoError(t, first.Close())
	require.NoError(t, send(t, second, b))
	require.Equal(t, idsOf(a, b), ids(read(t, path)))
}

func TestFileIsPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "er", "events.jsonl")
	s := newSink(t, config(path))
	require.NoError(t, send(t, s, sinktest.Event(1, "sid")))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o027)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*filesink.Config)
		want   []string
	}{
		"defaults":              {func(*filesink.Config) {}, nil},
		"keep all, never split": {func(c *filesink.Config) { c.MaxSize = 0 }, nil},
		"no path":               {func(c *filesink.Config) { c.Path = "" }, []string{"path"}},
		"unit forgotten":        {func(c *filesink.Config) { c.MaxSize = 100 }, []string{"max_size"}},
		"negative":              {func(c *filesink.Config) { c.MaxSize, c.MaxFiles = -1, -1 }, []string{"max_size", "max_files"}},
		"max_files alone":       {func(c *filesink.Config) { c.MaxSize, c.MaxFiles = 0, 3 }, []string{"max_files"}},
	}
	for name, tt := range tests {
		cfg := config("events.jsonl", tt.change)
		var got []string
		cfg.Check(func(path, _, _ string, _ ...any) { got = append(got, path) })
		require.Equal(t, tt.want, got, name)
	}
}

// BenchmarkSend writes and syncs batches; the disk decides.
func BenchmarkSend(b *testing.B) {
	for _, n := range []int{1, 50, 500} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s, err := filesink.New(config(filepath.Join(b.TempDir(), "events.jsonl")), "archive", slog.New(slog.DiscardHandler))
			require.NoError(b, err)
			defer s.Close()
			var events []*relay.Event
			size := 0
			for i := range n {
				events = append(events, sinktest.Event(i, "sid-"+strconv.Itoa(i)))
				size += len(events[i].Body)
			}
			batch, lane := sinktest.Batch(events...), s.Lane(events[0])
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Send(b.Context(), lane, batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
