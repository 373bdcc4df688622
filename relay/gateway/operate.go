package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ncs-relay/relay"
	"ncs-relay/relay/deliver"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

// Errors that callers tell apart.
var (
	ErrNoSink     = deliver.ErrNoSink
	ErrConfigured = errors.New("the sink is configured; remove it from the configuration first")
	ErrReserved   = fmt.Errorf("%s is no destination: it keeps what is quarantined, and cannot be paused, resumed, skipped, moved, dropped or moved to; see its dead letters", relay.Unroutable)
	ErrNotFound   = errors.New("not found")
	ErrCannotMove = errors.New("a journal on Kafka cannot move what a sink is owed")
	ErrMoves      = errors.New("a journal on a disk moves what a sink is owed at once")
	ErrNotAfter   = errors.New("nothing was dropped")
)

// EventInfo is what lists say of an event.
type EventInfo struct {
	ID         ncs.EventID      `json:"event_id"`
	Position   journal.Position `json:"position"`
	Product    string           `json:"product"`
	Event      string           `json:"event"`
	Entity     string           `json:"entity,omitempty"`
	Source     string           `json:"source"`
	ReceivedAt time.Time        `json:"received_at"`
	Size       int              `json:"size"`
	Quarantine string           `json:"quarantine,omitempty"`
	Says       string           `json:"says,omitempty"`  // its payload in a line, decoded (ncs.Notification.Describe)
	Facts      []ncs.Fact       `json:"facts,omitempty"` // the same in full, where one event is asked for
}

// decode adds what the body says. It parses the body, which lists do only for what they show.
func (e *EventInfo) decode(c *ncs.Catalogue, body []byte, inFull bool) {
	n, err := c.Parse(body)
	if err != nil || e.Quarantine != "" {
		return
	}
	e.Says = n.Describe()
	if inFull {
		e.Facts = n.Facts()
	}
}

// Content is the body of an event in answers: as text where it is UTF-8. The zero Content is none.
type Content struct {
	Text   *string `json:"body,omitempty"`
	Base64 []byte  `json:"body_base64,omitempty"`
}

// ContentOf is the Content of a body.
func ContentOf(body []byte) Content {
	if !utf8.Valid(body) {
		return Content{Base64: body}
	}
	text := string(body)
	return Content{Text: &text}
}

// Bytes are the body, byte for byte.
func (c Content) Bytes() []byte {
	if c.Text != nil {
		return []byte(*c.Text)
	}
	return c.Base64
}

func (g *Gateway) infoOf(r *journal.Record) EventInfo {
	i := g.Catalogue().Lookup(r.ProductID, r.EventType)
	info := EventInfo{ID: r.ID, Position: r.Position, Product: i.Product, Event: i.Event, Entity: r.Entity, Source: r.Source,
		ReceivedAt: r.Time, Size: len(r.Body), Quarantine: r.Quarantine}
	if r.Quarantine != "" {
		info.Product, info.Event = "", ""
	}
	return info
}

// History is what has been tried for a delivery.
type History struct {
	Attempts    int       `json:"attempts"`
	FirstError  string    `json:"first_error,omitempty"`
	LastError   string    `json:"last_error,omitempty"`
	FirstFailed time.Time `json:"first_failed,omitzero"`
	LastFailed  time.Time `json:"last_failed,omitzero"`
	Next        time.Time `json:"next_attempt,omitzero"`
}

func historyOf(r journal.Retry) History {
	return History{r.Attempts, r.FirstError, r.LastError, r.FirstFailed, r.LastFailed, r.Next}
}

// Delivery is one that is owed and not settled.
type Delivery struct {
	Sink string `json:"sink"`
	EventInfo
	History
}

// DeadLetter is a delivery given up.
type DeadLetter struct {
	Sink string `json:"sink"`
	EventInfo
	Reason string       `json:"reason"`
	Cause  relay.Reason `json:"cause,omitempty"` // the reason in a word; "" = given up by an earlier version
	At     time.Time    `json:"at"`
	Replay uint32       `json:"replay,omitempty"` // the replay that is to deliver it again
	History
	Body []byte `json:"-"` // only from DeadLetter, not in lists

	Written journal.Position `json:"-"` // see journal.DeadLetter
}

// Page is where a list goes on behind a delivery.
func (d Delivery) Page() Page { return Page{d.Sink, d.Position} }

// Page is where a list goes on behind a dead letter.
func (d DeadLetter) Page() Page { return Page{d.Sink, d.Position} }

// Page is where a list goes on: at the sink and after the position. The zero Page is the beginning.
type Page struct {
	Sink  string           `json:"sink,omitempty"`
	After journal.Position `json:"after,omitzero"`
}

// PauseSink sends nothing more to a sink until ResumeSink, or until a time that is not zero, also after a restart. What it is owed
// waits.
func (g *Gateway) PauseSink(ctx context.Context, name, reason string, until time.Time) error {
	if name == relay.Unroutable {
		return ErrReserved
	}
	if shared, ok := g.journal.(journal.Shared); ok { // else a resume that was given before would undo it, as one that came later does
		within, cancel := context.WithTimeout(ctx, time.Second)
		_ = shared.CatchUp(within) // the pause is needed here in any case
		cancel()
	}
	return g.saved(g.sinks.Pause(ctx, name, reason, until))
}

// ResumeSink ends a pause, also one that the breaker or the far side made.
func (g *Gateway) ResumeSink(ctx context.Context, name string) error {
	if name == relay.Unroutable {
		return ErrReserved
	}
	return g.saved(g.sinks.Resume(ctx, name))
}

// saved has on disk what was done, so that a crash after the answer does not undo it.
func (g *Gateway) saved(err error) error {
	if err != nil {
		return err
	}
	if err := g.journal.Flush(); err != nil {
		return fmt.Errorf("done, but not saved so far, and a crash would undo it: %w", err)
	}
	return nil
}

// MoveSink makes a configured sink owe what a sink that is not configured any more is owed. What it was owed anyway is
// skipped.
func (g *Gateway) MoveSink(ctx context.Context, from, to string) (moved, skipped uint64, err error) {
	if to == relay.Unroutable {
		return 0, 0, ErrReserved
	}
	if err := g.removed(from); err != nil {
		return 0, 0, err
	}
	mover, ok := g.journal.(journal.Mover)
	if !ok {
		return 0, 0, fmt.Errorf("%w; instead bring it to the other: ncs-relay replay --sink %s --to %s --pending, and give it up when that replay has ended: ncs-relay sinks drop %s --after REPLAY",
			ErrCannotMove, from, to, from)
	}
	err = g.sinks.Take(ctx, to, func() ([]journal.Position, error) {
		positions, left, err := mover.Move(from, to)
		moved, skipped = uint64(len(positions)), left
		return positions, err
	})
	return moved, skipped, err
}

// DropSink gives up what a sink that is not configured any more is owed: with after what that replay has brought to another sink,
// with ends what lies before them.
func (g *Gateway) DropSink(ctx context.Context, name string, after uint32, ends *journal.Ends) (uint64, error) {
	if err := g.removed(name); err != nil {
		return 0, err
	}
	shared, ok := g.journal.(journal.Shared)
	switch {
	case after > 0 && !ok:
		return 0, fmt.Errorf("%w: ncs-relay sinks move %s --to SINK", ErrMoves, name)
	case after > 0:
		to, err := g.broughtBy(ctx, shared, name, after)
		if err != nil {
			return 0, err
		}
		return shared.DropUpTo(ctx, name, to)
	case ends != nil && ok:
		return shared.DropUpTo(ctx, name, ends.Events)
	}
	return g.journal.DropPending(name)
}

// broughtBy returns up to where a replay has brought to another sink all that a sink was owed.
func (g *Gateway) broughtBy(ctx context.Context, shared journal.Shared, name string, id uint32) (journal.Cut, error) {
	if err := shared.CatchUp(ctx); err != nil {
		return nil, fmt.Errorf("how replay %d stands is not known: %w", id, err)
	}
	all := g.journal.Replays()
	i := slices.IndexFunc(all, func(r journal.Replay) bool { return r.ID() == id })
	if i < 0 {
		return nil, fmt.Errorf("replay %d: %w", id, ErrNotFound)
	}
	spec, s := all[i].Spec(), statusOf(all[i])
	totals, ended := shared.Ended(id)
	switch {
	case !spec.Pending || spec.Of != name:
		return nil, fmt.Errorf("%w: replay %d does not bring what %s is owed to another sink, as ncs-relay replay --sink %s --to SINK --pending does", ErrNotAfter, id, name, name)
	case s.Filter != relay.Filter{Sink: name}:
		return nil, fmt.Errorf("%w: replay %d brought only what its filter selects (%s), and the rest of what %s is owed would be lost", ErrNotAfter, id, s.Filter, name)
	case !ended:
		return nil, fmt.Errorf("%w: replay %d has not ended; ncs-relay replay list shows how far it is", ErrNotAfter, id)
	case totals.Delivered < totals.Matched:
		return nil, fmt.Errorf("%w: replay %d did not bring everything, %d failed and %d were skipped; replay again what %s is owed, or give up all of it: ncs-relay sinks drop %s", ErrNotAfter,
			id, totals.Failed, totals.Skipped, name, name)
	}
	return spec.To, nil
}

// removed reports whether a sink is known and not configured.
func (g *Gateway) removed(name string) error {
	if name == relay.Unroutable {
		return ErrReserved
	}
	if g.sinks.Has(name) {
		return fmt.Errorf("%w: %s", ErrConfigured, name)
	}
	if !slices.ContainsFunc(g.journal.Snapshot().Sinks, func(s journal.SinkStatus) bool { return s.Name == name }) {
		return fmt.Errorf("%w: %q", ErrNoSink, name)
	}
	return nil
}

// sinkNames are the sinks a filter is about, those not configured any more included.
func (g *Gateway) sinkNames(f relay.Filter) ([]string, error) {
	var names []string
	for _, s := range g.journal.Snapshot().Sinks {
		if f.Sink == "" || f.Sink == s.Name {
			names = append(names, s.Name)
		}
	}
	if f.Sink != "" && len(names) == 0 {
		return nil, fmt.Errorf("%w: %q", ErrNoSink, f.Sink)
	}
	return names, nil
}

// Pending lists at most n deliveries that are owed and were read, sink by sink, the oldest first. A nil next says
// that the list is complete; what a sink has not read yet is counted in Status only.
func (g *Gateway) Pending(f relay.Filter, page Page, n int) (list []Delivery, next *Page, err error) {
	err = g.eachPending(f, page, func(sink string, p journal.Pending, r *journal.Record) bool {
		if len(list) == n {
			last := list[n-1].Page()
			next = &last
			return false
		}
		d := Delivery{sink, g.infoOf(r), historyOf(p.Retry)}
		d.decode(g.Catalogue(), r.Body, false)
		list = append(list, d)
		return true
	})
	return list, next, err
}

// eachPending calls fn with every delivery that is owed and was read and that the filter selects, until it returns false.
func (g *Gateway) eachPending(f relay.Filter, page Page, fn func(sink string, p journal.Pending, r *journal.Record) bool) error {
	match, err := f.Compile(g.Catalogue())
	if err != nil {
		return err
	}
	names, err := g.sinkNames(f)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name < page.Sink {
			continue
		}
		pending := g.journal.Pending(name)
		if name == page.Sink {
			pending = slices.DeleteFunc(pending, func(p journal.Pending) bool { return p.Position.Compare(page.After) <= 0 })
		}
		for chunk := range slices.Chunk(pending, 256) {
			records, err := g.records(chunk)
			if err != nil {
				return err
			}
			for i, r := range records {
				if r != nil && match(r) && !fn(name, chunk[i], r) {
					return nil
				}
			}
		}
	}
	return nil
}

// records loads the records of pending deliveries; those that are lost are nil.
func (g *Gateway) records(pending []journal.Pending) ([]*journal.Record, error) {
	positions := make([]journal.Position, len(pending))
	for i, p := range pending {
		positions[i] = p.Position
	}
	return g.journal.Load(positions)
}

// SkipPending settles deliveries that wait, so that those behind them go on: all, or with ends those before them. Those being sent at the
// moment are left.
func (g *Gateway) SkipPending(ctx context.Context, f relay.Filter, ends *journal.Ends) (skipped int, err error) {
	if f.Sink == "" {
		return 0, errors.New("a sink is needed")
	}
	if f.Sink == relay.Unroutable {
		return 0, ErrReserved
	}
	var positions []journal.Position
	err = g.eachPending(f, Page{}, func(_ string, p journal.Pending, _ *journal.Record) bool {
		if ends == nil || p.Position.Offset <= ends.Events.In(p.Position.Shard).Offset {
			positions = append(positions, p.Position)
		}
		return ctx.Err() == nil
	})
	if err = errors.Join(err, ctx.Err()); err != nil {
		return 0, err
	}
	skipped, err = g.sinks.Skip(ctx, f.Sink, positions)
	return skipped, g.saved(err)
}

// DeadLetters lists at most n dead letters, sink by sink, the oldest first.
func (g *Gateway) DeadLetters(f relay.Filter, page Page, n int) (list []DeadLetter, next *Page, err error) {
	err = g.eachDeadLetter(f, page, func(d DeadLetter) bool {
		if len(list) == n {
			last := list[n-1].Page()
			next = &last
			return false
		}
		d.decode(g.Catalogue(), d.Body, false)
		d.Body = nil
		list = append(list, d)
		return true
	})
	return list, next, err
}

// DeadLetter returns one dead letter with its body.
func (g *Gateway) DeadLetter(sink string, position journal.Position) (DeadLetter, error) {
	if _, err := g.sinkNames(relay.Filter{Sink: sink}); err != nil {
		return DeadLetter{}, err
	}
	l, found, err := g.journal.DeadLetter(sink, position)
	if err != nil {
		return DeadLetter{}, err
	}
	if found {
		records, err := g.journal.Load([]journal.Position{position})
		if err != nil {
			return DeadLetter{}, err
		}
		if r := records[0]; r != nil {
			d := g.letterOf(sink, l, r, g.openReplays())
			d.decode(g.Catalogue(), r.Body, true)
			return d, nil
		}
	}
	return DeadLetter{}, fmt.Errorf("dead letter %s/%s: %w", sink, position, ErrNotFound)
}

// DropDeadLetters deletes dead letters, all or with ends those written before them, and says how many.
func (g *Gateway) DropDeadLetters(f relay.Filter, ends *journal.Ends) (dropped int, err error) {
	bySink := make(map[string][]journal.DeadLetter)
	if err := g.eachDeadLetter(f, Page{}, func(d DeadLetter) bool {
		if ends == nil || !d.Written.IsZero() && d.Written.Offset <= ends.Letters.In(d.Written.Shard).Offset {
			bySink[d.Sink] = append(bySink[d.Sink], journal.DeadLetter{Position: d.Position, Written: d.Written})
		}
		return true
	}); err != nil {
		return 0, err
	}
	for sink, letters := range bySink {
		for some := range slices.Chunk(letters, 1000) { // a transaction must not hold up the checkpoints for long
			if err := g.journal.DropLetters(sink, some...); err != nil {
				return dropped, err
			}
			dropped += len(some)
		}
	}
	return dropped, nil
}

// eachDeadLetter calls fn with every dead letter that the filter selects until it returns false.
func (g *Gateway) eachDeadLetter(f relay.Filter, page Page, fn func(DeadLetter) bool) error {
	match, err := f.Compile(g.Catalogue())
	if err != nil {
		return err
	}
	names, err := g.sinkNames(f)
	if err != nil {
		return err
	}
	replays := g.openReplays()
	for _, name := range names {
		if name < page.Sink {
			continue
		}
		var after journal.Position
		if name == page.Sink {
			after = page.After
		}
		for {
			letters, err := g.journal.DeadLetters(name, after, 256)
			if err != nil {
				return err
			}
			if len(letters) == 0 {
				break
			}
			after = letters[len(letters)-1].Position
			positions := make([]journal.Position, len(letters))
			for i, l := range letters {
				positions[i] = l.Position
			}
			records, err := g.journal.Load(positions)
			if err != nil {
				return err
			}
			for i, r := range records {
				if r == nil || !match(r) || !strings.Contains(letters[i].Reason, f.Reason) {
					continue
				}
				if !fn(g.letterOf(name, letters[i], r, replays)) {
					return nil
				}
			}
		}
	}
	return nil
}

func (g *Gateway) letterOf(sink string, l journal.DeadLetter, r *journal.Record, replays []openReplay) DeadLetter {
	d := DeadLetter{Sink: sink, EventInfo: g.infoOf(r), Reason: l.Reason, Cause: relay.Reason(l.Cause), At: l.At, History: historyOf(l.Retry), Body: r.Body, Written: l.Written}
	for _, replay := range replays {
		if replay.Raises(sink, l.Position) && replay.match(r) {
			d.Replay = replay.ID()
		}
	}
	return d
}

// openReplay is one that runs, and which events it is about.
type openReplay struct {
	journal.Replay
	match func(*journal.Record) bool
}

// openReplays are those that run.
func (g *Gateway) openReplays() (open []openReplay) {
	for _, r := range g.journal.Replays() {
		if match, err := relay.MatchOf(r, g.Catalogue()); err == nil && !r.Finished() {
			open = append(open, openReplay{r, match})
		}
	}
	return open
}
