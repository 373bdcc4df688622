package kafkajournal

import (
	"encoding/binary"
	"maps"
	"slices"
	"sync"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// sourceAccount is a journal.SourceAccount of this replica. Each replica keeps its own in ncs.control; what a source has is the sum.
type sourceAccount struct {
	j *Journal

	mu  sync.Mutex // guards now
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

func (a *sourceAccount) stored(quarantined bool) {
	if quarantined {
		a.end(&a.now.Quarantined)
	} else {
		a.end(&a.now.Accepted)
	}
}

func (a *sourceAccount) end(outcome *uint64) {
	a.count(outcome)
	a.j.control.touch()
}

func (a *sourceAccount) count(n *uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*n++
}

func (a *sourceAccount) read() journal.Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

// Account returns the account of a source.
func (j *Journal) Account(source string) journal.SourceAccount { return j.account(source) }

func (j *Journal) account(source string) *sourceAccount {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.accounts[source]
	if a == nil {
		a = &sourceAccount{j: j}
		j.accounts[source] = a
	}
	return a
}

// loadAccounts goes on with the accounts of an earlier life of this replica.
func (j *Journal) loadAccounts() {
	for source, n := range j.control.accountsOf(j.opts.Replica) {
		j.account(source).now = n
	}
}

// ownAccounts are those of this replica without the calls in flight: they never get an outcome when the process ends now.
func (j *Journal) ownAccounts(finished bool) map[string]journal.Account {
	j.mu.Lock()
	defer j.mu.Unlock()
	own := make(map[string]journal.Account, len(j.accounts))
	for source, a := range j.accounts {
		n := a.read()
		if finished {
			n.Received -= n.InFlight()
		}
		own[source] = n
	}
	return own
}

// sumAccounts are those of all replicas.
func (j *Journal) sumAccounts() map[string]journal.Account {
	sum := j.ownAccounts(false)
	for _, other := range j.control.otherAccounts(j.opts.Replica) {
		for source, n := range other {
			total := sum[source]
			add := outcomes(&n)
			for i, v := range outcomes(&total) {
				*v += *add[i]
			}
			total.Received += n.Received
			sum[source] = total
		}
	}
	return sum
}

func outcomes(a *journal.Account) [6]*uint64 {
	return [...]*uint64{&a.Rejected, &a.Unavailable, &a.Tests, &a.Duplicates, &a.Quarantined, &a.Accepted}
}

func encodeAccounts(accounts map[string]journal.Account) []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, uint64(len(accounts)))
	for _, source := range slices.Sorted(maps.Keys(accounts)) {
		b = ledger.AppendText(b, source)
		n := accounts[source]
		for _, v := range outcomes(&n) {
			b = binary.AppendUvarint(b, *v)
		}
	}
	return b
}

func decodeAccounts(b []byte) (map[string]journal.Account, error) {
	d, err := decoderOf(b)
	if err != nil {
		return nil, err
	}
	accounts := make(map[string]journal.Account)
	for left := d.Uvarint(); left > 0 && d.Err == nil; left-- {
		source, n := d.Text(), journal.Account{}
		for _, v := range outcomes(&n) {
			*v = d.Uvarint()
			n.Received += *v
		}
		accounts[source] = n
	}
	return accounts, d.Err
}
