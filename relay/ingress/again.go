package ingress

import (
	"context"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// TakeAgain takes up a body that was quarantined as if it came now, under the rules of today, and waits until it is stored. It
// reports whether the body is understood now.
func (h *Ingress) TakeAgain(ctx context.Context, quarantined *journal.Record) (understood bool, err error) {
	in := h.setup.Load()
	src := in.byName(quarantined.Source)
	if src == nil {
		return false, nil
	}
	reading := src.intake.Read(quarantined.Body)
	if reading.Quarantine != "" {
		return false, nil
	}
	rec := *quarantined
	rec.Quarantine, rec.Sinks, rec.Key, rec.ID = "", nil, reading.Identity.Key, reading.Identity.ID
	return true, h.storeAgain(ctx, in, &rec, reading.Notification, src.account)
}

// storeAgain appends an event that came earlier, unless it is known, and waits for the disk.
func (h *Ingress) storeAgain(ctx context.Context, in *setup, rec *journal.Record, n *ncs.Notification, account journal.SourceAccount) error {
	c, standing := h.claim(ncs.Identity{Key: rec.Key, ID: rec.ID}, time.Now().Add(storeTimeout))
	switch standing {
	case isKnown:
		return nil
	case isLoading:
		return errBusy
	case isNew:
		h.describe(in, rec, n)
		account.Received() // the journal will count it as accepted
		h.store(c, rec, time.Now(), account)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
