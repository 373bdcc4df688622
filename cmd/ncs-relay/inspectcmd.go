package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay"
)

func inspectCommand() *cobra.Command {
	var admin adminFlags
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect EVENT | --entity E",
		Short: "Show the life of an event, or of all events about an entity: where each went and what went wrong",
		Long: `inspect shows what a running relay still has in its journal about an event, by its id, or about a recording, channel, task or
agent: when it came, and for each sink that was owed it, whether it was settled (delivered, or skipped by an operator), is a dead
letter, is pending (tried, or about to be), or waits to be read.`,
		Args: rangeArgs(0, 1, "one event id, or --entity"),
	}
	filter := addFilter(cmd, "entity", "source", "product", "event", "since", "until")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, given, err := clientAndFilter(&admin, filter)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			given["id"] = args[0]
		}
		if _, ok := given["entity"]; !ok && len(args) == 0 {
			return usagef("wants one event id, or --entity")
		}
		query := query(given)
		query.Set("limit", strconv.Itoa(limit))
		var answer json.RawMessage
		if err := c.get(cmd.Context(), "inspect", query, &answer); err != nil {
			return err
		}
		var found struct {
			Events []relay.Life
			More   bool
		}
		if err := json.Unmarshal(answer, &found); err != nil {
			return fmt.Errorf("the relay's answer: %w", err)
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), answer)
		} else {
			printLives(cmd.OutOrStdout(), found.Events, time.Now())
		}
		switch {
		case err != nil:
			return err
		case len(found.Events) == 0:
			fmt.Fprintf(cmd.ErrOrStderr(), "the journal has no event with %s: it never came, or is older than journal.retention\n", clean(describe(given)))
			return errReported
		case found.More:
			fmt.Fprintf(cmd.ErrOrStderr(), "there are more than %d: --limit, --since or --until\n", limit)
		}
		return nil
	}
	admin.add(cmd)
	cmd.Flags().IntVar(&limit, "limit", 50, "how many events at most (1000)")
	addJSON(cmd, &asJSON)
	return cmd
}

func printLives(out io.Writer, lives []relay.Life, now time.Time) {
	for i, l := range lives {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printEvent(out, l.EventInfo, now)
		if len(l.Deliveries) == 0 {
			fmt.Fprintln(out, "  owed to no sink: no rule took it")
		}
		for _, d := range l.Deliveries {
			fmt.Fprintf(out, "  %s: %s", d.Sink, d.State)
			if d.Reason != "" {
				fmt.Fprintf(out, ": %s", clean(d.Reason))
			}
			fmt.Fprintln(out)
			printHistory(out, d.History, now)
		}
	}
}

// printEvent is the head of what is said of an event.
func printEvent(out io.Writer, e relay.EventInfo, now time.Time) {
	fmt.Fprintf(out, "%s  %s\n", e.ID, eventName(e))
	if e.Entity != "" {
		fmt.Fprintf(out, "  entity %s\n", clean(e.Entity))
	}
	fmt.Fprintf(out, "  received %s (%s ago) at source %s, position %d, %s\n", e.ReceivedAt.UTC().Format(time.RFC3339Nano), ago(e.ReceivedAt, now),
		e.Source, e.Position, size(int64(e.Size)))
	if e.Quarantine != "" {
		fmt.Fprintf(out, "  quarantined: %s\n", clean(e.Quarantine))
	}
}

// printHistory is what was tried for a delivery.
func printHistory(out io.Writer, h relay.History, now time.Time) {
	if h.Attempts == 0 {
		return
	}
	fmt.Fprintf(out, "    attempts: %d", h.Attempts)
	if !h.Next.IsZero() {
		fmt.Fprintf(out, ", next %s", until(h.Next, now))
	}
	fmt.Fprintln(out)
	if h.FirstError != "" {
		fmt.Fprintf(out, "    first error %s ago: %s\n", ago(h.FirstFailed, now), clean(h.FirstError))
	}
	if h.LastError != "" && h.Attempts > 1 {
		fmt.Fprintf(out, "    last error %s ago: %s\n", ago(h.LastFailed, now), clean(h.LastError))
	}
}
