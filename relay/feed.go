package relay

import (
	"slices"
	"time"

	"ncs-relay/relay/journal"
)

// feed is one source of deliveries to the sink. Feeds are ordered within themselves, not against each other, and share
// the sink's slots and pace.
type feed struct {
	journal.Deliveries
	replay   uint32        // its number; 0 = what the sink is owed
	since    time.Time     // when it began; zero: deliveries are as old as their events
	interval time.Duration // between the events of a replay; 0 = as fast as they are taken
	finished func() bool   // nil = never
	dropped  bool          // cancelled: what is in flight of it ends, nothing more is sent

	unlaned []item    // to be put into lanes, in order, before anything else is read
	readAt  time.Time // when the rate lets more be read
	retryAt time.Time // after an error: nothing is done before
}

func newFeed(d journal.Deliveries) *feed {
	f := &feed{Deliveries: d}
	for _, p := range d.Pending() { // what an earlier life read and did not settle
		it := item{position: p.Position}
		if p.Retry.Attempts > 0 {
			it.retry = &p.Retry
		}
		f.unlaned = append(f.unlaned, it)
	}
	return f
}

// dueNow makes due what is to be laned and waited for a retry.
func (f *feed) dueNow() {
	for _, it := range f.unlaned {
		if it.retry != nil {
			it.retry.Next = time.Time{}
		}
	}
}

// fill brings deliveries into lanes, and drops replays that are done or cancelled.
func (d *dispatcher) fill(now time.Time) {
	for i := len(d.feeds) - 1; i >= 0; i-- { // some are taken out
		if f := d.feeds[i]; f.finished != nil && f.finished() {
			d.dropReplay(f.replay)
		}
	}
	for _, f := range d.feeds {
		if now.Before(f.retryAt) {
			continue
		}
		if err := d.fillFrom(f, now); err != nil {
			d.log.Error("cannot read events from the journal", "replay", f.replay, "error", err)
			d.health.cannotRead(err, now)
			f.retryAt = now.Add(time.Second)
		}
	}
}

// fillFrom reads one feed while there is room: first what has to be laned (again), then what comes next. Replays get a
// quarter of the room.
func (d *dispatcher) fillFrom(f *feed, now time.Time) error {
	if err := d.layOut(f); err != nil {
		return err
	}
	room, most := windowBytes, 1<<20
	if f.replay > 0 {
		room, most = windowBytes/4, 64<<10
	}
	if f.interval > 0 {
		most = 1 // byte: one event at a time
	}
	for d.lanes.loaded < room && !d.lanes.full() && !now.Before(f.readAt) {
		records, err := f.Next(min(room-d.lanes.loaded, most))
		if err != nil {
			return err
		}
		if len(records) == 0 {
			return nil
		}
		for _, r := range records {
			ev := eventOf(r)
			d.enqueue(f, item{position: ev.Position, event: ev})
		}
		if f.interval > 0 {
			if late := now.Add(-maxLate); f.readAt.Before(late) {
				f.readAt = late
			}
			f.readAt = f.readAt.Add(time.Duration(len(records)) * f.interval)
		}
	}
	return nil
}

// maxLate is how much of the time that a replay with a rate was kept from reading it may make up for, in a burst.
const maxLate = 100 * time.Millisecond

// layOut puts the unlaned items of a feed into their lanes. Lanes that begin with failed items go on where they stopped.
func (d *dispatcher) layOut(f *feed) error {
	if len(f.unlaned) == 0 {
		return nil
	}
	for len(f.unlaned) > 0 {
		chunk := f.unlaned[:min(len(f.unlaned), 512)]
		positions := make([]journal.Position, len(chunk))
		for i, it := range chunk {
			positions[i] = it.position
		}
		events, err := d.loadEvents(positions)
		if err != nil {
			return err
		}
		for i, it := range chunk {
			if it.event = events[i]; it.event == nil {
				d.lost(f, it.position)
				continue
			}
			d.enqueue(f, it)
		}
		f.unlaned = f.unlaned[len(chunk):]
	}
	f.unlaned = nil
	for _, l := range d.lanes.all { // moved deliveries may be older than those that wait
		if rest := l.items[max(l.sending, l.batch):]; !slices.IsSortedFunc(rest, byPosition) {
			slices.SortFunc(rest, byPosition)
		}
	}
	for _, l := range d.lanes.fresh.takeAll() {
		d.resume(l)
	}
	return nil
}

// longestAsked is how long a far side may ask us to wait.
const longestAsked = time.Hour

// resume starts a lane that was laid out. One that begins with failed items sends these again as one batch, not before
// it is due.
func (d *dispatcher) resume(l *lane) {
	for l.batch < len(l.items) && l.items[l.batch].attempts() > 0 {
		l.batch++
	}
	if l.batch == 0 {
		d.lanes.ready(l)
		return
	}
	head := l.items[0].retry
	l.backoff = newRetryBackoff(d.Retry)
	l.backoff.skip(head.Attempts)
	now := time.Now()
	d.health.failed(Trouble{Error: head.LastError, At: head.LastFailed}, head.FirstFailed, 0)
	if latest := now.Add(max(d.Retry.MaxInterval, longestAsked)); head.Next.After(latest) {
		head.Next = latest // the clock was set back
	}
	if head.Next.After(now) {
		d.lanes.wait(l, head.Next)
	} else {
		d.lanes.ready(l)
	}
}

// enqueue puts a delivery into its lane.
func (d *dispatcher) enqueue(f *feed, it item) {
	key := laneKey{Lane: d.sink.Lane(it.event), replay: f.replay}
	if key.Key == "" || d.Unordered {
		key.position = it.position
	}
	d.lanes.put(key, f, it)
}

// loadBatch makes sure that the events of the lane's next batch are in memory and says how many they are.
func (d *dispatcher) loadBatch(l *lane) (int, error) {
	maxEvents, maxBytes := d.sink.MaxBatch()
	n := min(len(l.items), max(1, maxEvents))
	if l.batch > 0 {
		n = min(n, l.batch)
	}
	var missing []journal.Position
	for _, it := range l.items[:n] {
		if it.event == nil {
			missing = append(missing, it.position)
		}
	}
	if len(missing) > 0 {
		events, err := d.loadEvents(missing)
		if err != nil {
			return 0, err
		}
		var gone []journal.Position
		for i, next := 0, 0; i < n; i++ {
			if l.items[i].event != nil {
				continue
			}
			if events[next] == nil {
				gone = append(gone, missing[next])
			} else {
				d.lanes.load(l, &l.items[i], events[next])
			}
			next++
		}
		for _, p := range gone {
			d.lost(l.feed, p)
		}
		n -= d.lanes.remove(l, func(it item) bool { return slices.Contains(gone, it.position) })
	}
	bytes := 0
	for i := range n {
		if bytes += len(l.items[i].event.Body); i > 0 && maxBytes > 0 && bytes > maxBytes {
			return i, nil
		}
	}
	return n, nil
}

// loadEvents reads events again, in the order of positions. Those that are lost, because the disk damaged them, are nil.
func (d *dispatcher) loadEvents(positions []journal.Position) ([]*Event, error) {
	records, err := d.journal.Load(positions)
	if err != nil {
		return nil, err
	}
	events := make([]*Event, len(records))
	for i, r := range records {
		if r != nil {
			events[i] = eventOf(r)
		}
	}
	return events, nil
}

// lost settles a delivery whose event was damaged on disk: there is nothing left to keep as a dead letter.
func (d *dispatcher) lost(f *feed, p journal.Position) {
	f.Settle(p, journal.Dropped)
	d.log.Error("an owed event was damaged on disk and cannot be delivered", "position", p)
}
