package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A change is checked beside the relay that runs with the old configuration: that it has the directory is no mistake.
func TestCheckBesideARunningRelay(t *testing.T) {
	r := newRelay(t, oneSource)
	r.start()
	out, err := exec.Command("ncs-relay", "check", "-c", r.config).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "note: data_dir: "+filepath.Join(r.dir, "data")+": data directory is in use by another process")
	require.Contains(t, string(out), "the state was not looked at")
	r.kill()

	out, err = exec.Command("ncs-relay", "check", "-c", r.config).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "data_dir")
	require.NoError(t, os.Truncate(filepath.Join(r.dir, "data", "state.db"), 0))
	out, err = exec.Command("ncs-relay", "check", "-c", r.config).CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, strings.Count(string(out), "state.db is missing or empty"), "%s", out)
}
