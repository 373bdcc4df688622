package simulate

import (
	"maps"
	"math/bits"
	"sync"
	"time"
)

// Tally is what came of a run. Calls are the sum over Statuses, and of First, Copies, Resends, Retries and Forged.
type Tally struct {
	Entities int `json:"entities"` // played to the end
	Events   int `json:"events"`   // whose first sending came to its end, answered or given up

	Calls    int         `json:"calls"`
	Statuses map[int]int `json:"statuses"` // calls by the status of the answer; 0 = none came
	First    int         `json:"first"`    // calls that were an event's first
	Copies   int         `json:"copies"`   // calls at the same time as the first
	Resends  int         `json:"resends"`  // calls again, later and without need
	Retries  int         `json:"retries"`  // calls after a failed one
	Forged   int         `json:"forged"`   // calls with a bad signature

	Outcomes       map[string]int `json:"outcomes"`       // answers 200 to rightly signed calls by what they say; "other" = nothing we know
	GivenUp        int            `json:"given_up"`       // notifications not answered 200 in four attempts
	Unacknowledged int            `json:"unacknowledged"` // events of which no notification was answered 200

	// Wrong are answers that no right receiver gives, by what is wrong with them: one of the Wrong constants.
	Wrong map[string]int `json:"wrong"`

	Failures []Failure `json:"failures"` // the first of what went wrong, at most 20

	Latency Latency       `json:"latency_ns"` // of the calls that were answered
	Elapsed time.Duration `json:"elapsed_ns"`
}

// Outcomes of answers.
const (
	Accepted    = "accepted"
	Duplicate   = "duplicate"
	Test        = "test"
	Quarantined = "quarantined"
	Other       = "other"
)

// Faults of answers.
const (
	WrongForgedTaken   = "a forged call was taken"
	WrongGoodRefused   = "a rightly signed call was refused (4xx)"
	WrongAcceptedTwice = "an event was accepted twice"
	WrongTwoIDs        = "an event was given two ids"
	WrongNotTaken      = "an event was taken for a test or for malformed"
)

// Latency are quantiles of the time to an answer, at most 4 % too high.
type Latency struct {
	P50 time.Duration `json:"p50"`
	P90 time.Duration `json:"p90"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// tally is a Tally under construction.
type tally struct {
	mu        sync.Mutex // guards all below
	t         Tally
	latencies histogram
}

func newTally() *tally {
	return &tally{t: Tally{Statuses: map[int]int{}, Outcomes: map[string]int{}, Wrong: map[string]int{}}}
}

func (t *tally) add(f func(*Tally)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.t)
}

func (t *tally) answered(status int, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.t.Calls++
	t.t.Statuses[status]++
	if status != 0 {
		t.latencies.add(took)
	}
}

func (t *tally) snapshot() Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.t
	s.Statuses, s.Outcomes, s.Wrong = maps.Clone(s.Statuses), maps.Clone(s.Outcomes), maps.Clone(s.Wrong)
	s.Failures = append([]Failure{}, s.Failures...)
	h := &t.latencies
	s.Latency = Latency{P50: h.quantile(0.5), P90: h.quantile(0.9), P99: h.quantile(0.99), Max: h.max}
	return s
}

// histogram counts durations in buckets that grow with the value, 32 for each power of two: millions of them take no
// more memory than one.
type histogram struct {
	buckets [64 * 32]int
	count   int
	max     time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucket(d)]++
	h.count++
	h.max = max(h.max, d)
}

// quantile returns the upper end of the bucket in which the q-th value lies.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(q * float64(h.count))
	for i, n := range h.buckets {
		if rank -= n; rank < 0 {
			return min(upperEnd(i), h.max)
		}
	}
	return h.max
}

// bucket is the place of the five bits below the highest one; below 64 ns each value has its own.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-6, 0)
	return shift*32 + int(v>>shift)
}

func upperEnd(bucket int) time.Duration {
	shift := max(bucket/32-1, 0)
	return time.Duration((uint64(bucket-shift*32)+1)<<shift - 1)
}
