// Package disktest holds a file system that forgets what was not synced and fails on demand.
package disktest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"ncs-relay/relay/journal/diskjournal"
)

// ErrCrashed is what every operation answers between a crash and the restart.
var ErrCrashed = errors.New("crashed")

// sector is the unit in which an unsynced write survives a crash or does not.
const sector = 512

// CrashFS is a file system in memory that a crash reduces to what was synced, and to a random part of what was not:
// any subset of the sectors written, of the entries created, removed and renamed, of the sizes changed. After a sync
// that failed, the same holds for what it should have made durable, although reads still show it. Its operations can be
// made to fail.
type CrashFS struct {
	mu      sync.Mutex
	rand    *rand.Rand
	entries map[string]*inode // what programs see
	durable map[string]*inode // what SyncDir has made to last
	changes []change          // since then
	locked  map[string]bool
	ops     int
	fault   func(n int, op Op) error
	crashed bool
	free    int64
	volume  int64 // 0: free is what is free
}

// Op is an operation of an FS or File.
type Op string

// The operations that can fail.
const (
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRemove   Op = "remove"
	OpRename   Op = "rename"
	OpList     Op = "list"
	OpMkdir    Op = "mkdir"
	OpSyncDir  Op = "syncdir"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpAllocate Op = "allocate"
	OpTruncate Op = "truncate"
	OpCommit   Op = "commit"       // of the state: it does not take effect
	OpAfter    Op = "after commit" // of the state: it took effect, and is reported as failed
)

type inode struct {
	data    []byte // what programs see
	durable []byte
	dirty   map[int]bool // sectors
	resized bool         // size not synced
}

// change is one unsynced change of a directory: name now is node (nil: nothing), and from, for a rename, is gone.
type change struct {
	name, from string
	node       *inode
}

// NewCrashFS returns an empty file system; seed decides what crashes and faults leave.
func NewCrashFS(seed uint64) *CrashFS {
	return &CrashFS{rand: rand.New(rand.NewPCG(seed, 1)), entries: map[string]*inode{}, durable: map[string]*inode{}, locked: map[string]bool{}, free: 1 << 40}
}

var _ diskjournal.FS = (*CrashFS)(nil)

// Fail lets fault decide on each operation, numbered from 1 on; nil: none fails. An error that is ErrCrashed crashes.
func (c *CrashFS) Fail(fault func(n int, op Op) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops, c.fault = 0, fault
}

// FailOnce makes the nth operation from now fail.
func FailOnce(n int, err error) func(int, Op) error {
	return func(i int, _ Op) error {
		if i == n {
			return err
		}
		return nil
	}
}

// FailFrom makes all operations from the nth on fail that change something: a volume that went read-only or full.
func FailFrom(n int, err error) func(int, Op) error {
	return func(i int, op Op) error {
		if i >= n && op != OpRead && op != OpOpen && op != OpList && op != OpMkdir {
			return err
		}
		return nil
	}
}

// Ops counts the operations since Fail.
func (c *CrashFS) Ops() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops
}

// Crash stops the machine: every operation fails until Restart.
func (c *CrashFS) Crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashed = true
}

// Crashed reports whether the machine is down.
func (c *CrashFS) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// Restart brings the machine up again with what survived: keep 0 is as little as allowed, 1 all, and between them
// the probability of each unsynced piece.
func (c *CrashFS) Restart(keep float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range c.changes {
		if c.rand.Float64() < keep {
			ch.apply(c.durable)
		}
	}
	c.changes, c.entries, c.locked = nil, maps.Clone(c.durable), map[string]bool{}
	for _, node := range c.entries {
		node.crash(c.rand, keep)
	}
	c.crashed, c.fault = false, nil
}

func (ch change) apply(entries map[string]*inode) {
	if ch.from != "" {
		delete(entries, ch.from)
	}
	if ch.node == nil {
		delete(entries, ch.name)
	} else {
		entries[ch.name] = ch.node
	}
}

func (n *inode) crash(r *rand.Rand, keep float64) {
	n.persist(func() bool { return r.Float64() < keep })
	n.data = slices.Clone(n.durable)
}

// persist makes the dirty pieces durable that keep says, and forgets that the others ever were dirty.
func (n *inode) persist(keep func() bool) {
	if n.resized && keep() {
		n.durable = resize(n.durable, len(n.data))
	}
	for _, s := range slices.Sorted(maps.Keys(n.dirty)) {
		from, to := s*sector, min((s+1)*sector, len(n.data))
		if from >= to || !keep() {
			continue
		}
		n.durable = resize(n.durable, max(len(n.durable), to))
		copy(n.durable[from:to], n.data[from:to])
	}
	n.dirty, n.resized = nil, false
}

func resize(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n:n]
	}
	return append(slices.Clone(b), make([]byte, n-len(b))...)
}

// step decides about one operation. c.mu is held.
func (c *CrashFS) step(op Op, name string) error {
	if c.crashed {
		return ErrCrashed
	}
	c.ops++
	if c.fault == nil {
		return nil
	}
	err := c.fault(c.ops, op)
	if errors.Is(err, ErrCrashed) {
		c.crashed = true
	}
	var path *fs.PathError
	if err != nil && !errors.As(err, &path) {
		err = &fs.PathError{Op: string(op), Path: filepath.Base(name), Err: err}
	}
	return err
}

func (c *CrashFS) MkdirAll(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.step(OpMkdir, dir)
}

func (c *CrashFS) List(dir string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(OpList, dir); err != nil {
		return nil, err
	}
	var names []string
	for name := range c.entries {
		if below, ok := strings.CutPrefix(name, dir+string(filepath.Separator)); ok {
			first, _, _ := strings.Cut(below, string(filepath.Separator)) // of a file, or of the directory it lies in
			names = append(names, first)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (c *CrashFS) change(ch change) {
	ch.apply(c.entries)
	c.changes = append(c.changes, ch)
}

func (c *CrashFS) Create(name string) (diskjournal.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.step(OpCreate, name)
	if errors.Is(err, ErrCrashed) || (err != nil && c.rand.IntN(2) == 0) {
		return nil, err // a failed creation may leave the file behind
	}
	if c.entries[name] != nil {
		return nil, fmt.Errorf("create %s: %w", name, fs.ErrExist)
	}
	node := &inode{}
	c.change(change{name: name, node: node})
	if err != nil {
		return nil, err
	}
	return &crashFile{c, node, name}, nil
}

func (c *CrashFS) Open(name string) (diskjournal.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(OpOpen, name); err != nil {
		return nil, err
	}
	node := c.entries[name]
	if node == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return readFile{&crashFile{c, node, name}}, nil
}

func (c *CrashFS) Edit(name string) (diskjournal.File, error) {
	f, err := c.Open(name)
	if err != nil {
		return nil, err
	}
	return f.(readFile).File, nil
}

// readFile is a file opened for reading: it can be written even less than a volume that is read-only.
type readFile struct{ diskjournal.File }

var errNotForWriting = errors.New("BUG: the file was opened for reading")

func (readFile) WriteAt([]byte, int64) (int, error) { return 0, errNotForWriting }
func (readFile) Sync() error                        { return errNotForWriting }
func (readFile) Allocate(int64, int64) error        { return errNotForWriting }
func (readFile) Truncate(int64) error               { return errNotForWriting }

func (c *CrashFS) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(OpRemove, name); err != nil {
		return err
	}
	if c.entries[name] == nil {
		return fmt.Errorf("remove %s: %w", name, fs.ErrNotExist)
	}
	c.change(change{name: name})
	return nil
}

func (c *CrashFS) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(OpRename, from); err != nil {
		return err
	}
	node := c.entries[from]
	if node == nil {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	c.change(change{name: to, from: from, node: node})
	return nil
}

func (c *CrashFS) SyncDir(dir string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(OpSyncDir, dir); err != nil {
		return err
	}
	c.changes = slices.DeleteFunc(c.changes, func(ch change) bool {
		if filepath.Dir(ch.name) != dir {
			return false
		}
		ch.apply(c.durable)
		return true
	})
	return nil
}

// SetFree says what Free answers; 1 TiB at first.
func (c *CrashFS) SetFree(free int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.free, c.volume = free, 0
}

// SetVolume makes Free answer what is left of a volume of that size.
func (c *CrashFS) SetVolume(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volume = size
}

func (c *CrashFS) Free(string) (free, total int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.volume == 0 {
		return c.free, 2 << 40, nil
	}
	free = c.volume
	for _, node := range c.entries {
		free -= int64(len(node.data))
	}
	return free, c.volume, nil
}

func (c *CrashFS) Lock(name string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return nil, ErrCrashed
	}
	if c.locked[name] {
		return nil, diskjournal.ErrLocked
	}
	c.locked[name] = true
	return unlock{c, name}, nil
}

type unlock struct {
	fs   *CrashFS
	name string
}

func (u unlock) Close() error {
	u.fs.mu.Lock()
	defer u.fs.mu.Unlock()
	delete(u.fs.locked, u.name)
	return nil
}

// CommitState fails before or after the commit: the state file itself lies on the real disk.
func (c *CrashFS) CommitState(commit func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(OpCommit, "state"); err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	return c.step(OpAfter, "state")
}

// Put makes a file with the given content, durable at once; an existing one is replaced.
func (c *CrashFS) Put(name string, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	node := &inode{data: slices.Clone(content), durable: slices.Clone(content)}
	c.entries[name], c.durable[name] = node, node
}

// Content returns what a program would read.
func (c *CrashFS) Content(name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.entries[name].data)
}

// Files lists all names.
func (c *CrashFS) Files() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.entries))
}

type crashFile struct {
	fs   *CrashFS
	node *inode
	name string
}

func (f *crashFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step(OpRead, f.name); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt that fails has written a part.
func (f *crashFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	dead := f.fs.crashed
	err := f.fs.step(OpWrite, f.name)
	if dead {
		return 0, err
	}
	n := len(b)
	if err != nil {
		n = f.fs.rand.IntN(n + 1)
	}
	f.write(b[:n], int(off))
	return n, err
}

func (f *crashFile) write(b []byte, off int) {
	if len(b) == 0 {
		return
	}
	node := f.node
	if end := off + len(b); end > len(node.data) {
		node.data, node.resized = resize(node.data, end), true
	}
	copy(node.data[off:], b)
	if node.dirty == nil {
		node.dirty = map[int]bool{}
	}
	for s := off / sector; s <= (off+len(b)-1)/sector; s++ {
		node.dirty[s] = true
	}
}

func (f *crashFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.fs.step(OpSync, f.name)
	switch {
	case errors.Is(err, ErrCrashed):
	case err != nil:
		f.node.persist(func() bool { return f.fs.rand.IntN(2) == 0 })
	default:
		f.node.persist(func() bool { return true })
	}
	return err
}

func (f *crashFile) Allocate(off, n int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step(OpAllocate, f.name); err != nil {
		return err
	}
	if end := int(off + n); end > len(f.node.data) {
		f.node.data, f.node.resized = resize(f.node.data, end), true
	}
	return nil
}

func (f *crashFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step(OpTruncate, f.name); err != nil {
		return err
	}
	f.node.data, f.node.resized = slices.Clone(resize(f.node.data, int(size))), true
	return nil
}

func (f *crashFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *crashFile) Close() error { return nil }
