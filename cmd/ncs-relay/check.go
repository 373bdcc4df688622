package main

import (
	"context"
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
	"golang.org/x/sys/unix"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
)

func checkCommand() *cobra.Command {
	var file string
	var strict, connect, here bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with a configuration, and what is odd about it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, report := loadConfig(file)
			if len(report.Problems) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), report)
			}
			warnings := report.Count(config.Warning)
			for _, w := range telemetry.Warnings(os.Getenv) { // serve says them too
				warnings++
				fmt.Fprintf(cmd.ErrOrStderr(), "environment: warning: %s\n", w)
			}
			if report.Err() != nil {
				return errReported
			}
			found := beginnings(cfg)
			if here {
				found = append(found, machine(cfg)...)
			}
			if !found.print(cmd.ErrOrStderr(), file, cfg) {
				return errReported
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s: %d sources, %d sinks, %d routes: no mistakes, %d warnings\n",
				file, len(cfg.Sources), len(cfg.Sinks), len(cfg.Routes), warnings)
			for i := range cfg.Sinks {
				name := cfg.Sinks[i].Name
				if kind, ok := cfg.Sinks[i].Kind.(sinks.Clustered); ok {
					if topics := sinks.Topics(kind, cfg.Router.Reach(name)); len(topics) > 0 {
						fmt.Fprintf(out, "sink %s writes to topics: %s\n", name, joinWords(topics))
					}
				}
			}
			if left := notLookedAt(cfg, here, connect); len(left) > 0 {
				fmt.Fprintf(out, "not looked at: %s\n", strings.Join(left, ", "))
			}
			if connect && !connectAll(cmd.Context(), cfg, out, cmd.ErrOrStderr()) {
				return errReported
			}
			if strict && warnings > 0 {
				return fmt.Errorf("%d warnings, and --strict was given", warnings)
			}
			return nil
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().BoolVar(&strict, "strict", false, "fail on warnings too")
	cmd.Flags().BoolVar(&here, "here", false, "look at this machine too: data_dir, its disk, ports and descriptors; not while the relay runs here")
	cmd.Flags().BoolVar(&connect, "connect", false, "connect to the Kafka clusters and say what would fail there")
	return cmd
}

// notLookedAt names what may still keep the relay from its work.
func notLookedAt(cfg *config.Config, here, connect bool) []string {
	var left []string
	if !here {
		left = append(left, "ports, disk and descriptors of this machine (--here)")
	}
	if !connect && slices.ContainsFunc(cfg.Sinks, func(s sinks.Config) bool { _, ok := s.Kind.(sinks.Clustered); return ok }) {
		left = append(left, "Kafka clusters (--connect)")
	}
	if slices.ContainsFunc(cfg.Sinks, func(s sinks.Config) bool { return s.Kind.Traits("", "", nil).Breaks }) {
		left = append(left, "HTTP receivers (sinks test)")
	}
	return left
}

// connectAll says for each Kafka sink whether its cluster would take what the rules can send there.
func connectAll(ctx context.Context, cfg *config.Config, out, problems io.Writer) bool {
	well := true
	for i := range cfg.Sinks {
		sink := &cfg.Sinks[i]
		kind, ok := sink.Kind.(sinks.Clustered)
		if !ok { // to an HTTP service a connection says nothing, and a file is looked at in any case
			continue
		}
		topics := sinks.Topics(kind, cfg.Router.Reach(sink.Name))
		found := kind.Connect(ctx, topics)
		for _, problem := range found {
			well = false
			fmt.Fprintf(problems, "sink %s: %v (%s)\n", sink.Name, problem, relay.ReasonOf(problem))
		}
		if len(found) == 0 {
			fmt.Fprintf(out, "sink %s: the cluster answers and takes its %d topics\n", sink.Name, len(topics))
		}
	}
	return well
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

// print reports whether there are notes only.
func (f findings) print(out io.Writer, file string, cfg *config.Config) bool {
	well := true
	slices.SortStableFunc(f, func(a, b finding) int { return strings.Compare(a.path, b.path) })
	for _, found := range f {
		kind := ""
		if found.note {
			kind = "note: "
		}
		well = well && found.note
		line, column := cfg.Place(found.path)
		fmt.Fprintf(out, "%s:%d:%d: %s%s: %v\n", file, line, column, kind, found.path, found.err)
	}
	return well
}

// beginnings looks, without changing anything, at what serve would stop for at its start. A relay that runs with the same
// configuration, as where a change is checked before a reload, is no mistake: it is noted, with what could not be looked at.
func beginnings(cfg *config.Config) findings {
	var found findings
	for path, address := range map[string]string{"listen": cfg.Listen, "admin.listen": cfg.Admin.Listen} {
		_, err := net.ResolveTCPAddr("tcp", address)
		found.add(path, err)
	}
	switch err := diskjournal.Look(cfg.DataDir); {
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
	dir := cfg.DataDir
	for dir != filepath.Dir(dir) && !exists(dir) { // what is not there yet is made in the nearest that is
		dir = filepath.Dir(dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		add("data_dir", "%s cannot be written: %w", dir, err)
	}
	if free, total, err := (diskjournal.DiskFS{}).Free(dir); err == nil && total < cfg.Journal.MaxSize+cfg.DeadLetters.MaxSize {
		add("journal.max_size", "the disk of %s holds %d MiB in all, %d MiB free, less than journal.max_size and dead_letters.max_size together", dir, total>>20, free>>20)
	}
	const others = 1024 // files, sinks, and the admin address
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Max < uint64(cfg.Limits.Connections+others) {
		add("limits.connections", "%d connections and %d for the rest are more than the %d descriptors that this process may open", cfg.Limits.Connections, others, limit.Max)
	}
	return found
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
