package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
)

// progressInterval is how often --wait looks.
const progressInterval = 500 * time.Millisecond

func replayCommand() *cobra.Command {
	var r replayRun
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Deliver events again that a running relay still has in its journal",
		Long: `replay delivers again what was settled and is still in the journal (journal.retention), to the sinks that were owed it,
or to another one with --to. With --pending it brings what a sink is owed to another sink, for a journal on Kafka, where sinks move is not
offered; give it up with sinks drop --after when that has ended. Deliveries of a replay are in order, and marked: header Ncs-Relay-Replay and an Idempotency-Key
of their own, or Kafka header ncs-replay. Live deliveries go on beside them. A replay goes on after a restart.
It shows how many there are and asks first; --yes does not ask.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd) },
	}
	r.add(cmd, letterFields...)
	cmd.Flags().BoolVar(&r.deadLetters, "dead-letters", false, "only dead letters, not what was delivered")
	cmd.Flags().BoolVar(&r.pending, "pending", false, "not what was delivered, but what --sink is owed and --to is not")
	cmd.AddCommand(replayListCommand(), replayCancelCommand())
	return cmd
}

// replayRun is a command that starts a replay.
type replayRun struct {
	bulk
	deadLetters  bool
	pending      bool
	to           string
	rate         float64
	dryRun, wait bool
}

func (r *replayRun) add(cmd *cobra.Command, fields ...string) {
	r.bulk.add(cmd, fields...)
	cmd.Flags().StringVar(&r.to, "to", "", "another sink than those that were owed the events")
	cmd.Flags().Float64Var(&r.rate, "rate", 0, "events a second at most (default: as fast as they are taken)")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "only count")
	cmd.Flags().BoolVar(&r.wait, "wait", false, "wait until it has ended, and fail if not everything was taken")
}

func (r *replayRun) body(cmd *cobra.Command, given map[string]string, dryRun bool) map[string]any {
	body := r.request(given, dryRun)
	body["dead_letters"] = r.deadLetters
	if r.pending {
		body["pending"] = true
	}
	if cmd.Flags().Changed("to") {
		body["to"] = r.to
	}
	if cmd.Flags().Changed("rate") {
		body["rate"] = r.rate
	}
	return body
}

// run counts, asks, starts the replay, and waits for it if asked to.
func (r *replayRun) run(cmd *cobra.Command) error {
	c, given, err := r.begin()
	if err != nil {
		return err
	}
	if r.pending && (given["sink"] == "" || r.to == "" || r.deadLetters) {
		return usagef("--pending needs --sink and --to, and cannot be combined with --dead-letters")
	}
	verb := "deliver %d events again (%s) to %s"
	if r.pending {
		verb = "deliver %d events that are owed (%s) to %s"
	}
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	var counted, started gateway.ReplayResult
	if err := c.post(ctx, "replays", r.body(cmd, given, true), &counted); err != nil {
		return err
	}
	total := 0
	for _, n := range counted.Matched {
		total += n
	}
	if r.dryRun || total == 0 {
		if r.asJSON {
			return printJSON(out, counted)
		}
		fmt.Fprintf(out, "%d events: %s\n", total, perSink(counted.Matched))
		return nil
	}
	if err := confirm(cmd, r.yes, fmt.Sprintf(verb, total, describe(given), perSink(counted.Matched))); err != nil {
		return err
	}
	if err := c.post(ctx, "replays", r.body(cmd, given, false), &started); err != nil {
		return err
	}
	if r.wait {
		if started.Replays, err = awaitReplays(ctx, c, started, progressLine(cmd.ErrOrStderr())); err != nil {
			return err
		}
	}
	if r.asJSON {
		err = printJSON(out, started)
	} else {
		printReplays(out, started, r.wait)
	}
	if err == nil && r.wait && slices.ContainsFunc(started.Replays, func(s gateway.ReplayStatus) bool { return s.Delivered < s.Matched || s.Skipped > 0 }) {
		return errReported
	}
	return err
}

// perSink is a count for people: billing 12, archive 3.
func perSink(matched map[string]int) string {
	var parts []string
	for _, sink := range slices.Sorted(maps.Keys(matched)) {
		parts = append(parts, fmt.Sprintf("%s %d", sink, matched[sink]))
	}
	return dash(strings.Join(parts, ", "))
}

func printReplays(out io.Writer, result gateway.ReplayResult, ended bool) {
	if n, ok := result.Matched[relay.Unroutable]; ok {
		fmt.Fprintf(out, "%d of %d quarantined bodies were understood and routed\n", result.Routed, n)
	}
	for _, s := range result.Replays {
		if ended {
			fmt.Fprintf(out, "replay %d to %s: %d delivered, %d failed, %d skipped\n", s.ID, s.Sink, s.Delivered, s.Failed, s.Skipped)
		} else {
			fmt.Fprintf(out, "replay %d to %s: %d events; ncs-relay replay list shows how far it is\n", s.ID, s.Sink, result.Matched[s.Sink])
		}
	}
}

// progressLine shows progress to people only.
func progressLine(w io.Writer) func(string) {
	if !isTerminal(w) {
		return func(string) {}
	}
	return func(s string) { fmt.Fprintf(w, "\r\x1b[K%s", s) }
}

// awaitReplays waits until the replays have ended, and gives how they did.
func awaitReplays(ctx context.Context, c *adminClient, started gateway.ReplayResult, progress func(string)) ([]gateway.ReplayStatus, error) {
	defer progress("")
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	latest := slices.Clone(started.Replays)
	for {
		var now struct{ Replays []gateway.ReplayStatus }
		if err := c.get(ctx, "replays", nil, &now); err != nil {
			return nil, err
		}
		running := false
		var lines []string
		for i, s := range latest {
			j := slices.IndexFunc(now.Replays, func(n gateway.ReplayStatus) bool { return n.ID == s.ID })
			if j < 0 {
				return nil, fmt.Errorf("replay %d is not listed any more; its end was missed", s.ID)
			}
			latest[i] = now.Replays[j]
			running = running || !latest[i].Finished
			lines = append(lines, fmt.Sprintf("%s %d of %d", s.Sink, latest[i].Delivered+latest[i].Failed, started.Matched[s.Sink]))
		}
		if !running {
			return latest, nil
		}
		progress(strings.Join(lines, ", "))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w; the replay goes on: ncs-relay replay list", ctx.Err())
		}
	}
}

func replayListCommand() *cobra.Command {
	var admin adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the replays that run, and the newest that ended",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := admin.client()
			if err != nil {
				return err
			}
			var answer struct{ Replays []json.RawMessage }
			if err := c.get(cmd.Context(), "replays", nil, &answer); err != nil {
				return err
			}
			if asJSON {
				for _, r := range answer.Replays {
					fmt.Fprintf(cmd.OutOrStdout(), "%s\n", r)
				}
				return nil
			}
			replays := make([]gateway.ReplayStatus, len(answer.Replays))
			for i, r := range answer.Replays {
				if err := json.Unmarshal(r, &replays[i]); err != nil {
					return fmt.Errorf("the relay's list: %w", err)
				}
			}
			return printReplayTable(cmd.OutOrStdout(), replays, time.Now())
		},
	}
	admin.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return cmd
}

func printReplayTable(out io.Writer, replays []gateway.ReplayStatus, now time.Time) error {
	return table(out, "REPLAY,SINK,STARTED,STATE,FOUND,DELIVERED,FAILED,SKIPPED,WHAT", func(row func(...any)) {
		for _, r := range replays {
			state, what := "running", "events"
			if r.Finished {
				state = "ended"
			}
			switch {
			case r.DeadLetters:
				what = "dead letters"
			case r.OwedOnly:
				what = "what is owed"
			}
			row(r.ID, r.Sink, ago(r.CreatedAt, now)+" ago", state, r.Matched, r.Delivered, r.Failed, r.Skipped, what+", "+describeFilter(r.Filter))
		}
	})
}

// describeFilter is describe for a filter that the relay gives.
func describeFilter(f relay.Filter) string {
	if f == (relay.Filter{}) {
		return "everything"
	}
	return clean(f.String())
}

func replayCancelCommand() *cobra.Command {
	var admin adminFlags
	cmd := &cobra.Command{
		Use:   "cancel REPLAY",
		Short: "End a replay; what it delivered stays delivered",
		Args:  rangeArgs(1, 1, "the number of one replay"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := strconv.ParseUint(args[0], 10, 32); err != nil {
				return usagef("%q is not the number of a replay", args[0])
			}
			c, err := admin.client()
			if err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodDelete, "replays/"+args[0], nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "replay %s cancelled\n", args[0])
			return nil
		},
	}
	admin.add(cmd)
	return cmd
}
