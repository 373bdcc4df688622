package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ncs-relay/config"
)

func checkCommand() *cobra.Command {
	var file string
	var strict bool
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
			if strict && warnings > 0 {
				return fmt.Errorf("%d warnings, and --strict was given", warnings)
			}
			return nil
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().BoolVar(&strict, "strict", false, "fail on warnings too")
	return cmd
}
