package member

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/joingroup"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
)

// kfake throws out static members that do not join in time, makes a round when one comes back, and has one coordinator for ever. What
// Kafka does is tried in TestRealKafka.
func TestKfake(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(24, topic), kfake.GroupMinSessionTimeout(time.Second))
	require.NoError(t, err)
	t.Cleanup(fake.Close)
	contract(t, fake.ListenAddrs(), false)
}

// contract is what holds with any brokers. quiet: a replica that comes back disturbs nobody.
func contract(t *testing.T, brokers []string, quiet bool) {
	const session = 3 * time.Second
	tests := map[string]func(*testing.T, *fleet){
		"shares are fair as replicas come and go":       fairShares,
		"a replica that is silent loses its shards":     thrownOut,
		"a replica that crashes and is back":            func(t *testing.T, f *fleet) { crashAndBack(t, f, quiet) },
		"a replica that cannot prove the other's death": guarded,
		"what it may have had is not handed on":         notHandedOn,
		"a second replica of one name ends":             twice,
		"a replica that was fenced ends":                fenced,
		"rolling restart":                               rollingRestart,
		"a replica that ends and is back at once":       stopAndBack,
		"a shard is handed on when it is released":      slowRelease,
		"what is refused goes to another":               refusal,
		"progress is committed":                         progress,
		"processes that are killed and frozen":          killedAndFrozen,
	}
	if quiet { // else nobody is left who knows what the first one had
		tests["two of one name that start together"] = together
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFleet(t, brokers, "group "+name, session))
		})
	}
}

func fairShares(t *testing.T, f *fleet) {
	a := f.start("a")
	f.awaitShares(t, a)
	before := time.Now()
	b := f.start("b")
	f.awaitShares(t, a, b)
	c := f.start("c")
	t.Log("a third replica has its share after", f.awaitShares(t, a, b, c))
	require.Less(t, f.books.gap(t, a.Start, before), f.session, "what stays is never without a lease")

	peers, err := a.Peers(t.Context())
	require.NoError(t, err)
	require.Len(t, peers, 3)
	for i, r := range []*relayReplica{a, b, c} {
		require.Equal(t, Peer{Name: r.Name, Admin: r.Admin, Start: r.Start, Version: "1", Shards: owned(r.Member)}, peers[i])
	}

	before = time.Now()
	kept := owned(a.Member)
	b.stop(t)
	require.Empty(t, owned(b.Member))
	require.Zero(t, b.Lease())
	t.Log("its shards are with the others after", f.awaitShares(t, a, c))
	require.Less(t, time.Since(before), 3*time.Second)
	require.Subset(t, owned(a.Member), kept)
}

func thrownOut(t *testing.T, f *fleet) {
	a, b := f.start("a"), f.start("b")
	f.awaitShares(t, a, b)
	kept := owned(a.Member)
	b.way.block()
	took := f.awaitShares(t, a)
	t.Log("the other has all after", took)
	require.Less(t, took, f.session+3*time.Second)
	require.Subset(t, owned(a.Member), kept)
	require.Zero(t, b.Lease())
	b.way.unblock()
	f.awaitShares(t, a, b)
}

func crashAndBack(t *testing.T, f *fleet, quiet bool) {
	dead := func(context.Context, string) (string, error) {
		return "", fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	}
	a, b, c := f.start("a"), f.start("b"), f.start("c")
	f.awaitShares(t, a, b, c)
	for _, r := range []**relayReplica{&a, &b, &c} { // one of them leads the group
		others, name, had := []*relayReplica{a, b, c}, (*r).Name, owned((*r).Member)
		generations := make(map[string]int32)
		for _, o := range others {
			generations[o.Name] = o.generationNow()
		}
		before := time.Now()
		(*r).crash()
		back := f.start(name, func(o *Options) { o.AskStart = dead })
		*r = back
		took := await(t, "its shards are back", func() bool { return back.Lease() > 0 && len(owned(back.Member)) == len(had) })
		t.Log(name, "has its shards again after", took)
		require.Less(t, took, 2*time.Second)
		require.Equal(t, had, owned(back.Member))
		for _, o := range others {
			if o.Name != name {
				require.Zero(t, f.books.gap(t, o.Start, before), "%s was touched", o.Name)
				if quiet {
					require.Equal(t, generations[o.Name], o.generationNow(), "%s had to join again", o.Name)
				}
			}
		}
	}
}

// The others hear of its end with their next heartbeats, and until then the last table names the earlier start.
func stopAndBack(t *testing.T, f *fleet) {
	a, b, c := f.start("a"), f.start("b"), f.start("c")
	f.awaitShares(t, a, b, c)
	b.stop(t)
	took := time.Now()
	b = f.start("b")
	f.awaitShares(t, a, b, c)
	t.Log("it has its share again after", time.Since(took))
	require.Less(t, time.Since(took), f.session)
}

func (m *Member) generationNow() int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generation
}

// It has its shards, but may not act on them before the other's lease is over for certain.
func guarded(t *testing.T, f *fleet) {
	a, b := f.start("a"), f.start("b")
	f.awaitShares(t, a, b)
	b.way.block() // it is alive, and so are its leases
	began := time.Now()
	again := f.start("b", func(o *Options) {
		o.AskStart = func(context.Context, string) (string, error) { return "", errors.New("no answer") }
	})
	f.awaitShares(t, a, again)
	require.GreaterOrEqual(t, time.Since(began), f.session)
	b.way.unblock()
	b.await(t)
	require.ErrorIs(t, b.err, ErrTwice)
}

// The successor of a replica that may be alive hands on nothing that the other may still act on, nor does it when it ends.
func notHandedOn(t *testing.T, f *fleet) {
	silent := func(o *Options) {
		o.AskStart = func(context.Context, string) (string, error) { return "", errors.New("no answer") }
	}
	for _, successorEnds := range []bool{false, true} {
		a, b := f.start("a", silent), f.start("b", silent)
		f.awaitShares(t, a, b)
		b.way.block() // it goes on acting while its lease lasts
		again := f.start("b", silent)
		await(t, "it is a member", func() bool { return again.generationNow() > 0 })
		if successorEnds {
			again.end()
			f.awaitShares(t, a)
		} else {
			c := f.start("c")
			f.awaitShares(t, a, again, c)
			c.stop(t)
			again.stop(t)
		}
		b.way.unblock()
		b.end()
		<-b.done
		a.stop(t)
	}
}

// The second one does not find the first in the group, which joins in the next moment.
func together(t *testing.T, f *fleet) {
	looked, has := make(chan struct{}), make(chan struct{})
	second := f.start("a", func(o *Options) {
		asked := false
		o.Brokers.(*way).before = func(request protocol.Message) {
			if _, joins := request.(*joingroup.Request); joins && !asked {
				asked = true
				close(looked)
				<-has
			}
		}
	})
	<-looked
	first := f.start("a")
	f.awaitShares(t, first)
	close(has)
	f.awaitShares(t, second)
	first.await(t)
	require.ErrorIs(t, first.err, ErrTwice)
}

func twice(t *testing.T, f *fleet) {
	a := f.start("a")
	f.awaitShares(t, a)
	second := f.start("a", func(o *Options) {
		o.AskStart = func(_ context.Context, admin string) (string, error) {
			require.Equal(t, a.Admin, admin)
			return a.Start, nil
		}
	})
	second.await(t)
	require.ErrorIs(t, second.err, ErrTwice)
	require.ErrorContains(t, second.err, "replica a: another replica has this name: its admin address is "+a.Admin+"; give each replica a name of its own")
	require.Positive(t, a.Lease())
	require.Len(t, owned(a.Member), int(f.shards))
}

func fenced(t *testing.T, f *fleet) {
	a, other := f.start("a"), f.start("other")
	f.awaitShares(t, a, other)
	second := f.start("a", func(o *Options) { // it is wrong about the first one's death
		o.AskStart = func(context.Context, string) (string, error) { return "", errors.New("no answer") }
	})
	a.await(t)
	require.ErrorIs(t, a.err, ErrTwice)
	require.ErrorContains(t, a.err, second.Admin)
	require.Zero(t, a.Lease())
	require.Empty(t, owned(a.Member))
	f.awaitShares(t, second, other)
	peers, err := other.Peers(t.Context())
	require.NoError(t, err)
	require.Len(t, peers, 2, "the fenced one has not made the other leave")
}

func rollingRestart(t *testing.T, f *fleet) {
	replicas := []*relayReplica{f.start("a"), f.start("b"), f.start("c")}
	f.awaitShares(t, replicas...)
	for i, old := range replicas {
		began := time.Now()
		old.stop(t)
		others := append([]*relayReplica(nil), replicas[:i]...)
		others = append(others, replicas[i+1:]...)
		f.awaitShares(t, others...)
		t.Log("shards have moved after", time.Since(began))
		require.Less(t, time.Since(began), 3*time.Second)
		replicas[i] = f.start(old.Name)
		f.awaitShares(t, replicas...)
	}
}

// A shard whose sends take long holds up only itself.
func slowRelease(t *testing.T, f *fleet) {
	a := f.start("a")
	f.awaitShares(t, a)
	a.stopBooks() // from here on the test is the journal
	a.Owned()
	b := f.start("b")
	await(t, "a gives up a half", func() bool { return len(owned(a.Member)) == 12 })
	given := missing(owned(a.Member), f.shards)
	require.Empty(t, owned(b.Member))
	for _, shard := range given[1:] {
		a.Released(shard)
	}
	await(t, "b has what was released", func() bool { return len(owned(b.Member)) == 11 })
	require.Equal(t, given[1:], owned(b.Member))
	await(t, "two rounds", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.rejoin.IsZero() })
	require.NotContains(t, owned(b.Member), given[0])
	a.Released(given[0])
	f.awaitShares(t, a, b)
}

func missing(shards []int32, all int32) (rest []int32) {
	have := make(map[int32]bool)
	for _, shard := range shards {
		have[shard] = true
	}
	for shard := range all {
		if !have[shard] {
			rest = append(rest, shard)
		}
	}
	return rest
}

func refusal(t *testing.T, f *fleet) {
	a := f.start("a")
	f.awaitShares(t, a)
	a.Refuse(3)
	await(t, "it is given up", func() bool { return len(owned(a.Member)) == 23 })
	b := f.start("b")
	f.awaitShares(t, a, b)
	require.Contains(t, owned(b.Member), int32(3))
	require.True(t, a.Elsewhere(3))
	b.stop(t)
	await(t, "only a is left", func() bool { return len(owned(a.Member)) == 23 })
	require.False(t, a.Elsewhere(3))
	a.Accept(3)
	f.awaitShares(t, a)
	a.Refuse(3)
	await(t, "it is given up", func() bool { return len(owned(a.Member)) == 23 })
	a.crash()
	again := f.start("a", func(o *Options) { // a newer program
		o.AskStart = func(context.Context, string) (string, error) { return "", syscall.ECONNREFUSED }
	})
	f.awaitShares(t, again)
}

func progress(t *testing.T, f *fleet) {
	asked := make(chan int32, f.shards)
	a := f.start("a", func(o *Options) {
		o.Progress = func(shard int32) (int64, bool) {
			asked <- shard
			return 42, true
		}
	})
	f.awaitShares(t, a)
	await(t, "progress is asked for", func() bool { return len(asked) == int(f.shards) })
	await(t, "it is committed", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return !a.committed.IsZero() })
}
