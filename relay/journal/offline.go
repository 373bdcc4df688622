package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Report is what Verify and Export find in a directory.
type Report struct {
	Segments   int
	Records    uint64 // in the log
	Kept       uint64 // beside it, because their segment is gone
	Bytes      int64  // of both
	First      Position
	Last       Position
	Damage     []Damage
	TornBytes  int64        // of an unfinished write at the end, never acknowledged
	Unknown    []string     // files that are not the journal's
	StateError error        // why state.db cannot be read: sinks, dead letters and kept records are not known
	Sinks      []SinkStatus // what each is owed, by name
}

// Damage is a stretch of a file that cannot be read.
type Damage struct {
	File    string // in the directory
	Offset  int64
	Length  int64
	Missing int64    // records, at most
	First   Position // of them
}

// Sound tells whether everything could be read.
func (r *Report) Sound() bool { return len(r.Damage) == 0 && r.StateError == nil }

// Verify reads the whole journal in a directory that nobody has open (ErrLocked), and changes nothing.
func Verify(dir string) (*Report, error) { return Export(dir, func(*Record) error { return nil }) }

// Export is Verify, and calls fn with every record that can be read, in order, until it fails.
func Export(dir string, fn func(*Record) error) (*Report, error) {
	fsys := readOnlyFS{DiskFS{}}
	report := &Report{}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, formatName) {
		return nil, fmt.Errorf("%s is not a journal: %w", dir, ErrForeign)
	}
	if err := claimFormat(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	defer lock.Close()
	for _, name := range names {
		if !slices.Contains([]string{formatName, formatName + ".tmp", lockName, "log", "state.db", "state.db.tmp", "lost+found"}, name) {
			report.Unknown = append(report.Unknown, name)
		}
	}

	j := &Journal{dir: dir, fs: fsys, logger: slog.New(slog.DiscardHandler), sinks: make(map[string]*Cursor),
		byID: make(map[SinkID]*Cursor), accounts: make(map[string]*SourceAccount)}
	if report.StateError = j.openStateReadOnly(dir); report.StateError == nil {
		defer j.state.close()
	}
	if err := j.readLog(filepath.Join(dir, "log"), report); err != nil {
		return report, err
	}
	if report.StateError == nil {
		// What the last checkpoint does not know yet is owed all the same.
		if err := j.foldTail(); err != nil {
			return report, err
		}
		report.Sinks = j.Sinks()
	}
	return report, j.export(report, fn)
}

// openStateReadOnly reads the state if it can be read; otherwise j goes without.
func (j *Journal) openStateReadOnly(dir string) (err error) {
	defer recoverState(&err)
	path := filepath.Join(dir, "state.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return err
	}
	j.state = &state{db: db, path: path, fs: j.fs}
	if err = j.loadState(); err != nil {
		err = errors.Join(err, j.state.close())
		j.state, j.known = nil, durable{}
	}
	return err
}

func (j *Journal) readLog(dir string, report *Report) (err error) {
	var mu sync.Mutex
	j.log, err = openSegmentsWith(j.fs, dir, j.logger, j.known, func(d Damage) {
		mu.Lock()
		defer mu.Unlock()
		report.Damage = append(report.Damage, d)
	})
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	names, err := j.fs.List(dir)
	for _, name := range names {
		if _, ok := parseSegmentName(name); !ok {
			report.Unknown = append(report.Unknown, filepath.Join("log", name))
		}
	}
	report.Segments, report.TornBytes, report.Bytes = len(j.log.list), j.log.torn, j.used()
	return err
}

func (j *Journal) export(report *Report, fn func(*Record) error) error {
	var failed error
	take := func(r *Record) bool {
		if report.First == 0 {
			report.First = r.Position
		}
		report.Last = r.Position
		if r.Position < j.log.oldest() {
			report.Kept++
		} else {
			report.Records++
		}
		failed = fn(r)
		return failed == nil
	}
	err := j.Scan(context.Background(), 1, ^Position(0)-1, func(*Record) bool { return true }, take)
	return errors.Join(err, failed)
}

// readOnlyFS changes nothing: what recovery would write again or cut stays as it is.
type readOnlyFS struct{ FS }

func (readOnlyFS) MkdirAll(string) error          { return nil }
func (readOnlyFS) Create(string) (File, error)    { return nil, fs.ErrPermission }
func (readOnlyFS) Remove(string) error            { return nil }
func (readOnlyFS) Rename(string, string) error    { return fs.ErrPermission }
func (readOnlyFS) SyncDir(string) error           { return nil }
func (readOnlyFS) CommitState(func() error) error { return fs.ErrPermission }
func (r readOnlyFS) Open(name string) (File, error) {
	f, err := r.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (readOnlyFile) Sync() error                            { return nil }
func (readOnlyFile) Allocate(int64, int64) error            { return nil }
func (readOnlyFile) Truncate(int64) error                   { return fs.ErrPermission }
