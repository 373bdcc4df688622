package examples_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"
)

// documentedMetrics are those of the documented table, which a test of the real program compares with its page.
func documentedMetrics(t *testing.T) map[string]bool {
	_, blocks := readme(t)
	names := map[string]bool{}
	for _, row := range cells(find(t, blocks, "metrics", "")) {
		names[strings.Trim(row[0], "`")] = true
	}
	return names
}

// panel of a dashboard, or the row above some.
type panel struct {
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct {
		Defaults struct {
			Unit       string
			Thresholds struct{ Steps []struct{ Color string } }
		}
	}
	Targets []struct{ Expr string }
}

// requireReadable checks that panels say what they show, that the first row says by colour whether all is well, and that no
// panel lies on another.
func requireReadable(t *testing.T, panels []panel) {
	t.Helper()
	alerts, err := os.ReadFile("observability/alerts.yml")
	require.NoError(t, err)
	require.Equal(t, "Is it well?", panels[0].Title)
	taken := map[[2]int]string{}
	stats := 0
	for _, p := range panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], "%s lies on it", p.Title)
				require.Less(t, x, 24, p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		require.NotEmpty(t, p.FieldConfig.Defaults.Unit, p.Title)
		for _, alert := range regexp.MustCompile(`Ncs\w+`).FindAllString(p.Description, -1) {
			require.Contains(t, string(alerts), "alert: "+alert+"\n", p.Title)
		}
		if p.Type == "stat" {
			stats++
			require.GreaterOrEqual(t, len(p.FieldConfig.Defaults.Thresholds.Steps), 2, p.Title)
		}
	}
	require.GreaterOrEqual(t, stats, 6, "what is seen at a glance")
	require.True(t, slices.ContainsFunc(panels, func(p panel) bool { return p.Type == "table" && p.Title == "Sinks" }))
}

// That the queries of alerts and dashboard find something is tested with the real program in cmd/ncs-relay. Here promtool says
// whether they are queries.
func TestDashboardQueriesAreValid(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("observability/grafana/ncs-relay.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels     []panel
		Templating struct{ List []struct{ Name string } }
	}
	require.NoError(t, json.Unmarshal(b, &dashboard))
	requireReadable(t, dashboard.Panels)
	var variables []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, v.Name)
	}
	require.Equal(t, []string{"datasource", "job", "instance", "source", "sink"}, variables)
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	for _, p := range dashboard.Panels {
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		for _, target := range p.Targets {
			for _, m := range regexp.MustCompile(`ncs_relay_\w+(\{job=~"\$job",instance=~"\$instance")?`).FindAllStringSubmatch(target.Expr, -1) {
				require.NotEmpty(t, m[1], "%s: not of the chosen relays: %s", p.Title, m[0])
			}
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

// TestEveryAlertSaysWhatToDo: what to type, and where to read on, of the alert; what to type and what is seen when it is over,
// of each section that it leads to.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	t.Parallel()
	built := needsProgram(t)
	file, err := os.ReadFile("observability/alerts.yml")
	require.NoError(t, err)
	var alerts struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Annotations struct {
					Summary, Description string
					Runbook              string `yaml:"runbook_url"`
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal(file, &alerts))
	runbook, err := os.ReadFile("observability/README.md")
	require.NoError(t, err)
	var sections, named []string
	_, entries, _ := strings.Cut(string(runbook), "\n## Alerts\n")
	entries, _, _ = strings.Cut(entries, "\n## ")
	for section := range strings.SplitSeq(entries, "\n### ") {
		name, text, _ := strings.Cut(section, "\n")
		if strings.TrimSpace(name) == "" {
			continue // before the first
		}
		sections = append(sections, name)
		require.Contains(t, text, "ncs-relay", name)
		require.Regexp(t, `(?i)solved\s+when`, text, name)
	}
	for _, rule := range alerts.Groups[0].Rules {
		named = append(named, rule.Alert)
		require.NotEmpty(t, rule.Annotations.Summary, rule.Alert)
		require.Contains(t, rule.Annotations.Description, "`ncs-relay ", rule.Alert)
		require.Equal(t, "examples/observability/README.md#"+strings.ToLower(rule.Alert), rule.Annotations.Runbook)
		requireCommands(t, built, rule.Annotations.Description)
	}
	require.Empty(t, cmp.Diff(named, sections, cmpopts.SortSlices(strings.Compare)), "alerts and the sections about them")
	requireCommands(t, built, string(runbook))
}

// requireCommands checks that the commands in a text exist, with their flags.
func requireCommands(t *testing.T, built, text string) {
	t.Helper()
	for _, m := range regexp.MustCompile("`ncs-relay ([^`]+)`").FindAllStringSubmatch(text, -1) {
		words := strings.Fields(m[1])
		names := 1 // of the command: those that have subcommands have two
		if slices.Contains([]string{"sinks", "pending", "deadletters", "config", "journal"}, words[0]) {
			names = 2
		}
		requireFlags(t, built, words[:names], m[1])
	}
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
