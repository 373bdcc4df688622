package deliver

import (
	"time"

	"ncs-relay/relay"
)

// share returns how much of n this process may use that has owned of all shards. What is promised to a far side, all replicas promise
// together; only nothing is no share.
func share(n, owned, shards int) int { return max(1, n*owned/shards) }

// shareOut makes the sink's limits those of the shards that there are now. Without any nothing is sent.
func (d *dispatcher) shareOut() {
	owned := len(d.shards)
	if owned == 0 {
		return
	}
	shards := d.shards[0].Of
	d.pace.resize(share(d.Concurrency, owned, shards))
	s, limited := d.sink.(relay.Sharer)
	if !limited {
		return
	}
	s.Share(owned, shards)
	crowded := d.Concurrency*owned < shards
	if crowded && !d.crowded {
		d.log.Warn("concurrency is below the number of replicas: each makes one call at a time, together more than that", "concurrency", d.Concurrency)
	}
	d.crowded = crowded
}

// shared returns the time between two events of a replay in this process, if it is interval over all replicas.
func (d *dispatcher) shared(interval time.Duration) time.Duration {
	if len(d.shards) == 0 {
		return interval
	}
	return interval * time.Duration(d.shards[0].Of) / time.Duration(len(d.shards))
}
