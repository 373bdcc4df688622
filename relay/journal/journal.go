// Package journal is the contract of a journal: what keeps accepted events until every sink they are owed to has settled them.
// It holds the words and the interfaces, by role, and does no I/O. Package diskjournal keeps a journal on a disk;
// journaltest holds the suite that every journal must pass.
//
// Promise: when an append is reported done without error, the record is stored to last, and Deliveries.Next hands it out for
// each of its sinks, whatever process crashes, until it is settled. A journal that cannot store makes appends fail, and
// nothing else; they work again when it can.
//
// Left to others: which sinks an event is owed to, what makes two notifications copies, when to retry, how much a sink
// may owe, which events a replay is about.
package journal

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrFull is in the chain of errors that say that there is no room.
	ErrFull = errors.New("journal is full")
	// ErrClosed is given to appends that come too late.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge is returned for a record that the journal cannot hold at any time.
	ErrTooLarge = errors.New("record is too large for the journal")
)

// Journal is all that a relay needs of one. Its methods may be called concurrently.
type Journal interface {
	Appender
	Feeder
	Operator
}

// Opened is a journal as whoever has opened it holds it.
type Opened interface {
	Journal

	// Run stores what is appended and settled until ctx ends; then what was queued, and returns when everything it started has
	// ended. Appends that come later fail with ErrClosed.
	Run(ctx context.Context) error

	// Close stores what is settled and ends the journal. Run, if it was called, must have returned.
	Close() error
}

// Shard is a part of the journal that this process has: until it is revoked, and what is assigned again later is another *Shard.
// The disk journal has one, for ever.
type Shard struct {
	Number uint32
	Of     int // so many there are
}

// Sharded says which parts of the journal are this process's.
type Sharded interface {
	// Shards returns those there are now, and a channel that is closed when that changes; nil when it never does.
	Shards() (held []*Shard, changed <-chan struct{})
}

// Appender takes events.
type Appender interface {
	Sharded

	// Append queues a copy of rec, whose Sinks the journal must know (Feeder.Sink). When it returns nil, done will be called
	// exactly once, with the record's position, at which it is then stored to last, or with the reason why it is not known to
	// be; the event may come to be delivered even then. done runs on the journal's goroutine and must not block. While the
	// queue is full, Append waits until ctx ends; with one that has ended it takes what there is room for, and does not wait.
	Append(ctx context.Context, rec *Record, done func(Position, error)) error

	// Ready returns why an append would probably fail now; nil = it would not. ErrFull is in the chain when room is what is missing.
	Ready() error

	// Keys calls fn with the newest keys known in a shard, at most n of them and none received before since, oldest first. It
	// covers every record that is stored there when it is called.
	Keys(shard *Shard, n int, since time.Time, fn func(key, id [16]byte, t time.Time)) error

	// KeepKeys bounds how many keys are kept for Keys and Find, and for how long; 0 = for any time.
	KeepKeys(n int, d time.Duration)

	// Account returns the account of a source, which is kept as long as the journal.
	Account(source string) SourceAccount
}

// SourceAccount counts what comes in at one source: for each call Received when it arrives, and one of the others when it ends,
// unless it ends with a stored record: that the journal counts by itself, as accepted or quarantined. Its methods are
// cheap and may be called concurrently.
type SourceAccount interface {
	Received()
	Rejected()
	// Unavailable counts a call whose record was not stored, or that waited in vain for that of another. For an append it is called
	// when done reports an error, whatever the caller was answered before.
	Unavailable()
	Test()
	Duplicate()
}

// Feeder hands out what sinks are owed.
type Feeder interface {
	Sharded

	// Sink opens a sink, or returns what is open already. A new name is owed what is appended from now on, and is stored before
	// Sink returns; a known one goes on where it was.
	Sink(name string) (Sink, error)

	// Load reads records by position, in the order asked; nil stands for what is lost for good. An error may pass.
	Load(positions []Position) ([]*Record, error)

	// Replays lists the replays that are not finished, and the newest finished, by number.
	Replays() []Replay
}

// Deliveries are the events of a shard that are owed to a sink, or to be delivered again. What was handed out and settled is up to date in memory,
// and stored a moment later: after a crash some deliveries are handed out again. Methods may be called concurrently; none but
// Next touches the storage.
type Deliveries interface {
	// Pending returns what was handed out and is not settled, in order. Asked before the first Next it is what an earlier life of
	// the process left; the records come by Feeder.Load.
	Pending() []Pending

	// Next hands out the next records, in order, each once in the life of the process, up to the first that makes the bodies
	// maxBytes or more. It returns none when there are no more, or many were looked at in vain: then wait for
	// Sink.Appended, taken before the call. Records own their memory. After an error, which may pass, call it again.
	Next(maxBytes int) ([]*Record, error)

	// Owes reports whether a delivery was handed out and is not settled. The journal makes dead letters of what it cannot keep for
	// longer, whoever has it.
	Owes(Position) bool

	// Settle ends a delivery. Positions that were not handed out, or are settled, are ignored; by Failed and Bury, too.
	Settle(Position, Outcome)

	// Failed notes a failed attempt at a delivery that stays pending.
	Failed(Position, Retry)

	// Bury ends a delivery that failed for good by making it a dead letter.
	Bury(DeadLetter)

	// End says that nothing of these deliveries is in flight any more, and that nobody will settle one: a shard that was revoked
	// goes to another process when all has ended.
	End()
}

// Sink is what one sink is owed, and what is kept for it.
type Sink interface {
	// Owed is what the sink is owed in a shard.
	Owed(*Shard) Deliveries

	// Appended returns a channel that is closed when Deliveries.Next may find more, of what the sink is owed or a replay delivers
	// to it. Take it before calling that.
	Appended() <-chan struct{}

	// PendingBytes are the bodies in a shard that are not settled, handed out or not.
	PendingBytes(*Shard) int64

	// SetPaused keeps why nothing is sent to the sink until an operator says so; "" ends the pause.
	SetPaused(reason string)

	// Paused returns what SetPaused kept, also in an earlier life of the process.
	Paused() string

	// Release says that nobody reads for the sink any more: it is not configured. What it is owed stays, until Feeder.Sink takes
	// it up again.
	Release()
}

// Replay is a job that delivers again what is settled, as far as the journal reaches back, and dead letters. It is kept like what
// sinks are owed, and does not count in their totals.
type Replay interface {
	// ID is the replay's number, from 1 on, never used again.
	ID() uint32

	// Spec is what the replay is about, with what the caller left open filled in.
	Spec() ReplaySpec

	// Totals returns one snapshot.
	Totals() ReplayTotals

	// Finished reports whether nothing is left to do.
	Finished() bool

	// Cancel ends the replay; what is pending is skipped.
	Cancel()

	// Raises reports whether the replay has still to deliver the dead letter that a sink has at a position, provided that it wants
	// it, and would remove it then.
	Raises(sink string, pos Position) bool

	// In are the deliveries in a shard that want selects by everything but the body. Delivering a dead letter removes the letter, unless the
	// replay is one of all that is settled and goes to another sink; burying it gives it the new reason.
	In(shard *Shard, want func(header *Record) bool) Deliveries
}

// Operator answers and changes what operators ask.
type Operator interface {
	// Snapshot returns all accounts at one instant.
	Snapshot() Snapshot

	// Flush has stored to last, when it returns nil, what was settled, paused or cancelled before it was called.
	Flush() error

	// Frontier are the positions of the last records stored, whoever has stored them. It waits for some seconds at most; with an
	// error they are those that are known.
	Frontier(ctx context.Context) (Cut, error)

	// Scan calls fn with the records of the shards that this process has, up to the frontier of now, each shard's in order, until it returns
	// false. want decides by everything but the body. What is lost is skipped.
	Scan(ctx context.Context, want func(header *Record) bool, fn func(*Record) bool) error

	// Find returns the positions of the events with an id, the newest first, as far as their keys are still known; Scan finds the others.
	Find(id [16]byte) ([]Position, error)

	// Standing returns how a delivery stands.
	Standing(sink string, pos Position) (Standing, error)

	// Pending returns what a sink was handed out and has not settled, in order, whether it is open or not.
	Pending(sink string) []Pending

	// DropPending settles everything a sink that is not open is owed as Dropped, and returns how many deliveries that are. It is
	// stored to last when DropPending returns.
	DropPending(sink string) (uint64, error)

	// DeadLetters lists a sink's dead letters, each shard's in order, after the one at a position, at most n. Their records come
	// by Feeder.Load.
	DeadLetters(sink string, after Position, n int) ([]DeadLetter, error)

	// DeadLetter returns a sink's dead letter at a position; false when it has none.
	DeadLetter(sink string, at Position) (DeadLetter, bool, error)

	// DropLetters removes dead letters, all or none. They stay counted in Totals.Dead. Only Position and Written are looked at; one that
	// was written again since it was listed stays.
	DropLetters(sink string, letters ...DeadLetter) error

	// AddReplay begins a replay. It is stored to last when AddReplay returns; after an error it may be, and then begins with the
	// next start.
	AddReplay(spec ReplaySpec) (Replay, error)

	// CountReplay counts what a replay would deliver now.
	CountReplay(ctx context.Context, spec ReplaySpec, want func(header *Record) bool) (int, error)
}

// Mover is what a journal can do that lets one sink owe what another was owed.
type Mover interface {
	// Move makes sink to owe what sink from, which is not open, owes, and returns the positions of these deliveries, each shard's in order.
	// They are pending at to from now on, with no attempts made; Next does not hand them out. What to was owed anyway is
	// skipped at from, and counted in what Move returns. Either all or nothing is moved, also across a crash.
	Move(from, to string) (positions []Position, skipped uint64, err error)
}

// Shared is a journal that other processes have open, too, which pause sinks and begin replays as this one does.
type Shared interface {
	// Levers returns how often sinks were paused or resumed, and replays begun, cancelled or ended, by any of them. When it changes,
	// every Sink.Appended is closed: look at Sink.Paused and Feeder.Replays again.
	Levers() uint64

	// Known is how far this process knows what all of them have decided.
	Known() int64

	// PauseAsOf is Sink.SetPaused for what was found out when this process knew that much. It reports false, and pauses nothing, if it
	// has learnt of a resume since; one that it learns of later wins, too.
	PauseAsOf(sink, reason string, known int64) bool

	// SharedStats are counted since the process began.
	SharedStats() SharedStats

	// CatchUp returns when this process knows of every pause, resume and replay that any of them has stored so far. It fails after some
	// seconds.
	CatchUp(ctx context.Context) error

	// Ends are where all logs end now. It fails if that is not known of one of them, after some seconds.
	Ends(ctx context.Context) (Ends, error)

	// DropUpTo is DropPending for what lies before a cut. It waits until it is known what that is.
	DropUpTo(ctx context.Context, sink string, to Cut) (uint64, error)

	// Ended returns the totals of a replay in all shards; false when one has not said that nothing is left to do there.
	Ended(id uint32) (ReplayTotals, bool)
}

// Ends bound a command that several processes carry out, each for its shards: it is about nothing that comes later, whenever, and
// however often, it is carried out.
type Ends struct {
	Events  Cut
	Letters Cut // see DeadLetter.Written
}

// SharedStats say how often shards have come to this process, and what that cost.
type SharedStats struct {
	TakeOvers    uint64        // shards that were taken over
	TakeOverTime time.Duration // that all of them took, from when they were given to this process
	Overlap      uint64        // events that two owners have written, and that were skipped
	Unread       time.Duration // for how long a shard that this process has was not judged, or not taken over: of all the longest
}

// Patient is a journal that needs longer than a disk to find out whether it can store.
type Patient interface {
	// AppendsFor is how long an append is tried, 7 s at most: whoever calls has 8 s.
	AppendsFor() time.Duration
}

// OnDisk is what a journal on a disk of its own can say of that.
type OnDisk interface{ DiskStats() DiskStats }
