package kafkajournal

import (
	"fmt"

	"ncs-relay/relay/kafkaconn/kafkalog"
)

// ruleE says which records of ncs.events are events: a record whose position is not larger than the largest before it is the
// repetition of a former owner. Whoever reads the topic applies it.
//
// Nothing is lost by it, whatever two owners believe at the same time: each of them writes without gaps in the order of the inbox
// and leaves out only ids that are in ncs.events already. So when a record is skipped, the one that overtook it was
// written by an owner who had written that event before, or had found it there.
type ruleE struct {
	top offset // the largest position seen
}

func (r *ruleE) accepts(pos offset) bool {
	if pos <= r.top {
		return false
	}
	r.top = pos
	return true
}

// judge writes each event of the inbox of a shard to ncs.events, once and in order. It does no I/O: its caller gives it what it
// reads, appends the row that it picks, and tells it what came of that. A row that may not be in ncs.events is to be appended
// again, before anything else; until then nothing is picked.
type judge struct {
	shard uint32
	ids   *ids

	picked offset   // what is up to here in the inbox was looked at
	looked [16]byte // the id of the last of that; zero: not known
	judged offset   // and its events are in ncs.events: the mark that the next owner begins from

	// As far as ncs.events is known:
	next     int64 // its first offset that is not
	rule     ruleE
	overlaps uint64 // records that rule E skipped
	foreign  int    // records that no owner has written
}

// item is a record for ncs.events.
type item struct {
	rec kafkalog.Record
	entry
}

// pick returns what the next records of the inbox have to be in ncs.events for. Their ids are known from now on.
func (j *judge) pick(recs []kafkalog.Record) (row []item, err error) {
	for i := range recs {
		e, err := decodeInbox(j.shard, &recs[i])
		if err != nil {
			return row, fmt.Errorf("inbox, offset %d: %w", recs[i].Offset, err)
		}
		if e.pos <= j.picked {
			continue
		}
		j.picked, j.looked = e.pos, e.rec.ID
		if j.ids.copyOf(j.shard, &e) {
			continue
		}
		row = append(row, item{eventOf(&recs[i], e), e})
	}
	if len(row) == 0 {
		j.judged = j.picked
	}
	return row, nil
}

// wrote takes the offset at which a row is in ncs.events, and returns its events if it stands where it was expected. Otherwise
// the caller has to read ncs.events from next on, until behind the row, and show it to follow.
func (j *judge) wrote(row []item, base int64) (events []entry, expected bool) {
	if base != j.next {
		return nil, false
	}
	for i := range row {
		row[i].at = base + int64(i)
		if j.accept(&row[i].entry) {
			events = append(events, row[i].entry)
		}
	}
	j.judged = j.picked
	return events, true
}

// follow takes records of ncs.events, read from next on, and returns the events among them.
func (j *judge) follow(recs []kafkalog.Record) (events []entry, err error) {
	for i := range recs {
		e, err := decodeEvent(j.shard, &recs[i])
		if err != nil {
			return events, err
		}
		if e.at >= j.next && j.accept(&e) {
			events = append(events, e)
		}
	}
	return events, nil
}

func (j *judge) accept(e *entry) bool {
	j.next = e.at + 1
	if e.pos == 0 {
		j.foreign++
		return false
	}
	if !j.rule.accepts(e.pos) {
		j.overlaps++
		return false
	}
	j.ids.add(j.shard, e)
	return true
}

// caughtUp says that ncs.events was followed to its end, and whatever was picked is in it. What others have judged need not be
// judged again.
func (j *judge) caughtUp() {
	j.passTo(j.rule.top)
}

func rowRecords(row []item) []kafkalog.Record {
	recs := make([]kafkalog.Record, len(row))
	for i := range row {
		recs[i] = row[i].rec
	}
	return recs
}

// passTo goes on behind a position: what is before is gone from the inbox, or judged.
func (j *judge) passTo(pos offset) {
	if pos > j.picked {
		j.picked, j.looked = pos, [16]byte{}
	}
	j.judged = j.picked
}
