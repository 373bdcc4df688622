package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
		byID: make(map[SinkID]*Cursor), accounts: make(map[string]*SourceAccount)}
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
		if err := j.foldTail(); err != nil {
			return report, err
		}
		report.Sinks = j.Sinks()
	}
	return report, j.export(report, fn)
}

// openStateReadOnly reads the state if all of it can be read; otherwise j goes without.
func (j *Journal) openStateReadOnly(dir string) error {
	s, err := openStateReadOnly(filepath.Join(dir, "state.db"))
	if err != nil {
		return err
	}
	j.state = s
	if err = errors.Join(j.loadState(), s.readAll()); err != nil {
		j.withoutState()
	}
	return err
}

func (j *Journal) withoutState() {
	_ = j.state.close()
	j.state, j.known, j.keptBytes = nil, durable{}, 0
	j.sinks, j.byID, j.replays = make(map[string]*Cursor), make(map[SinkID]*Cursor), nil
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

// readAll touches every page, so that damage shows, and decodes what a start does not.
func (s *state) readAll() error {
	return s.view(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(bucket []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				err := error(nil)
				switch string(bucket) {
				case string(bucketDead):
					_, err = decodeLetter(keyPosition(k[len(k)-8:]), v)
				case string(bucketKept):
					_, _, err = decodeHeader(keyPosition(k), v)
				default:
					crc32.Checksum(v, castagnoli)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", bucket, err)
				}
				return nil
			})
		})
	})
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
	report.Damage = append(report.Damage, j.log.missing(j.known)...)
	report.Segments, report.TornBytes, report.Bytes = len(j.log.list), j.log.torn, j.used()
	return nil
}

// missing finds files that are gone: each segment names the one before it. Only the oldest are ever deleted.
func (l *segments) missing(known durable) (list []Damage) {
	for i, s := range l.list {
		if i > 0 && s.prev.first > l.list[i-1].first {
			after := l.list[i-1].last
			list = append(list, Damage{File: "log", Missing: int64(s.first - 1 - after), First: after + 1})
		}
	}
	if len(l.list) == 0 && known.off > 0 {
		list = append(list, Damage{File: "log", Missing: int64(known.pos), First: 1})
	}
	return list
}

func (j *Journal) export(report *Report, fn func(*Record) error) error {
	var failed error
	take := func(r *Record, body []byte, end place) bool {
		if report.First == 0 {
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
	err := j.visit(0, ^Position(0)-1, place{}, take)
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

func (readOnlyFS) Open(name string) (File, error) {
	f, err := openDisk(name, os.O_RDONLY) // the volume may be read-only, too
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
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
