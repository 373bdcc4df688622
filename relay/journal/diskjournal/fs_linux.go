package diskjournal

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sync is fdatasync: it leaves out times, but not a size that is needed to read the data back.
func (f diskFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("fdatasync %s: %w", f.Name(), err)
		}
	}
}

func (f diskFile) Allocate(off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, off, n)
		switch {
		case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		case !errors.Is(err, unix.EINTR):
			return fmt.Errorf("fallocate %s: %w", f.Name(), err)
		}
	}
}
