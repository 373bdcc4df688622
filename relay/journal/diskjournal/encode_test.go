package diskjournal

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

func TestARecordIsEncodedWithoutAllocations(t *testing.T) {
	r := &journal.Record{Source: "main", Entity: "recording", ContentType: "application/json", Body: make([]byte, 700)}
	room, sinks := make([]byte, 0, 2048), []sinkID{1, 2}
	require.Zero(t, testing.AllocsPerRun(100, func() { room = appendPayload(room[:0], r, sinks) }))
}
