package diskjournal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ncs-relay/relay/journal"
)

const (
	queueCount = 8192
	queueBytes = 64 << 20
	groupBytes = 8 << 20

	// After a fault a new segment is tried at most this often, so that a dead disk is not hammered; appends in
	// between fail at once.
	faultPause = 100 * time.Millisecond

	// allocateStep is reserved ahead: a full disk then shows before a record is half written, and a sync need not
	// write the file's size.
	allocateStep = 4 << 20

	// While appends fail, and nobody may come because Ready says so, it is found out this often whether they would work.
	probeInterval = time.Second
	probeRoom     = 1 << 10
)

// entry is one append on its way.
type entry struct {
	buf         []byte // room for the record header, payload, padding
	sinks       []sinkID
	account     *sourceAccount
	quarantined bool
	size        int64 // of the body
	crc         uint32
	done        func(journal.Position, error)
}

func (e *entry) payload() []byte { return e.buf[recordHeader:][:e.length()] }
func (e *entry) length() int     { return len(e.buf) - recordHeader }

// queue holds appends until the committer takes them. It is bounded by count and bytes.
type queue struct {
	mu      sync.Mutex
	entries []*entry
	bytes   int64
	closed  bool
	wanted  int           // wake is told when there are so many
	room    chan struct{} // closed when the queue was emptied
	wake    chan struct{}
}

func newQueue() *queue {
	return &queue{wanted: 1, room: make(chan struct{}), wake: make(chan struct{}, 1)}
}

func (q *queue) put(ctx context.Context, e *entry) error {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return journal.ErrClosed
		}
		if len(q.entries) == 0 || (len(q.entries) < queueCount && q.bytes+int64(len(e.buf)) <= queueBytes) {
			q.entries = append(q.entries, e)
			q.bytes += int64(len(e.buf))
			if len(q.entries) >= q.wanted {
				q.signal()
			}
			q.mu.Unlock()
			return nil
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// want asks for wake when there are n, until they are taken, and reports whether there are fewer.
func (q *queue) want(n int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wanted = n
	return len(q.entries) < n
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.entries)
}

// take empties the queue, and closes it when there will be no more takers.
func (q *queue) take(last bool) []*entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	entries := q.entries
	q.entries, q.bytes, q.wanted = nil, 0, 1
	q.closed = q.closed || last
	close(q.room)
	q.room = make(chan struct{})
	return entries
}

// committer writes appends to the log, many with one sync. It is one goroutine.
type committer struct {
	log    *segments
	space  *space
	size   int64 // of a segment
	next   position
	active *segment // nil: the next append starts one
	file   File
	buf    []byte
	fault  error     // of the last attempt; nil when it went well
	tried  time.Time // when a segment was last started
	pause  time.Duration
	syncs  atomic.Uint64
	report func(error) // told of each fault, and with nil that a probe went well

	// account is told of records that are on disk, before anybody can read them.
	account func(entries []*entry, frames []frame, seg position, end int64)

	// readable is told afterwards, when everybody can.
	readable func()
}

// commit writes entries in order and calls each one's done.
func (c *committer) commit(entries []*entry) {
	for len(entries) > 0 {
		n, err := c.prepare(entries)
		if err == nil {
			err = c.write(entries[:n])
		}
		if err != nil {
			for _, e := range entries[:n] {
				e.done(journal.Position{}, err)
			}
		}
		entries = entries[n:]
	}
}

// probe does what an append needs before it writes, so that a fault and its end are noticed when nobody appends.
func (c *committer) probe() {
	err := c.ready(probeRoom)
	if err == nil {
		err = c.reserve(c.active.end + probeRoom)
	}
	if err == nil {
		c.report(nil)
	}
}

// ready makes sure that there is a segment with room for a record, or says why there is none.
func (c *committer) ready(room int64) error {
	if err := c.space.check(); err != nil {
		c.report(err)
		return err
	}
	if c.active != nil && c.active.end+room > c.size {
		c.seal()
	}
	if c.active != nil {
		return nil
	}
	return c.start(room)
}

// prepare makes sure that there is a segment with room for the first n entries, or says why these must fail.
func (c *committer) prepare(entries []*entry) (n int, err error) {
	if err := c.ready(frameRoom(entries[0])); err != nil {
		return len(entries), err
	}
	end := c.active.end
	group := int64(0)
	for n < len(entries) {
		room := frameRoom(entries[n])
		if n > 0 && (end+room > c.size || group+room > groupBytes) {
			break
		}
		end, group, n = end+room, group+room, n+1
	}
	return n, c.reserve(end)
}

func frameRoom(e *entry) int64 { return frameSize(e.length()) }

func (c *committer) start(room int64) error {
	if c.fault != nil && time.Since(c.tried) < c.pause {
		return c.fault
	}
	c.tried = time.Now()
	step := min(allocateStep, c.size)
	s, f, err := c.log.create(c.next, step)
	if errors.Is(asFull(err), journal.ErrFull) {
		c.next++ // each file has a first position of its own
		s, f, err = c.log.create(c.next, segmentHeader+room)
	}
	if err != nil {
		c.next++
		return c.failed(fmt.Errorf("start a segment: %w", err))
	}
	c.active, c.file = s, f
	c.log.mu.Lock()
	c.log.list = append(c.log.list, s)
	c.log.mu.Unlock()
	c.log.removeStrays()
	c.space.grown()
	return nil
}

// reserve makes the file reach to end. Where it cannot the segment stays good: nothing was written.
func (c *committer) reserve(end int64) error {
	if end <= c.active.size {
		return nil
	}
	size := max(end, min(c.active.size+allocateStep, c.size))
	err := c.file.Allocate(c.active.size, size-c.active.size)
	if errors.Is(asFull(err), journal.ErrFull) && size > end {
		size = end
		err = c.file.Allocate(c.active.size, size-c.active.size)
	}
	if err != nil {
		err = asFull(fmt.Errorf("reserve space: %w", err))
		c.report(err)
		return err
	}
	c.log.mu.Lock()
	c.active.size = size
	c.log.mu.Unlock()
	c.space.grown()
	return nil
}

// write puts entries at the end of the active segment, and advances the frontier over them.
func (c *committer) write(entries []*entry) error {
	start := c.active.end
	buf := c.buf[:0]
	frames := make([]frame, len(entries))
	for i, e := range entries {
		f := frame{length: uint32(e.length()), payloadCRC: e.crc, pos: c.next, synced: start}
		c.next++ // also when the write fails: it may be found later
		f.put(e.buf, c.active.salt)
		frames[i] = f
		buf = append(buf, e.buf...)
		buf = append(buf, make([]byte, f.size()-int64(len(e.buf)))...)
	}
	if cap(buf) <= groupBytes {
		c.buf = buf
	}
	if _, err := c.file.WriteAt(buf, start); err != nil {
		return c.abandon(fmt.Errorf("append: %w", err))
	}
	if err := c.file.Sync(); err != nil {
		return c.abandon(fmt.Errorf("append: %w", err))
	}
	c.syncs.Add(1)
	c.fault = nil
	c.account(entries, frames, c.active.first, start+int64(len(buf)))
	c.advance(entries, frames)
	c.readable()
	for i, e := range entries {
		e.done(at(frames[i].pos), nil)
	}
	return nil
}

func (c *committer) advance(entries []*entry, frames []frame) {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	off := c.active.end
	for i, f := range frames {
		c.active.note(off, f, payloadTime(entries[i].payload()))
		off += f.size()
	}
	l.frontier = c.active.last
}

// seal ends the active segment at the frontier.
func (c *committer) seal() {
	s := c.active
	if s.size > s.end && c.file.Truncate(s.end) == nil {
		c.log.mu.Lock()
		s.size = s.end
		c.log.mu.Unlock()
	}
	_ = c.file.Close() // all that counts was synced
	c.active, c.file = nil, nil
}

// abandon closes the active segment at the frontier after a fault. What lies behind may or may not be on disk; nobody
// will look.
func (c *committer) abandon(err error) error {
	s := c.active
	_ = c.file.Close()
	c.active, c.file = nil, nil
	if s.empty() {
		c.log.mu.Lock()
		c.log.list = c.log.list[:len(c.log.list)-1]
		c.log.strays = append(c.log.strays, s.name())
		c.log.mu.Unlock()
	}
	return c.failed(err)
}

func (c *committer) failed(err error) error {
	c.fault = asFull(err)
	c.report(c.fault)
	return c.fault
}

// asFull makes errors.Is(err, ErrFull) true for what a full volume answers.
func asFull(err error) error {
	if err == nil || errors.Is(err, journal.ErrFull) || !(errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
		return err
	}
	return fmt.Errorf("%w: %w", journal.ErrFull, err)
}

// space reports whether there is room by our own limits.
type space struct {
	fs      FS
	dir     string
	minFree int64 // 0: the smaller of 1 GiB and 5 % of the volume
	maxSize int64 // 0: none
	segment int64 // size of one
	used    func() int64
	sweep   chan struct{} // asks for room

	mu          sync.Mutex // guards what follows
	checked     time.Time
	free, total int64
	err         error // why these are not known
}

const spaceInterval = time.Second

// volume asks the volume, again when the last answer is older than maxAge.
func (s *space) volume(maxAge time.Duration) (free, total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.checked.IsZero() || now.Sub(s.checked) >= maxAge {
		s.checked = now
		s.free, s.total, s.err = s.fs.Free(s.dir)
	}
	return s.free, s.total, s.err
}

// check says why appends must be refused, and asks for room.
func (s *space) check() error {
	lacking, limit := s.lacking(spaceInterval)
	if lacking > 0 {
		lacking, limit = s.lacking(faultPause)
	}
	switch used := s.used(); {
	case lacking > 0:
		s.ask()
		return fmt.Errorf("%w: %d bytes free, min_free is %d", journal.ErrFull, limit-lacking, limit)
	case s.maxSize > 0 && used > s.maxSize:
		s.ask()
		return fmt.Errorf("%w: the journal takes %d bytes, max_size is %d", journal.ErrFull, used, s.maxSize)
	}
	return nil
}

// lacking is what the volume has too little, and the limit. Not knowing is no reason to refuse; the write will tell.
func (s *space) lacking(maxAge time.Duration) (bytes, limit int64) {
	free, total, err := s.volume(maxAge)
	if err != nil {
		return 0, 0
	}
	limit = s.minFree
	if limit == 0 {
		limit = min(1<<30, total/20)
	}
	return limit - free, limit
}

// reserve is the distance from a limit at which room is made, so that none is refused where settled history can go.
func (s *space) reserve(limit int64) int64 { return min(2*s.segment, limit/8) }

// excess is what the journal takes too much, in the long run.
func (s *space) excess() int64 {
	if s.maxSize <= 0 {
		return 0
	}
	return s.used() + s.reserve(s.maxSize) - s.maxSize
}

// short reports whether a limit is not kept, or soon will not be.
func (s *space) short() bool {
	lacking, limit := s.lacking(0)
	return s.excess() > 0 || lacking+s.reserve(limit) > 0
}

// grown is called when the log takes more of the volume.
func (s *space) grown() {
	lacking, limit := s.lacking(spaceInterval)
	if s.excess() > 0 || lacking+s.reserve(limit) > 0 {
		s.ask()
	}
}

func (s *space) ask() {
	select {
	case s.sweep <- struct{}{}:
	default:
	}
}
