package relay

import (
	"context"
	"errors"
	"slices"

	"ncs-relay/relay/journal"
)

// Life is what the journal knows of an event and its deliveries.
type Life struct {
	EventInfo
	Deliveries []DeliveryLife `json:"deliveries"`
}

// DeliveryLife is how one of an event's deliveries stands.
type DeliveryLife struct {
	Sink   string `json:"sink"`
	State  string `json:"state"` // waiting (not read yet), pending, dead, settled (delivered, or skipped by an operator)
	Reason string `json:"reason,omitempty"`
	History
}

// Inspect gives the lives of the events with an id or of an entity, the oldest first, at most n. more says that there are others.
func (g *Gateway) Inspect(ctx context.Context, f Filter, n int) (lives []Life, more bool, err error) {
	if f.ID == nil && f.Entity == "" {
		return nil, false, errors.New("an event id or an entity is needed")
	}
	match, err := f.compile()
	if err != nil {
		return nil, false, err
	}
	from, to := journal.Position(1), g.journal.Frontier()
	if f.ID != nil {
		positions, err := g.journal.Find(*f.ID)
		if err != nil || len(positions) == 0 {
			return nil, false, err
		}
		from, to = slices.Min(positions), slices.Max(positions)
	}
	err = g.journal.Scan(ctx, from, to, match, func(r *journal.Record) bool {
		if more = len(lives) == n; more {
			return false
		}
		lives = append(lives, Life{EventInfo: infoOf(r)})
		last := &lives[len(lives)-1]
		for _, id := range r.Sinks {
			d, derr := g.deliveryLife(id, r.Position)
			err = errors.Join(err, derr)
			last.Deliveries = append(last.Deliveries, d)
		}
		return true
	})
	return lives, more, err
}

func (g *Gateway) deliveryLife(id journal.SinkID, p journal.Position) (DeliveryLife, error) {
	name, state, retry, reason, err := g.journal.Standing(id, p)
	return DeliveryLife{Sink: name, State: state, Reason: reason, History: historyOf(retry)}, err
}
