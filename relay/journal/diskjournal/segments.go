package diskjournal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sort"
	"sync"
)

// segments is the log: its files in order, and the frontier, which is the end of the last one. Only the committer
// adds to it, only the sweep removes from it, everybody reads.
type segments struct {
	fs     FS
	dir    string
	logger *slog.Logger
	found  func(Damage)

	mu       sync.RWMutex      // guards what follows and the fields of each segment
	list     []*segment        // ascending by first
	frontier position          // last position that is on disk; no cursor, dead letter or replay is beyond it
	strays   []string          // files without a record, to be removed when a later segment stands
	damaged  int64             // stretches found damaged
	lost     int64             // positions in them
	lostKept map[position]bool // of those, the ones in state.db
	blocks   sync.Pool         // *[]byte to read into
	torn     int64             // bytes of an unfinished write, cut at start
	floor    position          // positions up to here name files: not to be used again
}

// durable is what the last checkpoint knows to be on disk.
type durable struct {
	mark          // of the frontier: position, offset of the end
	seg  position // segment the offset is in
}

// openSegments finds the files and their extents. Only the end of the last segment has to be searched for; the others'
// are in the headers of their successors.
func openSegments(fsys FS, dir string, logger *slog.Logger, known durable) (*segments, error) {
	return openSegmentsWith(fsys, dir, logger, known, func(Damage) {})
}

// openSegmentsWith also tells found of every stretch that is damaged, now and later, once.
func openSegmentsWith(fsys FS, dir string, logger *slog.Logger, known durable, found func(Damage)) (*segments, error) {
	l := &segments{fs: fsys, dir: dir, logger: logger, found: found}
	files, err := l.headers()
	if err != nil {
		return nil, err
	}
	for i := len(files) - 1; i >= 0; {
		i, err = l.settleExtent(files, i, known)
		if err != nil {
			return nil, err
		}
	}
	slices.Reverse(l.list)
	l.frontier = known.pos
	if n := len(l.list); n > 0 {
		l.frontier = max(l.frontier, l.list[n-1].last)
		l.checkKnown(l.list[n-1], known)
	}
	for _, d := range l.missing(known) {
		l.damaged++
		l.lost += d.Missing
		l.found(d)
		logger.Error("a file of the log is gone: what was not delivered of it is lost", "position", d.First, "records", d.Missing)
	}
	return l, nil
}

// missing finds files that are gone: each segment names the one before it. Only the oldest are ever deleted.
func (l *segments) missing(known durable) (list []Damage) {
	for i, s := range l.list {
		if i > 0 && s.prev.first > l.list[i-1].first {
			after := l.list[i-1].last
			list = append(list, Damage{File: "log", Missing: int64(s.first - 1 - after), First: at(after + 1)})
		}
	}
	if len(l.list) == 0 && known.off > 0 {
		list = append(list, Damage{File: "log", Missing: int64(known.pos), First: at(1)})
	}
	return list
}

type segmentFile struct {
	*segment
	valid   bool  // the header is
	claimed *tail // by the successor
	skipped bool  // a later segment names an earlier one: nothing in this one was ever acknowledged
}

func (l *segments) headers() ([]segmentFile, error) {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	var files []segmentFile
	for _, name := range names {
		s, ok := parseSegmentName(name)
		if !ok {
			l.logger.Warn("file in the log that is not a segment: left alone", "name", name)
			continue
		}
		l.floor = max(l.floor, s.first)
		valid, err := l.readHeader(s)
		if err != nil {
			return nil, err
		}
		files = append(files, segmentFile{segment: s, valid: valid})
	}
	sort.SliceStable(files, func(a, b int) bool { return files[a].first < files[b].first })
	for i := range files {
		for k := i - 1; files[i].valid && k >= 0; k-- {
			if files[k].first == files[i].prev.first && files[k].claimed == nil {
				files[k].claimed = &files[i].prev
			}
			files[k].skipped = files[k].skipped || files[k].first > files[i].prev.first
		}
	}
	return files, nil
}

func (l *segments) readHeader(s *segment) (bool, error) {
	f, err := l.open(s)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if s.size, err = f.Size(); err != nil {
		return false, err
	}
	b := make([]byte, segmentHeader)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("header of %s: %w", s.name(), err)
	}
	return s.parseHeader(b)
}

// settleExtent finds the extent of files[i], adds it to the list unless it holds nothing, and returns the next index.
func (l *segments) settleExtent(files []segmentFile, i int, known durable) (int, error) {
	s := files[i]
	switch {
	case s.claimed != nil:
		s.end, s.last, s.newest = s.claimed.end, s.claimed.last, s.claimed.newest
	case s.skipped:
		l.strays = append(l.strays, s.name())
		return i - 1, nil
	default:
		// The last one; or one whose successor's header is damaged; or one that was never finished.
		if err := l.recover(s.segment, known); err != nil {
			return 0, fmt.Errorf("recover %s: %w", s.name(), err)
		}
		if s.empty() && (known.seg != s.first || known.off <= segmentHeader) {
			l.strays = append(l.strays, s.name())
			return i - 1, nil
		}
	}
	if !s.valid {
		l.damage(s.segment, 0, segmentHeader, s.first-1, s.first)
	}
	l.list = append(l.list, s.segment)
	return i - 1, nil
}

// recover finds the end of a segment that no successor vouches for. Bytes that do not make a record are a torn tail,
// cut, when nothing proves that they were once durable; otherwise they are damage, skipped. The proof is a later record
// whose group was written after a sync that covered them, or the last checkpoint.
func (l *segments) recover(s *segment, known durable) error {
	f, err := l.fs.Edit(l.path(s.name()))
	if err != nil {
		return err
	}
	defer f.Close()

	var sound int64 = segmentHeader
	if known.seg == s.first {
		sound = max(sound, known.off)
	}
	w := newWalker(f, s, segmentHeader, s.size, s.first-1)
	for err == nil {
		_, _, _, err = w.next()
	}
	if err != io.EOF {
		return err
	}
	sound = max(sound, w.synced)

	w = newWalker(f, s, segmentHeader, s.size, s.first-1)
	w.bad = func(from, to int64, after, before position) {
		if from < sound {
			l.damage(s, from, min(to, sound), after, before)
		}
	}
	for {
		off, fr, payload, err := w.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if off > max(s.end, sound) {
			break // beyond a torn record
		}
		s.note(off, fr, payloadTime(payload))
	}
	s.end, s.indexed = max(s.end, min(sound, s.size)), true
	if err := firm(f, sound, s.end); err != nil {
		l.logger.Error("the end of the recovered log cannot be written; going on", "segment", s.name(), "error", err)
	}
	return l.cut(f, s)
}

// firm makes [from, end) durable, of which there is no proof that it is. What was read there may be in memory only: a
// process that was killed leaves its writes to the kernel, and after a sync that failed the kernel shows bytes that
// it will never write. Only writing them again helps against that. What is handed out must not vanish.
func firm(f File, from, end int64) error {
	for from < end {
		b := make([]byte, min(groupBytes, end-from))
		if _, err := f.ReadAt(b, from); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return f.Sync()
}

// cut reports what lies behind the end and gives back what was only reserved.
func (l *segments) cut(f File, s *segment) error {
	r := blockReader{f: f, end: s.size}
	torn := int64(0)
	for off := s.end; off < s.size; off += readBlock {
		b, err := r.bytes(off, int(min(readBlock, s.size-off)))
		if err != nil {
			return err
		}
		for i, c := range b {
			if c != 0 {
				torn = off + int64(i) + 1 - s.end
			}
		}
	}
	if torn > 0 {
		l.torn += torn
		l.logger.Warn("an unfinished write at the end of the log was cut: it was never acknowledged",
			"segment", s.name(), "offset", s.end, "bytes", torn)
		return nil // the bytes stay, for whoever wants to look
	}
	if s.size > s.end && f.Truncate(s.end) == nil {
		s.size = s.end
	}
	return nil
}

// checkKnown compares what was found with what the last checkpoint knew.
func (l *segments) checkKnown(s *segment, known durable) {
	if known.pos > s.last && known.seg >= s.first {
		l.damage(s, s.end, s.end+1, s.last, known.pos+1)
	}
}

// damage reports a stretch once. A record lost to it is not delivered; that is what is logged here.
func (l *segments) damage(s *segment, from, to int64, after, before position) {
	if s.reported[from] {
		return
	}
	if s.reported == nil {
		s.reported = make(map[int64]bool)
	}
	s.reported[from] = true
	if before == 0 {
		before = s.last + 1
	}
	lost := int64(0)
	if before > after+1 {
		lost = int64(before - after - 1)
	}
	l.damaged++
	l.lost += lost
	l.found(Damage{File: filepath.Join("log", s.name()), Offset: from, Length: to - from, Missing: lost, First: at(after + 1)})
	l.logger.Error("the log is damaged: records skipped", "segment", s.name(), "offset", from, "bytes", to-from,
		"position", after+1, "records", lost)
}

func (l *segments) path(name string) string       { return filepath.Join(l.dir, name) }
func (l *segments) open(s *segment) (File, error) { return l.fs.Open(l.path(s.name())) }
func (l *segments) segmentOf(pos position) *segment { // l.mu is held
	i := sort.Search(len(l.list), func(i int) bool { return l.list[i].last >= pos })
	if i == len(l.list) {
		return nil
	}
	return l.list[i]
}

func (l *segments) front() position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.frontier
}

// reach is the last position that can be read. It is below the frontier when the end of the log was lost.
func (l *segments) reach() position {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.list) == 0 {
		return 0
	}
	return l.list[len(l.list)-1].last
}

// place is where a reader goes on: the segment, by its first position, and the offset in it. It is a hint.
type place struct {
	seg position
	off int64
}

// stretch is what can be read of one segment.
type stretch struct {
	seg    *segment
	off    int64
	end    int64
	behind position // the record before off is not after this one
	last   position // of the record before end
	block  int      // bytes to read at a time; 0 = readBlock
}

// after finds the records that follow pos, in one segment; false when there are none yet.
func (l *segments) after(pos position, hint place) (stretch, bool, error) {
	l.mu.RLock()
	s := l.segmentOf(pos + 1)
	if s == nil {
		l.mu.RUnlock()
		return stretch{}, false, nil
	}
	st := stretch{seg: s, off: segmentHeader, end: s.end, behind: s.first - 1, last: s.last}
	l.mu.RUnlock()
	switch {
	case hint.seg == s.first && hint.off >= segmentHeader && hint.off <= st.end:
		st.off, st.behind = hint.off, pos
	case pos >= s.first:
		m, err := l.seek(s, pos)
		if err != nil {
			return stretch{}, false, err
		}
		st.off, st.behind = m.off, m.pos-1
	}
	return st, true, nil
}

// seek returns a record of s at or a little before pos.
func (l *segments) seek(s *segment, pos position) (mark, error) {
	l.mu.RLock()
	index, indexed, end := s.index, s.indexed, s.end
	l.mu.RUnlock()
	if !indexed {
		var err error
		if index, err = l.buildIndex(s, end); err != nil {
			return mark{}, err
		}
		l.mu.Lock()
		s.index, s.indexed = index, true
		l.mu.Unlock()
	}
	i := sort.Search(len(index), func(i int) bool { return index[i].pos > pos })
	if i == 0 {
		return mark{s.first, segmentHeader}, nil
	}
	return index[i-1], nil
}

func (l *segments) buildIndex(s *segment, end int64) ([]mark, error) {
	scratch := &segment{}
	err := l.walk(stretch{seg: s, off: segmentHeader, end: end, behind: s.first - 1}, func(off int64, f frame, payload []byte) bool {
		scratch.note(off, f, 0)
		return true
	})
	return scratch.index, err
}

// walk calls fn with each valid record of a stretch until fn returns false. The payload is valid during the call only.
func (l *segments) walk(st stretch, fn func(off int64, f frame, payload []byte) bool) error {
	f, err := l.open(st.seg)
	if err != nil {
		return err
	}
	defer f.Close()
	w := newWalker(f, st.seg, st.off, st.end, st.behind)
	w.r.block = st.block
	if b, ok := l.blocks.Get().(*[]byte); ok {
		w.r.buf = *b
	}
	defer func() {
		if cap(w.r.buf) <= readBlock {
			l.blocks.Put(&w.r.buf)
		}
	}()
	w.bad = func(from, to int64, after, before position) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.damage(st.seg, from, to, after, before)
	}
	for {
		off, fr, payload, err := w.next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", st.seg.name(), err)
		case !fn(off, fr, payload):
			return nil
		}
	}
}

// load calls fn with the records at the given ascending positions, as far as the log still has them.
func (l *segments) load(positions []position, fn func(pos position, payload []byte)) error {
	for len(positions) > 0 {
		l.mu.RLock()
		s := l.segmentOf(positions[0])
		if s == nil || positions[0] < s.first {
			l.mu.RUnlock()
			positions = positions[1:]
			continue
		}
		end, last := s.end, s.last
		l.mu.RUnlock()
		n := sort.Search(len(positions), func(i int) bool { return positions[i] > last })
		if err := l.loadFrom(s, end, positions[:n], fn); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		positions = positions[n:]
	}
	return nil
}

func (l *segments) loadFrom(s *segment, end int64, positions []position, fn func(position, []byte)) error {
	for len(positions) > 0 {
		at, err := l.seek(s, positions[0])
		if err != nil {
			return err
		}
		err = l.walk(stretch{seg: s, off: at.off, end: end, behind: at.pos - 1}, func(off int64, f frame, payload []byte) bool {
			for len(positions) > 0 && positions[0] < f.pos {
				positions = positions[1:] // damaged
			}
			if len(positions) > 0 && positions[0] == f.pos {
				fn(f.pos, payload)
				positions = positions[1:]
			}
			return len(positions) > 0 && off < at.off+indexStep // a far one is found faster by the index
		})
		if err != nil {
			return err
		}
		if len(positions) == 0 {
			return nil
		}
		if next, err := l.seek(s, positions[0]); err != nil || next.pos <= at.pos {
			return err // nothing valid follows
		}
	}
	return nil
}

// create starts a segment at first and makes it durable, header and directory entry, before it takes a record.
func (l *segments) create(first position, step int64) (*segment, File, error) {
	s := &segment{first: first, salt: rand.Uint64(), last: first - 1, end: segmentHeader, indexed: true}
	l.mu.RLock()
	if n := len(l.list); n > 0 {
		s.prev = l.list[n-1].tail()
	}
	l.mu.RUnlock()
	f, err := l.fs.Create(l.path(s.name()))
	if err != nil {
		l.discard(s.name())
		return nil, nil, err
	}
	if err := l.initialize(s, f, step); err != nil {
		_ = f.Close()
		l.discard(s.name())
		return nil, nil, err
	}
	return s, f, nil
}

// maxStrays bounds the files remembered that could not be removed. On a read-only volume each append in vain adds one, which
// most likely does not even exist; what is forgotten is found at the next start.
const maxStrays = 1000

// discard removes a file that never held a record, now or when a later segment stands.
func (l *segments) discard(name string) {
	if err := l.fs.Remove(l.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.strays) < maxStrays {
			l.strays = append(l.strays, name)
		}
	}
}

func (l *segments) initialize(s *segment, f File, step int64) error {
	if err := f.Allocate(0, step); err != nil {
		return err
	}
	if _, err := f.WriteAt(s.encodeHeader(), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	var err error
	s.size, err = f.Size()
	return err
}

// removeStrays removes files that never held a record, now that a later segment says where the last good one ends.
func (l *segments) removeStrays() {
	l.mu.Lock()
	strays := l.strays
	l.strays = nil
	l.mu.Unlock()
	for _, name := range strays {
		l.discard(name)
	}
}

// bytes is what the log takes on disk.
func (l *segments) bytes() (n int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, s := range l.list {
		n += s.size
	}
	return n
}

// unreadableKept reports, once, a record that was kept of a deleted segment.
func (l *segments) unreadableKept(pos position, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lostKept[pos] {
		return
	}
	if l.lostKept == nil {
		l.lostKept = make(map[position]bool)
	}
	l.lostKept[pos] = true
	l.damaged++
	l.lost++
	l.found(Damage{File: "state.db", Missing: 1, First: at(pos)})
	l.logger.Error("a kept record is damaged and skipped", "position", pos, "error", err)
}

// unreadable reports a record whose sum is right and whose content is not.
func (l *segments) unreadable(s *segment, off int64, f frame, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logger.Error("record cannot be decoded", "position", f.pos, "error", err)
	l.damage(s, off, off+f.size(), f.pos-1, f.pos+1)
}
