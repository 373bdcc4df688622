package diskjournal

import (
	"encoding/binary"
	"fmt"
	"sync"

	"ncs-relay/relay/journal"

	"go.etcd.io/bbolt"
)

// sourceAccount is a journal.SourceAccount.
type sourceAccount struct {
	j     *Journal
	saved journal.Account // guarded by Journal.mu

	mu  sync.Mutex // guards what follows; taken after Journal.mu where both are needed
	now journal.Account
}

// Received counts a call.
func (a *sourceAccount) Received() { a.count(&a.now.Received) }

// Rejected counts a call that was refused.
func (a *sourceAccount) Rejected() { a.end(&a.now.Rejected) }

// Unavailable counts a call whose record was not stored.
func (a *sourceAccount) Unavailable() { a.end(&a.now.Unavailable) }

// Test counts a test call.
func (a *sourceAccount) Test() { a.end(&a.now.Tests) }

// Duplicate counts a copy of a known event.
func (a *sourceAccount) Duplicate() { a.end(&a.now.Duplicates) }

func (a *sourceAccount) end(outcome *uint64) {
	a.count(outcome)
	a.j.wantCheckpoint()
}

func (a *sourceAccount) count(n *uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n++
}

// stored counts a record that is on disk. Journal.mu is held.
func (a *sourceAccount) stored(quarantined bool) {
	if quarantined {
		a.count(&a.now.Quarantined)
	} else {
		a.count(&a.now.Accepted)
	}
}

func (a *sourceAccount) read() journal.Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// Account returns the account of a source.
func (j *Journal) Account(source string) journal.SourceAccount {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.accountOf(source)
}

func (j *Journal) accountOf(source string) *sourceAccount { // j.mu is held
	a := j.accounts[source]
	if a == nil {
		a = &sourceAccount{j: j}
		j.accounts[source] = a
	}
	return a
}

// What is saved are the outcomes. Calls that had none when the process ended never get one, and are forgotten, unless
// their record is found behind the checkpoint: then the call is counted again together with it.

const accountPrefix = "=" // the state file knows no empty keys

func outcomes(a *journal.Account) [6]*uint64 {
	return [...]*uint64{&a.Rejected, &a.Unavailable, &a.Tests, &a.Duplicates, &a.Quarantined, &a.Accepted}
}

func (j *Journal) loadAccounts(tx *bbolt.Tx) error {
	return tableOf(tx, bucketAccounts).ForEach(func(k, v []byte) error {
		source := string(k[len(accountPrefix):])
		var n journal.Account
		d := decoder{B: v}
		for _, v := range outcomes(&n) {
			*v = d.Uvarint()
			n.Received += *v
		}
		if d.Err != nil {
			return fmt.Errorf("account of source %q: %w", source, d.Err)
		}
		j.accounts[source] = &sourceAccount{j: j, saved: n, now: n}
		return nil
	})
}

// changedAccounts are those whose outcomes are not saved. Journal.mu is held.
func (j *Journal) changedAccounts() map[string]journal.Account {
	changed := make(map[string]journal.Account)
	for source, a := range j.accounts {
		n := a.read()
		n.Received -= n.InFlight()
		if n != a.saved {
			changed[source] = n
		}
	}
	return changed
}

func putAccounts(tx *bbolt.Tx, accounts map[string]journal.Account) error {
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
