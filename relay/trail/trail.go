// Package trail keeps what happened to events, copies that came and attempts that were made, so that somebody can follow
// one event without a tracing backend, also after a restart.
//
// It is a help for people and no account: nothing waits for it and nothing is synced. It takes a bounded part of the disk,
// of which the oldest half goes when it is full. What comes faster than the disk takes it, or while the disk has no room, is
// left out and counted; a power cut takes the last moments. The journal alone knows what is owed.
package trail

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	fileSize   = 128 << 20 // of each of two files
	bufferSize = 4 << 20   // entries that wait to be written
	interval   = 200 * time.Millisecond
	maxLine    = 8 << 10
	textSize   = 300 // of an error, which may quote the far side

	// Of an event that was tried for days the newest are the ones to look at.
	maxEntries = 100
)

// What an entry is about.
const (
	Copy    = "copy"
	Attempt = "attempt"
	Dead    = "dead"  // a delivery became a dead letter
	Lever   = "lever" // an operator did something; of the zero event, as it may be about many
)

// ID names an event.
type ID [16]byte

// MarshalText writes 32 hex digits.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads them.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != 2*len(id) {
		return errors.New("no event id")
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// Entry is one thing that happened to an event. A line of the files is an entry.
type Entry struct {
	Event    ID        `json:"event,omitzero"` // in a line comes first: a reader finds it without parsing the line
	What     string    `json:"what"`
	At       time.Time `json:"at"`
	Source   string    `json:"source,omitempty"`   // of a copy
	Standing string    `json:"standing,omitempty"` // of a copy: known, or in_flight while the first was being stored
	Sink     string    `json:"sink,omitempty"`     // of an attempt, as all up to Took
	Number   int       `json:"number,omitempty"`
	Replay   uint32    `json:"replay,omitempty"`
	Outcome  string    `json:"outcome,omitempty"` // delivered, failed or refused, as in metrics
	Reason   string    `json:"reason,omitempty"`
	Error    string    `json:"error,omitempty"`
	Took     float64   `json:"took_seconds,omitempty"`

	// Of a lever, as Sink, Replay, Reason and Error may be.
	By     string          `json:"by,omitempty"`
	Action string          `json:"action,omitempty"`
	To     string          `json:"to,omitempty"`
	Count  uint64          `json:"count,omitempty"`
	Filter json.RawMessage `json:"filter,omitempty"`
}

// append writes the line that encoding/json would, at a tenth of its cost: there is one for each copy and attempt.
func (e *Entry) append(to []byte) []byte {
	to = hex.AppendEncode(append(to, linePrefix...), e.Event[:])
	to = appendText(append(to, '"'), "what", e.What, true)
	to = e.At.AppendFormat(append(to, `,"at":"`...), time.RFC3339Nano)
	to = append(to, '"')
	to = appendText(to, "source", e.Source, false)
	to = appendText(to, "standing", e.Standing, false)
	to = appendText(to, "sink", e.Sink, false)
	to = appendNumber(to, "number", int64(e.Number))
	to = appendNumber(to, "replay", int64(e.Replay))
	to = appendText(to, "outcome", e.Outcome, false)
	to = appendText(to, "reason", e.Reason, false)
	to = appendText(to, "error", e.Error, false)
	if e.Took != 0 {
		to = strconv.AppendFloat(append(to, `,"took_seconds":`...), e.Took, 'f', -1, 64)
	}
	to = appendText(to, "by", e.By, false)
	to = appendText(to, "action", e.Action, false)
	to = appendText(to, "to", e.To, false)
	to = appendNumber(to, "count", int64(e.Count))
	if len(e.Filter) > 0 {
		to = append(append(to, `,"filter":`...), e.Filter...)
	}
	return append(to, "}\n"...)
}

func appendText(to []byte, name, value string, always bool) []byte {
	if value == "" && !always {
		return to
	}
	to = append(append(append(to, `,"`...), name...), `":`...)
	to, _ = jsontext.AppendQuote(to, value) // its error is that of invalid UTF-8, for which it writes the replacement character
	return to
}

func appendNumber(to []byte, name string, value int64) []byte {
	if value == 0 {
		return to
	}
	return strconv.AppendInt(append(append(append(to, `,"`...), name...), `":`...), value, 10)
}

var linePrefix = []byte(`{"event":"`)

// Trail is open as soon as there is something to write. Its methods may be called concurrently; a nil Trail keeps nothing.
type Trail struct {
	dir   string
	room  func() bool
	log   *slog.Logger
	limit int64 // of each file
	lost  atomic.Int64
	wake  chan struct{} // there is something to write

	mu      sync.Mutex // guards pending
	pending bytes.Buffer
	entries int64 // in pending

	writing sync.Mutex // guards what follows, and the names of the files
	file    *os.File
	size    int64
	failing bool
}

// New makes a trail in dir, which need not exist. While room says no, nothing is written. It starts nothing and touches no disk.
func New(dir string, room func() bool, log *slog.Logger) *Trail {
	return &Trail{dir: dir, room: room, log: log, limit: fileSize, wake: make(chan struct{}, 1)}
}

// Note keeps an entry. It does not wait.
func (t *Trail) Note(e Entry) {
	if t == nil {
		return
	}
	e.Error = e.Error[:min(len(e.Error), textSize)]
	e.Reason = e.Reason[:min(len(e.Reason), textSize)]
	t.mu.Lock()
	defer t.mu.Unlock()
	line := e.append(t.pending.AvailableBuffer())
	if len(line) > maxLine || t.pending.Len()+len(line) > bufferSize {
		t.lost.Add(1)
		return
	}
	t.pending.Write(line)
	if t.entries++; t.entries == 1 {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// Keep is Note for what is seldom and must not be lost: it is written, though not synced, when Keep returns.
func (t *Trail) Keep(e Entry) {
	if t == nil {
		return
	}
	t.Note(e)
	t.flush()
}

// Lost counts entries that were left out.
func (t *Trail) Lost() int64 {
	if t == nil {
		return 0
	}
	return t.lost.Load()
}

// Run writes what is noted until ctx ends, then the rest. It waits a moment for more, and does nothing while there is nothing.
func (t *Trail) Run(ctx context.Context) error {
	gather := time.NewTimer(interval)
	defer gather.Stop()
	for {
		select {
		case <-t.wake:
			gather.Reset(interval)
		case <-gather.C:
			t.flush()
		case <-ctx.Done():
			t.flush()
			t.writing.Lock()
			defer t.writing.Unlock()
			return t.close()
		}
	}
}

// flush writes what waits. What cannot be written is lost: the next entries have the better chance.
func (t *Trail) flush() {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	lines, n := bytes.Clone(t.pending.Bytes()), t.entries
	t.pending.Reset()
	t.entries = 0
	t.mu.Unlock()
	if len(lines) == 0 {
		return
	}
	err := error(nil)
	if t.room() {
		err = t.write(lines)
	} else {
		t.lost.Add(n)
	}
	if err != nil {
		t.lost.Add(n)
		if !t.failing {
			t.log.Warn("what happens to events is not kept for inspect", "error", err)
		}
		_ = t.close() // opened again with the next
	}
	t.failing = err != nil
}

func (t *Trail) write(lines []byte) error {
	if t.file == nil {
		if err := t.open(); err != nil {
			return err
		}
	}
	if t.size+int64(len(lines)) > t.limit {
		if err := errors.Join(t.close(), os.Rename(t.newer(), t.older())); err != nil {
			return err
		}
		if err := t.open(); err != nil {
			return err
		}
	}
	n, err := t.file.Write(lines)
	t.size += int64(n)
	return err
}

func (t *Trail) newer() string { return filepath.Join(t.dir, "new.jsonl") }
func (t *Trail) older() string { return filepath.Join(t.dir, "old.jsonl") }

// open goes on with the newer file. The line that a crash tore ends here, so that it spoils no other.
func (t *Trail) open() error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(t.newer(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		_, err = f.Write([]byte{'\n'})
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	t.file, t.size = f, info.Size()+1
	return nil
}

func (t *Trail) close() error {
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// Of returns what is known of some events, the oldest first; of each at most the newest hundred entries. Which of them a lever is
// about is asked of about, with what is known before it. since says from when on the trail is whole; the zero time stands for ever.
func (t *Trail) Of(ctx context.Context, events []ID, about func(lever Entry, known map[ID][]Entry) []ID) (found map[ID][]Entry, since time.Time, err error) {
	found = make(map[ID][]Entry, len(events))
	if t == nil {
		return found, time.Now(), nil
	}
	for _, id := range events {
		found[id] = nil
	}
	t.flush()
	t.writing.Lock()
	var files []*os.File
	var errs []error
	for _, name := range []string{t.older(), t.newer()} {
		f, err := os.Open(name)
		if err == nil {
			defer f.Close()
			files = append(files, f)
		} else if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	t.writing.Unlock()
	for i, f := range files {
		first, err := search(ctx, f, found, about)
		if i < len(files)-1 {
			since = first
		}
		errs = append(errs, err)
	}
	return found, since, errors.Join(errs...)
}

// search adds the entries of wanted events to found, whose keys they are, and returns when the first of all entries was made.
func search(ctx context.Context, from io.Reader, found map[ID][]Entry, about func(Entry, map[ID][]Entry) []ID) (first time.Time, err error) {
	lines := bufio.NewReaderSize(from, 64<<10)
	for n := 0; ; n++ {
		line, err := lines.ReadSlice('\n')
		switch {
		case err == io.EOF:
			return first, nil // what is left is being written, or torn
		case err != nil && err != bufio.ErrBufferFull:
			return first, err
		case n%4096 == 0 && ctx.Err() != nil:
			return first, ctx.Err()
		}
		var id ID
		hexID, ok := bytes.CutPrefix(line, linePrefix)
		if !ok || len(hexID) < 2*len(id) || id.UnmarshalText(hexID[:2*len(id)]) != nil {
			continue
		}
		_, wanted := found[id]
		var e Entry
		if !wanted && id != (ID{}) && !first.IsZero() || json.Unmarshal(line, &e) != nil {
			continue
		}
		if first.IsZero() {
			first = e.At
		}
		ids := []ID{id}
		if e.What == Lever {
			ids = about(e, found)
		}
		for _, id := range ids {
			if have, wanted := found[id]; wanted {
				found[id] = append(have[max(0, len(have)-maxEntries+1):], e)
			}
		}
	}
}
