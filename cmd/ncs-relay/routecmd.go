package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/ingress"
	"ncs-relay/relay/ncs"
)

func routeCommand() *cobra.Command {
	var o routeOptions
	var file string
	cmd := &cobra.Command{
		Use:   "route [BODY...]",
		Short: "Say to which sinks bodies would go, and for each rule why or why not",
		Long: `route reads bodies from files (none or - is standard input) and routes each with the same compiled rules as serve. It needs no
secrets: variables that are not set and files that are not there are no mistakes, unless rules are made of them.

--expect FILE makes it a test for CI: each line of the file is a body's file name, a colon, and the sinks it must go to
("body.json: billing archive"); names are relative to that file. It fails on any difference, on a file that is missing, and where the when of a rule fails.`,
		Args: rangeArgs(0, -1, "files"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadAway(cmd, file)
			if err != nil {
				return err
			}
			if lack := cfg.Lacks(routing(cfg)...); lack != "" {
				return fmt.Errorf("%s: %s", file, lack)
			}
			o.out = cmd.OutOrStdout()
			source, err := pickSource(cfg, o.source)
			if err != nil {
				return err
			}
			if o.intake, err = ingress.NewIntake(source, cfg.Catalogue); err != nil {
				return err
			}
			o.source = source.Name
			if o.expect != "" {
				if len(args) > 0 {
					return usagef("--expect names the bodies itself")
				}
				return o.compare(cfg)
			}
			if len(args) == 0 {
				args = []string{"-"}
			}
			for _, name := range args {
				body, err := readFileOrStdin(cmd, name)
				if err != nil {
					return err
				}
				if err := o.explain(cfg, name, body); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().StringVar(&o.source, "source", "", "the source at which the bodies arrive; the first one if not given")
	cmd.Flags().StringVar(&o.expect, "expect", "", "file with the sinks each body must go to")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object for each body")
	return cmd
}

type routeOptions struct {
	source, expect string
	json           bool
	intake         *ingress.Intake
	out            io.Writer
}

// routing are the settings that decide where an event goes.
func routing(cfg *config.Config) []string {
	paths := []string{"catalogue", "routes", "unmatched"}
	for i := range cfg.Sources {
		for _, key := range []string{"name", "products", "test_match"} {
			paths = append(paths, fmt.Sprintf("sources[%d].%s", i, key))
		}
	}
	for i := range cfg.Sinks {
		paths = append(paths, fmt.Sprintf("sinks[%d].name", i))
	}
	return paths
}

func pickSource(cfg *config.Config, name string) (ingress.SourceConfig, error) {
	if name == "" {
		return cfg.Sources[0], nil
	}
	var names []string
	for _, s := range cfg.Sources {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return ingress.SourceConfig{}, usagef("no source is called %q; there are %s", name, joinWords(names))
}

// decision is where one body goes.
type decision struct {
	File    string        `json:"file"`
	Product string        `json:"product,omitempty"`
	Event   string        `json:"event,omitempty"`
	Entity  string        `json:"entity,omitempty"`
	EventID string        `json:"event_id"`
	Sinks   []string      `json:"sinks"`
	Why     string        `json:"why,omitempty"` // when no rule was asked
	Facts   []ncs.Fact    `json:"facts,omitempty"`
	Rules   []ruleVerdict `json:"rules,omitempty"`
}

type ruleVerdict struct {
	Rule    int      `json:"rule"`
	Applies bool     `json:"applies"`
	To      []string `json:"to"`
	Why     string   `json:"why,omitempty"`
	Failed  bool     `json:"when_failed,omitempty"` // its when failed on this body
}

func (o *routeOptions) decide(cfg *config.Config, name string, body []byte) decision {
	r := o.intake.Read(body)
	d := decision{File: name, EventID: r.Identity.ID.String(), Sinks: []string{}}
	if r.Quarantine != "" {
		d.Sinks, d.Why = []string{relay.Unroutable}, "quarantined: "+r.Quarantine
		if r.Detail != "" {
			d.Why += ": " + r.Detail
		}
		return d
	}
	n := r.Notification
	d.Product, d.Event, d.Entity, d.Facts = n.Info.Product, n.Info.Event, n.Entity, n.Facts()
	if r.Test {
		d.Why = "test of Agora's Console: answered and counted, not routed"
		return d
	}
	now := time.Now()
	result := cfg.Router.Route(n, o.source, now)
	d.Sinks = append(d.Sinks, result.Sinks...)
	if !result.Matched {
		d.Why = "no rule applies"
		if len(result.Sinks) > 0 {
			d.Why += ", so it goes to unmatched"
		}
	}
	for _, v := range cfg.Router.Explain(n, o.source, now) {
		d.Rules = append(d.Rules, ruleVerdict{v.Rule, v.Applies, v.To, v.Why, v.Err != nil})
	}
	return d
}

func (o *routeOptions) explain(cfg *config.Config, name string, body []byte) error {
	d := o.decide(cfg, name, body)
	if o.json {
		return json.NewEncoder(o.out).Encode(d)
	}
	fmt.Fprintf(o.out, "%s: ", name)
	if d.Event != "" {
		fmt.Fprintf(o.out, "%s.%s, entity %q, event %s\n", d.Product, d.Event, d.Entity, d.EventID)
	} else {
		fmt.Fprintf(o.out, "event %s\n", d.EventID)
	}
	sinks := "none"
	if len(d.Sinks) > 0 {
		sinks = joinWords(d.Sinks)
	}
	fmt.Fprintf(o.out, "  sinks: %s\n", sinks)
	if d.Why != "" {
		fmt.Fprintf(o.out, "  %s\n", d.Why)
	}
	for _, v := range d.Rules {
		if v.Applies {
			fmt.Fprintf(o.out, "  routes[%d] applies: to %s\n", v.Rule, joinWords(v.To))
		} else {
			fmt.Fprintf(o.out, "  routes[%d] does not apply: %s\n", v.Rule, v.Why)
		}
	}
	printFacts(o.out, "says", d.Facts)
	return nil
}

// compare checks every line of the expectations.
func (o *routeOptions) compare(cfg *config.Config) error {
	text, err := os.ReadFile(o.expect)
	if err != nil {
		return err
	}
	dir := ""
	if i := strings.LastIndexByte(o.expect, '/'); i >= 0 {
		dir = o.expect[:i+1]
	}
	wrong, lines := 0, bufio.NewScanner(bytes.NewReader(text))
	checked := 0
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, sinks, ok := strings.Cut(line, ":")
		if !ok {
			checked, wrong = checked+1, wrong+1
			fmt.Fprintf(o.out, "%s:%d: wants \"body file: sinks\"\n", o.expect, n)
			continue
		}
		checked++
		body, err := os.ReadFile(dir + name)
		if err != nil {
			wrong++
			fmt.Fprintf(o.out, "%s:%d: %v\n", o.expect, n, err)
			continue
		}
		want := strings.Fields(sinks)
		got := o.decide(cfg, name, body)
		slices.Sort(want)
		sorted := slices.Sorted(slices.Values(got.Sinks))
		var problems []string
		if !slices.Equal(want, sorted) {
			problems = append(problems, fmt.Sprintf("%s goes to [%s], expected [%s]", name, joinWords(sorted), joinWords(want)))
		}
		for _, rule := range got.Rules {
			if rule.Failed {
				problems = append(problems, fmt.Sprintf("%s: routes[%d]: %s", name, rule.Rule, rule.Why))
			}
		}
		for _, problem := range problems {
			fmt.Fprintf(o.out, "%s:%d: %s\n", o.expect, n, problem)
		}
		wrong += min(1, len(problems))
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if checked == 0 {
		return fmt.Errorf("%s expects nothing", o.expect)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d lines are not as expected", wrong, checked)
	}
	fmt.Fprintf(o.out, "%d bodies go where expected\n", checked)
	return nil
}

func joinWords(words []string) string { return strings.Join(words, ", ") }
