package kafkajournal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

// ncs.control holds what all replicas share. Each of them follows it:
//
//	pause/<sink>      why nothing is sent to the sink; empty = it was resumed. A header has the offset up to which who paused it knew
//	                  what others had decided: a resume behind it wins, wherever the two stand
//	resumed/<sink>    it was resumed here; by a key of its own, since a pause that came too late may replace the other
//	account/<replica> the accounts of sources, as that replica has counted them
//	replay/...        see replays
//	meta/..., epoch/...  see package topics
const (
	controlPause   = "pause/"
	controlResumed = "resumed/"
	controlAccount = "account/"

	headerKnown = "ncs-known"
)

// relearnAfter is how long who follows the topic may have been cut off from it. After that it is read anew: what was removed meanwhile
// may have gone without a trace.
const relearnAfter = time.Hour

// control is ncs.control as this replica knows it.
type control struct {
	j *Journal

	writing turn // one writes at a time; guards w
	w       writer
	levers  atomic.Uint64

	mu        sync.Mutex // guards what follows
	next      int64      // the offset to go on from
	constants topics.State
	pauses    map[string]string
	resumed   map[string]int64 // the offset after the newest resume of each sink
	given     map[string]given // pauses that were given here and are not written
	accounts  map[string]map[string]journal.Account
	replays   map[uint32]*replay
	cancelled map[uint32]bool // here, and not written
	changed   bool            // something of this replica is to be written
	wake      chan struct{}
}

// given is a pause, or with "" a resume, and from where on its giver did not know what others say.
type given struct {
	reason string
	known  int64
}

func newControl(j *Journal) *control {
	return &control{j: j, writing: newTurn(), w: j.logs.writer(j.topics.control, 0), pauses: make(map[string]string),
		resumed: make(map[string]int64), given: make(map[string]given), accounts: make(map[string]map[string]journal.Account),
		replays: make(map[uint32]*replay), cancelled: make(map[uint32]bool), wake: make(chan struct{}, 1)}
}

// catchUp follows the topic to the end that it has now.
func (c *control) catchUp(ctx context.Context) error {
	c.mu.Lock()
	next := c.next
	c.mu.Unlock()
	_, err := readToEnd(ctx, c.j.logs, c.j.topics.control, 0, next, c.apply)
	return err
}

// run follows the topic, and writes what was given here, until ctx ends.
func (c *control) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { c.follow(ctx) })
	wg.Go(func() { c.keep(ctx) })
	wg.Wait()
}

func (c *control) follow(ctx context.Context) {
	for heard := time.Now().Round(0); ctx.Err() == nil; { // by the wall clock, which goes on while a machine is suspended
		chunk, err := c.j.logs.read(ctx, c.j.topics.control, 0, c.known(), readBytes, time.Second)
		if err == nil && time.Since(heard) > relearnAfter {
			err = c.relearn(ctx)
		} else if err == nil {
			err = c.apply(chunk.Records)
		}
		if err == nil {
			heard = time.Now().Round(0)
		}
		if err != nil && ctx.Err() == nil {
			c.j.logger.Error("what the replicas share cannot be followed", "topic", c.j.topics.control, "error", err)
			kafkaconn.Pause(ctx, pause)
		}
	}
}

// relearn reads all of the topic again.
func (c *control) relearn(ctx context.Context) error {
	fresh := newControl(c.j)
	_, err := readToEnd(ctx, c.j.logs, c.j.topics.control, 0, 0, func(recs []kafkalog.Record) error {
		_, _, err := fresh.applyAll(recs)
		return err
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	for id, r := range fresh.replays {
		if old := c.replays[id]; old != nil { // which dispatchers hold
			old.cancelled, old.done = old.cancelled || r.cancelled, r.done
			fresh.replays[id] = old
		}
	}
	c.next, c.pauses, c.resumed, c.accounts, c.replays, c.constants = fresh.next, fresh.pauses, fresh.resumed, fresh.accounts, fresh.replays, fresh.constants
	c.mu.Unlock()
	c.pulled()
	return nil
}

func (c *control) keep(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		kafkaconn.Pause(ctx, checkpointInterval)
		within, cancel := context.WithTimeout(ctx, operationTimeout)
		err := c.flush(within)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.j.logger.Error("pauses and accounts cannot be stored", "topic", c.j.topics.control, "error", err)
			c.touch()
		}
	}
}

// touch says that the accounts of this replica, or its pauses, are to be written.
func (c *control) touch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = true
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// apply takes records in order; those that it knows are skipped.
func (c *control) apply(recs []kafkalog.Record) error {
	pulled, newer, err := c.applyAll(recs)
	if pulled {
		c.pulled()
	}
	if newer != nil {
		c.j.outdated(fmt.Errorf("topic %s: %w", c.j.topics.control, newer))
	}
	return err
}

// pulled has those look again who send.
func (c *control) pulled() {
	c.levers.Add(1)
	c.j.wake()
}

// applyAll skips what is of a newer version, and says so.
func (c *control) applyAll(recs []kafkalog.Record) (pulled bool, newer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range recs {
		rec := &recs[i]
		if rec.Offset < c.next {
			continue
		}
		err := c.applyOne(rec)
		if err != nil {
			err = fmt.Errorf("offset %d, key %q: %w", rec.Offset, rec.Key, err)
		}
		if errors.Is(err, errNewer) {
			newer = err
		} else if err != nil {
			return pulled, newer, err
		}
		pulled = pulled || !strings.HasPrefix(string(rec.Key), controlAccount)
		c.next = rec.Offset + 1
	}
	return pulled, newer, nil
}

func (c *control) applyOne(rec *kafkalog.Record) (err error) {
	key := string(rec.Key)
	if sink, ok := strings.CutPrefix(key, controlPause); ok {
		c.pauses[sink] = string(rec.Value)
		if len(rec.Value) == 0 {
			c.resumed[sink] = rec.Offset + 1
		} else if known, err := knownTo(rec); err != nil {
			return err
		} else if c.resumed[sink] > known {
			c.pauses[sink] = ""
		}
	}
	if sink, ok := strings.CutPrefix(key, controlResumed); ok && rec.Value != nil {
		c.resumed[sink] = rec.Offset + 1
	}
	if replica, ok := strings.CutPrefix(key, controlAccount); ok && rec.Value != nil {
		c.accounts[replica], err = decodeAccounts(rec.Value)
	}
	err = errors.Join(err, c.constants.Add(rec), c.applyReplay(key, rec))
	if c.constants.Meta.Format > topics.Format {
		return errNewer
	}
	return err
}

// copiesByKey reports whether copies of a record are those of equal key: a different event of its key is dropped.
func (c *control) copiesByKey(shard uint32, pos offset) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.constants.At(int32(shard), int64(pos)-1).OnConflict == "drop"
}

// knownTo is up to where who wrote a pause knew of resumes.
func knownTo(rec *kafkalog.Record) (int64, error) {
	for _, h := range rec.Headers {
		if h.Key == headerKnown {
			return strconv.ParseInt(string(h.Value), 10, 64)
		}
	}
	return rec.Offset, nil // an earlier version wrote it
}

// records are those of a pause or a resume.
func (g given) records(sink string) []kafkalog.Record {
	pause := kafkalog.Record{Key: []byte(controlPause + sink), Value: append([]byte{}, g.reason...)}
	if g.reason == "" {
		return []kafkalog.Record{pause, {Key: []byte(controlResumed + sink), Value: []byte{stateVersion}}}
	}
	pause.Headers = []kafkalog.Header{{Key: headerKnown, Value: strconv.AppendInt(nil, g.known, 10)}}
	return []kafkalog.Record{pause}
}

// write appends records and returns the offset of the first.
func (c *control) write(ctx context.Context, recs ...kafkalog.Record) (int64, error) {
	if err := c.writing.take(ctx); err != nil {
		return 0, err
	}
	defer c.writing.giveBack()
	return c.w.Append(ctx, recs)
}

// flush writes the accounts of this replica and the pauses that were given here. It returns when what others write meanwhile is written, too.
func (c *control) flush(ctx context.Context) error {
	if err := c.writing.take(ctx); err != nil {
		return err
	}
	defer c.writing.giveBack()
	if err := c.yield(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	changed, pauses, cancelled := c.changed, maps.Clone(c.given), slices.Collect(maps.Keys(c.cancelled))
	c.changed = false
	c.mu.Unlock()
	if !changed {
		return nil
	}
	recs := []kafkalog.Record{{Key: []byte(controlAccount + c.j.opts.Replica), Value: encodeAccounts(c.j.ownAccounts(true))}}
	for sink, g := range pauses {
		recs = append(recs, g.records(sink)...)
	}
	for _, id := range cancelled {
		recs = append(recs, kafkalog.Record{Key: fmt.Appendf(nil, "%s%d", controlCancelled, id), Value: []byte{stateVersion}})
	}
	_, err := c.w.Append(ctx, recs)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range cancelled {
		if err == nil {
			delete(c.cancelled, id)
		}
	}
	c.changed = c.changed || err != nil
	for sink, g := range pauses {
		if err == nil && c.given[sink] == g {
			c.pauses[sink] = g.reason // until it is followed
			delete(c.given, sink)
		}
	}
	return err
}

// yield forgets pauses that were given here before somebody resumed the sink, of which this replica did not know: it may have been
// cut off for an hour.
func (c *control) yield(ctx context.Context) error {
	c.mu.Lock()
	some := len(c.given) > 0
	c.mu.Unlock()
	if !some {
		return nil
	}
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	if c.yielded() {
		c.pulled()
	}
	return nil
}

func (c *control) yielded() (some bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for sink, g := range c.given {
		if g.reason != "" && c.resumed[sink] > g.known {
			delete(c.given, sink)
			some = true
		}
	}
	return some
}

// setPaused pauses a sink, or resumes it, unless it was resumed since known.
func (c *control) setPaused(sink, reason string, known int64) bool {
	c.mu.Lock()
	late := reason != "" && c.resumed[sink] > known
	if !late {
		c.given[sink] = given{reason, known}
	}
	c.mu.Unlock()
	c.touch()
	return !late
}

func (c *control) known() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

func (c *control) paused(sink string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, ok := c.given[sink]; ok {
		return g.reason
	}
	return c.pauses[sink]
}

func (c *control) accountsOf(replica string) map[string]journal.Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accounts[replica]
}

func (c *control) otherAccounts(replica string) map[string]map[string]journal.Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	others := maps.Clone(c.accounts)
	delete(others, replica)
	return others
}
