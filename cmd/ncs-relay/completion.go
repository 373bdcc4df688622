package main

import (
	"cmp"
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ncs"
)

// completionTime bounds what a shell waits for: a relay that does not answer at once is not asked for names.
const completionTime = time.Second

// completions are the names of one kind that a command line can go on with.
type completions func(cmd *cobra.Command) []cobra.Completion

// argumentNames complete the first argument of commands, by their path.
var argumentNames = map[string]completions{
	"sinks test": sinkNames, "sinks pause": sinkNames, "sinks resume": sinkNames, "sinks move": sinkNames, "sinks drop": sinkNames, "deadletters show": sinkNames, "replay cancel": replayNumbers,
	"events show": typeNames, "events schema": typeNames, "trigger": typeNames,
}

// flagNames complete the flags of these names, of every command that has them but init, where they mean something else.
var flagNames = map[string]completions{"sink": sinkNames, "to": sinkNames, "after": replayNumbers, "product": productNames, "event": typeNames}

// takeFiles are the commands whose arguments are files, which shells complete themselves.
var takeFiles = []string{"route", "send", "verify", "journal verify", "journal export"}

// addCompletions lets a shell complete names in a command and those below it.
func addCompletions(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		addCompletions(sub)
	}
	for flag, names := range flagNames {
		if cmd.Flags().Lookup(flag) != nil && cmd.Name() != "init" {
			mustComplete(cmd, flag, names.always)
		}
	}
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	switch names := argumentNames[path]; {
	case names != nil:
		cmd.ValidArgsFunction = names.first
	case path == "init":
		mustComplete(cmd, "product", completions(productNames).always)
		mustComplete(cmd, "sink", cobra.FixedCompletions([]cobra.Completion{"file", "http", "kafka"}, cobra.ShellCompDirectiveNoFileComp))
		fallthrough
	case cmd.ValidArgsFunction == nil && !slices.Contains(takeFiles, path):
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
}

func mustComplete(cmd *cobra.Command, flag string, names cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, names); err != nil {
		panic("BUG: " + err.Error())
	}
}

// first completes the first argument.
func (names completions) first(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names.always(cmd, args, begun)
}

func (names completions) always(cmd *cobra.Command, _ []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all := names(cmd)
	return slices.DeleteFunc(all, func(name string) bool { return !strings.HasPrefix(name, begun) }), cobra.ShellCompDirectiveNoFileComp
}

// sinkNames asks the running relay that the command is about, and else reads the configuration.
func sinkNames(cmd *cobra.Command) (names []cobra.Completion) {
	if cmd.Flags().Lookup("admin") != nil {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var answer struct{ Sinks []gateway.SinkStatus }
		if c, err := adminOf(cmd).client(); err == nil && c.get(ctx, "sinks", nil, &answer) == nil {
			for _, s := range answer.Sinks {
				names = append(names, cobra.CompletionWithDesc(clean(s.Name), s.State))
			}
			return names
		}
	}
	if cfg := configured(cmd); cfg != nil {
		for _, s := range cfg.Sinks {
			names = append(names, cobra.CompletionWithDesc(s.Name, clean(s.Owner)))
		}
	}
	return names
}

// replayNumbers asks the running relay that the command is about.
func replayNumbers(cmd *cobra.Command) (numbers []cobra.Completion) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var answer struct{ Replays []gateway.ReplayStatus }
	if c, err := adminOf(cmd).client(); err == nil && c.get(ctx, "replays", nil, &answer) == nil {
		for _, r := range answer.Replays {
			numbers = append(numbers, cobra.CompletionWithDesc(strconv.FormatUint(uint64(r.ID), 10), "to "+clean(r.Sink)))
		}
	}
	return numbers
}

func productNames(cmd *cobra.Command) []cobra.Completion { return catalogueAt(cmd).ProductNames() }

// typeNames are those of --product if it is given, and of commands that send a sample those that have one.
func typeNames(cmd *cobra.Command) (names []cobra.Completion) {
	infos, err := ofProduct(catalogueAt(cmd), flagValue(cmd, "product"))
	if err != nil {
		return nil
	}
	samples := cmd.Name() == "trigger" || cmd.CommandPath() == "ncs-relay sinks test"
	for _, i := range infos {
		if _, ok := i.Sample(); ok || !samples {
			names = append(names, cobra.CompletionWithDesc(i.Product+"."+i.Event, i.Explain().Means))
		}
	}
	return names
}

// adminOf are the flags that say which relay a command is about, read again.
func adminOf(cmd *cobra.Command) *adminFlags {
	return &adminFlags{cmd, flagValue(cmd, "admin"), flagValue(cmd, "config"), flagValue(cmd, "token-env"), flagValue(cmd, "token-file")}
}

// flagValue is "" for a flag that the command does not have.
func flagValue(cmd *cobra.Command, name string) string {
	if f := cmd.Flags().Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// configured is the configuration of a command, nil if it cannot be read: a shell has no place for its mistakes.
func configured(cmd *cobra.Command) *config.Config {
	cfg, report := config.LoadAway(cmp.Or(flagValue(cmd, "config"), "relay.yaml"), os.LookupEnv, kinds)
	if report.Err() != nil {
		return nil
	}
	return cfg
}

// catalogueAt is that of the command's configuration if there is one, else what is built in.
func catalogueAt(cmd *cobra.Command) *ncs.Catalogue {
	if cfg := configured(cmd); cfg != nil && cfg.Catalogue != nil {
		return cfg.Catalogue
	}
	return ncs.Builtin()
}
