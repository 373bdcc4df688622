package relaytest

import (
	"slices"
	"sync"
	"time"

	"ncs-relay/relay/journal"
)

// Assigned is a journal, in memory, whose shards come and go: as far as one sink, its dispatcher and the deduplication ask for one.
type Assigned struct {
	journal.Journal

	mu      sync.Mutex // guards what follows
	held    []*journal.Shard
	changed chan struct{}
	Parts   map[*journal.Shard]*Part
	records []*journal.Record
}

// Part is what the sink is owed in one shard while that is assigned.
type Part struct {
	*Assigned
	shard *journal.Shard

	Read  int // into records
	open  []journal.Pending
	Taken []journal.Position
	Dead  []journal.Position
	Ended int
}

// NewAssigned returns one with no shard.
func NewAssigned() *Assigned {
	return &Assigned{changed: make(chan struct{}), Parts: make(map[*journal.Shard]*Part)}
}

// Assign makes held the shards there are.
func (a *Assigned) Assign(held ...*journal.Shard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = held
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *Assigned) Shards() ([]*journal.Shard, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held, a.changed
}

// Add adds an event of an entity in a shard.
func (a *Assigned) Add(shard uint32, entity string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.records) + 1
	id := Identity(n, 1)
	a.records = append(a.records, &journal.Record{Position: journal.Position{Shard: shard, Offset: uint64(n)}, ID: id.ID, Key: id.Key,
		Time: time.Now(), Entity: entity, Body: []byte("{}")})
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *Assigned) Appended() <-chan struct{} { _, changed := a.Shards(); return changed }

func (a *Assigned) Load(positions []journal.Position) ([]*journal.Record, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	found := make([]*journal.Record, len(positions))
	for i, p := range positions {
		found[i] = a.records[p.Offset-1]
	}
	return found, nil
}

func (a *Assigned) Paused() string   { return "" }
func (a *Assigned) Release()         {}
func (a *Assigned) SetPaused(string) {}
func (a *Assigned) part(s *journal.Shard) *Part {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.Parts[s] == nil {
		a.Parts[s] = &Part{Assigned: a, shard: s}
	}
	return a.Parts[s]
}

// Look is a part as it is now.
func (a *Assigned) Look(s *journal.Shard) Part {
	p := a.part(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	return *p
}

func (a *Assigned) Owed(s *journal.Shard) journal.Deliveries { return a.part(s) }

// PendingBytes counts a byte for each event.
func (a *Assigned) PendingBytes(s *journal.Shard) int64 {
	p := a.part(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(len(p.open))
}

func (a *Assigned) Keys(s *journal.Shard, n int, _ time.Time, fn func(key, id [16]byte, t time.Time)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.records {
		if r.Position.Shard == s.Number {
			fn(r.Key, r.ID, r.Time)
		}
	}
	return nil
}

func (p *Part) Pending() []journal.Pending { return nil }
func (p *Part) End()                       { p.mu.Lock(); defer p.mu.Unlock(); p.Ended++ }
func (p *Part) Next(int) ([]*journal.Record, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.Read < len(p.records) {
		r := p.records[p.Read]
		p.Read++
		if r.Position.Shard == p.shard.Number {
			p.open = append(p.open, journal.Pending{Position: r.Position})
			return []*journal.Record{r}, nil
		}
	}
	return nil, nil
}

// Owes reports whether a delivery is open.
func (p *Part) Owes(pos journal.Position) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.open, func(d journal.Pending) bool { return d.Position == pos })
}

func (p *Part) settle(pos journal.Position, to *[]journal.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = slices.DeleteFunc(p.open, func(d journal.Pending) bool { return d.Position == pos })
	*to = append(*to, pos)
}
func (p *Part) Settle(pos journal.Position, _ journal.Outcome) { p.settle(pos, &p.Taken) }
func (p *Part) Bury(l journal.DeadLetter)                      { p.settle(l.Position, &p.Dead) }
func (p *Part) Failed(journal.Position, journal.Retry)         {}
