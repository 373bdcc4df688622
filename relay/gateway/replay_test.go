package gateway

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

// endingReplay is one whose last delivery is settled as soon as its totals have been read.
type endingReplay struct {
	journal.Replay
	delivered uint64
}

func (r *endingReplay) ID() uint32               { return 1 }
func (r *endingReplay) Spec() journal.ReplaySpec { return journal.ReplaySpec{Sink: "billing"} }
func (r *endingReplay) Finished() bool           { return r.delivered == 1 }
func (r *endingReplay) Totals() journal.ReplayTotals {
	t := journal.ReplayTotals{Matched: 1, Delivered: r.delivered, Pending: 1 - r.delivered}
	r.delivered = 1
	return t
}

// Whoever waits for the end of a replay takes the totals of that answer for the last.
func TestAReplayThatIsSaidToBeFinishedHasItsTotals(t *testing.T) {
	t.Parallel()
	r := &endingReplay{}
	first := statusOf(r)
	require.False(t, first.Finished && first.Delivered == 0, "%+v", first)
	require.EqualValues(t, 1, statusOf(r).Delivered)
	require.True(t, statusOf(r).Finished)
}
