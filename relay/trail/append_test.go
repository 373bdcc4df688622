package trail

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALineIsTheJSONOfItsEntry(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678900000, time.UTC)
	for _, e := range []Entry{
		{Event: ID{1, 0xab}, What: Copy, At: at, Source: "main", Standing: "in_flight"},
		{What: Attempt, At: at.In(time.FixedZone("", 3600)), Sink: "billing", Number: 7, Replay: 3, Outcome: "failed", Reason: "timeout",
			Error: "said \"no\"\n\x00 \u2028 <b>", Took: 0.000123},
		{What: Attempt, At: at, Took: 12345678},
		{What: Lever, At: at, By: "night \"shift\"", Action: "move", Sink: "old", To: "new", Count: 3, Filter: json.RawMessage(`{"entity":"a\"b"}`)},
	} {
		line := e.append(nil)
		var read Entry
		require.NoError(t, json.Unmarshal(line, &read), "%s", line)
		require.True(t, e.At.Equal(read.At))
		read.At = e.At
		require.Equal(t, e, read)
		var members, want map[string]any
		require.NoError(t, json.Unmarshal(line, &members))
		encoded, err := json.Marshal(e)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(encoded, &want))
		if e.Event == (ID{}) {
			delete(members, "event") // a line begins with it in any case
		}
		require.Equal(t, want, members)
	}
	odd := Entry{What: Attempt, Error: "a\xffb"}
	var read Entry
	require.NoError(t, json.Unmarshal(odd.append(nil), &read))
	require.Equal(t, "a�b", read.Error)
}

func TestALineCostsNoAllocation(t *testing.T) {
	e := Entry{Event: ID{1}, What: Attempt, At: time.Now(), Sink: "billing", Number: 1, Outcome: "delivered", Took: 0.0012}
	room := make([]byte, 0, 1024)
	require.Zero(t, testing.AllocsPerRun(100, func() { room = e.append(room[:0]) }))
}
