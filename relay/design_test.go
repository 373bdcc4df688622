package relay

import (
	"go/parser"
	"go/token"
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

// TestRoomsImportDownwards: a package imports only those on lower floors, and the one journal that there is nowhere but in cmd.
func TestRoomsImportDownwards(t *testing.T) {
	t.Parallel()
	floors := map[string]int{"relay": 1, "relay/ingress": 2, "relay/deliver": 2, "relay/gateway": 3, "relay/admin": 4, "sinks": 4,
		"sinks/httpsink": 2, "sinks/kafkasink": 2, "sinks/filesink": 2, "config": 5, "relay/journal/diskjournal": 6}
	for room, floor := range floors {
		files, err := filepath.Glob(filepath.Join("..", room, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files, room)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, i := range tree.Imports {
				imported := strings.TrimPrefix(strings.Trim(i.Path.Value, `"`), "ncs-relay/")
				require.Less(t, floors[imported], floor, "%s imports %s", file, imported)
			}
		}
	}
}
