//go:build unix

package ingress

import (
	"net"
	"os"
	"syscall"
)

// inherited listens on a copy of a descriptor.
func inherited(fd int) (net.Listener, error) {
	syscall.CloseOnExec(fd)
	dup, err := syscall.Dup(fd)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "LISTEN_FDS")
	defer f.Close() // FileListener makes a copy of its own
	return net.FileListener(f)
}
