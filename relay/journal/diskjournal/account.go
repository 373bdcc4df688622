package diskjournal

import (
	"encoding/binary"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// SourceAccount counts what comes in at one source: for each call Received when it arrives, and one of the others when
// it ends, unless it ends with a durable record: that the journal counts by itself, as accepted or quarantined. Its
// methods are cheap and may be called concurrently.
type SourceAccount struct {
	j     *Journal
	saved Account // guarded by Journal.mu

	mu  sync.Mutex // guards what follows; taken after Journal.mu where both are needed
	now Account
}

// Received counts a call.
func (a *SourceAccount) Received() { a.count(&a.now.Received) }

// Rejected counts a call that was refused.
func (a *SourceAccount) Rejected() { a.end(&a.now.Rejected) }

// Unavailable counts a call whose record was not stored, or that waited in vain for that of another. For an append it is
// called when done reports an error, whatever the caller was answered before.
func (a *SourceAccount) Unavailable() { a.end(&a.now.Unavailable) }

// Test counts a test call.
func (a *SourceAccount) Test() { a.end(&a.now.Tests) }

// Duplicate counts a copy of a known event.
func (a *SourceAccount) Duplicate() { a.end(&a.now.Duplicates) }

func (a *SourceAccount) end(outcome *uint64) {
	a.count(outcome)
	a.j.wantCheckpoint()
}

func (a *SourceAccount) count(n *uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n++
}

// stored counts a record that is on disk. Journal.mu is held.
func (a *SourceAccount) stored(quarantined bool) {
	if quarantined {
		a.count(&a.now.Quarantined)
	} else {
		a.count(&a.now.Accepted)
	}
}

func (a *SourceAccount) read() Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// Account gives the account of a source, which is kept as long as the journal.
func (j *Journal) Account(source string) *SourceAccount {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.sourceAccount(source)
}

func (j *Journal) sourceAccount(source string) *SourceAccount { // j.mu is held
	a := j.accounts[source]
	if a == nil {
		a = &SourceAccount{j: j}
		j.accounts[source] = a
	}
	return a
}

// What is saved are the outcomes. Calls that had none when the process ended never get one, and are forgotten, unless
// their record is found behind the checkpoint: then the call is counted again together with it.

const accountPrefix = "=" // the state file knows no empty keys

func outcomes(a *Account) [6]*uint64 {
	return [...]*uint64{&a.Rejected, &a.Unavailable, &a.Tests, &a.Duplicates, &a.Quarantined, &a.Accepted}
}

func (j *Journal) loadAccounts(tx *bbolt.Tx) error {
	return tableOf(tx, bucketAccounts).ForEach(func(k, v []byte) error {
		source := string(k[len(accountPrefix):])
		var n Account
		d := decoder{b: v}
		for _, v := range outcomes(&n) {
			*v = d.uvarint()
			n.Received += *v
		}
		if d.err != nil {
			return fmt.Errorf("account of source %q: %w", source, d.err)
		}
		j.accounts[source] = &SourceAccount{j: j, saved: n, now: n}
		return nil
	})
}

// changedAccounts are those whose outcomes are not saved. Journal.mu is held.
func (j *Journal) changedAccounts() map[string]Account {
	changed := make(map[string]Account)
	for source, a := range j.accounts {
		n := a.read()
		n.Received -= n.InFlight()
		if n != a.saved {
			changed[source] = n
		}
	}
	return changed
}

func putAccounts(tx *bbolt.Tx, accounts map[string]Account) error {
	for source, n := range accounts {
		var b []byte
		for _, v := range outcomes(&n) {
			b = binary.AppendUvarint(b, *v)
		}
		if err := tableOf(tx, bucketAccounts).Put([]byte(accountPrefix+source), b); err != nil {
			return err
		}
	}
	return nil
}
