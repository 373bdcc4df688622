package relay

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// DESIGN.md names the test behind each claim. `TestFailed...` stands for all whose names begin so.
func TestDesignNamesTestsThereAre(t *testing.T) {
	t.Parallel()
	var there []string
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)`)
	require.NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range declared.FindAllSubmatch(source, -1) {
			there = append(there, string(found[1]))
		}
		return err
	}))
	text, err := os.ReadFile("DESIGN.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`((?:Test|Benchmark)\\w+)(\\.\\.\\.)?").FindAllSubmatch(text, -1)
	require.Greater(t, len(named), 50)
	for _, n := range named {
		name, prefix := string(n[1]), len(n[2]) > 0
		require.True(t, slices.ContainsFunc(there, func(s string) bool { return s == name || prefix && strings.HasPrefix(s, name) }),
			"DESIGN.md names %s", name)
	}
}
