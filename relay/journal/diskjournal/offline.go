package diskjournal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
)

// Report is what Verify and Export find in a directory.
type Report struct {
	Segments   int
	Records    uint64 // in the log
	Kept       uint64 // beside it, because their segment is gone
	Bytes      int64  // of both
	First      journal.Position
	Last       journal.Position
	Damage     []Damage
	TornBytes  int64                // of an unfinished write at the end, never acknowledged
	Unknown    []string             // files that are not the journal's
	StateError error                // why state.db cannot be read: sinks, dead letters and kept records are not known
	Sinks      []journal.SinkStatus // what each is owed, by name
}

// Damage is a stretch of a file that cannot be read.
type Damage struct {
	File    string // in the directory
	Offset  int64
	Length  int64
	Missing int64            // records, at most
	First   journal.Position // of them
}

// Sound reports whether everything could be read.
func (r *Report) Sound() bool { return len(r.Damage) == 0 && r.StateError == nil }

// Verify reads the whole journal in a directory that nobody has open (ErrLocked), and changes nothing.
func Verify(dir string) (*Report, error) {
	return Export(dir, func(*journal.Record) error { return nil })
}

// Export is Verify, and calls fn with every record that can be read, in order, until it fails.
func Export(dir string, fn func(*journal.Record) error) (*Report, error) {
	fsys := readOnlyFS{DiskFS{}}
	report := &Report{}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(names, formatName):
		if err := claimFormat(fsys, dir); err != nil {
			return nil, err
		}
	case slices.Contains(names, "log"): // what is left of one
		report.Damage = append(report.Damage, Damage{File: formatName})
	default:
		return nil, fmt.Errorf("%s is not a journal: %w", dir, ErrForeign)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	defer lock.Close()
	for _, name := range names {
		// The trail is no part of the journal, but at home beside it.
		if !slices.Contains([]string{formatName, formatName + ".tmp", lockName, "log", "state.db", "state.db.tmp", "lost+found", "trail"}, name) {
			report.Unknown = append(report.Unknown, name)
		}
	}

	j := &Journal{dir: dir, fs: fsys, logger: slog.New(slog.DiscardHandler), sinks: make(map[string]*Cursor),
		byID: make(map[sinkID]*Cursor), accounts: make(map[string]*sourceAccount)}
	report.StateError = j.openStateReadOnly(dir)
	defer func() {
		if j.state != nil {
			_ = j.state.close()
		}
	}()
	if err := j.readLog(filepath.Join(dir, "log"), report); err != nil {
		return report, err
	}
	if report.StateError == nil {
		// What the last checkpoint does not know yet is owed all the same.
		switch err := j.foldTail(); {
		case errors.Is(err, ErrDamaged):
			report.StateError = err
		case err != nil:
			return report, err
		default:
			report.Sinks = j.Sinks()
		}
	}
	return report, j.export(report, fn)
}

// openStateReadOnly reads the state if all of it can be read; otherwise nothing in it is believed but kept records, which
// prove themselves.
func (j *Journal) openStateReadOnly(dir string) (err error) {
	if j.state, err = openStateReadOnly(filepath.Join(dir, "state.db")); err != nil {
		return err
	}
	if err = j.loadState(); err == nil {
		err = j.auditState()
	}
	if err != nil {
		j.known, j.keptBytes = durable{}, 0
		j.sinks, j.byID, j.replays = make(map[string]*Cursor), make(map[sinkID]*Cursor), nil
	}
	return err
}

// openStateReadOnly leaves the file alone.
func openStateReadOnly(path string) (s *state, err error) {
	defer guardState(&err)()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	return &state{db: db, path: path}, nil
}

// auditState touches every page, so that damage shows, and compares what is there with what was counted.
func (j *Journal) auditState() error {
	kept := int64(0)
	err := j.state.view(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return table{b, name}.ForEach(func(k, v []byte) error {
				if bytes.Equal(name, bucketKept) {
					kept += int64(len(v))
				}
				return nil
			})
		})
	})
	if err == nil && kept != j.keptBytes {
		err = fmt.Errorf("state: %d bytes of kept records where there should be %d: %w", kept, j.keptBytes, ErrDamaged)
	}
	return errors.Join(err, j.auditLetters())
}

func (j *Journal) readLog(dir string, report *Report) (err error) {
	j.log, err = openSegmentsWith(j.fs, dir, j.logger, j.known, func(d Damage) { report.Damage = append(report.Damage, d) })
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	names, err := j.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := parseSegmentName(name); !ok {
			report.Unknown = append(report.Unknown, filepath.Join("log", name))
		}
	}
	report.Segments, report.TornBytes, report.Bytes = len(j.log.list), j.log.torn, j.used()
	return nil
}

func (j *Journal) export(report *Report, fn func(*journal.Record) error) error {
	var failed error
	take := func(r *journal.Record, body []byte, end place) bool {
		if report.First.IsZero() {
			report.First = r.Position
		}
		report.Last = r.Position
		if end == (place{}) {
			report.Kept++
		} else {
			report.Records++
		}
		r.Body = bytes.Clone(body)
		failed = fn(r)
		return failed == nil
	}
	for {
		err := j.visit(in(report.Last), ^position(0)-1, place{}, take)
		if j.state == nil || !(errors.Is(err, ErrDamaged) || errors.Is(err, errStateUnreadable)) {
			return errors.Join(err, failed)
		}
		report.StateError = errors.Join(report.StateError, err)
		_ = j.state.close() // go on without
		j.state = nil
	}
}

// readOnlyFS changes nothing: what recovery would write again or cut stays as it is.
type readOnlyFS struct{ FS }

func (readOnlyFS) MkdirAll(string) error          { return nil }
func (readOnlyFS) Create(string) (File, error)    { return nil, fs.ErrPermission }
func (readOnlyFS) Remove(string) error            { return nil }
func (readOnlyFS) Rename(string, string) error    { return fs.ErrPermission }
func (readOnlyFS) SyncDir(string) error           { return nil }
func (readOnlyFS) CommitState(func() error) error { return fs.ErrPermission }

func (f readOnlyFS) Edit(name string) (File, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{file}, nil
}

// Lock does without where there is no file: then nobody has the directory open.
func (readOnlyFS) Lock(name string) (io.Closer, error) {
	lock, err := lockFile(name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil
	}
	return lock, err
}

type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (readOnlyFile) Sync() error                            { return nil }
func (readOnlyFile) Allocate(int64, int64) error            { return nil }
func (readOnlyFile) Truncate(int64) error                   { return fs.ErrPermission }
