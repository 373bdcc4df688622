package diskjournal

import "io"

// FS is what the journal asks of a file system. DiskFS is the real one; disktest has one that forgets what was
// not synced and fails on demand. Names are paths as the journal builds them with filepath.Join. Methods may be called
// concurrently. Errors keep their errno, so that errors.Is(err, syscall.ENOSPC) and fs.ErrNotExist work.
type FS interface {
	// MkdirAll creates a directory, and its parents, readable by the owner only, and makes them durable.
	MkdirAll(dir string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// Create creates a file that must not exist.
	Create(name string) (File, error)
	// Open opens an existing file for reading, which a volume that has become read-only still allows.
	Open(name string) (File, error)
	// Edit opens an existing file for reading and writing.
	Edit(name string) (File, error)
	Remove(name string) error
	Rename(from, to string) error
	// SyncDir makes creations, removals and renames in a directory durable.
	SyncDir(dir string) error
	// Free returns the bytes an unprivileged process may still write, and the size of the volume.
	Free(dir string) (free, total int64, err error)
	// Lock takes an exclusive lock that ends with the process at the latest; ErrLocked if another has it.
	Lock(name string) (io.Closer, error)
	// CommitState runs the commit of one transaction of the state file, which lies outside this interface because
	// bbolt maps it into memory. A test may fail it before or after it took effect.
	CommitState(commit func() error) error
}

// File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the content and size durable (fdatasync). After an error nothing may be concluded about any byte
	// written since the last success.
	Sync() error
	// Allocate reserves space for [off, off+n) and grows the file to it. Where the file system cannot, it does nothing.
	Allocate(off, n int64) error
	Truncate(size int64) error
	Size() (int64, error)
}
