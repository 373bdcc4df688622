package kafkajournal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// A dead letter is a record of ncs.dead, with the event as it is in the inbox, and its history in a header. A record without a
// value removes it. The letter is the settlement: only when it is there, its delivery is settled for others.
const headerLetter = "ncs-letter"

// letters are the dead letters of a sink in a shard, ascending.
type letters struct {
	list  []letter
	bytes int64
}

type letter struct {
	journal.DeadLetter
	at  int64  // its offset in ncs.dead
	key []byte // of its record
}

// room is what the letter takes.
func (l letter) room() int64 { return l.Size + ledger.LetterOverhead }

func (l letter) pos() offset { return offset(l.Position.Offset) }

func (l *letters) index(pos offset) (int, bool) {
	return slices.BinarySearchFunc(l.list, pos, func(l letter, pos offset) int { return cmp.Compare(l.pos(), pos) })
}

func (l *letters) put(one letter) {
	l.remove(one.pos())
	i, _ := l.index(one.pos())
	l.list = slices.Insert(l.list, i, one)
	l.bytes += one.room()
}

func (l *letters) remove(pos offset) {
	if i, found := l.index(pos); found {
		l.bytes -= l.list[i].room()
		l.list = slices.Delete(l.list, i, i+1)
	}
}

func (l *letters) get(pos offset) *letter {
	if l == nil {
		return nil
	}
	if i, found := l.index(pos); found {
		return &l.list[i]
	}
	return nil
}

func letterKey(sink string, r *journal.Record) []byte {
	return fmt.Appendf(nil, "%s/%d/%x", sink, r.Position.Offset, r.ID)
}

func parseLetterKey(key []byte) (sink string, pos offset, err error) {
	parts := strings.Split(string(key), "/")
	if len(parts) != 3 {
		return "", 0, fmt.Errorf("key %q is not that of a dead letter", key)
	}
	n, err := strconv.ParseUint(parts[1], 10, 64)
	if err == nil {
		var id [16]byte
		err = decodeHex(id[:], parts[2])
	}
	if err != nil {
		return "", 0, fmt.Errorf("key %q is not that of a dead letter: %w", key, err)
	}
	return parts[0], offset(n), nil
}

// encodeLetter makes the record of a letter.
func encodeLetter(sink string, l *journal.DeadLetter, r *journal.Record) kafkalog.Record {
	rec := encodeRecord(r)
	rec.Key = letterKey(sink, r)
	rec.Headers = append(rec.Headers, kafkalog.Header{Key: headerLetter, Value: ledger.EncodeLetter(l)})
	return rec
}

// decodeLetter reads a record of ncs.dead that has a value.
func decodeLetter(shard uint32, pos offset, rec *kafkalog.Record) (l letter, err error) {
	l = letter{at: rec.Offset, key: bytes.Clone(rec.Key)} // it would keep all that was read with it
	for _, h := range rec.Headers {
		switch {
		case h.Key == headerFormat && string(h.Value) != format:
			return letter{}, errNewer
		case h.Key == headerLetter:
			l.DeadLetter, err = ledger.DecodeLetter(journal.Position{Shard: shard, Offset: uint64(pos)}, h.Value)
		}
	}
	l.Position = journal.Position{Shard: shard, Offset: uint64(pos)}
	l.Written = journal.Position{Shard: shard, Offset: uint64(rec.Offset + 1)}
	return l, err
}

// grave is what is to be written to ncs.dead.
type grave struct {
	sink   string
	pos    offset
	letter *journal.DeadLetter // nil: the letter is to be removed
	rec    kafkalog.Record
	done   func() // called when it is written, with the mutex of the shard; nil: nothing
}

// burials are the letters of what was buried for sinks. s.mu is held.
func (s *shard) burials() []grave {
	var graves []grave
	for _, c := range s.core.cursors {
		if c.key.kind == kindSink {
			for pos, b := range c.buried {
				l := b.letter
				graves = append(graves, grave{sink: c.key.name, pos: pos, letter: &l})
			}
		}
	}
	return graves
}

// inter writes what is to be written to ncs.dead, and reports whether there was anything. s.saving is held.
func (s *shard) inter(ctx context.Context, list func() []grave) (any bool, err error) {
	s.mu.Lock()
	graves := list()
	s.mu.Unlock()
	slices.SortFunc(graves, func(a, b grave) int { return cmp.Compare(a.pos, b.pos) })
	for chunk := range slices.Chunk(graves, 256) {
		if err := s.fillGraves(chunk); err != nil {
			return true, err
		}
		if err := s.writeGraves(ctx, chunk); err != nil {
			return true, fmt.Errorf("topic %s: %w", s.j.topics.dead, err)
		}
	}
	return len(graves) > 0, nil
}

// fillGraves makes the records of letters.
func (s *shard) fillGraves(graves []grave) error {
	positions := make([]journal.Position, len(graves))
	for i, g := range graves {
		if g.letter != nil { // one that is to be removed needs no event
			positions[i] = journal.Position{Shard: uint32(s.n), Offset: uint64(g.pos)}
		}
	}
	recs, err := s.j.load(positions)
	if err != nil {
		return err
	}
	for i := range graves {
		r := recs[i]
		if graves[i].letter == nil {
			continue
		}
		if r == nil {
			s.j.logger.Error("the event of a dead letter is gone from the topic", "sink", graves[i].sink, "position", positions[i])
			r = &journal.Record{Position: positions[i]}
		}
		graves[i].rec = encodeLetter(graves[i].sink, graves[i].letter, r)
	}
	return nil
}

// writeGraves writes records to ncs.dead and takes note of what is there then. s.saving is held.
func (s *shard) writeGraves(ctx context.Context, graves []grave) error {
	alone := false
	for len(graves) > 0 {
		recs := make([]kafkalog.Record, len(graves))
		for i := range graves {
			recs[i] = graves[i].rec
		}
		n := kafkalog.Fitting(recs, s.j.opts.MaxRecord)
		if alone {
			n = 1
		}
		base, err := s.deadLog.Append(ctx, recs[:n])
		if errors.As(err, new(*kafkalog.Refused)) && (n > 1 || s.shorten(&graves[0])) {
			alone = true // Kafka does not say which of them is too large
			continue
		}
		if err != nil {
			return err
		}
		if err := s.interred(ctx, graves[:n], base); err != nil {
			return err
		}
		graves = graves[n:]
	}
	return nil
}

// shorten makes a record smaller that was refused: without its history, then without its body.
func (s *shard) shorten(g *grave) bool {
	log := s.j.logger.With("sink", g.sink, "position", g.pos, "topic", s.j.topics.dead)
	switch {
	case g.letter == nil:
		return false
	case g.letter.Retry != (journal.Retry{}):
		log.Error("a dead letter is kept without its history: the topic refuses it as too large")
		g.letter.Retry = journal.Retry{}
	case len(g.rec.Value) > 0:
		log.Error("a dead letter is kept without its body: the topic refuses it as too large")
		g.rec.Value = []byte{}
	default:
		return false
	}
	last := len(g.rec.Headers) - 1
	g.rec.Headers[last].Value = ledger.EncodeLetter(g.letter)
	return true
}

// interred takes note of records that were written at base. If others have written before them, ncs.dead is read from where it is
// not known.
func (s *shard) interred(ctx context.Context, graves []grave, base int64) error {
	s.mu.Lock()
	expected, next := base == s.deadNext, s.deadNext
	if base >= 0 && base < next {
		s.mu.Unlock()
		return s.keeps(s.j.topics.dead, base, next)
	}
	if expected {
		for i := range graves {
			g := &graves[i]
			g.rec.Offset = base + int64(i)
			if err := s.applyDead(&g.rec); err != nil {
				s.mu.Unlock()
				return err
			}
		}
	}
	s.mu.Unlock()
	if !expected {
		if err := s.readDead(ctx, next); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range graves {
		if g.done != nil {
			g.done()
		}
	}
	return nil
}

// readDead follows ncs.dead from an offset to its end.
func (s *shard) readDead(ctx context.Context, from int64) error {
	_, err := readToEnd(ctx, s.j.logs, s.j.topics.dead, s.n, from, func(recs []kafkalog.Record) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range recs {
			if err := s.applyDead(&recs[i]); err != nil {
				return fmt.Errorf("topic %s, offset %d: %w", s.j.topics.dead, recs[i].Offset, err)
			}
		}
		return nil
	})
	return err
}

// applyDead takes note of a record of ncs.dead. s.mu is held.
func (s *shard) applyDead(rec *kafkalog.Record) error {
	s.deadNext = rec.Offset + 1
	sink, pos, err := parseLetterKey(rec.Key)
	if err != nil {
		s.warnOfForeign(s.j.topics.dead, 1)
		return nil
	}
	if rec.Value == nil {
		if s.letters[sink] != nil {
			s.letters[sink].remove(pos)
		}
		return nil
	}
	l, err := decodeLetter(uint32(s.n), pos, rec)
	if err != nil {
		return err
	}
	if s.letters[sink] == nil {
		s.letters[sink] = new(letters)
	}
	if s.core != nil && s.letters[sink].get(l.pos()) == nil && s.core.settled(sink, l.pos()) {
		s.core.overlaps++
		s.late[string(l.key)] = grave{sink: sink, pos: l.pos(), rec: kafkalog.Record{Key: l.key}, done: func() { delete(s.late, string(l.key)) }}
	}
	s.letters[sink].put(l)
	if s.core != nil {
		s.core.interred(sink, l.pos())
		s.touch()
	}
	return nil
}

// settled reports whether this owner knows that a delivery needs no letter: it was delivered or skipped, or its letter was removed. All
// letters that others had written were known when it took over, so one that comes later is that of a former owner who is late.
func (c *core) settled(sink string, pos offset) bool {
	cur := c.cursors[cursorName{kindSink, sink}]
	return cur != nil && cur.buried[pos] == nil && cur.settledAt(pos)
}

// lateLetters are to be removed. s.mu is held.
func (s *shard) lateLetters() []grave { return slices.Collect(maps.Values(s.late)) }

// interred settles a delivery whose letter is in ncs.dead.
func (c *core) interred(sink string, pos offset) {
	if cur := c.cursors[cursorName{kindSink, sink}]; cur != nil {
		cur.interred(pos)
	}
}

// DeadLetters lists a sink's dead letters in the shards that this replica has.
func (j *Journal) DeadLetters(sink string, after journal.Position, n int) ([]journal.DeadLetter, error) {
	var list []journal.DeadLetter
	for _, s := range j.running() {
		if uint32(s.n) >= after.Shard && len(list) < n {
			from := offset(0)
			if uint32(s.n) == after.Shard {
				from = offset(after.Offset)
			}
			list = append(list, s.deadLetters(sink, from, n-len(list))...)
		}
	}
	return list, nil
}

func (s *shard) deadLetters(sink string, after offset, n int) []journal.DeadLetter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lettersAfter(sink, after, n)
}

// lettersAfter are those that are written, and those on their way. s.mu is held.
func (s *shard) lettersAfter(sink string, after offset, n int) []journal.DeadLetter {
	var list []journal.DeadLetter
	if c := s.core.cursors[cursorName{kindSink, sink}]; c != nil {
		for pos, b := range c.buried {
			if pos > after {
				list = append(list, b.letter)
			}
		}
	}
	if kept := s.letters[sink]; kept != nil {
		from, _ := kept.index(after + 1)
		for _, l := range kept.list[from:min(len(kept.list), from+n)] {
			list = append(list, l.DeadLetter)
		}
	}
	slices.SortFunc(list, func(a, b journal.DeadLetter) int { return a.Position.Compare(b.Position) })
	return list[:min(n, len(list))]
}

// DeadLetter returns a sink's dead letter at a position.
func (j *Journal) DeadLetter(sink string, at journal.Position) (journal.DeadLetter, bool, error) {
	s := j.shard(at.Shard)
	if s == nil || at.Offset == 0 {
		return journal.DeadLetter{}, false, nil
	}
	list := s.deadLetters(sink, offset(at.Offset-1), 1)
	if len(list) == 0 || list[0].Position != at {
		return journal.DeadLetter{}, false, nil
	}
	return list[0], true, nil
}

// DropLetters removes dead letters of shards that this replica has. The state of their deliveries, which says that they are
// settled, is stored before.
func (j *Journal) DropLetters(sink string, letters ...journal.DeadLetter) error {
	ctx, cancel := context.WithTimeout(context.Background(), operationTimeout)
	defer cancel()
	for _, s := range j.running() {
		var here []journal.DeadLetter
		for _, l := range letters {
			if l.Position.Shard == uint32(s.n) {
				here = append(here, l)
			}
		}
		if len(here) == 0 {
			continue
		}
		if err := s.flush(ctx, false); err != nil {
			return err
		}
		if err := s.dropLetters(ctx, sink, here); err != nil {
			return err
		}
	}
	return nil
}

func (s *shard) dropLetters(ctx context.Context, sink string, doomed []journal.DeadLetter) error {
	if err := s.saving.take(ctx); err != nil {
		return err
	}
	defer s.saving.giveBack()
	var graves []grave
	s.mu.Lock()
	for _, d := range doomed {
		if l := s.letters[sink].get(offset(d.Position.Offset)); l != nil && (d.Written.IsZero() || d.Written == l.Written) {
			graves = append(graves, grave{sink: sink, pos: l.pos(), rec: kafkalog.Record{Key: l.key}})
		}
	}
	s.mu.Unlock()
	return s.writeGraves(ctx, graves)
}

// letterRecord reads the record of the event that any letter at a position keeps; nil if there is none.
func (s *shard) letterRecord(ctx context.Context, pos offset) (*journal.Record, error) {
	at := int64(-1)
	s.mu.Lock()
	for _, kept := range s.letters {
		if l := kept.get(pos); l != nil {
			at = l.at
		}
	}
	s.mu.Unlock()
	if at < 0 {
		return nil, nil
	}
	recs, err := readThere(ctx, s.j.logs, s.j.topics.dead, s.n, at, 1<<10)
	if err != nil || len(recs) == 0 || recs[0].Offset != at {
		return nil, err
	}
	r, _, err := decodeRecord(&recs[0])
	if err != nil {
		return nil, err
	}
	r.Position = journal.Position{Shard: uint32(s.n), Offset: uint64(pos)}
	return r, nil
}
