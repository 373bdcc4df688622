package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStartWhereASinksDiskIsAway: one team's archive that cannot be written keeps nobody's notifications out. What it is owed
// waits, and arrives when the disk is back.
func TestStartWhereASinksDiskIsAway(t *testing.T) {
	t.Parallel()
	r := newRelay(t, httpSinkHead+httpSinkSource+`
sinks:
  - {name: archive, file: {path: %DIR%/archive.jsonl}, retry: {initial: 10ms, max_interval: 100ms}}
  - {name: other, file: {path: %DIR%/other.jsonl}}
routes: [{to: [archive, other]}]
`)
	volume, archive := filepath.Join(r.dir, "volume"), filepath.Join(r.dir, "archive.jsonl")
	require.NoError(t, os.Symlink(filepath.Join(volume, "archive.jsonl"), archive))
	r.start()
	require.Equal(t, "accepted", r.post(recording("s1", 1, 1)))
	r.eventually(func() bool { line, _ := os.ReadFile(filepath.Join(r.dir, "other.jsonl")); return len(line) > 0 }, "the other sink waits")
	require.NoError(t, os.Mkdir(volume, 0o750))
	r.eventually(func() bool { line, _ := os.ReadFile(archive); return len(line) > 0 }, "what was owed does not come")
	r.terminate()
	require.Contains(t, r.log.String(), "the file cannot be written; events wait until it can")
}
