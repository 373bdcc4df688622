package deliver

import (
	"slices"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// What operators, and the sink's backlog, do to a dispatcher. All of it runs on its goroutine.

// resumeSink ends every kind of pause. What waits for a retry is due at once, over new connections: the old ones may lead to what
// was replaced meanwhile.
func (d *dispatcher) resumeSink() {
	d.owed.SetPaused("")
	d.goOn()
}

// goOn ends every kind of pause here.
func (d *dispatcher) goOn() {
	reconnect(d.sink)
	d.paused, d.pausedUntil = "", time.Time{}
	d.resumes++
	d.pace = newPace(d.pace.full, d.Breaks, d.Retry)
	d.lanes.wakeIf(func(*lane) bool { return true })
	d.log.Info("sink resumed")
}

// obey does what was decided about the sink at another relay with the same journal.
func (d *dispatcher) obey() {
	shared, ok := d.journal.(journal.Shared)
	if !ok || d.obeyed == shared.Levers() {
		return
	}
	d.obeyed = shared.Levers() // before looking: what changes meanwhile is looked at again
	switch reason, until := ParsePause(d.owed.Paused()); {
	case d.Name == relay.Unroutable: // see pausedBefore
	case reason == "" && d.paused != "":
		d.goOn()
	case reason != d.paused || !until.Equal(d.pausedUntil):
		d.paused, d.pausedUntil = reason, until
		d.log.Warn("sink paused, as at another replica", "reason", reason)
	}
	d.takeReplays()
}

// takeReplays begins the replays to the sink that the journal has, or goes on with them.
func (d *dispatcher) takeReplays() {
	for _, r := range d.journal.Replays() {
		if r.Spec().Sink == d.Name && !r.Finished() {
			d.addReplay(r)
		}
	}
}

// take adds deliveries that the sink owes from now on, although others were settled that came later.
func (d *dispatcher) take(positions []journal.Position) {
	for _, p := range positions {
		f := d.backlog.of(p)
		f.unlaned = append(f.unlaned, item{position: p})
	}
	for _, f := range d.backlog.feeds {
		slices.SortFunc(f.unlaned, byPosition)
	}
}

// skip settles deliveries that wait, and says how many. What is being sent is left alone.
func (d *dispatcher) skip(positions []journal.Position) (skipped int) {
	wanted := make(map[journal.Position]bool, len(positions))
	for _, p := range positions {
		wanted[p] = true
	}
	return d.takeOut(d.backlog, func(it item) bool {
		if wanted[it.position] {
			d.backlog.of(it.position).Settle(it.position, journal.Skipped)
		}
		return wanted[it.position]
	})
}

// takeOut takes waiting deliveries of a stream out of their lanes, and says how many. What waited behind them alone is due at once.
func (d *dispatcher) takeOut(s *stream, gone func(item) bool) (taken int) {
	freed := make(map[*lane]bool)
	for _, l := range d.lanes.all {
		if l.stream != s || len(l.items) == 0 {
			continue
		}
		first := l.items[0].position
		n := d.lanes.remove(l, gone)
		if n > 0 {
			l.batch = 0
			taken += n
			switch {
			case d.lanes.end(l):
				freed[l] = true // it is passed over at once, and counts as failing no more
			case l.items[0].position != first:
				l.backoff, freed[l] = nil, true
			}
		}
	}
	d.lanes.wakeIf(func(l *lane) bool { return freed[l] })
	return taken
}

// shed makes the oldest deliveries dead letters while the sink is owed more than its backlog allows, so that one
// team's outage never fills the disk of all. Each shard has its share of that. What is in flight is left alone. It goes a
// little below the limit, so that it need not look for the oldest at every event.
func (d *dispatcher) shed(now time.Time) {
	for _, f := range d.backlog.feeds {
		if limit := d.Backlog / int64(f.shard.Of); limit > 0 && d.owed.PendingBytes(f.shard) > limit {
			d.shedTo(limit-limit/20, f.shard, now)
		}
	}
}

func (d *dispatcher) shedTo(enough int64, shard *journal.Shard, now time.Time) {
	for d.owed.PendingBytes(shard) > enough {
		oldest := d.lanes.oldest(d.backlog, shard.Number, shedAtOnce)
		if len(oldest) == 0 {
			return // all is in flight, or not read yet: the next result or event comes back here
		}
		for _, o := range oldest {
			if d.owed.PendingBytes(shard) <= enough {
				break
			}
			i := slices.IndexFunc(o.lane.items, func(it item) bool { return it.position == o.position })
			d.bury(o.lane, i, "backlog full", relay.ReasonBacklog, now)
			o.lane.batch = 0
		}
		for _, o := range oldest {
			d.lanes.end(o.lane)
		}
	}
}

// shedAtOnce is how many are looked for in one go: that takes a look at all lanes.
const shedAtOnce = 8192
