package kafkajournal

import (
	"encoding/binary"
	"maps"
	"slices"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// Account returns the account of a source. Each replica keeps its own in ncs.control; what a source has is the sum.
func (j *Journal) Account(source string) journal.SourceAccount { return j.account(source) }

func (j *Journal) account(source string) *ledger.SourceAccount {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := j.accounts[source]
	if a == nil {
		a = ledger.NewSourceAccount(journal.Account{}, j.control.touch)
		j.accounts[source] = a
	}
	return a
}

// loadAccounts goes on with the accounts of an earlier life of this replica.
func (j *Journal) loadAccounts() {
	for source, n := range j.control.accountsOf(j.opts.Replica) {
		j.accounts[source] = ledger.NewSourceAccount(n, j.control.touch)
	}
}

// ownAccounts are those of this replica without the calls in flight: they never get an outcome when the process ends now.
func (j *Journal) ownAccounts(finished bool) map[string]journal.Account {
	j.mu.Lock()
	defer j.mu.Unlock()
	own := make(map[string]journal.Account, len(j.accounts))
	for source, a := range j.accounts {
		n := a.Read()
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
			ledger.AddAccount(&total, n)
			sum[source] = total
		}
	}
	return sum
}

func encodeAccounts(accounts map[string]journal.Account) []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, uint64(len(accounts)))
	for _, source := range slices.Sorted(maps.Keys(accounts)) {
		b = ledger.AppendAccount(ledger.AppendText(b, source), accounts[source])
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
		source := d.Text()
		accounts[source] = d.Account()
	}
	return accounts, d.Err
}
