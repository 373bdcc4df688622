package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay/deliver"
	"ncs-relay/relay/gateway"
)

func sinksListCommand() *cobra.Command {
	var admin adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the sinks of a running relay, those that were removed included",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := admin.client()
			if err != nil {
				return err
			}
			var answer struct{ Sinks []json.RawMessage }
			if err := c.get(cmd.Context(), "sinks", nil, &answer); err != nil {
				return err
			}
			if asJSON {
				for _, s := range answer.Sinks {
					fmt.Fprintf(cmd.OutOrStdout(), "%s\n", s)
				}
				return nil
			}
			sinks := make([]gateway.SinkStatus, len(answer.Sinks))
			for i, s := range answer.Sinks {
				if err := json.Unmarshal(s, &sinks[i]); err != nil {
					return fmt.Errorf("the relay's list: %w", err)
				}
			}
			now := time.Now()
			out := cmd.OutOrStdout()
			err = table(out, "SINK,OWNER,PENDING,SIZE,OLDEST,DEAD LETTERS,STATE", func(row func(...any)) {
				for _, s := range sinks {
					row(s.Name, dash(clean(s.Owner)), s.Pending, size(s.PendingBytes), ago(s.Oldest, now), s.DeadLetters, stateOf(s, now))
				}
			})
			printTroubles(out, sinks, now)
			return err
		},
	}
	admin.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

// stateOf is a sink's state with what there is to say of it.
func stateOf(s gateway.SinkStatus, now time.Time) string {
	switch {
	case s.State == deliver.StateRemoved && s.Pending > 0:
		return s.State + ": move or drop what it is owed"
	case s.State == deliver.StatePaused:
		text := s.State + ": " + clean(s.Paused)
		if !s.PausedUntil.IsZero() {
			text += ", ends " + until(s.PausedUntil, now)
		}
		return text
	case s.Trouble == nil:
		return s.State
	}
	text := s.State + " since " + ago(s.Trouble.Since, now)
	if s.Trouble.Reason != "" {
		text += " (" + string(s.Trouble.Reason) + ")"
	}
	return text
}

// printTroubles says in full what went wrong last at the sinks that have trouble.
func printTroubles(out io.Writer, sinks []gateway.SinkStatus, now time.Time) {
	for _, s := range sinks {
		t := s.Trouble
		if t == nil {
			continue
		}
		fmt.Fprintf(out, "\n%s: last error %s ago: %s\n", s.Name, ago(t.At, now), clean(t.Error))
		switch {
		case s.State == deliver.StateRetrying:
			fmt.Fprintf(out, "  %d lanes wait for a retry; others are taken\n", t.Lanes)
		case t.HeldUntil.After(now):
			fmt.Fprintf(out, "  what failed is held back for another %s, then one probes\n", age(t.HeldUntil.Sub(now)))
		}
		if s.Owner != "" {
			fmt.Fprintf(out, "  owner: %s\n", clean(s.Owner))
		}
	}
}

func sinksPauseCommand() *cobra.Command {
	var admin adminFlags
	var reason, length string
	cmd := &cobra.Command{
		Use:   "pause NAME",
		Short: "Send nothing more to a sink until it is resumed, also after a restart; what it is owed waits",
		Args:  rangeArgs(1, 1, "the name of one sink"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]string{"reason": reason}
			if cmd.Flags().Changed("for") {
				d, err := parseAge(length)
				if err != nil {
					return usagef("--for: %q is not a duration such as 90m, 2h or 3d", length)
				}
				body["for"] = d.String()
			}
			return sinkCall(cmd, &admin, args[0], "pause", body)
		},
	}
	cmd.Flags().StringVar(&length, "for", "", "end the pause by itself after this time, such as 90m, 2h or 3d")
	admin.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever looks next")
	return cmd
}

func sinksResumeCommand() *cobra.Command {
	var admin adminFlags
	cmd := &cobra.Command{
		Use:   "resume NAME",
		Short: "End a sink's pause, also one that its breaker or its far side made, and try at once what waits for a retry",
		Args:  rangeArgs(1, 1, "the name of one sink"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return sinkCall(cmd, &admin, args[0], "resume", struct{}{})
		},
	}
	admin.add(cmd)
	return cmd
}

// sinkCall does what has no answer but that it was done.
func sinkCall(cmd *cobra.Command, admin *adminFlags, name, verb string, body any) error {
	c, err := admin.client()
	if err != nil {
		return err
	}
	if err := c.post(cmd.Context(), "sinks/"+url.PathEscape(name)+"/"+verb, body, nil); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "sink %s: %sd\n", name, verb)
	return nil
}

// movedAnswer is what came of sinks move.
type movedAnswer struct {
	Moved   uint64 `json:"moved"`
	Skipped uint64 `json:"skipped"`
}

// droppedAnswer is what came of sinks drop.
type droppedAnswer struct {
	Dropped uint64 `json:"dropped"`
}

func sinksMoveCommand() *cobra.Command {
	var admin adminFlags
	var to string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "move NAME --to SINK",
		Short: "Give what a removed sink is owed to another sink; what that one was owed anyway is skipped",
		Args:  rangeArgs(1, 1, "the name of one sink"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usagef("--to is needed")
			}
			c, err := admin.client()
			if err != nil {
				return err
			}
			var answer movedAnswer
			if err := c.post(cmd.Context(), "sinks/"+url.PathEscape(args[0])+"/move", map[string]string{"to": to}, &answer); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d deliveries moved from %s to %s\n", answer.Moved, args[0], to)
			if answer.Skipped > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "%d skipped, which %s was owed anyway\n", answer.Skipped, to)
			}
			return nil
		},
	}
	admin.add(cmd)
	cmd.Flags().StringVar(&to, "to", "", "a configured sink")
	addJSON(cmd, &asJSON)
	return cmd
}

func sinksDropCommand() *cobra.Command {
	var admin adminFlags
	var yes, asJSON bool
	var after uint32
	cmd := &cobra.Command{
		Use:   "drop NAME",
		Short: "Give up what a removed sink is owed; its dead letters stay",
		Args:  rangeArgs(1, 1, "the name of one sink"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, what := make(map[string]any), "that sink "+args[0]+" is owed"
			if cmd.Flags().Changed("after") {
				body["after"], what = after, fmt.Sprintf("%s, but for what came after replay %d was given", what, after)
			}
			c, err := admin.client()
			if err != nil {
				return err
			}
			var known struct{ Sinks []gateway.SinkStatus }
			if err := c.get(cmd.Context(), "sinks", nil, &known); err != nil {
				return err
			}
			// A sink that may not be dropped is refused by the relay, which says why: nothing to ask about.
			i := slices.IndexFunc(known.Sinks, func(s gateway.SinkStatus) bool { return s.Name == args[0] && !s.Configured })
			if i >= 0 {
				question := fmt.Sprintf("give up %d deliveries %s", known.Sinks[i].Pending, what)
				if err := confirm(cmd, yes, question); err != nil {
					return err
				}
			}
			var answer droppedAnswer
			if err := c.post(cmd.Context(), "sinks/"+url.PathEscape(args[0])+"/drop", body, &answer); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d deliveries given up\n", answer.Dropped)
			return nil
		},
	}
	admin.add(cmd)
	cmd.Flags().Uint32Var(&after, "after", 0, "only what this replay --pending has brought to another sink, when it has ended (journal on Kafka)")
	addYes(cmd, &yes)
	addJSON(cmd, &asJSON)
	return cmd
}
