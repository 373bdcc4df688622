package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// documentedMetrics are those of the README's table, which a test of the real program compares with its page.
func documentedMetrics(t *testing.T) map[string]bool {
	_, blocks := readme(t)
	names := map[string]bool{}
	for _, row := range cells(find(t, blocks, "metrics", "")) {
		names[strings.Trim(row[0], "`")] = true
	}
	return names
}

// That the queries of alerts and dashboard find something is tested with the real program in cmd/ncs-relay. Here promtool says
// whether they are queries.
func TestDashboardQueriesAreValid(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("observability/grafana/ncs-relay.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(b, &dashboard))
	require.NotEmpty(t, dashboard.Panels)
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range dashboard.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			rules = append(rules, rule{fmt.Sprintf("query:%d", len(rules)), strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")})
		}
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	b, err = json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, b, 0o600))
	runPromtool(t, "check", "rules", file)
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	runPromtool(t, "check", "config", "prometheus.yml")
	runPromtool(t, "test", "rules", "alerts_test.yml")
}

func runPromtool(t *testing.T, args ...string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("NCS_RELAY_REQUIRE_PROMTOOL") == "" {
		t.Skip("needs promtool, of Debian's package prometheus")
	}
	require.NoError(t, err)
	cmd := exec.Command(promtool, args...)
	cmd.Dir = "observability"
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}
