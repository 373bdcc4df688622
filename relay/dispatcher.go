package relay

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

// SinkSpec is one destination as the gateway needs it.
type SinkSpec struct {
	Name           string
	Config         any                  // what defines the sink: a reload compares it to tell whether the sink changed
	Build          func() (Sink, error) // makes it; called again when the sink has changed
	Concurrency    int                  // Sends at the same time; at least 1
	Breaks         bool                 // pause the whole sink when several lanes fail and none succeeds
	Unordered      bool
	Retry          RetryConfig
	Backlog        int64 // bytes of bodies the sink may be owed; beyond, the oldest become dead letters; 0 = no limit
	PropagateTrace bool
	SpanKind       trace.SpanKind       // of its deliveries: producer (Kafka), client (HTTP) or internal (file)
	SpanAttrs      []attribute.KeyValue // of all its spans, from telemetry.ToHTTP or ToKafka
}

const (
	// windowBytes bounds the bodies a dispatcher holds. A lane that failed holds positions only and reads its events again
	// when it runs, and any other holds bodies for one slot's share at most. So lanes that hang or fail cannot use the
	// window up, and reading stops only when there is enough to do for every slot.
	windowBytes = 8 << 20

	// maxQueued bounds the positions a dispatcher holds; beyond it reading pauses, and the rest stays in the journal.
	maxQueued = 200_000
)

// dispatcher delivers what one sink is owed: it reads events in the order of the journal, keeps them in order per lane,
// retries, and settles each delivery in the sink's cursor. One goroutine owns all of its state; Sends run in
// goroutines of their own and report to it.
type dispatcher struct {
	SinkSpec
	sink    Sink
	journal *journal.Journal
	cursor  *journal.Cursor
	log     *slog.Logger
	metrics *sinkMetrics
	tracing *telemetry.Tracing
	trail   *trail.Trail

	feeds     []*feed // what is to be delivered: first what the sink is owed, then replays
	lanes     map[laneKey]*lane
	busy      map[Lane]bool   // ordered lanes of the sink with a Send in flight, from whichever feed
	fresh     laneQueue       // can run now
	again     laneQueue       // can run now, after a failure
	waiting   laneHeap        // wait for a retry, the next due first
	draining  map[string]bool // groups that wait for their last Send before they are laned anew
	sending   map[string]int  // Sends in flight per group
	inFlight  int             // Sends in flight
	retrying  int             // of these, Sends of lanes that failed before
	queued    int             // positions in all lanes
	loaded    int             // bytes of bodies held
	failedRan bool            // the lane that started last had failed before
	began     time.Time       // with a monotonic reading
	pace      *pace
	dead      int         // dead letters since the last line in the log
	deadAt    time.Time   // when that was
	paused    string      // why nothing is sent until an operator says so; "" = not paused
	control   chan func() // run by the dispatcher's goroutine, which owns the state
	failures  int         // attempts that failed since the last line in the log
	warned    time.Time   // when that was; zero = all has been well since
	results   chan sendResult
}

// deliveries are what a feed reads and settles: a sink's cursor, or a replay.
type deliveries interface {
	Pending() []journal.Pending
	Next(maxBytes int) ([]*journal.Record, error)
	Settle(journal.Position, journal.Outcome)
	Failed(journal.Position, journal.Retry)
	Bury(journal.DeadLetter)
}

// feed is one source of deliveries to the sink. Feeds are ordered within themselves, not against each other, and share
// the sink's slots and pace.
type feed struct {
	deliveries
	replay   uint32        // its number; 0 = what the sink is owed
	since    time.Time     // when it began; zero: deliveries are as old as their events
	interval time.Duration // between the events of a replay; 0 = as fast as they are taken
	finished func() bool   // nil = never
	dropped  bool          // cancelled: what is in flight of it ends, nothing more is sent

	unlaned []item    // to be put into lanes, in order, before anything else is read
	readAt  time.Time // not before
}

func newFeed(d deliveries) *feed {
	f := &feed{deliveries: d}
	for _, p := range d.Pending() { // what an earlier life read and did not settle
		it := item{position: p.Position}
		if p.Retry.Attempts > 0 {
			it.retry = &p.Retry
		}
		f.unlaned = append(f.unlaned, it)
	}
	return f
}

// laneKey is a lane of a feed, or for unordered events the lane of that one event.
type laneKey struct {
	Lane
	replay   uint32
	position journal.Position
}

// ordered tells whether the sink must not be sent two batches of this lane at the same time.
func (k laneKey) ordered() bool { return k.position == 0 }

// lane is a queue of deliveries that are made one batch after the other.
type lane struct {
	key     laneKey
	feed    *feed
	items   []item
	backoff *retryBackoff // nil until a Send failed
	batch   int           // items of the failed batch, which is sent again with the same events; 0 = free choice
	due     time.Time     // of the next try; meaningful while waiting
	waiting bool          // in dispatcher.waiting
	loaded  int           // bytes of bodies it holds
	sending int           // items in flight, the first ones; 0 = none
}

// item is one delivery in a lane.
type item struct {
	position journal.Position
	event    *Event         // nil: to be read again before it is sent
	retry    *journal.Retry // nil: not tried yet
}

func (it *item) attempts() int {
	if it.retry == nil {
		return 0
	}
	return it.retry.Attempts
}

type sendResult struct {
	lane  *lane
	batch []Attempt
	taken int
	err   error
	took  time.Duration
	cut   bool // ended because the process stops: the outcome is unknown
}

// outcome is what became of event i of the batch, and why when it was not taken; "" = it was not tried.
func (r sendResult) outcome(i int) (string, Reason) {
	switch {
	case i < r.taken:
		return outcomeDelivered, ""
	case errors.Is(r.err, ErrRelane):
		return "", ""
	case r.err == nil: // a sink's bug
		return outcomeFailed, ReasonOther
	case !IsPermanent(r.err):
		return outcomeFailed, known(ReasonOf(r.err))
	case i == r.taken:
		return outcomeRefused, known(ReasonOf(r.err))
	}
	return "", "" // what comes behind a refused event
}

func newDispatcher(spec SinkSpec, sink Sink, j *journal.Journal, c *journal.Cursor, log *slog.Logger, m *sinkMetrics, tracing *telemetry.Tracing, events *trail.Trail) *dispatcher {
	return &dispatcher{
		SinkSpec: spec,
		sink:     sink,
		journal:  j,
		cursor:   c,
		log:      log.With("sink", spec.Name),
		metrics:  m,
		tracing:  tracing,
		trail:    events,
		feeds:    []*feed{newFeed(c)},
		lanes:    make(map[laneKey]*lane),
		busy:     make(map[Lane]bool),
		draining: make(map[string]bool),
		sending:  make(map[string]int),
		results:  make(chan sendResult),
		pace:     newPace(spec.Concurrency, spec.Breaks, spec.Retry),
		began:    time.Now(),
		control:  make(chan func()),
		paused:   c.Paused(),
	}
}

// run delivers until ctx ends, then waits for the Sends in flight. A Send still running when hard ends is cut off: its
// outcome is unknown, so it is made again by the next process.
func (d *dispatcher) run(ctx, hard context.Context) {
	defer func() { // every Send is joined, whatever ends the loop
		for d.inFlight > 0 {
			d.finish(<-d.results)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		appended := d.journal.Appended() // before reading, so that nothing slips in between
		now := time.Now()
		d.wakeDue(now)
		d.fill(now)
		d.shed(now)
		d.metrics.observe(d, now)
		if d.paused == "" && !slices.ContainsFunc(d.feeds, func(f *feed) bool { return len(f.unlaned) > 0 }) {
			d.start(hard, now)
		}
		if due := d.nextDue(now); !due.IsZero() {
			timer.Reset(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return
		case r := <-d.results:
			d.finish(r)
		case f := <-d.control:
			f()
		case <-appended:
		case <-timer.C:
		}
	}
}

// nextDue is when something has to be done without a result or a new event; zero = never.
func (d *dispatcher) nextDue(now time.Time) time.Time {
	var due time.Time
	at := func(t time.Time) {
		if t.After(now) && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	if len(d.waiting) > 0 {
		at(d.waiting[0].due)
	}
	at(d.pace.until)
	for _, f := range d.feeds {
		at(f.readAt)
	}
	return due
}

// fill brings deliveries into lanes, and drops replays that are done.
func (d *dispatcher) fill(now time.Time) {
	d.feeds = slices.DeleteFunc(d.feeds, func(f *feed) bool { return f.finished != nil && f.finished() })
	for _, f := range d.feeds {
		if now.Before(f.readAt) {
			continue
		}
		if err := d.fillFrom(f, now); err != nil {
			d.log.Error("cannot read events from the journal", "replay", f.replay, "error", err)
			f.readAt = now.Add(time.Second)
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
	for d.loaded < room && d.queued < maxQueued && !now.Before(f.readAt) {
		records, err := f.Next(min(room-d.loaded, most))
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
	for _, l := range d.lanes { // moved deliveries may be older than those that wait
		if rest := l.items[max(l.sending, l.batch):]; !slices.IsSortedFunc(rest, byPosition) {
			slices.SortFunc(rest, byPosition)
		}
	}
	for _, l := range d.fresh.takeAll() {
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
		d.makeReady(l)
		return
	}
	head := l.items[0].retry
	l.backoff = newRetryBackoff(d.Retry)
	l.backoff.skip(head.Attempts)
	now := time.Now()
	if latest := now.Add(max(d.Retry.MaxInterval, longestAsked)); head.Next.After(latest) {
		head.Next = latest // the clock was set back
	}
	if head.Next.After(now) {
		d.wait(l, head.Next)
	} else {
		d.makeReady(l)
	}
}

// enqueue appends a delivery to its lane.
func (d *dispatcher) enqueue(f *feed, it item) {
	key := laneKey{Lane: d.sink.Lane(it.event), replay: f.replay}
	if key.Key == "" || d.Unordered {
		key.position = it.position
	}
	l := d.lanes[key]
	if l == nil {
		l = &lane{key: key, feed: f}
		d.lanes[key] = l
		d.makeReady(l)
	}
	if l.backoff == nil && l.loaded < windowBytes/d.Concurrency && d.loaded < windowBytes {
		d.load(l, &it, it.event)
	} else {
		it.event = nil
	}
	l.items = append(l.items, it)
	d.queued++
}

// load makes a lane hold the body of one of its items.
func (d *dispatcher) load(l *lane, it *item, ev *Event) {
	it.event = ev
	l.loaded += ev.size()
	d.loaded += ev.size()
}

// unload drops the body of an item; it is read again when the lane runs.
func (d *dispatcher) unload(l *lane, it *item) {
	if it.event != nil {
		l.loaded -= it.event.size()
		d.loaded -= it.event.size()
		it.event = nil
	}
}

func (d *dispatcher) unloadAll(l *lane) {
	for i := range l.items {
		d.unload(l, &l.items[i])
	}
}

func (d *dispatcher) makeReady(l *lane) {
	l.waiting = false
	if l.backoff == nil {
		d.fresh.push(l)
	} else {
		d.again.push(l)
	}
}

func (d *dispatcher) wait(l *lane, due time.Time) {
	l.waiting = true
	l.due = due
	d.unloadAll(l)
	heap.Push(&d.waiting, l)
}

func (d *dispatcher) wakeDue(now time.Time) {
	for len(d.waiting) > 0 && !d.waiting[0].due.After(now) {
		d.makeReady(heap.Pop(&d.waiting).(*lane))
	}
}

// start sends the next batch of every ready lane for which there is a slot.
func (d *dispatcher) start(ctx context.Context, now time.Time) {
	var blocked []*lane // by a Send of the same lane for another feed; their turn comes when that has ended
	defer func() {
		for _, l := range blocked {
			d.makeReady(l)
		}
	}()
	for allowed := d.pace.allowed(now); d.inFlight < allowed; {
		l := d.nextReady(allowed)
		if l == nil {
			return
		}
		switch {
		case len(l.items) == 0: // it ended while it waited
		case d.draining[l.key.Group]: // stands still until it is laned anew
		case l.key.ordered() && d.busy[l.key.Lane]:
			blocked = append(blocked, l)
		default:
			d.send(ctx, l, now)
		}
	}
}

// nextReady gives the lane whose turn it is, nil if there is none. Lanes that failed before take at most half of the slots,
// of a single one every other turn, so that dead entities or partitions leave room for the living.
func (d *dispatcher) nextReady(allowed int) *lane {
	if d.retrying < allowed/2 || allowed == 1 && !(d.failedRan && d.fresh.len() > 0) {
		if l := d.again.pop(); l != nil {
			return l
		}
	}
	return d.fresh.pop()
}

// send starts one Send for the batch at the head of a lane.
func (d *dispatcher) send(ctx context.Context, l *lane, now time.Time) {
	n, err := d.loadBatch(l)
	switch {
	case err != nil:
		d.log.Error("cannot read owed events from the journal", "lane", l.key.Key, "error", err)
		d.wait(l, now.Add(time.Second))
		return
	case n == 0:
		d.goOn(l)
		return
	}
	batch := make([]Attempt, n)
	for i := range batch {
		batch[i] = Attempt{Event: l.items[i].event, Number: l.items[i].attempts() + 1, Replay: l.key.replay}
	}
	l.sending = n
	d.busy[l.key.Lane] = true // meaningful for ordered lanes only
	d.inFlight++
	d.sending[l.key.Group]++
	if d.failedRan = l.backoff != nil; d.failedRan {
		d.retrying++
	}
	go func() {
		began := time.Now()
		within, end := traceDelivery(ctx, d.tracing, &d.SinkSpec, l.key.Lane, batch)
		taken, err := d.sink.Send(within, l.key.Lane, batch)
		r := sendResult{l, batch, taken, err, time.Since(began), ctx.Err() != nil}
		end(r)
		d.results <- r
	}()
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
				d.load(l, &l.items[i], events[next])
			}
			next++
		}
		for _, p := range gone {
			d.lost(l.feed, p)
		}
		n -= d.remove(l, func(it item) bool { return slices.Contains(gone, it.position) })
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
	records, err := loadRecords(d.journal, positions)
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

// finish settles what a Send achieved and decides when its lane goes on.
func (d *dispatcher) finish(r sendResult) {
	l := r.lane
	if r.taken == len(r.batch) {
		r.err = nil // all was taken: there is nothing an error could be about
	}
	l.sending = 0
	delete(d.busy, l.key.Lane)
	d.inFlight--
	d.sending[l.key.Group]--
	if l.backoff != nil {
		d.retrying--
	}
	now := time.Now()
	d.metrics.attempt(r, now)
	d.noteAttempts(r, now)
	d.logTaken(r)
	d.logTrouble(r, now)
	for range r.taken {
		l.feed.Settle(l.items[0].position, journal.Delivered)
		d.pop(l, 0)
	}
	if r.taken > 0 {
		l.backoff, l.batch = nil, 0
		d.pace.succeeded()
	}

	switch failed := len(r.batch) - r.taken; {
	case l.feed.dropped:
		d.empty(l)
	case failed == 0, r.cut:
		d.goOn(l) // what was cut off has an unknown outcome: the next process makes it again
	case r.err == nil:
		d.failed(l, failed, fmt.Errorf("BUG: the sink took %d of %d events without an error", r.taken, len(r.batch)), now)
	default:
		d.failed(l, failed, r.err, now)
	}
	d.relaneIfDrained(l.key.Group)
}

// noteAttempts leaves a trail of what became of each event of a Send.
func (d *dispatcher) noteAttempts(r sendResult, now time.Time) {
	for i, a := range r.batch {
		outcome, reason := r.outcome(i)
		if outcome == "" {
			return
		}
		e := trail.Entry{Event: trail.ID(a.ID), What: trail.Attempt, At: now, Sink: d.Name, Number: a.Number, Replay: a.Replay,
			Outcome: outcome, Reason: string(reason), Took: r.took.Seconds()}
		if outcome != outcomeDelivered && r.err != nil {
			e.Error = r.err.Error()
		}
		d.trail.Note(e)
	}
}

// logTaken is a debug line for each event that the sink took.
func (d *dispatcher) logTaken(r sendResult) {
	if !d.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	for _, a := range r.batch[:r.taken] {
		d.log.Debug("delivered", "event", a.ID, "entity", a.Entity, "position", a.Position, "attempt", a.Number, "replay", a.Replay, "took", r.took)
	}
}

// logTrouble says at most once a minute that attempts fail, and once that none waits for a retry any more. Each
// attempt is a debug line.
func (d *dispatcher) logTrouble(r sendResult, now time.Time) {
	if r.err == nil || r.cut || errors.Is(r.err, ErrRelane) || IsPermanent(r.err) {
		if !d.warned.IsZero() && len(d.waiting)+d.again.len()+d.retrying == 0 {
			d.log.Info("sink takes events again")
			d.warned = time.Time{}
		}
		return
	}
	d.failures++
	a := r.batch[r.taken]
	d.log.Debug("attempt failed", "event", a.ID, "entity", a.Entity, "attempt", a.Number, "error", r.err)
	if d.warned.IsZero() || now.Sub(d.warned) >= time.Minute {
		d.log.Warn("sink fails; what it is owed waits and is tried again", "lane", r.lane.key.Key, "failures", d.failures, "error", r.err)
		d.warned, d.failures = now, 0
	}
}

// failed deals with the first n items of a lane, the first of which was not taken because of err.
func (d *dispatcher) failed(l *lane, n int, err error, now time.Time) {
	switch {
	case errors.Is(err, ErrRelane):
		d.draining[l.key.Group] = true
		d.goOn(l)
	case IsPermanent(err):
		it := &l.items[0]
		it.retry = tried(it.retry, err, now)
		d.bury(l, 0, err.Error(), now)
		l.backoff, l.batch = nil, 0
		d.goOn(l)
	case IsPause(err):
		d.pause(err.Error()) // before anything else is sent; an operator has to resume it
		d.retryLater(l, n, err, now)
	default:
		d.retryLater(l, n, err, now)
	}
}

// retryLater counts the failed attempt for each item of the batch, gives up what has had its time or its
// attempts, and lets the lane wait.
func (d *dispatcher) retryLater(l *lane, n int, err error, now time.Time) {
	d.pace.failed(l.key, now)
	if l.backoff == nil {
		l.backoff = newRetryBackoff(d.Retry)
	}
	asked, all := askedFor(err)
	if all {
		d.pace.pause(now.Add(asked))
	}
	due := now.Add(max(l.backoff.next(), asked))
	l.batch = n
	for i := n - 1; i >= 0; i-- {
		it := &l.items[i]
		it.retry = tried(it.retry, err, now)
		it.retry.Next = due
		if reason := d.giveUp(l.feed, it, now); reason != "" {
			d.bury(l, i, reason, now)
			l.batch--
		} else {
			l.feed.Failed(it.position, *it.retry)
		}
	}
	if l.batch == 0 { // a new batch: it starts with the first interval again
		l.backoff = newRetryBackoff(d.Retry)
		due = now.Add(max(l.backoff.next(), asked))
	}
	if !d.endIfEmpty(l) {
		d.wait(l, due)
	}
}

// giveUp says why a delivery whose attempt just failed is not tried again; "" = it is.
func (d *dispatcher) giveUp(f *feed, it *item, now time.Time) string {
	since := it.event.ReceivedAt
	if f.since.After(since) {
		since = f.since
	}
	age := ageOf(since, now, d.began, now.Sub(d.began))
	switch {
	case d.Retry.MaxAttempts > 0 && it.retry.Attempts >= d.Retry.MaxAttempts:
		return fmt.Sprintf("given up after %d attempts: %s", it.retry.Attempts, it.retry.LastError)
	case d.Retry.MaxAge > 0 && age >= d.Retry.MaxAge:
		return fmt.Sprintf("given up after %s: %s", d.Retry.MaxAge, it.retry.LastError)
	}
	return ""
}

// bury makes item i of a lane a dead letter.
func (d *dispatcher) bury(l *lane, i int, reason string, now time.Time) {
	it := l.items[i]
	letter := journal.DeadLetter{Position: it.position, Reason: reason, At: now}
	if it.retry != nil {
		letter.Retry = *it.retry
		letter.Retry.Next = time.Time{}
	}
	l.feed.Bury(letter)
	d.logDead(it, reason, now)
	d.pop(l, i)
}

// logDead says that deliveries became dead letters, at most once a second; each is a debug line. Quarantined bodies
// were logged when they came.
func (d *dispatcher) logDead(it item, reason string, now time.Time) {
	if d.Name == Unroutable {
		return
	}
	args := []any{"position", it.position, "attempts", it.attempts(), "reason", reason}
	if it.event != nil {
		args = append(args, "event", it.event.ID, "entity", it.event.Entity)
	}
	d.log.Debug("delivery became a dead letter", args...)
	d.dead++
	if now.Sub(d.deadAt) < time.Second {
		return
	}
	d.log.Warn("delivery became a dead letter", append(args, "count", d.dead)...)
	d.dead, d.deadAt = 0, now
}

// shed makes the oldest deliveries dead letters while the sink is owed more than its backlog allows, so that one
// team's outage never fills the disk of all. What is in flight is left alone. It goes a little below the limit, so
// that it need not look for the oldest at every event.
func (d *dispatcher) shed(now time.Time) {
	if d.Backlog <= 0 || d.cursor.PendingBytes() <= d.Backlog {
		return
	}
	enough := d.Backlog - d.Backlog/20
	for d.cursor.PendingBytes() > enough {
		oldest := d.oldestQueued(shedAtOnce)
		if len(oldest) == 0 {
			return // all is in flight, or not read yet: the next result or event comes back here
		}
		for _, o := range oldest {
			if d.cursor.PendingBytes() <= enough {
				break
			}
			i := slices.IndexFunc(o.lane.items, func(it item) bool { return it.position == o.position })
			d.bury(o.lane, i, "backlog full", now)
			o.lane.batch = 0
		}
		for _, o := range oldest {
			d.endIfEmpty(o.lane)
		}
	}
}

// shedAtOnce is how many are looked for in one go: that takes a look at all lanes.
const shedAtOnce = 8192

type queuedItem struct {
	lane     *lane
	position journal.Position
}

// oldestQueued gives the n oldest items that are not in flight, in order.
func (d *dispatcher) oldestQueued(n int) []queuedItem {
	var all []queuedItem
	for _, l := range d.lanes {
		if l.key.replay > 0 { // replays are not part of the backlog
			continue
		}
		for _, it := range l.items[l.sending:min(l.sending+n, len(l.items))] {
			all = append(all, queuedItem{l, it.position})
		}
	}
	slices.SortFunc(all, func(a, b queuedItem) int { return cmp.Compare(a.position, b.position) })
	return all[:min(n, len(all))]
}

// lost settles a delivery whose event was damaged on disk: there is nothing left to keep as a dead letter.
func (d *dispatcher) lost(f *feed, p journal.Position) {
	f.Settle(p, journal.Dropped)
	d.log.Error("an owed event was damaged on disk and cannot be delivered", "position", p)
}

func (d *dispatcher) pop(l *lane, i int) {
	d.unload(l, &l.items[i])
	if i == 0 {
		l.items[0] = item{}
		l.items = l.items[1:]
	} else {
		l.items = slices.Delete(l.items, i, i+1)
	}
	d.queued--
}

// remove takes those items out of a lane that are not in flight and that gone selects, and says how many.
func (d *dispatcher) remove(l *lane, gone func(item) bool) int {
	kept := slices.DeleteFunc(l.items[l.sending:], func(it item) bool {
		if !gone(it) {
			return false
		}
		d.unload(l, &it)
		return true
	})
	n := len(l.items) - l.sending - len(kept)
	l.items = l.items[:len(l.items)-n]
	d.queued -= n
	return n
}

// empty forgets what a lane holds, apart from what is in flight.
func (d *dispatcher) empty(l *lane) {
	d.remove(l, func(item) bool { return true })
	d.endIfEmpty(l)
}

// goOn makes a lane ready for its next batch, or ends it.
func (d *dispatcher) goOn(l *lane) {
	if !d.endIfEmpty(l) {
		d.makeReady(l)
	}
}

// endIfEmpty forgets a lane that holds nothing. In a queue or in the heap it stays until its turn, and is passed over then.
func (d *dispatcher) endIfEmpty(l *lane) bool {
	if len(l.items) > 0 {
		return false
	}
	if d.lanes[l.key] == l {
		delete(d.lanes, l.key)
	}
	return true
}

// pause sends nothing more until resumeSink; what is in flight ends.
func (d *dispatcher) pause(reason string) {
	d.paused = reason
	d.cursor.SetPaused(reason)
	d.log.Warn("sink paused", "reason", reason)
}

// resumeSink ends every kind of pause. What waits for a retry is due at once.
func (d *dispatcher) resumeSink() {
	d.paused = ""
	d.cursor.SetPaused("")
	d.pace = newPace(d.Concurrency, d.Breaks, d.Retry)
	for len(d.waiting) > 0 {
		d.makeReady(heap.Pop(&d.waiting).(*lane))
	}
	d.log.Info("sink resumed")
}

// take adds deliveries that the sink owes from now on, although others were settled that came later.
func (d *dispatcher) take(positions []journal.Position) {
	f := d.feeds[0]
	for _, p := range positions {
		f.unlaned = append(f.unlaned, item{position: p})
	}
	slices.SortFunc(f.unlaned, byPosition)
}

// skip settles deliveries that wait, and says how many. What is being sent is left alone.
func (d *dispatcher) skip(positions []journal.Position) (skipped int) {
	wanted := make(map[journal.Position]bool, len(positions))
	for _, p := range positions {
		wanted[p] = true
	}
	for _, l := range d.lanes {
		if l.key.replay > 0 {
			continue
		}
		n := d.remove(l, func(it item) bool {
			if wanted[it.position] {
				l.feed.Settle(it.position, journal.Skipped)
			}
			return wanted[it.position]
		})
		if n > 0 {
			l.batch = 0
			skipped += n
			d.endIfEmpty(l)
		}
	}
	return skipped
}

// relaneIfDrained lanes a group anew once nothing of it is in flight. Until then its lanes stand still, so no event
// overtakes an earlier one of its entity on the way to its new lane.
func (d *dispatcher) relaneIfDrained(group string) {
	if d.sending[group] > 0 {
		return
	}
	delete(d.sending, group)
	if !d.draining[group] {
		return
	}
	delete(d.draining, group)
	if r, ok := d.sink.(Relaner); ok {
		r.Relane(group)
	}

	for key, l := range d.lanes {
		if key.Group != group {
			continue
		}
		d.unloadAll(l)
		d.queued -= len(l.items)
		l.feed.unlaned = append(l.feed.unlaned, l.items...)
		l.items = nil
		delete(d.lanes, key)
	}
	for _, f := range d.feeds {
		slices.SortFunc(f.unlaned, byPosition)
		f.dueNow() // what it waited for may have come with the new lanes
	}
}

func byPosition(a, b item) int { return cmp.Compare(a.position, b.position) }

// dueNow makes due what is to be laned and waited for a retry.
func (f *feed) dueNow() {
	for _, it := range f.unlaned {
		if it.retry != nil {
			it.retry.Next = time.Time{}
		}
	}
}

// laneQueue is a first-in-first-out queue of lanes.
type laneQueue struct{ lanes []*lane }

func (q *laneQueue) len() int     { return len(q.lanes) }
func (q *laneQueue) push(l *lane) { q.lanes = append(q.lanes, l) }

// pop gives nil when the queue is empty.
func (q *laneQueue) pop() *lane {
	if len(q.lanes) == 0 {
		return nil
	}
	l := q.lanes[0]
	q.lanes[0] = nil
	q.lanes = q.lanes[1:]
	return l
}

func (q *laneQueue) takeAll() []*lane {
	all := q.lanes
	q.lanes = nil
	return all
}

// laneHeap orders waiting lanes by when they are due.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h laneHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *laneHeap) Push(x any)        { *h = append(*h, x.(*lane)) }
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}
