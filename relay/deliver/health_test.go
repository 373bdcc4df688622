package deliver

import (
	"testing"
	"time"

	"ncs-relay/relay"

	"github.com/stretchr/testify/require"
)

func TestLabelOfAReasonStaysBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, relay.ReasonOther, known("made up by a sink"))
}

func TestFailuresOfReplicasAreAddedByKind(t *testing.T) {
	t.Parallel()
	early, late := time.UnixMilli(1), time.UnixMilli(9)
	got := JoinErrors([]ErrorGroup{
		{Product: "conversational_ai", Event: "agent_joined", Reason: "5xx", Failed: 2, First: late, Last: late, Error: "503"},
	}, []ErrorGroup{
		{Product: "speech_to_text", Event: "agent_joined", Reason: "5xx", Failed: 4, First: early, Last: early, Error: "of another product"},
		{Product: "conversational_ai", Event: "agent_joined", Reason: "5xx", Failed: 1, First: early, Last: early, Error: "500"},
	})
	require.Equal(t, []ErrorGroup{
		{Product: "speech_to_text", Event: "agent_joined", Reason: "5xx", Failed: 4, First: early, Last: early, Error: "of another product"},
		{Product: "conversational_ai", Event: "agent_joined", Reason: "5xx", Failed: 3, First: early, Last: late, Error: "503"},
	}, got, "the most frequent first")
}
