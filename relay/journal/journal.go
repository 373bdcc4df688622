// Package journal is the contract of what keeps accepted events until every sink they are owed to has settled them: the
// words, and no I/O. Package diskjournal keeps them on a disk.
package journal

import "errors"

var (
	// ErrFull is in the chain of errors that say that the volume, or our own limits on it, leave no room.
	ErrFull = errors.New("journal is full")
	// ErrClosed is given to appends that come too late.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge is returned for a record that fits no segment.
	ErrTooLarge = errors.New("record is too large for the journal")
	// ErrLocked means that another process has the directory open.
	ErrLocked = errors.New("data directory is in use by another process")
	// ErrForeign means that the directory holds something else.
	ErrForeign = errors.New("data directory is not empty and not a journal")
	// ErrDamaged means that what the sinks have settled cannot be read, so that nothing can be delivered without losing or
	// repeating events. Verify says more, and Export salvages the events.
	ErrDamaged = errors.New("the journal is damaged")
	// ErrNewer means that a newer version of the program wrote the directory.
	ErrNewer = errors.New("data directory was written by a newer version")
)
