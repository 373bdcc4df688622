package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// needsPromtool skips where there is none, unless the environment says that there must be.
func needsPromtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("NCS_RELAY_REQUIRE_PROMTOOL") == "" {
		t.Skip("needs promtool, of Debian's package prometheus")
	}
	require.NoError(t, err)
	return path
}
