package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"ncs-relay/relay/ncs"
)

func verifyCommand() *cobra.Command {
	var v1, v2 string
	var secret secretFlags
	cmd := &cobra.Command{
		Use:   "verify BODY --signature-v2 X",
		Short: "Say whether a signature fits a body and a secret, and if not, why",
		Long: `verify reads a body from a file (- is standard input), byte for byte, and checks the signatures given. When they are
wrong it tries what usually goes wrong: a body that was formatted or written anew, white space around the secret,
exchanged headers, another encoding.`,
		Args: rangeArgs(1, 1, "one file with the body"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if v1 == "" && v2 == "" {
				return usagef("--signature-v2 or --signature-v1 is needed")
			}
			key, err := secret.read()
			if err != nil {
				return err
			}
			body, err := readFileOrStdin(cmd, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			findings := ncs.Diagnose(body, key, v1, v2)
			if len(findings) > 0 {
				for _, f := range findings {
					fmt.Fprintln(out, f)
				}
				return errReported
			}
			fmt.Fprintf(out, "the signature is right (%d bytes)\n", len(body))
			n, err := ncs.Builtin().Parse(body)
			if err != nil {
				fmt.Fprintf(out, "but the relay would quarantine the body: %v\n", err)
				return nil
			}
			fmt.Fprintf(out, "%s.%s, entity %q\n", n.Info.Product, n.Info.Event, n.Entity)
			return nil
		},
	}
	cmd.Flags().StringVar(&v2, "signature-v2", "", "value of the header Agora-Signature-V2")
	cmd.Flags().StringVar(&v1, "signature-v1", "", "value of the header Agora-Signature")
	secret.add(cmd)
	return cmd
}
