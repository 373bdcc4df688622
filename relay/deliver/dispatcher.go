package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/telemetry"
	"ncs-relay/relay/trail"
)

// SinkSpec is one destination, with how it is delivered to.
type SinkSpec struct {
	Name           string
	Owner          string                     // whom operators turn to; for status and metrics
	Config         any                        // what defines the sink: a reload compares it to tell whether the sink changed
	Catalogue      *ncs.Catalogue             // names what it delivers, the same for all sinks; a reload compares it, too
	Build          func() (relay.Sink, error) // makes it; called again when the sink has changed
	Concurrency    int                        // Sends at the same time, of all replicas together; at least 1
	Breaks         bool                       // pause the whole sink when several lanes fail and none succeeds
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

	// queueBytes bounds what else it holds of deliveries that wait: their positions and lanes. Beyond it reading pauses, and
	// the rest stays in the journal. That is 1.6 million events which wait behind few others, or 190,000 of which each has
	// failed by itself.
	queueBytes = 128 << 20
)

// dispatcher delivers what one sink is owed: it reads events in the order of the journal, keeps them in order per lane,
// retries, and settles each delivery in the journal. One goroutine owns all of its state; Sends run in
// goroutines of their own and report to it.
type dispatcher struct {
	SinkSpec
	sink    relay.Sink
	journal journal.Feeder
	owed    journal.Sink
	log     *slog.Logger
	metrics *sinkMetrics
	health  *health
	tracing *telemetry.Tracing
	trail   *trail.Trail

	backlog     *stream          // what the sink is owed
	streams     []*stream        // what is to be delivered: the backlog, and replays
	shards      []*journal.Shard // in which there are feeds
	leaving     bool             // of some feeds only what is in flight is left
	crowded     bool             // there are more replicas than concurrency allows
	lanes       lanes
	busy        map[relay.Lane]bool // ordered lanes of the sink with a Send in flight, from whichever stream
	draining    map[string]bool     // groups that wait for their last Send before they are laned anew
	sending     map[string]int      // Sends in flight per group
	inFlight    int                 // Sends in flight
	retrying    int                 // of these, Sends of lanes that failed before
	began       time.Time           // with a monotonic reading
	pace        *pace
	dead        int         // dead letters since the last line in the log
	deadAt      time.Time   // when that was
	paused      string      // why nothing is sent until an operator says so; "" = not paused
	pausedUntil time.Time   // when that ends by itself; zero = never
	resumes     int         // how often a pause was ended
	obeyed      uint64      // the last journal.Shared.Levers that was looked at
	asOf        int64       // journal.Shared.Known when the attempt was sent whose result is looked at
	control     chan func() // run by the dispatcher's goroutine, which owns the state
	failures    int         // attempts that failed since the last line in the log
	warned      time.Time   // when that was; zero = all has been well since
	results     chan sendResult
}

type sendResult struct {
	lane  *lane
	batch []relay.Attempt
	taken int
	err   error
	took  time.Duration
	cut   bool // ended because the process stops: the outcome is unknown
	at    int  // resumes when it began
	known int64
}

// outcome is what became of event i of the batch, and why when it was not taken; "" = it was not tried.
func (r sendResult) outcome(i int) (string, relay.Reason) {
	switch {
	case i < r.taken:
		return OutcomeDelivered, ""
	case errors.Is(r.err, relay.ErrRelane):
		return "", ""
	case r.err == nil: // a sink's bug
		return OutcomeFailed, relay.ReasonOther
	case !relay.IsPermanent(r.err):
		return OutcomeFailed, known(relay.ReasonOf(r.err))
	case i == r.taken:
		return OutcomeRefused, known(relay.ReasonOf(r.err))
	}
	return "", "" // what comes behind a refused event
}

func newDispatcher(spec SinkSpec, sink relay.Sink, j journal.Feeder, owed journal.Sink, log *slog.Logger, m *sinkMetrics, tracing *telemetry.Tracing, events *trail.Trail) *dispatcher {
	backlog := &stream{open: owed.Owed}
	d := &dispatcher{
		SinkSpec: spec,
		sink:     sink,
		journal:  j,
		owed:     owed,
		log:      log.With("sink", spec.Name),
		metrics:  m,
		health:   newHealth(spec.Retry),
		tracing:  tracing,
		trail:    events,
		backlog:  backlog,
		streams:  []*stream{backlog},
		lanes:    newLanes(spec.Concurrency),
		busy:     make(map[relay.Lane]bool),
		draining: make(map[string]bool),
		sending:  make(map[string]int),
		results:  make(chan sendResult),
		pace:     newPace(1, spec.Breaks, spec.Retry), // see shareOut
		began:    time.Now(),
		control:  make(chan func()),
	}
	d.paused, d.pausedUntil = pausedBefore(spec.Name, owed)
	d.follow()
	return d
}

// pausedBefore is why the sink was paused in an earlier life, and until when. Unroutable cannot be any more: it hid what was
// quarantined.
func pausedBefore(name string, owed journal.Sink) (reason string, until time.Time) {
	if name == relay.Unroutable && owed.Paused() != "" {
		owed.SetPaused("")
	}
	return ParsePause(owed.Paused())
}

// run delivers until ctx ends, then waits for the Sends in flight. A Send still running when hard ends is cut off: its
// outcome is unknown, so it is made again by the next process.
func (d *dispatcher) run(ctx, hard context.Context) {
	defer func() { // every Send is joined, whatever ends the loop
		for d.inFlight > 0 {
			d.finish(<-d.results)
		}
		for _, f := range d.feeds {
			f.End()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()

	for {
		changed := d.follow()
		appended := d.owed.Appended() // before reading, so that nothing slips in between
		d.obey()
		now := time.Now()
		d.endPause(now)
		d.lanes.wake(now)
		d.fill(now)
		d.shed(now)
		if d.paused == "" && !d.unlaned() {
			d.start(hard, now)
		}
		d.observe(now)
		if due := d.nextDue(now); !due.IsZero() {
			timer.Reset(time.Until(due))
		}
		select {
		case <-ctx.Done():
			return
		case r := <-d.results:
			d.finish(r)
			d.finishMore()
		case f := <-d.control:
			f()
		case <-appended:
		case <-changed:
		case <-timer.C:
		}
	}
}

// finishMore takes the results that are there already: what follows a result is as much work for one as for all.
func (d *dispatcher) finishMore() {
	for {
		select {
		case r := <-d.results:
			d.finish(r)
		default:
			return
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
	if len(d.lanes.waiting) > 0 {
		at(d.lanes.waiting[0].due)
	}
	if len(d.lanes.lingering) > 0 {
		at(d.lanes.lingering[0].until)
	}
	at(d.pace.until)
	at(d.pausedUntil)
	for _, t := range d.pace.tries {
		at(t.at)
	}
	for s, f := range d.feeds {
		at(s.readAt)
		at(f.retryAt)
	}
	return due
}

// start sends the next batch of every ready lane for which there is a slot.
func (d *dispatcher) start(ctx context.Context, now time.Time) {
	var blocked []*lane // by a Send of the same lane for another stream; their turn comes when that has ended
	defer func() {
		for _, l := range blocked {
			d.lanes.ready(l)
		}
	}()
	allowed := d.pace.allowed(now)
	if allowed == 0 && !d.pace.trying && d.Breaks {
		d.try(ctx, now)
	}
	for d.inFlight < allowed {
		l := d.lanes.next(d.retrying, allowed)
		if l == nil {
			return
		}
		switch {
		case d.draining[l.key.Group]: // stands still until it is laned anew
		case l.key.ordered() && d.busy[l.key.Lane]:
			blocked = append(blocked, l)
		default:
			d.send(ctx, l, now)
		}
	}
}

// tryAmong is how many of the lanes that came last are looked at for one to try during a pause. What waits longer is reached by probes.
const tryAmong = 64

// try sends one lane that was never tried although the sink pauses.
func (d *dispatcher) try(ctx context.Context, now time.Time) {
	fresh := &d.lanes.fresh
	for i := fresh.len() - 1; i >= max(0, fresh.len()-tryAmong); i-- {
		l := fresh.lanes[i]
		if len(l.items) == 0 || l.items[0].event == nil || d.busy[l.key.Lane] || d.draining[l.key.Group] || !d.pace.mayTry(typeOf(l.items[0].event), now) {
			continue
		}
		fresh.lanes = slices.Delete(fresh.lanes, i, i+1)
		l.trying, d.pace.trying = true, true
		d.send(ctx, l, now)
		return
	}
}

// send starts one Send for the batch at the head of a lane.
func (d *dispatcher) send(ctx context.Context, l *lane, now time.Time) {
	d.passSettled(l)
	n, err := d.loadBatch(l)
	switch {
	case err != nil:
		d.log.Error("cannot read owed events from the journal", "lane", l.key.Key, "error", err)
		d.health.cannotRead(err, now)
		d.lanes.wait(l, now.Add(time.Second))
		return
	case n == 0: // it ended while it waited, or all of the batch is lost
		d.lanes.goOn(l)
		return
	}
	batch := make([]relay.Attempt, n)
	for i := range batch {
		batch[i] = relay.Attempt{Event: l.items[i].event, Number: l.items[i].attempts() + 1, Replay: l.key.replay}
	}
	l.sending = n
	d.busy[l.key.Lane] = true // meaningful for ordered lanes only
	d.inFlight++
	d.sending[l.key.Group]++
	if l.backoff != nil {
		d.retrying++
	}
	resumes, known := d.resumes, d.known()
	go func() {
		began := time.Now()
		within, end := traceDelivery(ctx, d.tracing, &d.SinkSpec, l.key.Lane, batch)
		taken, err := d.sink.Send(within, l.key.Lane, batch)
		r := sendResult{l, batch, taken, err, time.Since(began), ctx.Err() != nil, resumes, known}
		end(r)
		d.results <- r
	}()
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
	d.asOf = r.known
	d.metrics.attempt(r, now)
	d.health.group(r, now)
	d.noteAttempts(r, now)
	d.logTaken(r)
	d.logTrouble(r, now)
	if r.taken > 0 {
		d.pace.succeeded(typeOf(r.batch[0].Event))
	}
	for range r.taken {
		l.stream.of(l.items[0].position).Settle(l.items[0].position, journal.Delivered)
		d.lanes.pop(l, 0)
	}
	if r.taken > 0 {
		l.backoff, l.batch, l.known = nil, 0, false
		d.health.took(now)
	}

	switch failed := len(r.batch) - r.taken; {
	case l.stream.dropped:
		d.lanes.empty(l)
	case failed == 0:
		most, _ := d.sink.MaxBatch()
		d.lanes.linger(l, most, now.Add(linger-now.Sub(d.began)%linger)) // all at the same instants, so that a sink may send them together
	case r.cut:
		d.lanes.goOn(l) // its outcome is unknown: the next process makes it again
	case r.err == nil:
		d.failed(l, failed, fmt.Errorf("BUG: the sink took %d of %d events without an error", r.taken, len(r.batch)), now)
	case relay.IsPause(r.err) && r.at != d.resumes:
		d.retryLater(l, failed, r.err, now) // it was sent before the sink was resumed, and says nothing of what is there now
	default:
		d.failed(l, failed, r.err, now)
	}
	if l.trying {
		l.trying, d.pace.trying = false, false
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
		if outcome != OutcomeDelivered && r.err != nil {
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
	if r.err == nil || r.cut || errors.Is(r.err, relay.ErrRelane) || relay.IsPermanent(r.err) {
		if !d.warned.IsZero() && d.lanes.failed(d.retrying) == 0 {
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
	case errors.Is(err, relay.ErrRelane):
		d.draining[l.key.Group] = true
		d.lanes.goOn(l)
	case relay.IsPermanent(err):
		it := &l.items[0]
		it.retry = tried(it.retry, err, now)
		d.health.failed(troubleOf(err, now), it.retry.FirstFailed, 1)
		d.bury(l, 0, err.Error(), known(relay.ReasonOf(err)), now)
		l.backoff, l.batch, l.known = nil, 0, false
		d.lanes.goOn(l)
	case relay.IsPause(err):
		d.pauseFound(err.Error()) // before anything else is sent; an operator has to resume it
		d.retryLater(l, n, err, now)
	default:
		d.retryLater(l, n, err, now)
	}
}

// retryLater counts the failed attempt for each item of the batch, gives up what has had its time or its
// attempts, and lets the lane wait.
func (d *dispatcher) retryLater(l *lane, n int, err error, now time.Time) {
	d.pace.failed(l, typeOf(l.items[0].event), now)
	if l.backoff == nil {
		l.backoff = newRetryBackoff(d.Retry)
	}
	asked, all := askedFor(err)
	if all {
		d.pace.askedFor(now.Add(asked))
	}
	due := now.Add(max(l.backoff.next(), asked))
	l.batch = n
	first := now
	for i := n - 1; i >= 0; i-- {
		it := &l.items[i]
		it.retry = tried(it.retry, err, now)
		first = it.retry.FirstFailed
		it.retry.Next = due
		if reason := d.giveUp(l.stream, it, now); reason != "" {
			d.bury(l, i, reason, known(relay.ReasonOf(err)), now)
			l.batch--
		} else {
			l.stream.of(it.position).Failed(it.position, *it.retry)
		}
	}
	d.health.failed(troubleOf(err, now), first, n-l.batch)
	if l.batch == 0 { // a new batch: it starts with the first interval again
		l.backoff = newRetryBackoff(d.Retry)
		due = now.Add(max(l.backoff.next(), asked))
	}
	if !d.lanes.end(l) {
		d.lanes.wait(l, due)
	}
}

// giveUp says why a delivery whose attempt just failed is not tried again; "" = it is.
func (d *dispatcher) giveUp(s *stream, it *item, now time.Time) string {
	since := it.event.StoredAt
	if s.since.After(since) {
		since = s.since
	}
	age := ageOf(since, now, d.began, now.Sub(d.began))
	switch {
	case d.Retry.MaxAttempts > 0 && it.retry.Attempts >= d.Retry.MaxAttempts:
		return fmt.Sprintf("given up after %d attempts%s: %s", it.retry.Attempts, alike(it.retry), it.retry.LastError)
	case d.Retry.MaxAge > 0 && age >= d.Retry.MaxAge:
		return fmt.Sprintf("given up after %s%s: %s", d.Retry.MaxAge, alike(it.retry), it.retry.LastError)
	}
	return ""
}

// alike are words for a delivery that failed again as it first did: a far side that stores its own failure and repeats it for ever
// looks like this. Of the attempts between nothing is kept.
func alike(r *journal.Retry) string {
	if r.Attempts > 1 && r.FirstError == r.LastError {
		return ", the first and the last of which failed alike"
	}
	return ""
}

// bury makes item i of a lane a dead letter.
func (d *dispatcher) bury(l *lane, i int, reason string, cause relay.Reason, now time.Time) {
	it := l.items[i]
	letter := journal.DeadLetter{Position: it.position, Reason: reason, Cause: string(cause), At: now}
	if it.retry != nil {
		letter.Retry = *it.retry
		letter.Retry.Next = time.Time{}
	}
	l.stream.of(it.position).Bury(letter)
	d.logDead(it, reason, now)
	if it.event != nil {
		d.trail.Note(trail.Entry{Event: trail.ID(it.event.ID), What: trail.Dead, At: now, Sink: d.Name, Replay: l.key.replay, Reason: string(cause), Error: reason})
	}
	d.lanes.pop(l, i)
}

// logDead says that deliveries became dead letters, at most once a second; each is a debug line. Quarantined bodies
// were logged when they came.
func (d *dispatcher) logDead(it item, reason string, now time.Time) {
	if d.Name == relay.Unroutable {
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
	if r, ok := d.sink.(relay.Relaner); ok {
		r.Relane(group)
	}
	d.lanes.withdraw(group)
	for _, f := range d.feeds {
		slices.SortFunc(f.unlaned, byPosition)
		f.dueNow() // what it waited for may have come with the new lanes
	}
}
