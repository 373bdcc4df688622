package spelling_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/spelling"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"path", "name", "secrets", "secret_files", "max_body", "to"}
	for in, want := range map[string]string{
		"pth": "path", "naem": "name", "Path": "path", "secret": "secrets", "secretfiles": "secret_files", "max-body": "max_body",
		"colour": "", "": "", "xy": "", "t0": "to", strings.Repeat("path", 100): "",
	} {
		require.Equal(t, want, spelling.Nearest(in, known), "of %q", in)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	require.Equal(t, `did you mean "path"?`, spelling.Hint("paht", []string{"name", "path"}))
	require.Empty(t, spelling.Hint("colour", []string{"name", "path"}))
}
