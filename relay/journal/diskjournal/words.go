package diskjournal

import "ncs-relay/relay/journal"

// The words of the contract.
type (
	Record       = journal.Record
	Outcome      = journal.Outcome
	Retry        = journal.Retry
	Pending      = journal.Pending
	DeadLetter   = journal.DeadLetter
	Totals       = journal.Totals
	ReplaySpec   = journal.ReplaySpec
	ReplayTotals = journal.ReplayTotals
	Account      = journal.Account
	DiskStats    = journal.DiskStats
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
)
