package deliver

import (
	"testing"

	"ncs-relay/relay"

	"github.com/stretchr/testify/require"
)

func TestLabelOfAReasonStaysBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, relay.ReasonOther, known("made up by a sink"))
}
