// Command ncs-relay takes the notifications of Agora's notification service at one public endpoint, keeps each event
// once, and delivers it to every team's Kafka topic, HTTP service or file.
//
// This package is the only place that knows all others: one file per subcommand.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses, the same for every command.
const (
	exitOK     = 0
	exitFailed = 1 // it was done, and the answer is no; or it could not be done
	exitUsage  = 2 // the command line is wrong
)

// version is set by the linker for releases: -ldflags "-X main.version=1.2.3".
var version = ""

func main() {
	// Only libraries use this log. net/http prints to it what a receiver sends unasked, as it is: it may repeat our credentials.
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process around it.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(errs, "%s: %s\nSee '%s --help'.\n", cmd.CommandPath(), err, cmd.CommandPath())
		return exitUsage
	case errors.Is(err, errReported):
		return exitFailed
	default:
		fmt.Fprintf(errs, "%s: %s\n", cmd.CommandPath(), err)
		return exitFailed
	}
}

// errReported ends a command that has already said what is wrong.
var errReported = errors.New("reported")

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ncs-relay",
		Short: "One endpoint for Agora's notifications; every event once, in order, to Kafka, HTTP and files",
		Long: `ncs-relay takes the notifications of Agora's notification service (NCS) at one public endpoint, checks their
signatures, keeps each event once, has it on disk before it answers 200, and delivers it, in order per recording,
to every team's Kafka topic, HTTP service or file.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = buildVersion() // makes the flag
	root.SetVersionTemplate(versionLine())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		initCommand(), serveCommand(), checkCommand(), routeCommand(), simulateCommand(), triggerCommand(), listenCommand(), sendCommand(), verifyCommand(),
		eventsCommand(), asyncAPICommand(), healthCommand(), configCommand(), versionCommand(),
		statusCommand(), sinksCommand(), pendingCommand(), deadLettersCommand(), replayCommand(), inspectCommand(), journalCommand(), clusterCommand(),
	)
	// The commands that cobra adds get our exit status too: its own show something else, with 0.
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = commandPath
		case "completion":
			cmd.Args, cmd.RunE = noArgs, root.RunE
			for _, shell := range cmd.Commands() {
				shell.Args = noArgs
			}
		}
	}
	describeCommands(root)
	addCompletions(root)
	return root
}

// commandPath wants the words of a command.
func commandPath(cmd *cobra.Command, args []string) error {
	named, rest, err := cmd.Root().Find(args)
	if err != nil {
		return &usageError{err}
	}
	return noArgs(named, rest)
}

// noArgs is cobra.NoArgs with our exit status.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command or argument %q", args[0])
	}
	return nil
}

// args is cobra.RangeArgs with our exit status; most < 0 = no bound.
func rangeArgs(least, most int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usagef("wants %s, not %d arguments", what, len(args))
		}
		return nil
	}
}

// buildVersion is the release's version, or what the Go toolchain knows of the build.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
