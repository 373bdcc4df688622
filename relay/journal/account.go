package journal

import "sync/atomic"

// Account counts the calls of one source. Received = Rejected + Unavailable + Tests + Duplicates + Quarantined +
// Accepted + what is in flight, at every instant.
type Account struct {
	Received    uint64
	Rejected    uint64 // refused: signature, size, method ...
	Unavailable uint64 // not stored
	Tests       uint64
	Duplicates  uint64
	Quarantined uint64 // stored, but not understood
	Accepted    uint64 // stored
}

// InFlight are the calls without an outcome so far.
func (a Account) InFlight() uint64 {
	return a.Received - (a.Rejected + a.Unavailable + a.Tests + a.Duplicates + a.Quarantined + a.Accepted)
}

// SourceAccount counts what comes in at one source: for each call Received when it arrives, and one of the others when
// it ends, unless it ends with a durable record: that the journal counts by itself, as accepted or quarantined. Its
// methods are cheap and may be called concurrently.
type SourceAccount struct {
	received, rejected, unavailable, tests, duplicates, quarantined, accepted atomic.Uint64
}

// Received counts a call.
func (a *SourceAccount) Received() { a.received.Add(1) }

// Rejected counts a call that was refused.
func (a *SourceAccount) Rejected() { a.rejected.Add(1) }

// Unavailable counts a call whose record was not stored, or that waited in vain for that of another. For an append it is
// called when done reports an error, whatever the caller was answered before.
func (a *SourceAccount) Unavailable() { a.unavailable.Add(1) }

// Test counts a test call.
func (a *SourceAccount) Test() { a.tests.Add(1) }

// Duplicate counts a copy of a known event.
func (a *SourceAccount) Duplicate() { a.duplicates.Add(1) }

// Account gives the account of a source, which is kept as long as the journal.
func (j *Journal) Account(source string) *SourceAccount { return &SourceAccount{} }

// Snapshot is the state of all accounts at one instant.
type Snapshot struct {
	Frontier Position
	Accounts map[string]Account // by source, those not configured any more included
	Sinks    []SinkStatus       // by name
}

// Snapshot reads all accounts at once.
func (j *Journal) Snapshot() Snapshot { return Snapshot{Frontier: j.Frontier(), Sinks: j.Sinks()} }
