package kafkajournal

import (
	"fmt"

	"ncs-relay/relay/kafkaconn/kafkalog"
)

// core is a shard without its I/O: the judge, and a cursor for each sink that ncs.state or an event names, known to the
// configuration or not.
type core struct {
	judge
	life    life
	largest int    // bytes of a record of ncs.state
	clock   *skew  // in ncs.state stand the brokers' times; nil: ours are the same
	events  uint64 // accepted since the shard exists
	cursors map[cursorName]*cursor
	counted map[*cursor]place // of a take-over: what the tallies of former owners account for
	known   place             // of a take-over: how far into ncs.events any of them has seen
}

// cursorName is the kind and the name of a cursor.
type cursorName struct{ kind, name string }

// legacy is what former owners of a shard have left in ncs.state.
type legacy struct {
	judges  map[life]*judgeState
	cursors map[cursorName]map[life]*sinkState
	foreign int // records that no owner has written; they are passed
}

func newLegacy() *legacy {
	return &legacy{judges: make(map[life]*judgeState), cursors: make(map[cursorName]map[life]*sinkState)}
}

// add takes records of ncs.state, in order.
func (l *legacy) add(recs []kafkalog.Record) error {
	for i := range recs {
		if err := l.addOne(&recs[i]); err != nil {
			return fmt.Errorf("ncs.state, offset %d: %w", recs[i].Offset, err)
		}
	}
	return nil
}

func (l *legacy) addOne(rec *kafkalog.Record) error {
	key, err := decodeStateKey(rec.Key)
	if err != nil {
		l.foreign++
		return nil
	}
	name := cursorName{key.kind, key.name}
	switch {
	case key.kind == kindJudge && rec.Value == nil:
		delete(l.judges, key.life)
	case key.kind == kindJudge:
		l.judges[key.life], err = decodeJudgeState(rec.Value)
	case rec.Value == nil:
		delete(l.cursors[name], key.life)
	default:
		if l.cursors[name] == nil {
			l.cursors[name] = make(map[life]*sinkState)
		}
		l.cursors[name][key.life], err = decodeSinkState(rec.Value)
	}
	return err
}

// newCore goes on from what former owners have left. Then ncs.events is to be followed from next on.
func newCore(shard uint32, own life, known *ids, l *legacy) *core {
	c := &core{judge: judge{shard: shard, ids: known}, life: own, largest: largestState, cursors: make(map[cursorName]*cursor), counted: make(map[*cursor]place)}
	begin := place{}
	for _, s := range l.judges {
		c.judged = max(c.judged, s.judged)
		c.known = c.known.further(s.known)
		if s.known.top >= begin.top { // of the accounts, those that go together
			begin = s.known
			c.events = s.events
		}
	}
	counted := begin
	for name, lives := range l.cursors {
		if len(lives) == 0 {
			continue
		}
		var states []*sinkState
		for _, s := range lives {
			states = append(states, s)
		}
		s := merge(states)
		c.known = c.known.further(s.counted).further(s.read)
		cur := resume(stateKey{name.kind, name.name, own}, s)
		c.cursors[name] = cur
		c.counted[cur] = s.counted
		if s.counted.next < begin.next {
			begin = s.counted
		}
	}
	c.picked = c.judged
	c.next, c.rule.top = begin.next, begin.top
	c.counted[nil] = counted
	return c
}

// followed is follow, with the accounts.
func (c *core) followed(recs []kafkalog.Record) ([]entry, error) {
	events, err := c.follow(recs)
	c.account(events)
	return events, err
}

// account counts what sinks are owed. A sink that an event names and that has no cursor begins just before it.
func (c *core) account(events []entry) {
	for i := range events {
		e := &events[i]
		if e.pos > c.counted[nil].top {
			c.events++
		}
		for _, sink := range e.rec.Sinks {
			cur := c.cursors[cursorName{kindSink, sink}]
			if cur == nil {
				cur = c.begin(cursorName{kindSink, sink}, place{e.at, e.pos - 1})
			}
			if e.pos > max(c.counted[cur].top, cur.read.top) {
				cur.owe(e)
			}
		}
	}
}

// begin makes a cursor.
func (c *core) begin(name cursorName, at place) *cursor {
	cur := newCursor(stateKey{name.kind, name.name, c.life}, at)
	c.cursors[name] = cur
	return cur
}

// end is the end of ncs.events, as far as it is known.
func (c *core) end() place { return place{c.next, c.rule.top} }

// records are those of ncs.state that have to be written, in this order, and the cursors that the first of them are about; all
// of them if all is true. The judge's comes last: from where it says that events are known the next owner looks for names
// of sinks, and any before has a state then. While one of the others does not fit it is left out.
func (c *core) records(all bool) (recs []kafkalog.Record, of []*cursor) {
	unfit := false
	for _, cur := range c.cursors {
		if !all && !cur.dirty {
			continue
		}
		value := c.encodeState(cur)
		if value == nil { // what is written says less, and is as true, until its letters are
			c.relieve(cur)
			unfit = true
			continue
		}
		recs = append(recs, kafkalog.Record{Key: cur.key.encode(), Value: value})
		of = append(of, cur)
		cur.dirty = false
	}
	if unfit { // perhaps nothing is written of it
		return recs, of
	}
	s := &judgeState{judged: c.judged, known: c.end(), events: c.events}
	return append(recs, kafkalog.Record{Key: stateKey{kind: kindJudge, life: c.life}.encode(), Value: s.encode()}), of
}

// notWritten says that the records about some cursors may not be in ncs.state.
func (c *core) notWritten(of []*cursor) {
	for _, cur := range of {
		cur.dirty = true
	}
}
