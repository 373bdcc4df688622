package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/sinks"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "About the configuration file", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(configSchemaCommand(), configShowCommand())
	return cmd
}

func configSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}

func configShowCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print a configuration with all defaults, without secrets",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, report := loadConfig(file)
			if report.Err() != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), report)
				return errReported
			}
			b, err := cfg.Redacted()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", bytes.TrimRight(b, "\n"))
			return err
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}

// kinds are those that a configuration may have; tests add one.
var kinds = sinks.Kinds

func loadConfig(file string) (*config.Config, *config.Report) {
	return config.Load(file, os.LookupEnv, kinds)
}

// loadAway is loadConfig for commands that need neither secrets nor what else only the relay's machine has. It reports mistakes
// itself, and fails where one of the settings at the paths that the command needs is not there.
func loadAway(cmd *cobra.Command, file string, needed ...string) (*config.Config, error) {
	cfg, report := config.LoadAway(file, os.LookupEnv, kinds)
	if report.Err() != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), report)
		return nil, errReported
	}
	if lack := cfg.Lacks(needed...); lack != "" {
		return nil, fmt.Errorf("%s: %s", file, lack)
	}
	return cfg, nil
}
