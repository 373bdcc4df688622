package member

import "time"

// Clock returns how much time has passed since some moment, by a clock that nobody sets, and what the wall clock shows.
type Clock func() (monotonic time.Duration, wall time.Time)

// systemClock is the machine's. Its monotonic clock stands still while the machine is suspended, which the wall clock shows.
func systemClock() Clock {
	began := time.Now()
	return func() (time.Duration, time.Time) {
		now := time.Now()
		return now.Sub(began), now.Round(0) // without the monotonic clock
	}
}

// instant is a moment on both clocks.
type instant struct {
	monotonic time.Duration
	wall      time.Time
}

func (c Clock) now() instant {
	monotonic, wall := c()
	return instant{monotonic, wall}
}

// since returns how much time has passed, by the clock that says more.
func (c Clock) since(then instant) time.Duration {
	now := c.now()
	return max(now.monotonic-then.monotonic, now.wall.Sub(then.wall))
}

// passed returns how much time has passed at least, by the clock that says less.
func (c Clock) passed(then instant) time.Duration {
	now := c.now()
	return min(now.monotonic-then.monotonic, now.wall.Sub(then.wall))
}
