package ingress

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOrderNoticesWhatComesLate(t *testing.T) {
	t.Parallel()
	var o order
	at := time.UnixMilli(1_000_000)
	require.False(t, o.late("a", at))
	require.False(t, o.late("a", at), "as old as the last is in order")
	require.True(t, o.late("a", at.Add(-time.Second)))
	require.False(t, o.late("b", at.Add(-time.Second)), "another entity")
	require.False(t, o.late("", at.Add(-time.Hour)))
}
