//go:build unix

package filesink

import (
	"errors"
	"fmt"
	"syscall"
)

// lock makes f ours until it is closed.
func lock(f file) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}
