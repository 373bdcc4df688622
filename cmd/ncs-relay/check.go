package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
)

func checkCommand() *cobra.Command {
	var c check
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with a configuration, and what is odd about it",
		Long: `check says everything that serve would stop for, what is legal and probably not meant, and to which topics Kafka sinks write. It
changes nothing. --offline is for CI: variables that are not set, files with secrets and certificates that are not there, and what
else only the relay's machine has are left out. --here and --connect look at more than serve needs.`,
		Args: noArgs,
		RunE: c.run,
	}
	addConfigFlag(cmd, &c.File)
	cmd.Flags().BoolVar(&c.strict, "strict", false, "fail on warnings too")
	cmd.Flags().BoolVar(&c.offline, "offline", false, "do without secrets and everything else that only the relay's machine has")
	cmd.Flags().BoolVar(&c.here, "here", false, "look at this machine too: data_dir, its disk, ports and descriptors; not while the relay runs here")
	cmd.Flags().BoolVar(&c.connect, "connect", false, "connect to the Kafka clusters and say what would fail there")
	addJSON(cmd, &c.asJSON)
	return cmd
}

// check is one run of the command, and what it found.
type check struct {
	strict, offline, here, connect, asJSON bool

	File        string         `json:"file"`
	OK          bool           `json:"ok"`
	Errors      int            `json:"errors"`
	Warnings    int            `json:"warnings"`
	Problems    []checkProblem `json:"problems"`
	Topics      []checkTopics  `json:"topics"` // of Kafka sinks
	NotLookedAt []string       `json:"not_looked_at"`
}

type checkProblem struct {
	Severity string `json:"severity"` // error, warning or note
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Path     string `json:"path,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

type checkTopics struct {
	Sink   string   `json:"sink"`
	Topics []string `json:"topics"`
}

func (c *check) run(cmd *cobra.Command, _ []string) error {
	if c.offline && (c.here || c.connect) {
		return usagef("--offline cannot be combined with --here or --connect")
	}
	c.Problems, c.Topics, c.NotLookedAt = []checkProblem{}, []checkTopics{}, []string{}
	err := c.look(cmd)
	if c.asJSON {
		c.OK = err == nil
		return errors.Join(err, printJSON(cmd.OutOrStdout(), c))
	}
	return err
}

func (c *check) look(cmd *cobra.Command) error {
	load := config.Load
	if c.offline {
		load = config.LoadAway
	}
	cfg, report := load(c.File, os.LookupEnv, kinds)
	c.add(cmd, report.Problems)
	if !c.offline {
		c.add(cmd, environment())
	}
	if report.Err() != nil {
		return errReported
	}
	var found findings
	if !c.offline {
		found = beginnings(cfg)
	}
	if c.here {
		found = append(found, machine(cfg)...)
	}
	c.add(cmd, found.problems(cfg))
	if c.Errors > 0 {
		return errReported
	}
	c.describe(cmd, cfg)
	if c.connect {
		c.add(cmd, c.connectAll(cmd, cfg).problems(cfg))
	}
	switch {
	case c.Errors > 0:
		return errReported
	case c.strict && c.Warnings > 0:
		return fmt.Errorf("%d warnings, and --strict was given", c.Warnings)
	}
	return nil
}

// environment is what serve would say of its variables.
func environment() (problems []config.Problem) {
	for _, w := range telemetry.Warnings(os.Getenv) {
		problems = append(problems, config.Problem{File: "environment", Message: w.String(), Severity: config.Warning})
	}
	return problems
}

// add notes problems, and says them unless JSON will.
func (c *check) add(cmd *cobra.Command, problems []config.Problem) {
	report := &config.Report{File: c.File, Problems: problems}
	c.Errors, c.Warnings = c.Errors+report.Count(config.Error), c.Warnings+report.Count(config.Warning)
	for _, p := range problems {
		c.Problems = append(c.Problems, checkProblem{p.Severity.String(), cmp.Or(p.File, c.File), p.Line, p.Column, p.Path, p.Message, p.Hint})
	}
	if len(problems) > 0 && !c.asJSON {
		fmt.Fprintln(cmd.ErrOrStderr(), report)
	}
}

// describe says what there is when there are no mistakes.
func (c *check) describe(cmd *cobra.Command, cfg *config.Config) {
	for i := range cfg.Sinks {
		name := cfg.Sinks[i].Name
		if kind, ok := cfg.Sinks[i].Kind.(sinks.Clustered); ok && cfg.Lacks(fmt.Sprintf("sinks[%d].%s.topic", i, cfg.Sinks[i].Kind.Key()), "routes", "unmatched") == "" {
			if topics := sinks.Topics(kind, cfg.Router.Reach(name)); len(topics) > 0 {
				c.Topics = append(c.Topics, checkTopics{name, topics})
			}
		}
	}
	left := c.notLookedAt(cfg)
	for _, a := range cfg.Absent {
		c.NotLookedAt = append(c.NotLookedAt, a.Path+": "+a.Why)
	}
	c.NotLookedAt = append(c.NotLookedAt, left...)
	if c.asJSON {
		return
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s: %d sources, %d sinks, %d routes: no mistakes, %d warnings\n",
		c.File, len(cfg.Sources), len(cfg.Sinks), len(cfg.Routes), c.Warnings)
	for _, t := range c.Topics {
		fmt.Fprintf(out, "sink %s writes to topics: %s\n", t.Sink, joinWords(t.Topics))
	}
	for _, a := range cfg.Absent {
		fmt.Fprintf(out, "not looked at: %s: %s\n", a.Path, a.Why)
	}
	if len(left) > 0 {
		fmt.Fprintf(out, "not looked at: %s\n", strings.Join(left, ", "))
	}
}

// notLookedAt names what may still keep the relay from its work.
func (c *check) notLookedAt(cfg *config.Config) []string {
	var left []string
	if c.offline {
		left = append(left, "data_dir and files of sinks (--offline)")
	}
	if !c.here {
		left = append(left, "ports, disk and descriptors of this machine (--here)")
	}
	if !c.connect && (cfg.Journal.Kafka != nil || slices.ContainsFunc(cfg.Sinks, func(s sinks.Config) bool { _, ok := s.Kind.(sinks.Clustered); return ok })) {
		left = append(left, "Kafka clusters (--connect)")
	}
	if slices.ContainsFunc(cfg.Sinks, func(s sinks.Config) bool { return s.Kind.Traits("", "", nil).Breaks }) {
		left = append(left, "HTTP receivers (sinks test)")
	}
	return left
}

// connectAll says whether the topics of a journal on Kafka are as they must be, and for each Kafka sink whether its cluster
// would take what the rules can send there.
func (c *check) connectAll(cmd *cobra.Command, cfg *config.Config) (all findings) {
	if cfg.Journal.Kafka != nil {
		said := cmd.OutOrStdout()
		if c.asJSON {
			said = io.Discard
		}
		all = journalTopics(cmd.Context(), cfg, said)
	}
	for i := range cfg.Sinks {
		sink := &cfg.Sinks[i]
		kind, ok := sink.Kind.(sinks.Clustered)
		if !ok { // to an HTTP service a connection says nothing, and a file is looked at in any case
			continue
		}
		topics := sinks.Topics(kind, cfg.Router.Reach(sink.Name))
		found := kind.Connect(cmd.Context(), topics)
		for _, problem := range found {
			all.add(fmt.Sprintf("sinks[%d].%s", i, sink.Kind.Key()), fmt.Errorf("sink %s: %w (%s)", sink.Name, problem, relay.ReasonOf(problem)))
		}
		if len(found) == 0 && !c.asJSON {
			fmt.Fprintf(cmd.OutOrStdout(), "sink %s: the cluster answers and takes its %d topics\n", sink.Name, len(topics))
		}
	}
	return all
}

// findings are what was found behind settings.
type findings []finding

type finding struct {
	path string // of the setting
	err  error
	note bool // serve starts all the same, or this does not say whether it would
}

func (f *findings) add(path string, err error) {
	if err != nil {
		*f = append(*f, finding{path: path, err: err})
	}
}

// problems are the findings at their places in the file.
func (f findings) problems(cfg *config.Config) (problems []config.Problem) {
	slices.SortStableFunc(f, func(a, b finding) int { return strings.Compare(a.path, b.path) })
	for _, found := range f {
		p := config.Problem{Path: found.path, Message: found.err.Error()}
		if found.note {
			p.Severity = config.Note
		}
		p.Line, p.Column = cfg.Place(found.path)
		problems = append(problems, p)
	}
	return problems
}

// beginnings looks, without changing anything, at what serve would stop for at its start. A relay that runs with the same
// configuration, as where a change is checked before a reload, is no mistake: it is noted, with what could not be looked at.
func beginnings(cfg *config.Config) findings {
	var found findings
	for path, address := range map[string]string{"listen": cfg.Listen, "admin.listen": cfg.Admin.Listen} {
		_, err := net.ResolveTCPAddr("tcp", address)
		found.add(path, err)
	}
	var err error
	if cfg.Journal.Kafka == nil {
		err = diskjournal.Look(cfg.DataDir)
	}
	switch {
	case errors.Is(err, diskjournal.ErrLocked):
		found = append(found, finding{"data_dir", fmt.Errorf("%w: a second relay would not start there, and the state was not looked at", err), true})
	case errors.Is(err, fs.ErrPermission): // whoever checks need not be who serves
		found = append(found, finding{"data_dir", fmt.Errorf("was not looked at: %w", err), true})
	default:
		found.add("data_dir", damageHint(err, cfg.DataDir))
	}
	for i, s := range cfg.Sinks {
		kind, ok := s.Kind.(sinks.Looker)
		if !ok {
			continue
		}
		path, note, err := kind.Look()
		path = fmt.Sprintf("sinks[%d].%s.%s", i, s.Kind.Key(), path)
		switch {
		case note:
			found = append(found, finding{path, err, true})
		case errors.Is(err, fs.ErrPermission):
			found = append(found, finding{path, fmt.Errorf("was not looked at: %w", err), true})
		default:
			found.add(path, err)
		}
	}
	return found
}

// machine looks at what the machine has to give. It listens for a moment, and writes nothing.
func machine(cfg *config.Config) findings {
	var found findings
	add := func(path, format string, a ...any) { found.add(path, fmt.Errorf(format, a...)) }
	for path, address := range map[string]string{"listen": cfg.Listen, "admin.listen": cfg.Admin.Listen} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			add(path, "%w (is a relay running here already?)", err)
			continue
		}
		l.Close()
	}
	if cfg.DataDir != "" {
		found = append(found, disk(cfg)...)
	}
	const others = 1024 // files, sinks, and the admin address
	if _, most, known := descriptorLimit(); known && most < uint64(cfg.Limits.Connections+others) {
		add("limits.connections", "%d connections and %d for the rest are more than the %d descriptors that this process may open", cfg.Limits.Connections, others, most)
	}
	return found
}

// disk looks at what holds the data of this machine.
func disk(cfg *config.Config) findings {
	var found findings
	add := func(path, format string, a ...any) { found.add(path, fmt.Errorf(format, a...)) }
	dir := cfg.DataDir
	for dir != filepath.Dir(dir) && !exists(dir) { // what is not there yet is made in the nearest that is
		dir = filepath.Dir(dir)
	}
	if err := writable(dir); err != nil {
		add("data_dir", "%s cannot be written: %w", dir, err)
	}
	if free, total, err := (diskjournal.DiskFS{}).Free(dir); err == nil && cfg.Journal.Kafka == nil && total < cfg.Journal.MaxSize+cfg.DeadLetters.MaxSize {
		add("journal.max_size", "the disk of %s holds %d MiB in all, %d MiB free, less than journal.max_size and dead_letters.max_size together", dir, total>>20, free>>20)
	}
	return found
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
