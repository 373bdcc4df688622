package journal

import "time"

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
	Cause    string // the reason in a word, by which letters are grouped; "" = the letter is of an earlier version
	At       time.Time
	Retry    Retry
	Size     int64 // of the body; set by the journal

	// Written is where the letter itself is, in the order in which letters were written, of a journal that several processes share; zero:
	// it is on its way.
	Written Position
}

// Totals are the deliveries of a sink since it exists. Owed = Delivered + Dead + Skipped + Dropped + Pending.
type Totals struct{ Owed, Delivered, Dead, Skipped, Dropped, Pending uint64 }

// State is how a delivery stands.
type State uint8

// The states of a delivery. The zero State is that of a sink that the journal does not know.
const (
	StateWaiting State = iota + 1 // not read so far
	StatePending                  // handed out
	StateDead                     // a dead letter
	StateSettled                  // delivered, skipped or dropped; or a dead letter that is not kept any more
)

// String is the state's name for people.
func (s State) String() string { return [...]string{"", "waiting", "pending", "dead", "settled"}[s] }

// Standing is how a delivery stands, and what has been tried for it.
type Standing struct {
	State  State
	Retry  Retry  // of one that is pending or dead
	Reason string // of a dead letter
}
