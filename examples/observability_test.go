package examples_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
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

// requireKnown checks each metric that a query names.
func requireKnown(t *testing.T, metrics map[string]bool, query string) {
	t.Helper()
	names := regexp.MustCompile(`ncs_relay_\w+`).FindAllString(query, -1)
	require.NotEmpty(t, names, query)
	for _, name := range names {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			base = strings.TrimSuffix(base, suffix)
		}
		require.True(t, metrics[name] || metrics[base], "%s, used in %q, is no metric of the relay", name, query)
	}
}

func TestDashboardAsksForMetricsThatExist(t *testing.T) {
	t.Parallel()
	metrics := documentedMetrics(t)
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
	for _, p := range dashboard.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			requireKnown(t, metrics, target.Expr)
		}
	}
}

func TestAlertsAskForMetricsThatExist(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile("observability/alerts.yml")
	require.NoError(t, err)
	requireKnown(t, documentedMetrics(t), string(rules))
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil && os.Getenv("NCS_RELAY_REQUIRE_PROMTOOL") == "" {
		t.Skip("needs promtool, of Debian's package prometheus")
	}
	require.NoError(t, err)
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"test", "rules", "alerts_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "observability"
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
}
