package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ncs-relay/relay/kafkaconn/kafkalog"
)

// bounds are the first offset and the end of a log.
type bounds struct{ start, end int64 }

func (j *Journal) bounds(ctx context.Context, topic string, shard int32) (b bounds, err error) {
	starts, err := j.logs.starts(ctx, topic, shard)
	if err != nil {
		return b, fmt.Errorf("the start of topic %s: %w", topic, err)
	}
	ends, err := j.logs.ends(ctx, topic, shard)
	if err != nil {
		return b, fmt.Errorf("the end of topic %s: %w", topic, err)
	}
	return bounds{starts[shard], ends[shard]}, nil
}

func (s *shard) bounds(ctx context.Context, topic string) (bounds, error) {
	return s.j.bounds(ctx, topic, s.n)
}

// errForeignLog is in the chain of the errors of topics that are not those of the state, which say what can be done.
var (
	errForeignLog    = errors.New("this is not the log that it was: restore it if you can")
	errToBeConfirmed = fmt.Errorf("%w; else stop all relays, and ncs-relay cluster confirm goes on with what is there", errForeignLog)
	errForeignInbox  = fmt.Errorf("%w; else begin with another journal.kafka.prefix, since its positions would be given a second time", errForeignLog)
)

// takeOver goes on where former owners were: with their states, merged; the dead letters; what the replicas share; the end of the
// events. What it knows then it stores as its own, before anything is judged or handed out.
func (s *shard) takeOver(ctx context.Context) error {
	if same := s.j.opts.Same; same != nil { // what was made again may hold what a former owner wrote before it noticed
		if err := same(ctx); err != nil {
			return err
		}
	}
	if err := s.j.control.catchUp(ctx); err != nil {
		return fmt.Errorf("topic %s: %w", s.j.topics.control, err)
	}
	left, err := s.readState(ctx)
	if err != nil {
		return err
	}
	s.letters, s.deadNext = make(map[string]*letters), 0
	if dead, err := s.bounds(ctx, s.j.topics.dead); err != nil {
		return err
	} else if err := s.readDead(ctx, dead.start); err != nil {
		return err
	}
	events, err := s.bounds(ctx, s.j.topics.events)
	if err != nil {
		return err
	}
	inbox, err := s.bounds(ctx, s.j.topics.inbox)
	if err != nil {
		return err
	}
	c := newCore(uint32(s.n), newLife(), s.j.ids, left)
	if err := s.sameLogs(ctx, c, left, events, inbox); err != nil {
		return err
	}
	for sink, kept := range s.letters {
		for _, l := range kept.list {
			c.interred(sink, l.pos())
		}
	}
	if err := s.count(ctx, c, events); err != nil {
		return err
	}
	return s.adopt(ctx, c, inbox)
}

// readState reads what former owners have left.
func (s *shard) readState(ctx context.Context) (*legacy, error) {
	state, err := s.bounds(ctx, s.j.topics.state)
	if err != nil {
		return nil, err
	}
	left := newLegacy()
	s.merged, err = readToEnd(ctx, s.j.logs, s.j.topics.state, s.n, state.start, left.add)
	if err != nil {
		return nil, fmt.Errorf("topic %s, partition %d: %w", s.j.topics.state, s.n, err)
	}
	s.warnOfForeign(s.j.topics.state, left.foreign)
	return left, nil
}

// sameLogs returns why the logs cannot be those that the state speaks of.
func (s *shard) sameLogs(ctx context.Context, c *core, left *legacy, events, inbox bounds) error {
	t := s.j.topics
	switch {
	case len(left.judges) == 0 && events.end > 0:
		return fmt.Errorf("topic %s, partition %d, has no state, and topic %s has events: which of them were delivered is not known: %w", t.state, s.n, t.events, errToBeConfirmed)
	case c.known.next > events.end:
		return fmt.Errorf("topic %s, partition %d, ends at %d, and its state knows of %d: %w", t.events, s.n, events.end, c.known.next, errToBeConfirmed)
	case int64(c.judged) > inbox.end:
		return fmt.Errorf("topic %s, partition %d, ends at %d, and %d were judged: %w", t.inbox, s.n, inbox.end, c.judged, errForeignInbox)
	}
	// One that was made again may have grown: its owner notices when it has written there.
	rec, err := s.recordAt(ctx, t.events, c.known.next-1)
	if rec == nil || err != nil || rec.Offset >= c.known.next {
		return err
	}
	e, err := decodeEvent(uint32(s.n), rec)
	if err == nil && e.pos > c.known.top {
		err = fmt.Errorf("topic %s, partition %d, has other events before %d than its state knows of: %w", t.events, s.n, c.known.next, errToBeConfirmed)
	}
	return err
}

// recentFor is of how long the new owner of a shard reads the events back, however hot it is: copies come within minutes.
const recentFor = 30 * time.Minute

// count reads the end of the events: what former owners have not counted.
func (s *shard) count(ctx context.Context, c *core, events bounds) error {
	if c.next < events.start {
		s.j.logger.Error("events are gone from the topic before anybody counted them", "topic", s.j.topics.events, "shard", s.n, "from", c.next, "to", events.start)
		c.next = events.start
	}
	s.ring.from, s.ring.entries, s.ring.bytes = c.next, nil, 0
	recent, err := s.j.logs.since(ctx, s.j.topics.events, s.n, time.Now().Add(-recentFor))
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.j.topics.events, err)
	}
	s.window = bounds{max(events.start, min(c.next, events.end-s.j.ids.back(s.j.opts.Shards, events.end-recent))), c.next}
	end, err := readToEnd(ctx, s.j.logs, s.j.topics.events, s.n, c.next, func(recs []kafkalog.Record) error { // a former owner may still write
		accepted, err := c.followed(recs)
		s.ring.push(accepted)
		return err
	})
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.j.topics.events, err)
	}
	c.next = max(c.next, end)
	s.warnOfForeign(s.j.topics.events, c.foreign)
	c.foreign = 0
	c.caughtUp()
	return nil
}

// recall reads the events before those that a take-over has counted, for their ids: copies of them are recognised by these. What is
// judged is delivered meanwhile; nothing more is judged before.
func (s *shard) recall(ctx context.Context) error {
	if s.isRecalled() {
		return nil
	}
	var rule ruleE
	for s.window.start < s.window.end {
		err := readTo(ctx, s.j.logs, s.j.topics.events, s.n, s.window.start, s.window.end, func(recs []kafkalog.Record) error {
			for i := range recs {
				e, err := decodeEvent(uint32(s.n), &recs[i])
				if err != nil {
					return err
				}
				if rule.accepts(e.pos) {
					s.j.ids.recall(uint32(s.n), &e)
				}
				s.window.start = e.at + 1
			}
			return nil
		})
		if start, gone := startsAfter(err, s.window.start); gone {
			s.window.start = start
		} else if err != nil {
			return fmt.Errorf("read topic %s: %w", s.j.topics.events, err)
		} else {
			s.window.start = s.window.end
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ring.entries { // which are newer
		s.j.ids.add(uint32(s.n), &s.ring.entries[i])
	}
	close(s.recalled)
	return nil
}

func (s *shard) isRecalled() bool {
	select {
	case <-s.recalled:
		return true
	default:
		return false
	}
}

// adopt begins to be the owner, when what the owner knows is stored as its own.
func (s *shard) adopt(ctx context.Context, c *core, inbox bounds) error {
	if int64(c.judged) < inbox.start {
		s.j.logger.Error("accepted records are gone from the topic before they were judged", "topic", s.j.topics.inbox, "shard", s.n, "from", c.judged, "to", inbox.start)
		c.passTo(offset(inbox.start))
	}
	clear(c.counted)
	for _, name := range s.j.openSinks() {
		if at := (cursorName{kindSink, name}); c.cursors[at] == nil {
			c.begin(at, c.end())
		}
	}
	if err := s.saving.take(ctx); err != nil {
		return err
	}
	defer s.saving.giveBack()
	recs, _ := c.records(true)
	if err := s.writeState(ctx, recs); err != nil {
		return fmt.Errorf("topic %s: %w", s.j.topics.state, err)
	}
	rec, err := s.recordAt(ctx, s.j.topics.state, s.stateWrote-1)
	if err != nil {
		return err
	}
	if rec != nil {
		s.clock.set(time.Since(rec.Time))
	}
	for _, cur := range c.cursors {
		s.clock.fromBrokers(&cur.unsettled)
	}
	c.clock = &s.clock
	s.j.sawEnd(s.n, inbox.end)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core = c
	s.taken.Store(true)
	return nil
}
