package ingress

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

// A listener that takes nothing costs the others nothing: it loses what it has no room for, and is told how much.
func TestASlowListenerLosesAndHoldsUpNobody(t *testing.T) {
	t.Parallel()
	var h Ingress
	all := func(*journal.Record) bool { return true }
	slow, err := h.Listen(all)
	require.NoError(t, err)
	quick, err := h.Listen(all)
	require.NoError(t, err)
	none, err := h.Listen(func(*journal.Record) bool { return false })
	require.NoError(t, err)
	body := []byte("body")
	for i := range 1000 {
		h.listeners.offer(&journal.Record{Source: "s", Body: body})
		body[0] = byte(i) // the caller's again
		got := <-quick.Events
		quick.Taken(got)
	}
	require.EqualValues(t, 1000-listenerEvents, slow.Lost())
	require.Zero(t, slow.Lost(), "told once")
	require.Zero(t, quick.Lost())
	require.Empty(t, none.Events)
	require.Equal(t, "body", string((<-slow.Events).Body))

	large, err := h.Listen(all)
	require.NoError(t, err)
	for range 3 {
		h.listeners.offer(&journal.Record{Body: make([]byte, listenerBytes/2)})
	}
	require.EqualValues(t, 1, large.Lost())
	large.Taken(<-large.Events)
	h.listeners.offer(&journal.Record{Body: make([]byte, 1)})
	require.Zero(t, large.Lost())
	h.listeners.offer(&journal.Record{Quarantine: "not_json"})
	require.Len(t, large.Events, 2)

	for _, l := range []*Listener{slow, quick, none, large} {
		l.Close()
	}
	require.False(t, h.listeners.some.Load(), "nobody listens: nothing is done")
}
