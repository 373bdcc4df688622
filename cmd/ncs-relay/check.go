package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
)

func checkCommand() *cobra.Command {
	var file string
	var strict, connect bool
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
