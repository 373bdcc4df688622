package filesink

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Archived files carry the time of their rotation: events.jsonl becomes events-20261123T120000.000Z.jsonl. Numbered names would
// all have to move with every rotation, and shippers would take them for new files.
const stampLayout = "20060102T150405.000Z"

// rotate moves the full file aside and opens a new one.
func (s *Sink) rotate() error {
	stamps, err := s.archives()
	if err != nil {
		return err
	}
	stamp := s.now().UTC().Truncate(time.Millisecond)
	if n := len(stamps); n > 0 && !stamp.After(stamps[n-1]) {
		stamp = stamps[n-1].Add(time.Millisecond) // the clock went back: names stay in order, nothing is overwritten
	}
	if err := os.Rename(s.path, s.archive(stamp)); err != nil {
		return err
	}
	if err := s.reopen(); err != nil {
		return err
	}
	s.prune(append(stamps, stamp))
	return nil
}

// prune removes the oldest archives beyond max_files. One that resists is tried again at the next rotation.
func (s *Sink) prune(stamps []time.Time) {
	if s.cfg.MaxFiles == 0 {
		return
	}
	for _, stamp := range stamps[:max(0, len(stamps)-s.cfg.MaxFiles)] {
		path := s.archive(stamp)
		if err := os.Remove(path); err != nil {
			s.logger.Warn("removing an archive", "path", path, "error", err)
			continue
		}
		s.logger.Info("removed the oldest archive", "path", path)
	}
}

// archives are the times of the archived files, oldest first.
func (s *Sink) archives() ([]time.Time, error) {
	entries, err := os.ReadDir(filepath.Dir(s.path)) // sorted by name, and so by time
	if err != nil {
		return nil, err
	}
	before, after := s.archiveParts()
	var stamps []time.Time
	for _, entry := range entries {
		name, isOurs := strings.CutPrefix(entry.Name(), filepath.Base(before))
		name, hasEnd := strings.CutSuffix(name, after)
		stamp, err := time.Parse(stampLayout, name)
		if isOurs && hasEnd && err == nil {
			stamps = append(stamps, stamp)
		}
	}
	return stamps, nil
}

func (s *Sink) archive(stamp time.Time) string {
	before, after := s.archiveParts()
	return before + stamp.Format(stampLayout) + after
}

func (s *Sink) archiveParts() (before, after string) {
	after = filepath.Ext(s.path)
	return strings.TrimSuffix(s.path, after) + "-", after
}
