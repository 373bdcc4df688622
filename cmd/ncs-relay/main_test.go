package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
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
