package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ncs-relay/relay/keyfile"
)

// secretFlags are the ways to give a command a secret. A secret on the command line can be seen by everybody on the
// machine, so that is for tests.
type secretFlags struct{ env, file, value string }

func (s *secretFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.env, "secret-env", "", "environment variable that holds the secret")
	cmd.Flags().StringVar(&s.file, "secret-file", "", "file that holds the secret; a trailing newline is trimmed")
	cmd.Flags().StringVar(&s.value, "secret", "", "the secret itself (for tests: others on this machine can see it)")
}

// read returns the secret; a command cannot do without one.
func (s *secretFlags) read() (string, error) {
	secret := s.value
	switch {
	case s.env != "" && s.file != "", s.value != "" && s.env+s.file != "":
		return "", usagef("only one of --secret-env, --secret-file and --secret")
	case s.env != "":
		if secret = os.Getenv(s.env); secret == "" {
			return "", usagef("environment variable %s is not set", s.env)
		}
	case s.file != "":
		return keyfile.Secret(s.file)
	case secret == "":
		return "", usagef("a secret is needed: --secret-env, --secret-file or --secret")
	}
	return cleaned(secret)
}

// cleaned returns what is meant by a secret that was given without a file.
func cleaned(secret string) (string, error) {
	secret, err := keyfile.Clean(secret)
	if err != nil {
		return "", fmt.Errorf("the secret %w", err)
	}
	return secret, nil
}
