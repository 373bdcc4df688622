package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// TestMain makes this test binary stand in for ncs-relay, in scripts and as a child process that can be killed.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ncs-relay": main, "ncs-relay-mail": mainWithMail})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "", // rewrites what cmp compares with: review the change
	})
}

// The binary that people run must not carry what tests and the demo need.
func TestBinaryHoldsNoTestModules(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "github.com/segmentio/kafka-go")
	for _, module := range []string{"franz-go", "testify", "rapid", "goleak", "go-internal", "go-cmp", "santhosh-tekuri", "svix", "standard-webhooks", "cloudevents/sdk-go", "IBM/sarama", "ncs-relay/examples"} {
		require.NotContains(t, string(out), module)
	}
}

func TestSubcommandsHaveHelp(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	require.Equal(t, exitOK, run(context.Background(), []string{"--help"}, os.Stdin, &out, &errs))
	for _, cmd := range newRoot().Commands() {
		require.Contains(t, out.String(), cmd.Name())
		require.NotEmpty(t, cmd.Short, cmd.Name())
	}
}

// Every command is in a group of the help and has examples, and each example is a command line that its own flags take.
func TestCommandsAreInGroupsAndHaveExamples(t *testing.T) {
	t.Parallel()
	root := newRoot()
	for _, cmd := range root.Commands() {
		require.NotEmpty(t, cmd.GroupID, cmd.Name())
		requireExamples(t, cmd)
	}
}

func requireExamples(t *testing.T, cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		requireExamples(t, sub)
	}
	switch cmd.Name() {
	case "help", "completion", "bash", "fish", "powershell", "zsh", "config", "sinks", "pending", "deadletters", "journal", "cluster":
		return
	}
	require.NotEmpty(t, cmd.Example, cmd.CommandPath())
	for line := range strings.SplitSeq(cmd.Example, "\n") {
		for part := range strings.SplitSeq(line, "|") {
			_, args, ok := strings.Cut(part, "ncs-relay ")
			require.True(t, ok, line)
			args, _, _ = strings.Cut(args, " >")
			named, rest, err := newRoot().Find(words(args))
			require.NoError(t, err, line)
			require.NoError(t, named.ParseFlags(rest), line)
			require.NoError(t, named.ValidateArgs(named.Flags().Args()), line)
		}
		require.Contains(t, line, cmd.CommandPath())
	}
}

// words are those of a command line; quotes keep them together.
func words(line string) (words []string) {
	for i, part := range strings.FieldsFunc(line, func(r rune) bool { return r == '\'' || r == '"' }) {
		if i%2 == 0 {
			words = append(words, strings.Fields(part)...)
		} else {
			words = append(words, part)
		}
	}
	return words
}
