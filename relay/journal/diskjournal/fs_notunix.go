//go:build !unix

package diskjournal

import (
	"errors"
	"os"
)

// A journal cannot be opened here: nothing keeps a second process out of it. The package builds for the commands that
// need none.

func freeSpace(string) (free, total int64, err error) { return 0, 0, errors.ErrUnsupported }

func lock(*os.File) error   { return errors.ErrUnsupported }
func unlock(*os.File) error { return nil }
