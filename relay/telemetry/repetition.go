package telemetry

import (
	"sync"
	"time"
)

const repetitionInterval = time.Minute

// Repetition lets one line a minute of a kind into the log and counts the others. The zero value is ready; it may be used
// concurrently.
type Repetition struct {
	mu         sync.Mutex // guards the following
	next       time.Time
	suppressed int
}

// Allow reports whether the line may be written, and how many were not since the last one.
func (r *Repetition) Allow(now time.Time) (suppressed int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		r.suppressed++
		return 0, false
	}
	suppressed, r.suppressed = r.suppressed, 0
	r.next = now.Add(repetitionInterval)
	return suppressed, true
}
