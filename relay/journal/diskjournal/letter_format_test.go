package diskjournal

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/ledger"
)

func TestDeadLettersOfEarlierVersionsAreRead(t *testing.T) {
	t.Parallel()
	want := journal.DeadLetter{Position: at(7), Reason: "refused", At: time.UnixMilli(5), Size: 3, Retry: journal.Retry{Attempts: 2, FirstError: "a", LastError: "b"}}
	encoded := ledger.EncodeLetter(&want)
	got, err := ledger.DecodeLetter(at(7), encoded[:len(encoded)-1]) // they had no cause
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(want, got))
}
