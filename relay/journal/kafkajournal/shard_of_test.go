package kafkajournal

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/journaltest"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

var unknownHeader = kafkalog.Header{Key: "ncs-later", Value: []byte("x")}

// Computed by a few lines of Python, too. The shard of an event is a part of the format: an event that came to another one would be accepted a second time.
func TestShardOfAnEventIsFixed(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, 20, ShardOf("", [16]byte{1}, 24))
	require.EqualValues(t, 21, ShardOf("sid-1", [16]byte{1}, 24))
	require.EqualValues(t, 21, ShardOf("sid-1", [16]byte{2}, 24), "the entity decides")
	shares := make([]int, 24)
	for n := range uint64(24_000) {
		var id [16]byte
		binary.BigEndian.PutUint64(id[:], n)
		shares[ShardOf("", id, 24)]++
	}
	for _, n := range shares {
		require.InDelta(t, 1000, n, 200)
	}
}

func TestWhatCannotBeReadIsQuarantined(t *testing.T) {
	t.Parallel()
	foreign := kafkalog.Record{Offset: 7, Value: []byte("{}")}
	e, err := decodeInbox(0, &foreign)
	require.NoError(t, err)
	require.NotEmpty(t, e.rec.Quarantine)
	require.Equal(t, []string{relay.Unroutable}, e.rec.Sinks)
	require.Equal(t, foreign.Value, e.rec.Body)

	newer := encodeRecord(journaltest.Record(1))
	newer.Headers[0].Value = []byte("2")
	_, err = decodeInbox(0, &newer)
	require.ErrorIs(t, err, errNewer, "a newer version understands it")
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	for n := range 20 {
		want := journaltest.Record(n)
		if n%2 == 0 {
			want.Sinks = []string{"a", "b"}
		}
		rec := encodeRecord(want)
		rec.Offset = 41
		rec.Headers = append(rec.Headers, unknownHeader)
		e, err := decodeInbox(3, &rec)
		require.NoError(t, err)
		want.Position = journal.Position{Shard: 3, Offset: 42}
		require.Equal(t, want, e.rec)

		event := eventOf(&rec, e)
		event.Offset = 17
		require.Contains(t, event.Headers, unknownHeader, "what a newer version adds is kept")
		again, err := decodeEvent(3, &event)
		require.NoError(t, err)
		require.Equal(t, want, again.rec)
		require.EqualValues(t, 17, again.at)
	}
}
