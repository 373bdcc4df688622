package diskjournal

import (
	"fmt"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"

	"go.etcd.io/bbolt"
)

// sourceAccount is a journal.SourceAccount, with what is saved of it. Its own mutex is taken after Journal.mu where both are needed.
type sourceAccount struct {
	*ledger.SourceAccount
	saved journal.Account // guarded by Journal.mu
}

func (j *Journal) newAccount(saved journal.Account) *sourceAccount {
	return &sourceAccount{ledger.NewSourceAccount(saved, j.wantCheckpoint), saved}
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
		a = j.newAccount(journal.Account{})
		j.accounts[source] = a
	}
	return a
}

// What is saved are the outcomes. Calls that had none when the process ended never get one, and are forgotten, unless
// their record is found behind the checkpoint: then the call is counted again together with it.

const accountPrefix = "=" // the state file knows no empty keys

func (j *Journal) loadAccounts(tx *bbolt.Tx) error {
	return tableOf(tx, bucketAccounts).ForEach(func(k, v []byte) error {
		source := string(k[len(accountPrefix):])
		d := decoder{B: v}
		n := d.Account()
		if d.Err != nil {
			return fmt.Errorf("account of source %q: %w", source, d.Err)
		}
		j.accounts[source] = j.newAccount(n)
		return nil
	})
}

// changedAccounts are those whose outcomes are not saved. Journal.mu is held.
func (j *Journal) changedAccounts() map[string]journal.Account {
	changed := make(map[string]journal.Account)
	for source, a := range j.accounts {
		n := a.Read()
		n.Received -= n.InFlight()
		if n != a.saved {
			changed[source] = n
		}
	}
	return changed
}

func putAccounts(tx *bbolt.Tx, accounts map[string]journal.Account) error {
	for source, n := range accounts {
		if err := tableOf(tx, bucketAccounts).Put([]byte(accountPrefix+source), ledger.AppendAccount(nil, n)); err != nil {
			return err
		}
	}
	return nil
}
