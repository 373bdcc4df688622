package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay/admin"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/journal"
)

func deadLettersCommand() *cobra.Command {
	return group("deadletters", "List, show, replay and drop deliveries that a running relay has given up",
		deadLettersListCommand(), deadLettersShowCommand(), deadLettersReplayCommand(), deadLettersDropCommand())
}

var letterFields = append([]string{"sink", "reason"}, eventFields...)

func deadLettersListCommand() *cobra.Command {
	var admin adminFlags
	var list listing
	var byReason bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, per sink the oldest event first; sink unroutable has the quarantined bodies",
		Long: `list shows dead letters, per sink the oldest event first. Sink unroutable has the quarantined bodies. One that is being
replayed stays until it was taken; REPLAY is the replay's number. With --by-reason it counts them by event type and reason.`,
		Args: noArgs,
	}
	filter := addFilter(cmd, letterFields...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, given, err := clientAndFilter(&admin, filter)
		if err != nil {
			return err
		}
		if byReason {
			return printLetterGroups(cmd, &list, c, given)
		}
		fit := fitting(cmd.OutOrStdout())
		return printList(cmd, &list, c, "dead-letters", "dead_letters", given, "DEAD FOR,SINK,POSITION,EVENT,ENTITY,ATTEMPTS,EVENT ID,REPLAY,REASON",
			func(d gateway.DeadLetter, now time.Time) []any {
				return []any{ago(d.At, now), d.Sink, d.Position, eventName(d.EventInfo), dash(fit(d.Entity)), d.Attempts, d.ID, replayOf(d), fit(d.Reason)}
			})
	}
	admin.add(cmd)
	list.add(cmd)
	cmd.Flags().BoolVar(&byReason, "by-reason", false, "count them by sink, event type and reason instead, the most frequent first")
	return cmd
}

// printLetterGroups counts all dead letters that are selected, without a limit: the relay does it.
func printLetterGroups(cmd *cobra.Command, list *listing, c *adminClient, given map[string]string) error {
	if cmd.Flags().Changed("limit") || list.all {
		return usagef("--by-reason counts all: it goes with neither --limit nor --all")
	}
	var answer struct{ Groups []json.RawMessage }
	if err := c.get(cmd.Context(), "dead-letters/groups", query(given), &answer); err != nil {
		return err
	}
	out, now := cmd.OutOrStdout(), time.Now()
	if list.asJSON {
		for _, group := range answer.Groups {
			fmt.Fprintf(out, "%s\n", group)
		}
		return nil
	}
	fit := fitting(out)
	return tryTable(out, "COUNT,SINK,EVENT,REASON,NEWEST,IN FULL", func(row func(...any)) error {
		for _, item := range answer.Groups {
			var g gateway.LetterGroup
			if err := json.Unmarshal(item, &g); err != nil {
				return fmt.Errorf("the relay's list: %w", err)
			}
			row(g.Count, g.Sink, kindOf(g), dash(clean(g.Cause)), ago(g.Last, now)+" ago", fit(g.Reason))
		}
		return nil
	})
}

func kindOf(g gateway.LetterGroup) string {
	if g.Product == "" {
		return "-"
	}
	return g.Product + "." + g.Event
}

// replayOf is the number of the replay that is to deliver a dead letter again.
func replayOf(d gateway.DeadLetter) string {
	if d.Replay == 0 {
		return "-"
	}
	return fmt.Sprint(d.Replay)
}

func deadLettersShowCommand() *cobra.Command {
	var address adminFlags
	var asJSON, bodyOnly bool
	cmd := &cobra.Command{
		Use:   "show SINK POSITION",
		Short: "Show one dead letter with its body",
		Args:  rangeArgs(2, 2, "a sink and a position, as deadletters list shows them"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := journal.ParsePosition(args[1]); err != nil {
				return usagef("%s", err)
			}
			c, err := address.client()
			if err != nil {
				return err
			}
			var answer json.RawMessage
			if err := c.get(cmd.Context(), "dead-letters/"+url.PathEscape(args[0])+"/"+args[1], nil, &answer); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			var letter admin.Letter
			if err := json.Unmarshal(answer, &letter); err != nil {
				return fmt.Errorf("the relay's answer: %w", err)
			}
			if !bodyOnly {
				printLetter(cmd.OutOrStdout(), &letter.DeadLetter, time.Now())
			}
			_, err = cmd.OutOrStdout().Write(letter.Bytes())
			if !bodyOnly {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			return err
		},
	}
	address.add(cmd)
	addJSON(cmd, &asJSON)
	cmd.Flags().BoolVar(&bodyOnly, "body", false, "print the body only, byte for byte: for ncs-relay route -")
	return cmd
}

func printLetter(out io.Writer, d *gateway.DeadLetter, now time.Time) {
	printEvent(out, d.EventInfo, now)
	fmt.Fprintf(out, "  %s: given up %s ago: %s\n", d.Sink, ago(d.At, now), clean(d.Reason))
	printHistory(out, d.History, now)
	if d.Replay > 0 {
		fmt.Fprintf(out, "    replay %d is to deliver it again\n", d.Replay)
	}
	fmt.Fprintln(out)
}

func deadLettersReplayCommand() *cobra.Command {
	r := replayRun{deadLetters: true}
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Deliver dead letters again; each stays until it was taken",
		Long: `replay delivers dead letters again, in order, marked as a replay; each stays until it was taken. Those of the sink
unroutable are read and routed as if they came in now, which makes sense after their source's settings were corrected.
It shows how many there are and asks first; --yes does not ask.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	r.add(cmd, letterFields...)
	return cmd
}

func deadLettersDropCommand() *cobra.Command {
	var b bulk
	cmd := &cobra.Command{
		Use:   "drop",
		Short: "Delete dead letters",
		Long:  `drop deletes dead letters for good. It shows how many there are and asks first; --yes does not ask.`,
		Args:  noArgs,
	}
	b.add(cmd, letterFields...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return b.run(cmd, "dead-letters/drop", "dropped", func(n int, given map[string]string) string {
			return fmt.Sprintf("delete %d dead letters (%s)", n, describe(given))
		})
	}
	return cmd
}
