package journal

import (
	"fmt"
	"time"
)

// Outcome is how a delivery was settled, other than by becoming a dead letter.
type Outcome uint8

const (
	Delivered Outcome = iota + 1 // the sink took it
	Skipped                      // an operator said so
	Dropped                      // given up without keeping it, loudly
)

// Retry is the history of a delivery that failed. Texts are kept up to 1 KiB, times in milliseconds.
type Retry struct {
	Attempts    int
	FirstError  string
	LastError   string
	FirstFailed time.Time
	LastFailed  time.Time
	Next        time.Time // when it is due again
}

// Pending is a delivery that was handed out and is not settled.
type Pending struct {
	Position Position
	Retry    Retry // zero when it has not failed
}

// DeadLetter is a delivery given up. Its record is kept as long as the letter.
type DeadLetter struct {
	Position Position
	Reason   string // up to 1 KiB is kept
	At       time.Time
	Retry    Retry
	Size     int64 // of the body; set by the journal
}

// Totals are the deliveries of a sink since it exists. Owed = Delivered + Dead + Skipped + Dropped + Pending.
type Totals struct{ Owed, Delivered, Dead, Skipped, Dropped, Pending uint64 }

// LostError names positions whose records are not in the journal any more: damaged on disk. Settle them as Dropped.
type LostError struct{ Positions []Position }

func (e *LostError) Error() string {
	return fmt.Sprintf("%d records are lost to damage, the first at position %d", len(e.Positions), e.Positions[0])
}
