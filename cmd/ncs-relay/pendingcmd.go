package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay/gateway"
)

func pendingCommand() *cobra.Command {
	return group("pending", "List, show and skip deliveries that a running relay still owes", pendingListCommand(), pendingShowCommand(), pendingSkipCommand())
}

var eventFields = []string{"source", "product", "event", "entity", "id", "since", "until"}

func pendingListCommand() *cobra.Command {
	var admin adminFlags
	var list listing
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is owed and was tried or is about to be, per sink the oldest first",
		Long: `list shows the deliveries that a sink is owed and that were read from the journal, per sink the oldest first, with what
went wrong and when they are tried again. What waits in the journal behind them is counted by sinks list.`,
		Args: noArgs,
	}
	filter := addFilter(cmd, append(eventFields, "sink")...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, given, err := clientAndFilter(&admin, filter)
		if err != nil {
			return err
		}
		fit := fitting(cmd.OutOrStdout())
		return printList(cmd, &list, c, "pending", "pending", given, "AGE,SINK,EVENT,ENTITY,ATTEMPTS,NEXT,EVENT ID,SAYS,LAST ERROR",
			func(d gateway.Delivery, now time.Time) []any {
				return []any{ago(d.ReceivedAt, now), d.Sink, eventName(d.EventInfo), dash(fit(d.Entity)), d.Attempts,
					until(d.Next, now), d.ID, dash(fit(d.Says)), dash(fit(d.LastError))}
			})
	}
	admin.add(cmd)
	list.add(cmd)
	return cmd
}

func pendingShowCommand() *cobra.Command {
	var admin adminFlags
	var bodyOnly bool
	cmd := &cobra.Command{
		Use:   "show EVENT",
		Short: "Show an event that some sink is still owed, with its body and what was tried",
		Long: `show prints an event, by its id as pending list shows it, with what it says, which sinks are owed it and what was tried, and its
body, byte for byte. It fails if no sink is owed it; inspect shows those too.`,
		Args: rangeArgs(1, 1, "one event id, as pending list shows it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := admin.client()
			if err != nil {
				return err
			}
			found, _, err := inspect(cmd.Context(), c, map[string]string{"id": args[0]}, 1000, true)
			if err != nil {
				return err
			}
			for _, life := range found.Events {
				life.Deliveries = slices.DeleteFunc(life.Deliveries, func(d gateway.DeliveryLife) bool { return d.State != "pending" && d.State != "waiting" })
				if len(life.Deliveries) > 0 {
					return printPending(cmd.OutOrStdout(), life, bodyOnly)
				}
			}
			return fmt.Errorf("no sink is owed the event %s; ncs-relay inspect says what became of it", clean(args[0]))
		},
	}
	admin.add(cmd)
	cmd.Flags().BoolVar(&bodyOnly, "body", false, "print the body only, byte for byte: for ncs-relay route -")
	return cmd
}

func printPending(out io.Writer, life gateway.Life, bodyOnly bool) error {
	if !bodyOnly {
		printEvent(out, life.EventInfo, time.Now())
		printDeliveries(out, life.Deliveries, time.Now())
	}
	_, err := out.Write(life.Bytes())
	if !bodyOnly {
		fmt.Fprintln(out)
	}
	return err
}

// clientAndFilter is how commands with a filter begin.
func clientAndFilter(admin *adminFlags, filter *filterFlags) (*adminClient, map[string]string, error) {
	given, err := filter.given()
	if err != nil {
		return nil, nil, err
	}
	c, err := admin.client()
	return c, given, err
}

// eventName is product.event; quarantined bodies have none.
func eventName(e gateway.EventInfo) string {
	if e.Quarantine != "" {
		return "(quarantined)"
	}
	return e.Product + "." + e.Event
}

func pendingSkipCommand() *cobra.Command {
	b := bulk{perSink: true}
	cmd := &cobra.Command{
		Use:   "skip --sink NAME",
		Short: "Give up deliveries that wait, so that those behind them go on",
		Long: `skip settles deliveries of a sink that wait for a retry, or behind one that does. They are counted as skipped and not
kept as dead letters; replay can still send them while the journal has them. What is being sent at the moment is left.
It shows how many there are and asks first; --yes does not ask.`,
		Args: noArgs,
	}
	b.add(cmd, append(eventFields, "sink")...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return b.run(cmd, "pending/skip", "skipped", func(n int, given map[string]string) string {
			return fmt.Sprintf("skip %d deliveries (%s)", n, describe(given))
		})
	}
	return cmd
}

// bulk is a command that changes everything a filter selects.
type bulk struct {
	admin       adminFlags
	filter      *filterFlags
	perSink     bool // a sink is needed, and more than that
	all         bool
	yes, asJSON bool
}

func (b *bulk) add(cmd *cobra.Command, fields ...string) {
	b.filter = addFilter(cmd, fields...)
	b.admin.add(cmd)
	cmd.Flags().BoolVar(&b.all, "all", false, "everything, without another filter")
	addYes(cmd, &b.yes)
	addJSON(cmd, &b.asJSON)
}

// run counts, asks, and does it.
func (b *bulk) run(cmd *cobra.Command, path, done string, question func(int, map[string]string) string) error {
	c, given, err := b.begin()
	if err != nil {
		return err
	}
	var counted struct{ Matched int }
	if err := c.post(cmd.Context(), path, b.request(given, true), &counted); err != nil {
		return err
	}
	if counted.Matched > 0 {
		if err := confirm(cmd, b.yes, question(counted.Matched, given)); err != nil {
			return err
		}
	}
	var answer map[string]json.RawMessage
	if err := c.post(cmd.Context(), path, b.request(given, false), &answer); err != nil {
		return err
	}
	if b.asJSON {
		return printJSON(cmd.OutOrStdout(), answer)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", answer[done], done)
	return nil
}

// begin sees to it that everything is asked for in words. The relay does too; here it is said in words of the command line.
func (b *bulk) begin() (*adminClient, map[string]string, error) {
	c, given, err := clientAndFilter(&b.admin, b.filter)
	if err != nil {
		return nil, nil, err
	}
	fields := len(given)
	if b.perSink {
		if _, ok := given["sink"]; !ok {
			return nil, nil, usagef("--sink is needed")
		}
		fields--
	}
	switch {
	case fields == 0 && !b.all:
		return nil, nil, usagef("wants a filter, or --all")
	case fields > 0 && b.all:
		return nil, nil, usagef("--all goes with no other filter")
	}
	return c, given, nil
}

func (b *bulk) request(given map[string]string, dryRun bool) map[string]any {
	body := request(given, map[string]any{"dry_run": dryRun})
	if b.all {
		body["all"] = true
	}
	return body
}
