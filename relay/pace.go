package relay

import (
	"time"
)

// pace says how many Sends a sink may have in flight. Normally that is its concurrency. When several lanes fail and
// none succeeds in between, it is the service that is down and not an event that is bad: then the pace pauses, lets a
// single Send probe, and after a success doubles from one, so that a service that comes back is not met by a burst.
//
// It never gives up a delivery: what does not run because of a pause is not tried, so it is not given up either.
type pace struct {
	full    int // the sink's concurrency
	breaks  bool
	backoff *retryBackoff
	retry   RetryConfig

	limit    int                  // Sends in flight allowed now, 1 to full
	failing  map[laneKey]struct{} // lanes that failed since the last success
	failures int                  // Sends that failed since the last success
	until    time.Time            // no Send starts before
	probing  bool                 // after a pause: one Send decides
}

// A sink pauses after so many failures in a row of so many lanes. One bad entity alone never gets there.
const (
	breakFailures = 5
	breakLanes    = 3
)

func newPace(concurrency int, breaks bool, c RetryConfig) *pace {
	c.MaxInterval = min(c.MaxInterval, maxPause)
	return &pace{full: concurrency, breaks: breaks, retry: c, limit: concurrency, failing: make(map[laneKey]struct{})}
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

// succeeded notes a Send of which something was taken.
func (p *pace) succeeded() {
	p.limit = min(p.full, p.limit*2)
	p.probing, p.failures, p.backoff = false, 0, nil
	clear(p.failing)
}

// failed notes a Send that failed and may succeed later.
func (p *pace) failed(lane laneKey, now time.Time) {
	if !p.breaks {
		return
	}
	p.failures++
	p.failing[lane] = struct{}{}
	if !p.probing && (p.failures < breakFailures || len(p.failing) < breakLanes) || now.Before(p.until) {
		return
	}
	if p.backoff == nil {
		p.backoff = newRetryBackoff(p.retry)
	}
	p.pause(now.Add(max(p.retry.Initial, p.backoff.next())))
}

// pause lets no Send start before until, then one alone.
func (p *pace) pause(until time.Time) {
	if until.After(p.until) {
		p.until = until
	}
	p.limit, p.probing = 1, true
}

// state is what operators call it.
func (p *pace) state(now time.Time) string {
	switch {
	case now.Before(p.until):
		return "open"
	case p.probing:
		return "half_open"
	}
	return "closed"
}
