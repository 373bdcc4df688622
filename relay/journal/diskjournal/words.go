package diskjournal

import "ncs-relay/relay/journal"

// The words of the contract.
type (
	Position     = journal.Position
	SinkID       = journal.SinkID
	Record       = journal.Record
	Outcome      = journal.Outcome
	Retry        = journal.Retry
	Pending      = journal.Pending
	DeadLetter   = journal.DeadLetter
	Totals       = journal.Totals
	LostError    = journal.LostError
	ReplaySpec   = journal.ReplaySpec
	ReplayTotals = journal.ReplayTotals
	Account      = journal.Account
	Stats        = journal.Stats
	SinkStatus   = journal.SinkStatus
	Snapshot     = journal.Snapshot
	Config       = journal.Config
	DeadConfig   = journal.DeadConfig
)

const (
	Delivered = journal.Delivered
	Skipped   = journal.Skipped
	Dropped   = journal.Dropped
)

var (
	ErrFull     = journal.ErrFull
	ErrClosed   = journal.ErrClosed
	ErrTooLarge = journal.ErrTooLarge
	ErrLocked   = journal.ErrLocked
	ErrForeign  = journal.ErrForeign
	ErrDamaged  = journal.ErrDamaged
	ErrNewer    = journal.ErrNewer
)
