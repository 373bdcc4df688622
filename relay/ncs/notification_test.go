package ncs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

func samples(t testing.TB) map[string][]byte {
	t.Helper()
	return bodies(t, "testdata/samples/*.json", 124)
}

func bodies(t testing.TB, pattern string, want int) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.Len(t, paths, want)
	m := make(map[string][]byte, len(paths))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		m[filepath.Base(p)] = b
	}
	return m
}

func TestParseAcceptsEverySample(t *testing.T) {
	t.Parallel()
	for name, body := range samples(t) {
		n, err := ncs.Parse(body)
		require.NoError(t, err, name)
		require.True(t, n.Info.Known, name)
		require.NotEmpty(t, n.Entity, name)
	}
}

func TestParseRefusesOtherCallbacks(t *testing.T) {
	t.Parallel()
	for name, body := range bodies(t, "testdata/not-ncs/*.json", 4) {
		_, err := ncs.Parse(body)
		var malformed *ncs.MalformedError
		require.ErrorAs(t, err, &malformed, name)
		t.Log(name, err)
	}
}
