package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay/kafkaconn"
)

// refuser is an Ownership that is shared with others.
type refuser interface {
	Ownership
	Accept(shard int32)         // what was refused can be had again
	Elsewhere(shard int32) bool // another replica has it
}

const (
	// watchInterval is how often it is looked whether shards make progress.
	watchInterval = 3 * time.Second

	// reachWithin is how long a leader is waited for that is well if it answers at once.
	reachWithin = 3 * time.Second

	// stuckAfter is how long a shard may make no progress. It is longer than brokers wait before they replace one of them.
	stuckAfter = 15 * time.Second
)

// errOutOfReach is why a replica is not ready that lacks the way to a broker: others have it.
var errOutOfReach = errors.New("this replica does not reach the broker that leads it, and another replica does")

// watchLoop refuses shards, for as long as that lasts, whose leaders do not answer here though the cluster says that they lead.
// Others may be better off.
func (j *Journal) watchLoop(ctx context.Context) {
	own, ok := j.own.(refuser)
	for ok && kafkaconn.Pause(ctx, watchInterval) {
		if j.isOutdated() {
			return // what was refused for that is not to be accepted again
		}
		stuck := false
		for _, s := range j.all() {
			stuck = stuck || s.stuck()
		}
		stuck = stuck && own.Lease() > 0 // without one the way to the cluster is lacking, and others have all soon
		if stuck || !j.faulty() && j.doubt.Swap(false) {
			j.each(j.partitions(), func(n int32) { j.refuse(ctx, n, own) })
		}
		j.each(j.refusals(), func(n int32) {
			if j.given(n) == nil && j.reach(ctx, n) == nil {
				j.logger.Info("a shard can be reached again", "shard", n)
				j.refused.Delete(n)
				own.Accept(n)
			}
		})
	}
}

// refuse refuses a shard that is out of reach, whoever has it: in place of those that are given up others would come.
func (j *Journal) refuse(ctx context.Context, n int32, own refuser) {
	why := j.reach(ctx, n)
	if _, already := j.refused.Load(n); why == nil || already {
		return
	}
	j.logger.Error("a shard is out of reach, and left to other replicas", "shard", n, "error", why)
	j.refused.Store(n, nil)
	if s := j.given(n); s != nil {
		s.abandon()
	}
	own.Refuse(n)
}

// each calls fn with all shards at once.
func (j *Journal) each(shards []int32, fn func(int32)) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for _, n := range shards {
		calls.Go(func() { fn(n) })
	}
}

// refusals are the shards that were out of reach and have not been reached since.
func (j *Journal) refusals() (shards []int32) {
	j.refused.Range(func(n, _ any) bool {
		shards = append(shards, n.(int32))
		return true
	})
	return shards
}

// reach returns why a leader of the partitions that a shard needs cannot be reached. What a broker says is no such reason: it would say so to all.
func (j *Journal) reach(ctx context.Context, shard int32) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	for _, topic := range []string{j.topics.inbox, j.topics.events, j.topics.state, j.topics.dead, j.topics.control} {
		partition := shard
		if topic == j.topics.control { // without which nothing is taken over, and no pause is heard of
			partition = 0
		}
		_, err := j.logs.ends(ctx, topic, partition)
		if err != nil && !errors.As(err, new(kafka.Error)) {
			return fmt.Errorf("topic %s: %w", topic, err)
		}
	}
	return nil
}

// outOfReach returns why this replica should get no calls, though it could store some.
func (j *Journal) outOfReach() error {
	for _, n := range j.refusals() {
		if j.own.(refuser).Elsewhere(n) {
			return fmt.Errorf("shard %d: %w", n, errOutOfReach)
		}
	}
	return nil
}

// stuck reports whether the shard has not read its inbox for a while, or could not store what it knows.
func (s *shard) stuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ctx.Err() == nil && (time.Since(s.read) >= stuckAfter || s.unstoredFor() >= stuckAfter)
}

// unreadFor is how long ago the inbox was read last. That takes a second at most where all is well.
func (s *shard) unreadFor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return 0 // somebody else's before long
	}
	return time.Since(s.read)
}
