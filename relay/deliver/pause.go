package deliver

import (
	"strings"
	"time"

	"ncs-relay/relay/journal"
)

// A pause that ends by itself is kept in the journal as one text with its reason, because that is what a journal keeps; an earlier
// version of the relay shows it as it stands, and waits for an operator.
const (
	untilBegins = " (until "
	untilEnds   = ")"
)

// ParsePause reads what a journal keeps of a pause: why, and when it ends by itself; the zero time = when an operator says so.
func ParsePause(kept string) (reason string, until time.Time) {
	at := strings.LastIndex(kept, untilBegins)
	if text, ok := strings.CutSuffix(kept[max(at, 0):], untilEnds); ok && at >= 0 {
		if until, err := time.Parse(time.RFC3339, text[len(untilBegins):]); err == nil {
			return kept[:at], until
		}
	}
	return strings.TrimSuffix(kept, " "), time.Time{}
}

// pauseText is what ParsePause reads. A reason that looks like an end must not become one.
func pauseText(reason string, until time.Time) string {
	if !until.IsZero() {
		return reason + untilBegins + until.UTC().Format(time.RFC3339) + untilEnds
	}
	if _, looks := ParsePause(reason); !looks.IsZero() {
		return reason + " "
	}
	return reason
}

// pause sends nothing more until resumeSink, which comes by itself at until unless that is zero; what is in flight ends.
func (d *dispatcher) pause(reason string, until time.Time) {
	d.owed.SetPaused(pauseText(reason, until))
	d.hold(reason, until)
}

// known is how far the replicas' decisions are known, where there are several.
func (d *dispatcher) known() int64 {
	if shared, ok := d.journal.(journal.Shared); ok {
		return shared.Known()
	}
	return 0
}

// pauseFound is pause for what an attempt has found out, unless the sink was resumed at another replica since that was sent.
func (d *dispatcher) pauseFound(reason string) {
	shared, ok := d.journal.(journal.Shared)
	switch {
	case !ok:
		d.pause(reason, time.Time{})
	case shared.PauseAsOf(d.Name, pauseText(reason, time.Time{}), d.asOf):
		d.hold(reason, time.Time{})
	}
}

// hold keeps the sink from sending.
func (d *dispatcher) hold(reason string, until time.Time) {
	d.paused, d.pausedUntil = reason, until
	args := []any{"reason", reason}
	if !until.IsZero() {
		args = append(args, "until", until)
	}
	d.log.Warn("sink paused", args...)
}

// endPause resumes a sink whose pause has had its time.
func (d *dispatcher) endPause(now time.Time) {
	if d.paused != "" && !d.pausedUntil.IsZero() && !now.Before(d.pausedUntil) {
		d.log.Info("the pause has had its time", "reason", d.paused)
		d.resumeSink()
	}
}
