package deliver

import (
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// retryBackoff gives the waits between attempts: full jitter, that is evenly spread between 0 and an interval that
// doubles from Initial up to MaxInterval, so that many lanes that failed together do not come back together.
type retryBackoff struct{ exp *backoff.ExponentialBackOff }

func newRetryBackoff(c RetryConfig) *retryBackoff {
	// The library spreads each wait over interval ± factor * interval: a factor of 1 and half the interval is full jitter.
	exp := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(c.Initial/2),
		backoff.WithMaxInterval(c.MaxInterval/2),
		backoff.WithMultiplier(2),
		backoff.WithRandomizationFactor(1),
		backoff.WithMaxElapsedTime(0), // giving up is the dispatcher's: it knows the delivery's age over restarts
	)
	return &retryBackoff{exp}
}

func (b *retryBackoff) next() time.Duration { return b.exp.NextBackOff() }

// skip goes on where an earlier process stopped after n attempts.
func (b *retryBackoff) skip(n int) {
	for range min(n, 64) { // by then any interval is at its maximum
		b.exp.NextBackOff()
	}
}

// tried adds a failed attempt to a delivery's history.
func tried(r *journal.Retry, err error, now time.Time) *journal.Retry {
	text := clip(err.Error())
	if r == nil {
		r = &journal.Retry{FirstError: text, FirstFailed: now}
	}
	if text == r.FirstError {
		text = r.FirstError // one string in memory: there may be very many of these
	}
	r.Attempts++
	r.LastError = text
	r.LastFailed = now
	return r
}

// clip bounds an error text: it is kept for each delivery that waits.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most]
	}
	return s
}

// askedFor is the wait the far side asked for, 0 = none, and whether it meant everything we send.
func askedFor(err error) (wait time.Duration, all bool) {
	var ra *relay.RetryAfterError
	if errors.As(err, &ra) {
		return ra.After, ra.All
	}
	return 0, false
}

// ageOf is how old what was received at since is at now, elapsed after began by the monotonic clock. A step of the wall
// clock in either direction makes nothing older: of the two clocks the one that says less is believed.
func ageOf(since, now, began time.Time, elapsed time.Duration) time.Duration {
	return max(0, min(now.Sub(since), began.Add(elapsed).Sub(since)))
}
