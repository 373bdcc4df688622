package telemetry

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReplicasThatAcceptTheSameEventHaveSpansOfTheirOwn(t *testing.T) {
	t.Parallel()
	event := [16]byte{1, 2, 3}
	require.Equal(t, acceptedSpanID("a", event), acceptedSpanID("a", event), "known before and after")
	require.NotEqual(t, acceptedSpanID("a", event), acceptedSpanID("b", event))
	require.NotEqual(t, acceptedSpanID("a", event), acceptedSpanID("a", [16]byte{1, 2, 4}))
}
