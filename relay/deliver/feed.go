package deliver

import (
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// stream is what a sink is owed, or a replay to it: a feed for each shard. Streams are ordered within each shard, not against
// each other, and share the sink's slots and pace.
type stream struct {
	replay   journal.Replay // nil: what the sink is owed
	number   uint32         // of the replay
	open     func(*journal.Shard) journal.Deliveries
	since    time.Time     // when it began; zero: deliveries are as old as their events
	interval time.Duration // between the events of a replay; 0 = as fast as they are taken
	readAt   time.Time     // when the rate lets more be read
	dropped  bool          // ended or cancelled: what is in flight of it ends, nothing more is sent
	feeds    []*feed
	turn     int // the feed that is read next
}

// of is the feed of a delivery.
func (s *stream) of(p journal.Position) *feed {
	for _, f := range s.feeds {
		if f.shard.Number == p.Shard {
			return f
		}
	}
	return nil
}

// feed is a stream's deliveries in one shard, in order. It comes and goes with the shard.
type feed struct {
	journal.Deliveries
	shard   *journal.Shard
	unlaned []item    // to be put into lanes, in order, before anything else is read
	retryAt time.Time // after an error: nothing is done before
}

func newFeed(shard *journal.Shard, d journal.Deliveries) *feed {
	f := &feed{Deliveries: d, shard: shard}
	for _, p := range d.Pending() { // what an earlier life read and did not settle
		it := item{position: p.Position}
		if p.Retry.Attempts > 0 {
			it.retry = &p.Retry
		}
		f.unlaned = append(f.unlaned, it)
	}
	return f
}

// feeds are those of all streams.
func (d *dispatcher) feeds(yield func(*stream, *feed) bool) {
	for _, s := range d.streams {
		for _, f := range s.feeds {
			if !yield(s, f) {
				return
			}
		}
	}
}

// unlaned reports whether deliveries that were read have no lane.
func (d *dispatcher) unlaned() bool {
	for _, f := range d.feeds {
		if len(f.unlaned) > 0 {
			return true
		}
	}
	return false
}

// follow opens feeds in the shards that came, and ends those in the shards that went when nothing of them is in flight any more;
// only then a shard that came back is taken again.
func (d *dispatcher) follow() (changed <-chan struct{}) {
	held, changed := d.journal.Shards()
	moved := !slices.Equal(held, d.shards)
	if moved {
		d.shards = held
		d.shareOut()
	}
	if d.leaving || moved {
		d.leaving = false
		d.streams = slices.DeleteFunc(d.streams, func(s *stream) bool {
			d.followIn(s)
			return s.dropped && len(s.feeds) == 0
		})
	}
	return changed
}

func (d *dispatcher) followIn(s *stream) {
	s.feeds = slices.DeleteFunc(s.feeds, func(f *feed) bool {
		if !s.dropped && slices.Contains(d.shards, f.shard) {
			return false
		}
		f.unlaned = nil
		d.takeOut(s, func(it item) bool { return it.position.Shard == f.shard.Number })
		if d.lanes.sendingOf(s, f.shard.Number) {
			d.leaving = true
			return false
		}
		f.End()
		return true
	})
	for _, shard := range d.shards {
		if !s.dropped && s.of(journal.Position{Shard: shard.Number}) == nil {
			s.feeds = append(s.feeds, newFeed(shard, s.open(shard)))
		}
	}
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
	for _, s := range d.streams {
		if s.replay != nil && s.replay.Finished() {
			d.dropReplay(s)
		}
		if !s.dropped {
			d.fillFrom(s, now)
		}
	}
}

// fillFrom reads one stream while there is room, its shards in turn. Replays get a quarter of the room.
func (d *dispatcher) fillFrom(s *stream, now time.Time) {
	room, most := windowBytes, 1<<20
	if s.replay != nil {
		room, most = windowBytes/4, 64<<10
	}
	if s.interval > 0 {
		most = 1 // byte: one event at a time
	}
	for _, f := range s.feeds {
		if !now.Before(f.retryAt) {
			d.noteReading(s, f, d.layOut(s, f), now)
		}
	}
	for idle := 0; idle < len(s.feeds) && d.lanes.loaded < room && !d.lanes.full() && !now.Before(s.readAt); {
		s.turn = (s.turn + 1) % len(s.feeds)
		n := 0
		if f := s.feeds[s.turn]; !now.Before(f.retryAt) {
			var err error
			n, err = d.readFrom(s, f, min(room-d.lanes.loaded, most))
			d.noteReading(s, f, err, now)
		}
		if n == 0 {
			idle++
			continue
		}
		idle = 0
		if s.interval > 0 {
			if late := now.Add(-maxLate); s.readAt.Before(late) {
				s.readAt = late
			}
			s.readAt = s.readAt.Add(time.Duration(n) * d.shared(s.interval))
		}
	}
}

func (d *dispatcher) readFrom(s *stream, f *feed, maxBytes int) (int, error) {
	records, err := f.Next(maxBytes)
	for _, r := range records {
		ev := d.eventOf(r)
		d.enqueue(s, item{position: ev.Position, event: ev})
	}
	return len(records), err
}

// noteReading lets a feed that cannot be read rest for a moment.
func (d *dispatcher) noteReading(s *stream, f *feed, err error, now time.Time) {
	if err == nil {
		return
	}
	d.log.Error("cannot read events from the journal", "replay", s.number, "error", err)
	d.health.cannotRead(err, now)
	f.retryAt = now.Add(time.Second)
}

// maxLate is how much of the time that a replay with a rate was kept from reading it may make up for, in a burst.
const maxLate = 100 * time.Millisecond

// layOut puts the unlaned items of a feed into their lanes. Lanes that begin with failed items go on where they stopped.
func (d *dispatcher) layOut(s *stream, f *feed) error {
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
			d.enqueue(s, it)
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
func (d *dispatcher) enqueue(s *stream, it item) {
	key := laneKey{Lane: d.sink.Lane(it.event), replay: s.number}
	if key.Key == "" || d.Unordered {
		key.position = it.position
	}
	d.lanes.put(key, s, it)
}

// passSettled takes out of the head of a lane what the journal has made dead letters of: the oldest go first.
func (d *dispatcher) passSettled(l *lane) {
	for len(l.items) > 0 && !l.stream.of(l.items[0].position).Owes(l.items[0].position) {
		d.lanes.pop(l, 0)
		l.batch = max(0, l.batch-1)
	}
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
			d.lost(l.stream.of(p), p)
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
func (d *dispatcher) loadEvents(positions []journal.Position) ([]*relay.Event, error) {
	records, err := d.journal.Load(positions)
	if err != nil {
		return nil, err
	}
	events := make([]*relay.Event, len(records))
	for i, r := range records {
		if r != nil {
			events[i] = d.eventOf(r)
		}
	}
	return events, nil
}

// lost settles a delivery whose event is gone, damaged on disk or no longer in its topic: there is nothing left to keep as a dead letter.
func (d *dispatcher) lost(f *feed, p journal.Position) {
	f.Settle(p, journal.Dropped)
	d.log.Error("an owed event is gone from the journal and cannot be delivered", "position", p)
}

// eventOf makes the event of a journal record. Product, event and category come from the catalogue in force.
func (d *dispatcher) eventOf(r *journal.Record) *relay.Event {
	stored := r.Stored
	if stored.IsZero() {
		stored = r.Time
	}
	return &relay.Event{
		Position:    r.Position,
		ID:          r.ID,
		Info:        d.Catalogue.Lookup(r.ProductID, r.EventType),
		Source:      r.Source,
		Entity:      r.Entity,
		ReceivedAt:  r.Time,
		StoredAt:    stored,
		ContentType: r.ContentType,
		SignatureV1: r.SignatureV1,
		SignatureV2: r.SignatureV2,
		Body:        r.Body,
		Quarantine:  r.Quarantine,
		Trace: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: r.ID, SpanID: r.SpanID, TraceFlags: trace.TraceFlags(r.TraceFlags), Remote: true}),
	}
}

// sizeOf is what an event costs a dispatcher's window.
func sizeOf(ev *relay.Event) int { return len(ev.Body) + 512 }

// addReplay begins a replay, or goes on with one of an earlier process. One that runs already is left alone: a dispatcher
// that a reload makes finds it in the journal, too.
func (d *dispatcher) addReplay(r journal.Replay) {
	if d.replayOf(r.ID()) != nil {
		return
	}
	match, err := relay.MatchOf(r, d.Catalogue)
	if err != nil { // of a newer version, say
		d.log.Error("replay cannot be run; cancelled", "replay", r.ID(), "error", err)
		r.Cancel()
		return
	}
	spec := r.Spec()
	s := &stream{replay: r, number: r.ID(), since: spec.CreatedAt,
		open: func(shard *journal.Shard) journal.Deliveries { return r.In(shard, match) }}
	if spec.Rate > 0 {
		s.interval = time.Duration(min(float64(time.Second)/spec.Rate, float64(365*24*time.Hour))) // a Duration ends somewhere
	}
	d.streams = append(d.streams, s)
	d.followIn(s)
	d.log.Info("replay runs", "replay", r.ID())
}

func (d *dispatcher) replayOf(id uint32) *stream {
	for _, s := range d.streams {
		if s.replay != nil && s.number == id {
			return s
		}
	}
	return nil
}

// dropReplay forgets what a replay that ended, or was cancelled, has in lanes.
func (d *dispatcher) dropReplay(s *stream) {
	if s == nil || s.dropped {
		return
	}
	s.dropped, d.leaving = true, true
	for _, f := range s.feeds {
		f.unlaned = nil
	}
	for _, l := range d.lanes.all {
		if l.stream == s {
			d.lanes.empty(l)
		}
	}
}
