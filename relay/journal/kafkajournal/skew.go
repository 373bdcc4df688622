package kafkajournal

import (
	"sync/atomic"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

// skew is how far our clock is ahead of the brokers'. Replicas' clocks may differ by hours: what one of them has noted as a time
// would make deliveries too old, or wait for hours, at another. So what is kept for others are the brokers' times.
type skew struct{ nanos atomic.Int64 }

// leastSkew is what is taken for none: the time of requests is in what is measured.
const leastSkew = 10 * time.Second

func (k *skew) set(ahead time.Duration) {
	if ahead.Abs() >= leastSkew {
		k.nanos.Store(int64(ahead))
	}
}

func (k *skew) ahead() time.Duration {
	if k == nil {
		return 0
	}
	return time.Duration(k.nanos.Load())
}

// toBrokers makes the brokers' times of ours, in a copy of what is pending.
func (k *skew) toBrokers(pending []ledger.Delivery) {
	if ahead := k.ahead(); ahead != 0 {
		for i := range pending {
			shift(&pending[i].Debt, -ahead)
		}
	}
}

// fromBrokers is the reverse of toBrokers.
func (k *skew) fromBrokers(u *ledger.Unsettled) {
	if ahead := k.ahead(); ahead != 0 {
		for _, p := range u.Pending(0) {
			shift(u.Get(offset(p.Position.Offset)), ahead)
		}
	}
}

func shift(d *ledger.Debt, by time.Duration) {
	if d.Retry == nil || d.Retry.Next.IsZero() {
		return
	}
	r := *d.Retry
	r.Next = r.Next.Add(by)
	d.Retry = &r
}

// ours is a copy of a record for those who deliver it; of a shard that this replica does not have, too.
func (s *shard) ours(r *journal.Record) *journal.Record {
	own := *r
	if s != nil {
		own.Stored = own.Stored.Add(s.clock.ahead())
	}
	return &own
}
