package diskjournal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"

	"go.etcd.io/bbolt"

	"ncs-relay/relay/journal"
)

// Scan calls fn with the records up to the frontier, in order, those kept after their segment was deleted included, until it
// returns false. want decides by everything but the body. What is damaged is skipped, reported and counted as always.
func (j *Journal) Scan(ctx context.Context, want func(header *journal.Record) bool, fn func(*journal.Record) bool) error {
	err := j.visit(0, j.log.front(), place{}, func(r *journal.Record, body []byte, _ place) bool {
		if want(r) {
			r.Body = append([]byte{}, body...)
			return fn(r) && ctx.Err() == nil
		}
		return ctx.Err() == nil
	})
	return errors.Join(err, ctx.Err())
}

// visitor is given a record without its body, the body, which it must not keep, and where the record ends: nowhere if
// it was kept after its segment was deleted. It returns false when it has seen enough.
type visitor func(r *journal.Record, body []byte, end place) bool

// visit calls fn with what can be read at the positions in (behind, to], in order, from the log, or from what was kept
// of it. at is where behind ends, as far as that is known.
func (j *Journal) visit(behind, to position, at place, fn visitor) error {
	names := j.sinkNames()
	for behind < to {
		st, ok, err := j.log.after(behind, at)
		if err != nil {
			return err
		}
		gap := to // records up to there are not in the log
		if ok {
			gap = min(to, st.seg.first-1)
		}
		on, err := j.visitKept(behind, gap, fn)
		if err != nil || !on {
			return err
		}
		if behind = max(behind, gap); behind == to {
			return nil
		}
		err = j.log.walk(st, func(off int64, f frame, payload []byte) bool {
			if f.pos <= behind {
				return true
			}
			if on = f.pos <= to; !on {
				return false
			}
			r, body, err := names.decodeHeader(f.pos, payload)
			if err != nil {
				j.log.unreadable(st.seg, off, f, err)
				return true
			}
			on = fn(r, body, place{st.seg.first, off + f.size()})
			return on
		})
		switch {
		case errors.Is(err, fs.ErrNotExist): // swept meanwhile, after what counts was kept
			if on, err = j.visitKept(behind, min(to, st.last), fn); err != nil || !on {
				return err
			}
		case err != nil || !on:
			return err
		}
		behind, at = st.last, place{}
	}
	return nil
}

// visitKept is visit for what was kept of deleted segments. It also reports whether fn wants to go on.
func (j *Journal) visitKept(behind, to position, fn visitor) (on bool, err error) {
	type kept struct {
		pos     position
		payload []byte
	}
	for on = true; on && behind < to && j.state != nil; { // offline it may be out of order
		var batch []kept // fn is called outside the transaction, which holds up the reuse of pages
		read := behind
		err := j.state.view(func(tx *bbolt.Tx) error {
			t := tableOf(tx, bucketKept)
			c := t.Cursor()
			size := 0
			for k, v := c.Seek(positionKey(behind + 1)); k != nil && keyPosition(k) > read && keyPosition(k) <= to && size < readBlock; k, v = c.Next() {
				read = keyPosition(k)
				size += len(v)
				if v, err := t.open(k, v); err != nil {
					j.log.unreadableKept(read, err)
				} else {
					batch = append(batch, kept{read, bytes.Clone(v)})
				}
			}
			return nil
		})
		if err != nil {
			return true, err
		}
		for _, k := range batch {
			r, body, err := j.sinkNames().decodeHeader(k.pos, k.payload)
			if err != nil {
				j.log.unreadableKept(k.pos, err)
			} else if on = fn(r, body, place{}); !on {
				break
			}
		}
		if read == behind {
			break
		}
		behind = read
	}
	return on, nil
}

// Find returns the positions of the events with an id, the newest first, as far as their keys are still known
// (Options.KeepKeys and KeepKeysFor); Scan finds the others.
func (j *Journal) Find(id [16]byte) ([]journal.Position, error) {
	j.saving.Lock() // so that no key is on its way from memory to the state
	defer j.saving.Unlock()
	var found []journal.Position
	err := j.state.view(func(tx *bbolt.Tx) error {
		return tableOf(tx, bucketKeys).ForEach(func(k, chunk []byte) error {
			for i := range len(chunk) / keySize {
				if [16]byte(chunk[i*keySize+16:]) == id {
					found = append(found, at(keyPosition(k)+position(i)))
				}
			}
			return nil
		})
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, k := range j.keys {
		if k.id == id {
			found = append(found, at(k.pos))
		}
	}
	slices.Reverse(found)
	return found, err
}

// Standing returns how a delivery stands.
func (j *Journal) Standing(sink string, pos journal.Position) (journal.Standing, error) {
	c := j.sink(sink)
	if c == nil {
		return journal.Standing{}, nil
	}
	if s := c.standing(in(pos)); s.State != journal.StateSettled {
		return s, nil
	}
	l, dead, err := c.deadLetter(in(pos))
	if dead {
		return journal.Standing{State: journal.StateDead, Retry: l.Retry, Reason: l.Reason}, nil
	}
	return journal.Standing{State: journal.StateSettled}, err
}

// standing knows of no dead letters: those are settled.
func (c *Cursor) standing(pos position) journal.Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unsettled.Standing(pos, c.read)
}

// settledAt reports whether a delivery that the sink is, or was, owed has an outcome.
func (c *Cursor) settledAt(pos position) bool { return c.standing(pos).State == journal.StateSettled }
