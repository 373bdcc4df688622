package deliver

import (
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// addReplay begins a replay, or goes on with one of an earlier process. One that runs already is left alone: a dispatcher
// that a reload makes finds it in the journal, too.
func (d *dispatcher) addReplay(r journal.Replay) {
	if d.replayOf(r.ID()) != nil {
		return
	}
	match, err := relay.MatchOf(r)
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
