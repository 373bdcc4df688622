// Package filesink appends events to a file, one JSON object a line, and syncs it before it reports them as taken. Every
// line of the file is whole, also after a crash or on a full disk; lines that were written and not yet reported can be there twice.
//
// The file can be moved away or truncated by others (logrotate); a new one is made. Only one sink writes a file at a
// time. What it leaves to others: compressing and removing archives.
package filesink

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

const (
	maxBatchEvents = 500
	maxBatchBytes  = 1 << 20
	keptBuffer     = 4 << 20 // a buffer that grew beyond it is given back
)

// Sink writes one file. All its events are one lane, so Send is never called concurrently and needs no lock.
type Sink struct {
	cfg    Config
	logger *slog.Logger
	open   func(path string) (file, error) // tests put failing disks here
	now    func() time.Time

	file  file   // nil: to be opened
	path  string // of the file, where symbolic links lead to
	end   int64  // where the next line begins
	dirty bool   // a failed write may have left bytes after end
	lines []byte // of the last batch, for its room
}

var _ relay.Sink = (*Sink)(nil)

// New makes a sink of cfg, which must pass its Check. It tries to open the file, and removes a torn last line; but it holds
// nothing open until the first Send: on a reload the sink that this one replaces still has the file, and that is no
// error. Neither is a disk that is full or away, which may pass: events wait, and nobody else does.
func New(cfg Config, name string, logger *slog.Logger) (*Sink, error) {
	s := &Sink{cfg: cfg, logger: logger.With("sink", name), open: openAppend, now: time.Now}
	if err := problem.Collect(cfg.Check); err != nil {
		return nil, err
	}
	switch err := s.reopen(); {
	case err == nil, errors.Is(err, errLocked):
	case wrongPath(err):
		return nil, err
	default:
		s.logger.Error("the file cannot be written; events wait until it can", "path", cfg.Path, "error", err)
	}
	return s, s.Close()
}

// Lane is the same for all events: a file has one order.
func (s *Sink) Lane(*relay.Event) relay.Lane { return relay.Lane{Key: "file"} }

// MaxBatch bounds what one sync pays for.
func (s *Sink) MaxBatch() (events, bytes int) { return maxBatchEvents, maxBatchBytes }

// Close closes the file. The sink may be used again, and opens it again.
func (s *Sink) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// Send appends batch and syncs: all of it was taken, or nothing. No failure of a disk is permanent. A write
// that has begun is not cut short when ctx ends.
func (s *Sink) Send(ctx context.Context, _ relay.Lane, batch []relay.Attempt) (taken int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	lines := s.encode(batch)
	if err := s.ready(); err != nil {
		return 0, err
	}
	if s.cfg.MaxSize > 0 && s.end > 0 && s.end+int64(len(lines)) > s.cfg.MaxSize {
		if err := s.rotate(); err != nil {
			return 0, fmt.Errorf("archive %s: %w", s.cfg.Path, err)
		}
	}
	if err := s.append(lines); err != nil {
		return 0, err
	}
	return len(batch), nil
}

func (s *Sink) encode(batch []relay.Attempt) []byte {
	if cap(s.lines) > keptBuffer {
		s.lines = nil
	}
	s.lines = s.lines[:0]
	for i := range batch {
		s.lines = appendLine(s.lines, &batch[i])
	}
	return s.lines
}

// ready sees to it that the file is open, is the one at the path, and ends with a whole line.
func (s *Sink) ready() error {
	if s.file == nil {
		return s.reopen()
	}
	mine, err := s.file.Stat()
	if err != nil {
		return err
	}
	atPath, err := os.Stat(s.cfg.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !os.SameFile(mine, atPath) {
		s.logger.Info("file was moved away, starting a new one", "path", s.cfg.Path)
		if s.dirty {
			if err := s.cutBack(); err != nil {
				return err
			}
		}
		return s.reopen()
	}
	return s.mend(mine.Size())
}

// mend brings the file and s.end together again after a failed write of ours or a truncation by others.
func (s *Sink) mend(size int64) error {
	if size < s.end {
		s.end = size // logrotate's copytruncate; cutting back to the old end would add zeros
	}
	if s.dirty {
		return s.cutBack()
	}
	if size > s.end { // somebody else appends
		return s.findEnd(size)
	}
	return nil
}

// append writes lines and syncs. After a failure nothing beyond end is trusted: it is cut off, now or before the
// next write, and written anew.
func (s *Sink) append(lines []byte) error {
	_, err := s.file.Write(lines)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		s.dirty = true
		if cutErr := s.cutBack(); cutErr != nil {
			s.logger.Warn("half a write stays in the file until the next attempt", "path", s.cfg.Path, "error", cutErr)
		}
		return err
	}
	s.end += int64(len(lines))
	return nil
}

func (s *Sink) cutBack() error {
	if err := s.file.Truncate(s.end); err != nil {
		return err
	}
	s.dirty = false
	return nil
}

// reopen opens the file at the path, alone, and removes a torn last line.
func (s *Sink) reopen() error {
	if err := s.Close(); err != nil {
		s.logger.Warn("closing", "path", s.cfg.Path, "error", err) // all in it was synced
	}
	if err := makeDir(filepath.Dir(s.cfg.Path)); err != nil {
		return err
	}
	f, err := s.open(s.cfg.Path)
	if err != nil {
		return err
	}
	s.file, s.dirty = f, false
	if err := s.adopt(); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// adopt makes the file just opened ours.
func (s *Sink) adopt() (err error) {
	if s.path, err = filepath.EvalSymlinks(s.cfg.Path); err != nil {
		return err
	}
	if err := lock(s.file); err != nil {
		return fmt.Errorf("%s: %w", s.cfg.Path, err)
	}
	info, err := s.file.Stat() // after the lock: the size stands still from here on
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s %w", s.cfg.Path, errNotOurs)
	}
	if err := syncDir(filepath.Dir(s.path)); err != nil {
		return err
	}
	return s.findEnd(info.Size())
}

// findEnd sets end behind the last newline and cuts off what follows it. Somebody may have pointed the path at another file:
// that one is neither cut nor added to.
func (s *Sink) findEnd(size int64) error {
	end, err := lineEnd(s.file, size)
	if err != nil {
		return err
	}
	for _, offset := range []int64{0, end} {
		ours, err := isOurs(s.file, offset)
		if err != nil {
			return err
		}
		if !ours {
			return fmt.Errorf("%s %w", s.cfg.Path, errNotOurs)
		}
	}
	if end < size {
		if err := s.file.Truncate(end); err != nil {
			return err
		}
		s.logger.Warn("removed a torn last line", "path", s.cfg.Path, "bytes", size-end)
	}
	s.end = end
	return nil
}
