//go:build !unix

package main

import (
	"fmt"
	"runtime"
)

// canServe says what this system lacks. The other commands are for developers' machines.
func canServe() error {
	return fmt.Errorf("serve does not run on %s: the journal needs locks that end with the process, directories that can be synced, and to know the free space of its disk. "+
		"Run it on Linux, as in a container or in WSL; the other commands work here, and ask a relay elsewhere by --admin", runtime.GOOS)
}

func writable(string) error { return nil }

func descriptorLimit() (now, most uint64, known bool) { return 0, 0, false }
