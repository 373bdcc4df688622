//go:build !linux

package diskjournal

// Sync is inherited from os.File: on Darwin that is F_FULLFSYNC, which fdatasync there is not.

func (f diskFile) Allocate(off, n int64) error { return nil }
