package kafkajournal

import (
	"context"
	"errors"
	"fmt"

	"ncs-relay/relay/kafkaconn/kafkalog"
)

// ErrInboxGone is the error of Confirm where the inbox is not the one that positions are of. New ones would be given a second time,
// and dead letters be taken for those of other events.
var ErrInboxGone = errors.New("the inbox is not the one that was: begin with another journal.kafka.prefix")

// ErrEventsBegun is the error of Confirm where events that were made again are not empty, and a sink has not read all that came before.
// Behind what its owner wrote there before it noticed, rule E would pass what is missing.
var ErrEventsBegun = errors.New("a sink has not read all of the events that are gone, and what was written since stands in their place: " +
	"delete this topic once more, while all relays are stopped, make it with ncs-relay cluster init, and confirm that")

// Confirm makes the state of a shard fit topics that are not those it speaks of, because they were deleted and made again or have
// lost their end, and says what that means. remade reports topics, by their short names, that are known to be others. No
// replica may have the shard: one that stands still for this reason has not. What it writes supersedes all before.
//
//   - Without its events they are made again from the inbox, from where the sink that had read least was.
//   - Without its state all that the events hold is delivered again: who has had what is not known.
func (j *Journal) Confirm(ctx context.Context, shard int32, remade func(topic string) bool) (what string, err error) {
	s := newShard(j, shard)
	left, err := s.readState(ctx)
	if err != nil {
		return "", err
	}
	events, err := s.bounds(ctx, j.topics.events)
	if err != nil {
		return "", err
	}
	inbox, err := s.bounds(ctx, j.topics.inbox)
	if err != nil {
		return "", err
	}
	own := newLife()
	c := newCore(uint32(shard), own, newIDs(nil), left)
	judge := judgeState{judged: c.judged, known: c.end(), events: c.events}
	switch {
	case remade("inbox") || int64(c.judged) > inbox.end:
		return "", ErrInboxGone
	case remade("state") || len(left.judges) == 0 && events.end > 0:
		judge = judgeState{known: place{next: events.start}}
		clear(c.cursors)
		what = "all that the events hold is delivered again"
	case remade("events") || c.known.next > events.end:
		if events.end > events.start && c.behind() {
			return "", fmt.Errorf("topic %s: %w", j.topics.events, ErrEventsBegun)
		}
		for _, cur := range c.cursors {
			cur.read.next = events.start
			cur.forgetUnread()
			judge.judged = min(judge.judged, cur.read.top)
		}
		judge.known = place{events.start, judge.judged}
		what = fmt.Sprintf("the events after %d are made again from the inbox", judge.judged)
	default:
		return "its topics are those that its state speaks of", nil
	}
	var recs []kafkalog.Record
	for _, cur := range c.cursors {
		recs = append(recs, kafkalog.Record{Key: cur.key.encode(), Value: cur.state(cur.read).encode()})
	}
	recs = append(recs, kafkalog.Record{Key: stateKey{kind: kindJudge, life: own}.encode(), Value: judge.encode()})
	return what, s.writeState(ctx, append(recs, left.tombstones()...))
}

// behind reports whether a sink has not read all that it is known to be owed.
func (c *core) behind() bool {
	for name, cur := range c.cursors {
		if name.kind == kindSink && cur.unreadCount() > 0 {
			return true
		}
	}
	return false
}

// forgetUnread takes back what was counted and not read: it is counted again.
func (c *cursor) forgetUnread() {
	c.tally.Owed, c.tally.OwedBytes, c.unread = c.tally.Settled()+uint64(c.unsettled.Len()), c.tally.SettledBytes+c.unsettled.Bytes(), 0
}

// tombstones remove all records of former owners.
func (l *legacy) tombstones() (recs []kafkalog.Record) {
	for life := range l.judges {
		recs = append(recs, kafkalog.Record{Key: stateKey{kind: kindJudge, life: life}.encode()})
	}
	for name, lives := range l.cursors {
		for life := range lives {
			recs = append(recs, kafkalog.Record{Key: stateKey{name.kind, name.name, life}.encode()})
		}
	}
	return recs
}
