package ingress

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"

	"ncs-relay/relay/journal"
)

// Bounds of listeners. What one holds is in memory: a copy of each event that it has not taken.
const (
	maxListeners   = 8
	listenerEvents = 256
	listenerBytes  = 8 << 20
)

// ErrListeners says that there are as many listeners as may be.
var ErrListeners = errors.New("as many listen already as may (8)")

// Listener gets copies of accepted events for as long as it listens. Nothing is owed to it: what it has no room for, it loses.
type Listener struct {
	Events <-chan *journal.Record // must not be changed

	events  chan *journal.Record
	match   func(*journal.Record) bool
	held    atomic.Int64 // bytes of bodies in events
	lost    atomic.Uint64
	leaving func()
}

// Taken makes room for what follows. It is called for each event that was received from Events.
func (l *Listener) Taken(r *journal.Record) { l.held.Add(-int64(len(r.Body))) }

// Lost returns how many events there was no room for since it was asked last.
func (l *Listener) Lost() uint64 { return l.lost.Swap(0) }

// Close ends it.
func (l *Listener) Close() { l.leaving() }

// listeners are offered each event that is stored.
type listeners struct {
	some atomic.Bool // whether there are any: nobody listens most of the time, and then this is all it costs
	mu   sync.Mutex
	all  map[*Listener]bool
}

// Listen gives copies of the accepted events that match. match must be quick: it is asked on the way of every event.
func (h *Ingress) Listen(match func(*journal.Record) bool) (*Listener, error) {
	ls := &h.listeners
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if len(ls.all) >= maxListeners {
		return nil, ErrListeners
	}
	events := make(chan *journal.Record, listenerEvents)
	l := &Listener{Events: events, events: events, match: match}
	l.leaving = func() { ls.leave(l) }
	if ls.all == nil {
		ls.all = map[*Listener]bool{}
	}
	ls.all[l] = true
	ls.some.Store(true)
	return l, nil
}

func (ls *listeners) leave(l *Listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.all, l)
	ls.some.Store(len(ls.all) > 0)
}

// offer never waits. It copies what is taken: the record is its caller's again when this returns.
func (ls *listeners) offer(r *journal.Record) {
	if !ls.some.Load() || r.Quarantine != "" {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for l := range ls.all {
		if !l.match(r) {
			continue
		}
		size := int64(len(r.Body))
		if l.held.Add(size) > listenerBytes {
			l.lose(size)
			continue
		}
		own := *r
		own.Body = bytes.Clone(r.Body)
		select {
		case l.events <- &own:
		default:
			l.lose(size)
		}
	}
}

func (l *Listener) lose(size int64) {
	l.held.Add(-size)
	l.lost.Add(1)
}
