package examples_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	fenced     = regexp.MustCompile("(?ms)^```.*?^```$")
	headings   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	linkTarget = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	notInSlugs = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// page is a document without its code, with the anchors that its headings have where repositories are shown.
func page(t *testing.T, name string) (text string, anchors map[string]bool) {
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	text = fenced.ReplaceAllString(string(b), "")
	anchors = map[string]bool{}
	for _, m := range headings.FindAllStringSubmatch(text, -1) {
		anchors[strings.ReplaceAll(notInSlugs.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return text, anchors
}

func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	links := 0
	require.NoError(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".md" {
			return err
		}
		text, _ := page(t, name)
		for _, m := range linkTarget.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], ":") {
				continue
			}
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			to := name
			if file != "" {
				to = filepath.Join(filepath.Dir(name), file)
			}
			_, err := os.Stat(to)
			require.NoError(t, err, "%s links to %s", name, m[1])
			if anchor != "" {
				_, anchors := page(t, to)
				require.True(t, anchors[anchor], "%s links to %s, which has no such heading", name, m[1])
			}
		}
		return nil
	}))
	require.Greater(t, links, 50)
}

func TestDocumentsCanBeRead(t *testing.T) {
	t.Parallel()
	front, err := os.Stat(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	require.LessOrEqual(t, front.Size(), int64(12<<10), "the README is a front page")
	for _, name := range documents {
		text, _ := page(t, filepath.Join(root, name))
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "|") { // a table's row cannot be broken
				require.LessOrEqual(t, len([]rune(line)), 121, "%s: %s", name, line)
			}
		}
	}
}

// A finding saves the reader of some document from a surprise, so a document leads to it.
func TestFindingsAreLinked(t *testing.T) {
	t.Parallel()
	text, _ := readme(t)
	bench, err := os.ReadFile(filepath.Join("bench", "README.md"))
	require.NoError(t, err)
	findings, err := filepath.Glob(filepath.Join(root, "findings", "*.sh"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(findings), 8)
	for _, finding := range findings {
		require.Contains(t, text+string(bench), "findings/"+filepath.Base(finding)+")")
	}
}
