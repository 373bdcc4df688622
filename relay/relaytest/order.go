package relaytest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
)

// RequireInOrder checks that want events came, each once, in order per entity.
func RequireInOrder(t testing.TB, got []relay.Attempt, want int) {
	t.Helper()
	require.Len(t, got, want)
	last := map[string]journal.Position{}
	for _, a := range got {
		require.Positive(t, a.Position.Compare(last[a.Entity]), "%s out of order", a.Entity)
		last[a.Entity] = a.Position
	}
}
