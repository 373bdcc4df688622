package journal_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
)

func TestPositionsAreText(t *testing.T) {
	t.Parallel()
	for text, p := range map[string]journal.Position{
		"17":                   {Offset: 17},
		"3-17":                 {Shard: 3, Offset: 17},
		"18446744073709551615": {Offset: 1<<64 - 1},
	} {
		got, err := journal.ParsePosition(text)
		require.NoError(t, err)
		require.Equal(t, p, got)
		b, err := json.Marshal(p)
		require.NoError(t, err)
		require.Equal(t, `"`+text+`"`, string(b))
		require.NoError(t, json.Unmarshal(b, &got))
		require.Equal(t, p, got)
	}
	for _, text := range []string{"", "0", "x", "-1", "0-7", "3-", "3-0", "3-4-5", "-", "4294967296-1", "18446744073709551616", "1.5", " 1", "+1"} {
		_, err := journal.ParsePosition(text)
		require.ErrorContains(t, err, "is not a position", text)
	}
	cut := journal.Cut{{Offset: 9}, {Shard: 2}, {Shard: 3, Offset: 4}}
	b, err := json.Marshal(cut)
	require.NoError(t, err)
	require.Equal(t, `"9,2-0,3-4"`, string(b))
	require.Equal(t, journal.Position{Shard: 3, Offset: 4}, cut.In(3))
	require.Equal(t, journal.Position{Shard: 7}, cut.In(7))
	for _, c := range []journal.Cut{nil, cut} {
		var got journal.Cut
		b, err := c.MarshalText()
		require.NoError(t, err)
		require.NoError(t, got.UnmarshalText(b))
		require.Equal(t, c, got)
	}
	var zero journal.Position
	require.True(t, zero.IsZero())
	require.Negative(t, zero.Compare(cut[0]))
}
