package diskjournal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// state is the small file beside the log: what each sink has settled, the keys known, dead letters, and records that
// outlive their segment. It says nothing about the log that is not already durable there.
//
// A commit that failed may have taken effect. Therefore transactions write absolute values only, and are repeated
// whole. Where a sync failed, the kernel may show pages that it will never write; bbolt would build on them. Therefore
// the file is then written anew before the next transaction.
//
// bbolt sums nothing but its two meta pages. Therefore each value carries a sum of its own (see table).
type state struct {
	fs   FS
	path string

	mu sync.RWMutex // guards db, which changes when the file is written anew
	db *bbolt.DB
	// Only update looks at these, and its callers take turns.
	suspect bool // a sync failed
	firm    bool // what an earlier process left is known to be on disk
}

var (
	bucketMeta    = []byte("meta")    // "frontier" -> durable; "kept" -> bytes in bucketKept
	bucketSinks   = []byte("sinks")   // name -> id; the bucket's sequence is the last id given
	bucketCursors = []byte("cursors") // id -> cursor
	bucketKeys    = []byte("keys")    // first position -> known keys of consecutive positions
	bucketDead    = []byte("dead")    // id, position -> dead letter
	bucketKept    = []byte("kept")    // position -> payload
	bucketReplays = []byte("replays") // id -> replay; the bucket's sequence is the last id given

	bucketAccounts = []byte("accounts") // source -> outcomes of its calls

	metaFrontier = []byte("frontier")
	metaKept     = []byte("kept")
)

// openState creates the file only where there is no log yet: an empty one would say that nothing is owed.
func openState(path string, fsys FS, logIsEmpty bool) (s *state, err error) {
	defer guardState(&err)()
	fresh, err := isFreshState(path, logIsEmpty)
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := createState(path); err != nil {
			return nil, fmt.Errorf("create %s: %w", path, asFull(err))
		}
	}
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	s = &state{db: db, fs: fsys, path: path}
	if err := s.prepare(); err != nil {
		_ = db.Close()
		return nil, err
	}
	return s, nil
}

// isFreshState reports whether the file is still to be made.
func isFreshState(path string, logIsEmpty bool) (bool, error) {
	info, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() == 0)
	switch {
	case !fresh:
		return false, err
	case !logIsEmpty:
		return true, fmt.Errorf("%s is missing or empty: which of the events in the log are delivered is not known: %w", path, ErrDamaged)
	}
	return true, nil
}

// createState makes an empty file at once, so that none is found half made, and makes it last before a segment stands that
// could outlive it.
func createState(path string) error {
	db, err := createBolt(path + ".tmp")
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createBolt makes a new file; one with that name is what an interrupted attempt left.
func createBolt(path string) (*bbolt.DB, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return openBolt(path)
}

func openBolt(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, boltError(err))
	}
	return db, nil
}

func boltError(err error) error {
	for _, damage := range []error{bolterrors.ErrInvalid, bolterrors.ErrChecksum, bolterrors.ErrVersionMismatch} {
		if errors.Is(err, damage) {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
	}
	return asFull(err)
}

func (s *state) prepare() error {
	buckets := [][]byte{bucketMeta, bucketSinks, bucketCursors, bucketKeys, bucketDead, bucketKept, bucketReplays, bucketAccounts}
	complete := true
	err := s.view(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			complete = complete && tx.Bucket(b) != nil
		}
		return nil
	})
	if err != nil || complete { // a full disk must not keep us from starting, so nothing is written without need
		return err
	}
	return s.update(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
}

var errStateUnreadable = errors.New("state cannot be read")

// guardState, whose result is deferred, makes an error of what happens when bbolt follows damaged pages of its file: it
// panics, or reads memory where the file does not reach, or where the disk does not answer.
func guardState(err *error) func() {
	fault := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(fault)
		if p := recover(); p != nil {
			*err = fmt.Errorf("state: %w: %v", ErrDamaged, p)
			if _, ok := p.(interface{ Addr() uintptr }); ok { // the disk may answer the next time
				*err = fmt.Errorf("%w: %v", errStateUnreadable, p)
			}
		}
	}
}

func (s *state) view(fn func(*bbolt.Tx) error) (err error) {
	defer guardState(&err)()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.db.View(fn); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

func (s *state) update(fn func(*bbolt.Tx) error) (err error) {
	defer guardState(&err)()
	if !s.firm {
		if err := s.makeFirm(); err != nil {
			return fmt.Errorf("state: write what was found again: %w", asFull(err))
		}
		s.firm = true
	}
	if s.suspect {
		if err := s.rewrite(); err != nil {
			return fmt.Errorf("state: write the file anew: %w", asFull(err))
		}
		s.suspect = false
	}
	tx, err := s.db.Begin(true)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing after a commit
	if err := fn(tx); err != nil {
		return fmt.Errorf("state: %w", asFull(err))
	}
	if err := s.fs.CommitState(tx.Commit); err != nil {
		s.suspect = !beforeSync(err)
		return fmt.Errorf("state: %w", asFull(err))
	}
	return nil
}

// beforeSync reports whether a commit failed while it wrote; that happens on a full disk and does no harm.
func beforeSync(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && (p.Op == "write" || p.Op == "truncate")
}

// makeFirm makes durable what an earlier process left, as segments.recover does with the log: that process may have met a
// sync that failed, and not have lived to write the file anew. The meta pages come last: they make the others count.
func (s *state) makeFirm() error {
	f, err := DiskFS{}.Edit(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	meta := min(size, 2*int64(s.db.Info().PageSize))
	if err := firm(f, meta, size); err != nil {
		return err
	}
	return firm(f, 0, meta)
}

// rewrite copies the file, as the kernel shows it, to a new one that takes its place.
func (s *state) rewrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tmp := s.path + ".tmp"
	dst, err := createBolt(tmp)
	if err != nil {
		return err
	}
	err = bbolt.Compact(dst, s.db, 1<<20)
	if err = errors.Join(err, dst.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.path); err != nil {
		return err
	}
	db, err := openBolt(s.path)
	if err != nil {
		return err // the old file stays open; the next attempt copies it again
	}
	_ = s.db.Close()
	s.db = db
	return syncDir(filepath.Dir(s.path))
}

func (s *state) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.Close()
}

// table is a bucket whose values end in a sum over the bucket's name, the key and the value, so that neither a flipped
// bit nor a page that turns up in the wrong place is taken for what was written.
type table struct {
	*bbolt.Bucket
	name []byte
}

const sumSize = 4

func tableOf(tx *bbolt.Tx, name []byte) table { return table{tx.Bucket(name), name} }

func (t table) sum(k, v []byte) uint32 {
	return crc32.Update(crc32.Update(crc32.Checksum(t.name, castagnoli), castagnoli, k), castagnoli, v)
}

func (t table) open(k, v []byte) ([]byte, error) {
	n := len(v) - sumSize
	if n < 0 || binary.LittleEndian.Uint32(v[n:]) != t.sum(k, v[:n]) {
		return nil, fmt.Errorf("%s: %w", t.name, ErrDamaged) // on a damaged page k may lie anywhere in memory: it is not printed
	}
	return v[:n:n], nil
}

// Put replaces Bucket.Put.
func (t table) Put(k, v []byte) error {
	return t.Bucket.Put(k, binary.LittleEndian.AppendUint32(v[:len(v):len(v)], t.sum(k, v)))
}

// Get replaces Bucket.Get; nil = there is none.
func (t table) Get(k []byte) ([]byte, error) {
	v := t.Bucket.Get(k)
	if v == nil {
		return nil, nil
	}
	return t.open(k, v)
}

// ForEach replaces Bucket.ForEach.
func (t table) ForEach(fn func(k, v []byte) error) error {
	return t.Bucket.ForEach(func(k, v []byte) error {
		v, err := t.open(k, v)
		if err != nil {
			return err
		}
		return fn(k, v)
	})
}

func positionKey(pos position) []byte { return binary.BigEndian.AppendUint64(nil, uint64(pos)) }

func sinkKey(id sinkID) []byte { return binary.BigEndian.AppendUint32(nil, uint32(id)) }

func deadKey(id sinkID, pos position) []byte {
	return binary.BigEndian.AppendUint64(sinkKey(id), uint64(pos))
}

func keyPosition(k []byte) position { return position(binary.BigEndian.Uint64(k)) }

// The frontier.

func (d durable) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(d.pos))
	b = binary.AppendUvarint(b, uint64(d.seg))
	return binary.AppendUvarint(b, uint64(d.off))
}

func decodeDurable(b []byte) (durable, error) {
	if b == nil {
		return durable{}, nil
	}
	d := decoder{B: b}
	v := durable{}
	v.pos, v.seg, v.off = position(d.Uvarint()), position(d.Uvarint()), int64(d.Uvarint())
	return v, d.Err
}

// Cursors.

const cursorVersion = 1

// savedCursor is a cursor as it is kept.
type savedCursor struct {
	read    position
	at      place
	tally   ledger.Tally
	paused  string
	pending []savedDelivery // ascending
}

func (c *savedCursor) encode() []byte {
	b := make([]byte, 0, 128+6*len(c.pending))
	b = append(b, cursorVersion)
	b = binary.AppendUvarint(b, uint64(c.read))
	b = binary.AppendUvarint(b, uint64(c.at.seg))
	b = binary.AppendUvarint(b, uint64(c.at.off))
	b = ledger.AppendTally(b, &c.tally)
	b = ledger.AppendText(b, c.paused)
	return ledger.AppendPending(b, c.pending)
}

func decodeCursor(b []byte) (*savedCursor, error) {
	c, d, err := decodeTally(b)
	if err != nil {
		return nil, err
	}
	c.paused = d.Text()
	c.pending = d.Pending()
	return c, d.Err
}

// decodeTally leaves what comes after the tally, which may be large, to the decoder.
func decodeTally(b []byte) (*savedCursor, *decoder, error) {
	if len(b) == 0 || b[0] != cursorVersion {
		return nil, nil, fmt.Errorf("no cursor, or one of an unknown version: %w", ErrDamaged)
	}
	d := &decoder{B: b[1:]}
	c := &savedCursor{read: position(d.Uvarint())}
	c.at = place{position(d.Uvarint()), int64(d.Uvarint())}
	c.tally = d.Tally()
	return c, d, d.Err
}

// Dead letters.

// letters calls fn with a sink's dead letters after a position, until it returns false.
func letters(tx *bbolt.Tx, id sinkID, after position, fn func(journal.DeadLetter) bool) error {
	prefix, t := sinkKey(id), tableOf(tx, bucketDead)
	c := t.Cursor()
	for k, v := c.Seek(deadKey(id, after+1)); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		v, err := t.open(k, v)
		if err != nil {
			return err
		}
		l, err := ledger.DecodeLetter(at(keyPosition(k[4:])), v)
		if err != nil {
			return fmt.Errorf("dead letter of sink %d at %d: %w", id, keyPosition(k[4:]), err)
		}
		if !fn(l) {
			return nil
		}
	}
	return nil
}

// Known keys. A chunk holds those of consecutive positions, so that the position needs no room.

const keySize = 16 + 16 + 8

type knownKey struct {
	pos     position
	key, id [16]byte
	time    int64 // ms
}

// putKeys writes one chunk for each run of consecutive positions.
func putKeys(tx *bbolt.Tx, keys []knownKey) error {
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].pos == keys[n-1].pos+1 {
			n++
		}
		chunk := make([]byte, 0, n*keySize)
		for _, k := range keys[:n] {
			chunk = append(chunk, k.key[:]...)
			chunk = append(chunk, k.id[:]...)
			chunk = binary.LittleEndian.AppendUint64(chunk, uint64(k.time))
		}
		if err := tableOf(tx, bucketKeys).Put(positionKey(keys[0].pos), chunk); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

func chunkKey(first position, chunk []byte, i int) knownKey {
	b := chunk[i*keySize:]
	k := knownKey{pos: first + position(i), time: int64(binary.LittleEndian.Uint64(b[32:]))}
	copy(k.key[:], b)
	copy(k.id[:], b[16:])
	return k
}

// trimKeys deletes chunks that lie wholly beyond what is wanted, and returns how many keys that were.
func trimKeys(tx *bbolt.Tx, surplus int, oldest int64) (int, error) {
	deleted := 0
	t := tableOf(tx, bucketKeys)
	c := t.Cursor()
	for k, v := c.First(); k != nil; k, v = c.First() {
		v, err := t.open(k, v)
		if err != nil {
			return 0, err
		}
		n := len(v) / keySize
		if n > 0 && deleted+n > surplus && chunkKey(0, v, n-1).time >= oldest {
			break
		}
		if err := c.Delete(); err != nil {
			return 0, err
		}
		deleted += n
	}
	return deleted, nil
}
