package diskjournal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// A segment is written only by the process, and the stretch without a fault, that created it. Where its trusted bytes
// end is written into the header of its successor, before that takes its first record: bytes beyond, left by a write
// or sync that failed, are never looked at again even though they may look right.
//
// The name carries first position and salt, so that records stay readable when the header is damaged.
const (
	segmentHeader  = 64
	segmentMagic   = "NCSRLOG\n"
	segmentVersion = 1
	segmentSuffix  = ".seg"

	indexStep = 64 << 10
	readBlock = 256 << 10
)

// segment is one file of the log. Fields below mu's line are guarded by segments.mu.
type segment struct {
	first position
	salt  uint64
	prev  tail // of the segment before it

	end      int64    // offset up to which records are trusted
	last     position // of the last record before end; first-1 = none
	newest   int64    // time of the newest record, ms
	size     int64    // bytes the file takes
	index    []mark   // ascending, one about every indexStep bytes
	indexed  bool     // index covers the whole of [segmentHeader, end)
	reported map[int64]bool
}

// tail says where a segment ends.
type tail struct {
	first  position // names the segment; 0 = there is none
	end    int64
	last   position
	newest int64
}

type mark struct {
	pos position
	off int64
}

func (s *segment) name() string {
	return fmt.Sprintf("%016x-%016x%s", uint64(s.first), s.salt, segmentSuffix)
}
func (s *segment) tail() tail  { return tail{s.first, s.end, s.last, s.newest} }
func (s *segment) empty() bool { return s.last < s.first }

// note records where a record lies, and that it is the last one.
func (s *segment) note(off int64, f frame, time int64) {
	if n := len(s.index); n == 0 || off-s.index[n-1].off >= indexStep {
		s.index = append(s.index, mark{f.pos, off})
	}
	s.last, s.end, s.newest = f.pos, off+f.size(), max(s.newest, time)
}

func parseSegmentName(name string) (*segment, bool) {
	base, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return nil, false
	}
	s := &segment{}
	if n, err := fmt.Sscanf(base, "%016x-%016x", (*uint64)(&s.first), &s.salt); n != 2 || err != nil || s.name() != name {
		return nil, false
	}
	s.last, s.end = s.first-1, segmentHeader
	return s, s.first > 0
}

func (s *segment) encodeHeader() []byte {
	b := make([]byte, segmentHeader)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[12:], segmentVersion)
	for i, v := range [...]uint64{uint64(s.first), s.salt, uint64(s.prev.first), uint64(s.prev.end), uint64(s.prev.last), uint64(s.prev.newest)} {
		binary.LittleEndian.PutUint64(b[16+8*i:], v)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return b
}

// parseHeader reads what the header says of the segment before; false means it is damaged, or was never written.
func (s *segment) parseHeader(b []byte) (bool, error) {
	if len(b) < segmentHeader || string(b[:8]) != segmentMagic || binary.LittleEndian.Uint32(b[8:]) != crc32.Checksum(b[12:segmentHeader], castagnoli) {
		return false, nil
	}
	if v := binary.LittleEndian.Uint32(b[12:]); v > segmentVersion {
		return false, fmt.Errorf("segment %s has version %d: %w", s.name(), v, ErrNewer)
	}
	var v [6]uint64
	for i := range v {
		v[i] = binary.LittleEndian.Uint64(b[16+8*i:])
	}
	if position(v[0]) != s.first || v[1] != s.salt {
		return false, nil // renamed, or another file's header
	}
	s.prev = tail{position(v[2]), int64(v[3]), position(v[4]), int64(v[5])}
	return true, nil
}

// walker goes through the valid records of a stretch of a segment. What is not valid it skips: to the next valid
// record header, or, where only a payload is damaged, over that record.
type walker struct {
	r      blockReader
	salt   uint64
	off    int64
	end    int64
	last   position // of the record before off
	synced int64    // largest seen in a valid record header

	// bad is told of each stretch without a valid record, and between which positions it lies; before is 0 at the end.
	bad func(from, to int64, after, before position)
}

func newWalker(f io.ReaderAt, s *segment, off, end int64, last position) *walker {
	return &walker{r: blockReader{f: f, end: end}, salt: s.salt, off: off, end: end, last: last}
}

// next returns the next record and its offset, io.EOF at the end. The payload is valid until the next call. An error
// of the file system is returned, not skipped: it may pass, and a record skipped for it would be a record lost.
func (w *walker) next() (int64, frame, []byte, error) {
	from := w.off // of what is not valid
	for w.off+recordHeader <= w.end {
		off := w.off
		f, ok, err := w.frame(off)
		if err != nil {
			return 0, frame{}, nil, err
		}
		if !ok {
			w.off += recordAlign
			continue
		}
		w.synced = max(w.synced, f.synced)
		payload, err := w.r.bytes(off+recordHeader, int(f.length))
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, frame{}, nil, err
		}
		w.off += f.size()
		if err == nil && crc32.Checksum(payload, castagnoli) == f.payloadCRC {
			w.report(from, off, f.pos)
			w.last = f.pos
			return off, f, payload, nil
		}
	}
	w.off = w.end
	w.report(from, w.end, 0)
	return 0, frame{}, nil, io.EOF
}

func (w *walker) frame(off int64) (frame, bool, error) {
	b, err := w.r.bytes(off, recordHeader)
	if errors.Is(err, io.EOF) {
		return frame{}, false, nil // the file was cut short
	}
	if err != nil {
		return frame{}, false, err
	}
	f, ok := parseFrame(b, w.salt)
	return f, ok && f.pos > w.last && off+f.size() <= w.end && f.synced <= off, nil
}

func (w *walker) report(from, to int64, before position) {
	if from < to && w.bad != nil {
		w.bad(from, to, w.last, before)
	}
}

// blockReader reads a file in blocks.
type blockReader struct {
	f     io.ReaderAt
	end   int64
	block int // bytes read at a time; 0 = readBlock
	buf   []byte
	off   int64
	n     int
	eof   bool // the file ends at off+n
}

// bytes returns [off, off+n), valid until the next call; io.EOF where the file or end does not reach so far.
func (r *blockReader) bytes(off int64, n int) ([]byte, error) {
	if off >= r.off && off+int64(n) <= r.off+int64(r.n) {
		return r.buf[off-r.off:][:n], nil
	}
	if off+int64(n) > r.end || (r.eof && off+int64(n) > r.off+int64(r.n)) {
		return nil, io.EOF
	}
	want := r.block
	if want == 0 {
		want = readBlock
	}
	want = int(min(int64(max(n, want)), r.end-off))
	if cap(r.buf) < want {
		r.buf = make([]byte, want)
	}
	got, err := r.f.ReadAt(r.buf[:want], off)
	r.off, r.n = off, got
	if err == io.EOF {
		r.eof, err = true, nil
	}
	switch {
	case err != nil:
		r.n = 0
		return nil, err
	case got < n:
		return nil, io.EOF
	}
	return r.buf[:n], nil
}
