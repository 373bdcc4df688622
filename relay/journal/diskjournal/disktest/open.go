package disktest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
)

// What fixtures of other packages need of the disk journal, so that they need not name it.
type (
	Options = diskjournal.Options
	FS      = diskjournal.FS
)

// Open opens a journal with the defaults of the configuration, however full the disk is.
func Open(t testing.TB, dir string, o diskjournal.Options) journal.Opened {
	t.Helper()
	o.SetDefaults()
	o.Dead.SetDefaults()
	o.MinFree = 1
	j, err := diskjournal.Open(dir, o)
	require.NoError(t, err)
	return j
}
