// Package relaytest holds what the tests of several rooms need: a sink, a journal of many shards, calls and identities.
package relaytest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
)

// FarSide is a sink in memory whose verdicts a test sets.
type FarSide struct {
	Mu       sync.Mutex
	got      []relay.Attempt
	Tried    []relay.Attempt
	At       []time.Time // of each Send
	batches  []int       // sizes of each Send
	active   int         // Sends running
	Laned    int         // calls of Lane
	Slow     func(relay.Attempt) time.Duration
	Fail     func(relay.Attempt) error
	Lanes    func(*relay.Event) relay.Lane
	OnRelane func(group string)
	Batch    int
	change   chan struct{} // closed and renewed at each Send
}

// NewFarSide returns one that takes all, one event at a time.
func NewFarSide() *FarSide { return &FarSide{Batch: 1, change: make(chan struct{})} }

func (f *FarSide) Lane(ev *relay.Event) relay.Lane {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Laned++
	if f.Lanes != nil {
		return f.Lanes(ev)
	}
	return relay.Lane{Key: ev.Entity}
}

func (f *FarSide) Relane(group string) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.OnRelane(group)
}

func (f *FarSide) MaxBatch() (int, int) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return f.Batch, 1 << 20
}

func (f *FarSide) Close() error { return nil }

func (f *FarSide) Send(ctx context.Context, _ relay.Lane, batch []relay.Attempt) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.At = append(f.At, time.Now())
	f.batches = append(f.batches, len(batch))
	f.active++
	if f.Slow != nil {
		wait := f.Slow(batch[0])
		f.Mu.Unlock()
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		f.Mu.Lock()
	}
	f.active--
	defer func() {
		close(f.change)
		f.change = make(chan struct{})
	}()
	for i, a := range batch {
		f.Tried = append(f.Tried, a)
		if f.Fail != nil {
			if err := f.Fail(a); err != nil {
				return i, err
			}
		}
		f.got = append(f.got, a)
	}
	return len(batch), nil
}

func (f *FarSide) Set(fail func(relay.Attempt) error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Fail = fail
}

func (f *FarSide) Running() int {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return f.active
}

func (f *FarSide) Sizes() []int {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.batches)
}

func (f *FarSide) Received() []relay.Attempt {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return slices.Clone(f.got)
}

// WaitFor waits until the far side has got n events.
func (f *FarSide) WaitFor(t testing.TB, n int) []relay.Attempt {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		f.Mu.Lock()
		got, change := slices.Clone(f.got), f.change
		f.Mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-change:
		case <-timeout:
			require.FailNowf(t, "events missing", "got %d of %d", len(got), n)
		}
	}
}
