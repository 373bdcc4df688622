package deliver

import (
	"time"

	"ncs-relay/relay"
)

// pace says how many Sends a sink may have in flight. Normally that is its concurrency, or the share of it that goes with the
// shards which this process has. When several lanes fail and
// none succeeds in between, it is the service that is down and not an event that is bad: then the pace pauses, lets a
// single Send probe, and after a success doubles from one, so that a service that comes back is not met by a burst.
//
// What fails while others succeed says nothing about the service: a lane that had failed before a success, and an event type
// of which all fails while another succeeds, are known, and their failures do not count. And while it pauses, what was
// never tried is tried at once, one at a time, so that a healthy event waits for no bad ones; after such a try failed, the
// next one of its event type waits, twice as long each time.
//
// It never gives up a delivery: what does not run because of a pause is not tried, so it is not given up either.
type pace struct {
	full    int // this process's share of the sink's concurrency
	breaks  bool
	backoff *retryBackoff
	retry   RetryConfig

	limit    int                 // Sends in flight allowed now, 1 to full
	failing  map[*lane]eventType // lanes that failed since the last success
	failures int                 // their Sends that failed since then
	known    map[eventType]bool  // types that fail while another succeeds
	until    time.Time           // no Send starts before, but for tries
	asked    time.Time           // the far side asked for this: not even a try
	probing  bool                // after a pause: one Send decides
	trying   bool                // something never tried is being sent during a pause
	tries    map[eventType]*try  // of types of which a try failed since the last success
}

// eventType is what a receiver's bug may go with.
type eventType struct {
	product string
	number  int
}

func typeOf(e *relay.Event) eventType { return eventType{e.Info.Product, e.Info.EventType} }

// try is when the next one of an event type may be made.
type try struct {
	at  time.Time
	gap time.Duration
}

// A sink pauses after so many failures in a row of so many lanes. One bad entity alone never gets there.
const (
	breakFailures = 5
	breakLanes    = 3
)

func newPace(concurrency int, breaks bool, c RetryConfig) *pace {
	c.MaxInterval = min(c.MaxInterval, maxPause)
	return &pace{full: concurrency, breaks: breaks, retry: c, limit: concurrency,
		failing: make(map[*lane]eventType), known: make(map[eventType]bool), tries: make(map[eventType]*try)}
}

// resize makes another number the full pace. What is held back at the moment stays so.
func (p *pace) resize(full int) {
	if p.limit > full || p.limit == p.full && !p.probing {
		p.limit = full
	}
	p.full = full
}

// maxPause bounds a pause: a probe each minute costs nothing and finds out soon enough.
const maxPause = time.Minute

// allowed is how many Sends may be in flight at now.
func (p *pace) allowed(now time.Time) int {
	if now.Before(p.until) {
		return 0
	}
	return p.limit
}

// mayTry reports whether something of that type that was never tried may be sent although the pace pauses.
func (p *pace) mayTry(t eventType, now time.Time) bool {
	return !now.Before(p.asked) && (p.tries[t] == nil || !now.Before(p.tries[t].at))
}

// succeeded notes a Send of which something of that type was taken.
func (p *pace) succeeded(taken eventType) {
	p.limit = min(p.full, p.limit*2)
	p.until = p.asked
	p.probing, p.failures, p.backoff = false, 0, nil
	delete(p.known, taken)
	for l, t := range p.failing {
		l.known = true
		if t != taken {
			p.known[t] = true
		}
	}
	clear(p.failing)
	clear(p.tries)
}

// failed notes a Send of an event of that type that failed and may succeed later.
func (p *pace) failed(l *lane, t eventType, now time.Time) {
	if !p.breaks {
		return
	}
	if l.trying {
		p.tryFailed(t, now)
	}
	if l.known || p.known[t] {
		return
	}
	p.failures++
	p.failing[l] = t
	if !p.probing && (p.failures < breakFailures || len(p.failing) < breakLanes) || now.Before(p.until) && !l.trying {
		return // a try that failed is as good as a probe
	}
	if p.backoff == nil {
		p.backoff = newRetryBackoff(p.retry)
	}
	p.pause(now.Add(max(p.retry.Initial, p.backoff.next())))
}

func (p *pace) tryFailed(t eventType, now time.Time) {
	if p.tries[t] == nil {
		p.tries[t] = &try{gap: p.retry.Initial / 2}
	}
	tried := p.tries[t]
	tried.gap = min(tried.gap*2, p.retry.MaxInterval)
	tried.at = now.Add(tried.gap)
}

// askedFor holds everything back until then, because the far side said so.
func (p *pace) askedFor(until time.Time) {
	if until.After(p.asked) {
		p.asked = until
	}
	p.pause(until)
}

// pause lets no Send start before until, then one alone.
func (p *pace) pause(until time.Time) {
	if until.After(p.until) {
		p.until = until
	}
	p.limit, p.probing = 1, true
}
