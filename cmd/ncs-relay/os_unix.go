//go:build unix

package main

import "golang.org/x/sys/unix"

func canServe() error { return nil }

func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }

// descriptorLimit is how many descriptors this process may have open, and how many it may ask for.
func descriptorLimit() (now, most uint64, known bool) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), uint64(limit.Max), err == nil
}
