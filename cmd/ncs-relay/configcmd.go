package main

import (
	"github.com/spf13/cobra"

	"ncs-relay/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "About the configuration file", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	schema := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := config.Schema()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	cmd.AddCommand(schema)
	return cmd
}
