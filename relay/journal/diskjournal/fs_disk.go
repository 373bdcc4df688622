package diskjournal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// DiskFS is the FS of the operating system. Files hold customer data and are readable by their owner only.
type DiskFS struct{}

var _ FS = DiskFS{}

func (d DiskFS) MkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := d.MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func (DiskFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (DiskFS) Create(name string) (File, error) {
	return openDisk(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (DiskFS) Open(name string) (File, error) { return openDisk(name, os.O_RDONLY) }
func (DiskFS) Edit(name string) (File, error) { return openDisk(name, os.O_RDWR) }

func openDisk(name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return diskFile{f}, nil
}

func (DiskFS) Remove(name string) error     { return os.Remove(name) }
func (DiskFS) Rename(from, to string) error { return os.Rename(from, to) }

func (DiskFS) SyncDir(dir string) error { return syncDir(dir) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (DiskFS) Free(dir string) (free, total int64, err error) { return freeSpace(dir) }

func (DiskFS) Lock(name string) (io.Closer, error) { return lockFile(name, os.O_RDWR|os.O_CREATE) }

func lockFile(name string, flags int) (io.Closer, error) {
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		if errors.Is(err, ErrLocked) {
			return nil, err
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return fileLock{f}, nil
}

// fileLock is released by word, not only by closing: a child that was forked and not yet begun has the file open, too.
type fileLock struct{ f *os.File }

func (l fileLock) Close() error {
	return errors.Join(unlock(l.f), l.f.Close())
}

func (DiskFS) CommitState(commit func() error) error { return commit() }

type diskFile struct{ *os.File }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
