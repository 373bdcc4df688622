package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay/gateway"
)

func statusCommand() *cobra.Command {
	var admin adminFlags
	var asJSON, watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running relay received and what each sink is owed",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := admin.client()
			if err != nil {
				return err
			}
			switch {
			case watch && asJSON:
				return usagef("--watch cannot be combined with --json")
			case watch && interval < 100*time.Millisecond:
				return usagef("--interval: %v is below 100ms", interval)
			case watch:
				return watchStatus(cmd, c, interval)
			}
			if asJSON {
				var answer json.RawMessage
				if err := c.get(cmd.Context(), "status", nil, &answer); err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), answer)
			}
			return showStatus(cmd.Context(), cmd.OutOrStdout(), c)
		},
	}
	admin.add(cmd)
	addJSON(cmd, &asJSON)
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again and again, until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "how often --watch looks")
	return cmd
}

func showStatus(ctx context.Context, out io.Writer, c *adminClient) error {
	var s status
	if err := c.get(ctx, "status", nil, &s); err != nil {
		return err
	}
	return printStatus(out, &s, time.Now())
}

// watchPatience is longer than a relay waits for the others whose part of the status it asks for.
const watchPatience = 20 * time.Second

// watchStatus shows the status until it is interrupted: in place on a terminal, one below the other elsewhere. A relay that does not
// answer any more is waited for: somebody may watch a restart.
func watchStatus(cmd *cobra.Command, c *adminClient, interval time.Duration) error {
	const home, below = "\x1b[H\x1b[2J", "\x1b[J"
	tick := time.NewTicker(interval)
	defer tick.Stop()
	c.missing.out = io.Discard // the page says it
	for first := true; ; first = false {
		page := screen{width: widthOf(cmd.OutOrStdout())} // whole, so that it does not flicker
		ctx, cancel := context.WithTimeout(cmd.Context(), max(interval, watchPatience))
		err := showStatus(ctx, &page, c)
		cancel()
		if cmd.Context().Err() != nil {
			return nil
		}
		if err != nil && first {
			return err
		}
		if err != nil {
			fmt.Fprintf(&page, "%s\n", err)
		}
		if isTerminal(cmd.OutOrStdout()) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s%s%s", home, page.String(), below)
		} else {
			fmt.Fprintln(cmd.OutOrStdout(), page.String())
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

func printStatus(out io.Writer, s *status, now time.Time) error {
	fmt.Fprintf(out, "ncs-relay %s, configuration %d, loaded %s ago\n", clean(s.Version), s.Config.Generation, ago(s.Config.LoadedAt, now))
	if s.Config.Error != "" {
		fmt.Fprintf(out, "THE NEW CONFIGURATION IS NOT IN USE: %s\n", clean(s.Config.Error))
	}
	for _, key := range s.Config.NeedsRestart {
		fmt.Fprintf(out, "needs a restart: %s\n", clean(key))
	}
	if s.Journal.Error != "" {
		fmt.Fprintf(out, "NOTIFICATIONS CANNOT BE STORED: %s\n", clean(s.Journal.Error))
	}
	switch {
	case len(s.Replicas) > 0:
		fmt.Fprintf(out, "journal on Kafka, shared by %d replicas; %d events known to the one that was asked\n", len(s.Replicas), s.DedupKeys)
	case len(s.Unanswered) > 0:
		fmt.Fprintf(out, "journal on Kafka; %d events known\n", s.DedupKeys)
	default:
		fmt.Fprintf(out, "journal %s in %d segments, %s free; %d events known\n", size(s.Journal.Bytes), s.Journal.Segments, size(s.Journal.Free), s.DedupKeys)
	}
	if s.Unjudged > 0 {
		fmt.Fprintf(out, "%d notifications are stored and not yet judged: what sinks are owed of them is not counted below\n", s.Unjudged)
	}
	if s.Unsure != "" {
		fmt.Fprintf(out, "MORE MAY BE STORED AND NOT JUDGED: %s\n", clean(s.Unsure))
	}
	if s.Journal.Damaged > 0 {
		fmt.Fprintf(out, "THE JOURNAL IS DAMAGED: %d places, %d records lost\n", s.Journal.Damaged, s.Journal.LostRecords)
	}
	if err := printReplicas(out, s); err != nil {
		return err
	}
	fmt.Fprintln(out)
	err := table(out, "SOURCE,RECEIVED,ACCEPTED,DUPLICATES,TESTS,QUARANTINED,REJECTED,UNAVAILABLE,IN FLIGHT", func(row func(...any)) {
		for _, a := range s.Sources {
			row(a.Name, a.Received, a.Accepted, a.Duplicates, a.Tests, a.Quarantined, a.Rejected, a.Unavailable, a.InFlight)
		}
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	err = table(out, "SINK,OWED,DELIVERED,DEAD,SKIPPED,DROPPED,PENDING,OLDEST,DEAD LETTERS,STATE", func(row func(...any)) {
		for _, a := range s.Sinks {
			row(a.Name, a.Owed, a.Delivered, a.Dead, a.Skipped, a.Dropped, a.Pending, ago(a.Oldest, now), a.DeadLetters, stateOf(a, now))
		}
	})
	printTroubles(out, s.Sinks, now)
	if err != nil || !slices.ContainsFunc(s.Sinks, func(s gateway.SinkStatus) bool { return len(s.Errors) > 0 }) {
		return err
	}
	return printErrorGroups(out, s.Sinks, now)
}

// printErrorGroups shows what failed of late, a line for each kind of event and reason.
func printErrorGroups(out io.Writer, sinks []gateway.SinkStatus, now time.Time) error {
	fmt.Fprintln(out)
	fit := fitting(out)
	return table(out, "FAILED,SINK,EVENT,REASON,SINCE,LAST,LAST ERROR", func(row func(...any)) {
		for _, s := range sinks {
			for _, g := range s.Errors {
				row(g.Failed, s.Name, g.Product+"."+g.Event, g.Reason, ago(g.First, now), ago(g.Last, now), fit(g.Error))
			}
		}
	})
}

// printReplicas shows the relays that share the journal, and what the accounts are without.
func printReplicas(out io.Writer, s *status) error {
	for _, u := range s.Unanswered {
		fmt.Fprintf(out, "WITHOUT %s\n", missingPart(u))
	}
	if len(s.Replicas) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	hashes := make(map[string]bool)
	err := tryTable(out, "REPLICA,ADMIN,SHARDS,VERSION,CONFIGURATION,JOURNAL", func(row func(...any)) error {
		for _, r := range s.Replicas {
			if r.Status == nil {
				row(clean(r.Name), dash(clean(r.Address)), numbers(r.Shards), "?", "?", "does not answer")
				continue
			}
			var own status
			if err := json.Unmarshal(r.Status, &own); err != nil {
				return fmt.Errorf("what replica %s says of itself: %w", clean(r.Name), err)
			}
			hashes[own.Config.Hash] = true
			row(clean(r.Name), dash(clean(r.Address)), numbers(r.Shards), clean(own.Version),
				fmt.Sprintf("%d (%s)", own.Config.Generation, dash(clean(own.Config.Hash))), cmp.Or(clean(own.Journal.Error), "ok"))
		}
		return nil
	})
	if err == nil && len(hashes) > 1 {
		fmt.Fprintln(out, "THE CONFIGURATIONS DIFFER: what becomes of a notification depends on who takes it; ncs-relay config show on each")
	}
	return err
}
