package consumers_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// goCommand builds a program of the module in go.
func goCommand(pkg string) func(t *testing.T) (string, []string) {
	return func(t *testing.T) (string, []string) {
		program := filepath.Join(t.TempDir(), "consumer")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, pkg)
		build.Dir = "go"
		if out, err := build.CombinedOutput(); err != nil {
			missing(t, string(out))
		}
		return "", []string{program}
	}
}

// python runs a program with the packages that its requirements.txt pins.
func python(dir, program string) func(t *testing.T) (string, []string) {
	return func(t *testing.T) (string, []string) {
		needs(t, "python3", "env")
		pins := filepath.Join(dir, "requirements.txt")
		packages := installed(t, dir, []string{pins}, func(ctx context.Context, target string) *exec.Cmd {
			return exec.CommandContext(ctx, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target, "-r", pins)
		})
		file, err := filepath.Abs(filepath.Join(dir, program))
		require.NoError(t, err)
		return "", []string{"env", "PYTHONPATH=" + packages, "python3", "-B", file}
	}
}
