package ledger

import (
	"encoding/binary"
	"sync"

	"ncs-relay/relay/journal"
)

// SourceAccount is a journal.SourceAccount. Its methods may be called concurrently.
type SourceAccount struct {
	ended func() // a call has ended otherwise than with a stored record

	mu  sync.Mutex // guards now
	now journal.Account
}

// NewSourceAccount goes on from now. ended is called for what is to be saved.
func NewSourceAccount(now journal.Account, ended func()) *SourceAccount {
	return &SourceAccount{now: now, ended: ended}
}

// Received counts a call.
func (a *SourceAccount) Received() { a.count(&a.now.Received) }

// Rejected counts a call that was refused.
func (a *SourceAccount) Rejected() { a.end(&a.now.Rejected) }

// Unavailable counts a call whose record was not stored.
func (a *SourceAccount) Unavailable() { a.end(&a.now.Unavailable) }

// Test counts a test call.
func (a *SourceAccount) Test() { a.end(&a.now.Tests) }

// Duplicate counts a copy of a known event.
func (a *SourceAccount) Duplicate() { a.end(&a.now.Duplicates) }

func (a *SourceAccount) end(outcome *uint64) {
	a.count(outcome)
	a.ended()
}

func (a *SourceAccount) count(n *uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n++
}

// Stored counts a record. That it is to be saved is for the caller to say, who often stores several.
func (a *SourceAccount) Stored(quarantined bool) {
	if quarantined {
		a.count(&a.now.Quarantined)
	} else {
		a.count(&a.now.Accepted)
	}
}

// Read returns the account.
func (a *SourceAccount) Read() journal.Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

func outcomes(a *journal.Account) [6]*uint64 {
	return [...]*uint64{&a.Rejected, &a.Unavailable, &a.Tests, &a.Duplicates, &a.Quarantined, &a.Accepted}
}

// AddAccount adds the calls of another process.
func AddAccount(total *journal.Account, more journal.Account) {
	add := outcomes(&more)
	for i, v := range outcomes(total) {
		*v += *add[i]
	}
	total.Received += more.Received
}

// AppendAccount appends the outcomes.
func AppendAccount(b []byte, a journal.Account) []byte {
	for _, v := range outcomes(&a) {
		b = binary.AppendUvarint(b, *v)
	}
	return b
}

// Account reads what AppendAccount wrote: of an account without calls in flight.
func (d *Decoder) Account() (a journal.Account) {
	for _, v := range outcomes(&a) {
		*v = d.Uvarint()
		a.Received += *v
	}
	return a
}
