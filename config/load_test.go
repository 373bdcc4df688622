package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/sinks"
)

var update = flag.Bool("update", false, "rewrite the expected files in testdata")

// testEnv are the variables of the files in testdata.
var testEnv = map[string]string{
	"NCS_SECRET":  "0123456789abcdef0123456789abcdef",
	"ADMIN_TOKEN": "a-long-admin-token",
	"TIMEOUT":     "15s",
	"ATTEMPTS":    "7",
	"ENABLED":     "true",
	"SIZE":        "8MiB",
	"EMPTY":       "",
	"HOST":        "billing.internal",
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}
}

// TestFiles loads every file of testdata. good_ files load and may have warnings; bad_ files do not. What is reported is in
// the file beside it, with the ending .report.
func TestFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			dir := secretsDir(t)
			c, report := Parse(filepath.Base(file), data, dir, lookupIn(testEnv), sinks.Kinds)
			good := strings.HasPrefix(filepath.Base(file), "good_")
			require.Equal(t, good, c != nil, "report:\n%s", report)
			require.Equal(t, good, report.Err() == nil)
			golden(t, strings.TrimSuffix(file, ".yaml")+".report", strings.ReplaceAll(report.String()+"\n", dir, "DIR"))
		})
	}
}

// secretsDir makes the secret files that the files of testdata name. They are no files of testdata, because their
// permissions matter.
func secretsDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
	for name, content := range map[string]string{"ncs": "fedcba9876543210fedcba9876543210\n", "empty": "\n"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", name), []byte(content), 0o600))
	}
	return dir
}

// golden compares got with a file, or with -update makes it the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(string(want), got))
}
