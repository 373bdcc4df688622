package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/trail"
)

func inspectCommand() *cobra.Command {
	var admin adminFlags
	var limit int
	var asJSON, bodyOnly bool
	cmd := &cobra.Command{
		Use:   "inspect EVENT | --entity E",
		Short: "Show the life of an event, or of all events about an entity: where each went and what went wrong",
		Long: `inspect shows what a running relay still has in its journal about an event, by its id, or about a recording, channel, task or
agent: when it came; for each sink that was owed it, whether it was delivered, or skipped, dropped or moved by an operator, is a dead letter, is
pending (tried, or about to be), or waits to be read; what its payload says, decoded; what each rule says of it today; and each copy that came,
each attempt that was made and each lever that an operator used on it, as far back as the trail in data_dir goes. Where that does not go back to its
arrival, settled stands for what only the trail tells.`,
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
		if bodyOnly && (given["id"] == "" || asJSON) {
			return usagef("--body wants one event id, and cannot be combined with --json")
		}
		found, answer, err := inspect(cmd.Context(), c, given, limit, bodyOnly)
		if err != nil {
			return err
		}
		switch n := len(found.Events); {
		case bodyOnly && n > 0:
			_, err = cmd.OutOrStdout().Write(found.Events[n-1].Bytes())
			return err
		case bodyOnly: // said below
		case asJSON:
			err = printJSON(cmd.OutOrStdout(), answer)
		default:
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
	cmd.Flags().BoolVar(&bodyOnly, "body", false, "print the body only, byte for byte, of an event given by its id: for ncs-relay route -")
	addJSON(cmd, &asJSON)
	return cmd
}

// lives is the answer of inspect.
type lives struct {
	Events []gateway.Life
	More   bool
}

func inspect(ctx context.Context, c *adminClient, given map[string]string, limit int, body bool) (found lives, answer json.RawMessage, err error) {
	query := query(given)
	query.Set("limit", strconv.Itoa(limit))
	if body {
		query.Set("body", "true")
	}
	if err := c.get(ctx, "inspect", query, &answer); err != nil {
		return lives{}, nil, err
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return lives{}, nil, fmt.Errorf("the relay's answer: %w", err)
	}
	return found, answer, nil
}

func printLives(out io.Writer, lives []gateway.Life, now time.Time) {
	for i, l := range lives {
		if i > 0 {
			fmt.Fprintln(out)
		}
		printEvent(out, l.EventInfo, now)
		if len(l.Deliveries) == 0 {
			fmt.Fprintln(out, "  owed to no sink: no rule took it")
		}
		printDeliveries(out, l.Deliveries, now)
		printRouting(out, l.Routing)
		printTrail(out, l.Trail)
	}
}

func printDeliveries(out io.Writer, deliveries []gateway.DeliveryLife, now time.Time) {
	for _, d := range deliveries {
		fmt.Fprintf(out, "  %s: %s", d.Sink, d.State)
		if d.Reason != "" {
			fmt.Fprintf(out, ": %s", clean(d.Reason))
		}
		fmt.Fprintln(out)
		printHistory(out, d.History, now)
	}
}

// printRouting says what each rule makes of an event.
func printRouting(out io.Writer, r *gateway.Routing) {
	if r == nil {
		return
	}
	if r.Changed {
		fmt.Fprintf(out, "  the rules have changed since: today it would go to %s\n", dash(strings.Join(r.Sinks, ", ")))
	}
	for _, rule := range r.Rules {
		why := "applies"
		if !rule.Applies {
			why = "does not apply: " + clean(rule.Why)
		}
		fmt.Fprintf(out, "  routes[%d] to %s %s\n", rule.Rule, strings.Join(rule.To, ", "), why)
	}
}

// printTrail is what happened to an event after it was stored.
func printTrail(out io.Writer, entries []trail.Entry) {
	for _, e := range entries {
		fmt.Fprintf(out, "  %s  ", e.At.UTC().Format("2006-01-02T15:04:05.000Z"))
		switch e.What {
		case trail.Copy:
			fmt.Fprintf(out, "copy at source %s", e.Source)
			if e.Standing == "in_flight" {
				fmt.Fprint(out, ", while the first was being stored")
			}
		case trail.Lever:
			printLever(out, e)
		case trail.Dead:
			fmt.Fprintf(out, "%s: became a dead letter (%s): %s", e.Sink, e.Reason, clean(e.Error))
		default:
			printAttempt(out, e)
		}
		fmt.Fprintln(out)
	}
}

func printAttempt(out io.Writer, e trail.Entry) {
	fmt.Fprintf(out, "%s: attempt %d", e.Sink, e.Number)
	if e.Replay > 0 {
		fmt.Fprintf(out, " of replay %d", e.Replay)
	}
	fmt.Fprintf(out, " %s after %s", e.Outcome, time.Duration(e.Took*float64(time.Second)).Round(time.Microsecond))
	if e.Reason != "" {
		fmt.Fprintf(out, " (%s): %s", e.Reason, clean(e.Error))
	}
}

// printLever says who did what: billing: skip by on-call, count 3, entity=s1
func printLever(out io.Writer, e trail.Entry) {
	if e.Sink != "" {
		fmt.Fprintf(out, "%s: ", e.Sink)
	}
	fmt.Fprint(out, strings.ReplaceAll(e.Action, "_", " "))
	if e.To != "" {
		fmt.Fprintf(out, " to %s", e.To)
	}
	fmt.Fprintf(out, " by %s", e.By)
	if e.Replay > 0 {
		fmt.Fprintf(out, ", replay %d", e.Replay)
	}
	if e.Count > 0 {
		fmt.Fprintf(out, ", count %d", e.Count)
	}
	var filter relay.Filter
	if len(e.Filter) > 0 && json.Unmarshal(e.Filter, &filter) == nil {
		fmt.Fprintf(out, ", %s", clean(filter.String()))
	}
	for _, text := range []string{e.Reason, e.Error} {
		if text != "" {
			fmt.Fprintf(out, ": %s", clean(text))
		}
	}
}

// printEvent is the head of what is said of an event.
func printEvent(out io.Writer, e gateway.EventInfo, now time.Time) {
	fmt.Fprintf(out, "%s  %s\n", e.ID, eventName(e))
	if e.Entity != "" {
		fmt.Fprintf(out, "  entity %s\n", clean(e.Entity))
	}
	fmt.Fprintf(out, "  received %s (%s ago) at source %s, position %s, %s\n", e.ReceivedAt.UTC().Format(time.RFC3339Nano), ago(e.ReceivedAt, now),
		e.Source, e.Position, size(int64(e.Size)))
	if e.Quarantine != "" {
		fmt.Fprintf(out, "  quarantined: %s\n", clean(e.Quarantine))
	}
	if len(e.Facts) == 0 && e.Says != "" {
		fmt.Fprintf(out, "  says %s\n", clean(e.Says))
	}
	printFacts(out, "says", e.Facts)
}

// printFacts is what the payload of an event states, with what its codes mean.
func printFacts(out io.Writer, head string, facts []ncs.Fact) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		value := f.Value
		if f.Meaning != "" {
			value += " = " + f.Meaning
		}
		fmt.Fprintf(w, "  %s %s\t%s\n", head, clean(f.Field), clean(value))
	}
	w.Flush()
}

// printHistory is what was tried for a delivery.
func printHistory(out io.Writer, h gateway.History, now time.Time) {
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
