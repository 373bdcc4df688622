package main

import (
	"context"
	"fmt"
	"io"
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
	"ncs-relay/sinks/filesink"
)

func checkCommand() *cobra.Command {
	var file string
	var strict, connect, here bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with a configuration, and what is odd about it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, report := config.Load(file, os.LookupEnv)
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
			problems := beginnings(cfg)
			if here {
				problems = append(problems, machine(cfg)...)
			}
			for _, problem := range problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: %v\n", file, problem)
			}
			if len(problems) > 0 {
				return errReported
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s: %d sources, %d sinks, %d routes: no mistakes, %d warnings\n",
				file, len(cfg.Sources), len(cfg.Sinks), len(cfg.Routes), warnings)
			for i := range cfg.Sinks {
				if topics := cfg.Sinks[i].Topics(cfg.Router.Reach(cfg.Sinks[i].Name)); len(topics) > 0 {
					fmt.Fprintf(out, "sink %s writes to topics: %s\n", cfg.Sinks[i].Name, joinWords(topics))
				}
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

// connectAll says for each Kafka sink whether its cluster would take what the rules can send there.
func connectAll(ctx context.Context, cfg *config.Config, out, problems io.Writer) bool {
	well := true
	for i := range cfg.Sinks {
		sink := &cfg.Sinks[i]
		if sink.Kafka == nil {
			continue
		}
		topics := sink.Topics(cfg.Router.Reach(sink.Name))
		found := sinks.Connect(ctx, *sink, topics)
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

// beginnings looks, without changing anything, at what serve would stop for at its start.
func beginnings(cfg *config.Config) []error {
	var problems []error
	add := func(path string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
		}
	}
	for path, address := range map[string]string{"listen": cfg.Listen, "admin.listen": cfg.Admin.Listen} {
		_, err := net.ResolveTCPAddr("tcp", address)
		add(path, err)
	}
	add("data_dir", diskjournal.Look(cfg.DataDir))
	for i, s := range cfg.Sinks {
		if s.File != nil {
			add(fmt.Sprintf("sinks[%d].file.path", i), filesink.Look(s.File.Path))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return problems
}

// machine looks at what the machine has to give. It listens for a moment, and writes nothing.
func machine(cfg *config.Config) []error {
	var problems []error
	add := func(format string, a ...any) { problems = append(problems, fmt.Errorf(format, a...)) }
	for _, address := range []string{cfg.Listen, cfg.Admin.Listen} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			add("%w (is a relay running here already?)", err)
			continue
		}
		l.Close()
	}
	dir := cfg.DataDir
	for dir != filepath.Dir(dir) && !exists(dir) { // what is not there yet is made in the nearest that is
		dir = filepath.Dir(dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		add("data_dir: %s cannot be written: %w", dir, err)
	}
	if free, total, err := (diskjournal.DiskFS{}).Free(dir); err == nil && total < cfg.Journal.MaxSize+cfg.DeadLetters.MaxSize {
		add("journal.max_size: the disk of %s holds %d MiB in all, %d MiB free, less than journal.max_size and dead_letters.max_size together", dir, total>>20, free>>20)
	}
	const others = 1024 // files, sinks, and the admin address
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Max < uint64(cfg.Limits.Connections+others) {
		add("limits.connections: %d connections and %d for the rest are more than the %d descriptors that this process may open", cfg.Limits.Connections, others, limit.Max)
	}
	return problems
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
