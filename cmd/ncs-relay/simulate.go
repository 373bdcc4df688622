package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"text/tabwriter"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"ncs-relay/relay/simulate"
)

func simulateCommand() *cobra.Command {
	var c simulate.Config
	var secret secretFlags
	var asJSON bool
	var conformance string
	cmd := &cobra.Command{
		Use:   "simulate --url URL | --conformance URL",
		Short: "Play NCS: whole recordings, signed, with copies, resends, disorder, failovers and bad signatures",
		Long: `simulate plays recordings as Agora's notification service would send them, and tallies the answers. It fails if an
answer is wrong: a forged call that was taken, a good one that was refused, an event accepted twice, or an event that
was not acknowledged in four attempts. It ends early when a notification was given up before any was taken: then the
URL or the secret is wrong, or nobody is there. Each run plays recordings of its own. --products plays the documented events of other
products.

--conformance judges any receiver of Agora's notifications instead, whatever it answers beside the status: every documented event,
forged calls, copies, disorder, and what Agora may add. It fails if something fails that a receiver must do.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if (c.URL == "") == (conformance == "") {
				return usagef("one of --url and --conformance is needed")
			}
			if c.Secret, err = secret.read(); err != nil {
				return err
			}
			c.Seed = rand.Int64()
			if conformance != "" {
				c.URL = conformance
				return conform(cmd, c, asJSON)
			}
			if len(c.Products) > 0 && !cmd.Flags().Changed("recordings") {
				c.Recordings = 0
			}
			ctx, cancel := context.WithCancelCause(cmd.Context())
			defer cancel(nil)
			tally, err := simulate.Run(ctx, c, whileTaken(cancel, progressTo(cmd.ErrOrStderr())))
			if err != nil && ctx.Err() == nil { // nothing was begun
				return &usageError{err}
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(tally)
			} else {
				err = printTally(cmd.OutOrStdout(), tally)
			}
			switch {
			case err != nil:
				return err
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case len(tally.Wrong) > 0 || tally.Unacknowledged > 0:
				return errReported
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.URL, "url", "", "where to post")
	f.StringVar(&conformance, "conformance", "", "judge the receiver at this URL")
	f.StringSliceVar(&c.Products, "products", nil, "play the documented events of these products, such as rtc,media_push; no recordings unless --recordings is given")
	f.IntVar(&c.Recordings, "recordings", 100, "recordings to play")
	f.IntVar(&c.Channels, "channels", 0, "sessions of RTC channels to play")
	f.Float64Var(&c.Rate, "rate", 0, "calls a second; 0 = as fast as answers come")
	f.IntVar(&c.Concurrency, "concurrency", 16, "recordings played at the same time")
	f.Float64Var(&c.CopyRate, "copies", 0.1, "share of events that come twice at the same time")
	f.BoolVar(&c.Redundant, "redundant", false, "every event comes twice, as with redundant message notification")
	f.Float64Var(&c.ResendRate, "resends", 0.1, "share of events that come again later")
	f.Float64Var(&c.ShuffleRate, "shuffle", 0, "share of events that come late")
	f.Float64Var(&c.BadSignatureRate, "bad-signatures", 0.05, "share of events for which a forged call comes first")
	f.Float64Var(&c.FailoverRate, "failovers", 0, "share of recordings in which another recorder takes over")
	f.BoolVar(&asJSON, "json", false, "print the tally as JSON")
	secret.add(cmd)
	return cmd
}

// conform prints what a receiver was found to be.
func conform(cmd *cobra.Command, c simulate.Config, asJSON bool) error {
	found, err := simulate.Conform(cmd.Context(), c)
	switch {
	case cmd.Context().Err() != nil:
		return err
	case err != nil:
		return &usageError{err}
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), found)
	} else {
		printConformance(cmd.OutOrStdout(), found)
	}
	if err == nil && !found.OK {
		return errReported
	}
	return err
}

func printConformance(out io.Writer, found simulate.Conformance) {
	failed := map[bool]int{}
	for _, c := range found.Checks {
		weight, verdict := "should", "ok  "
		if c.Must {
			weight = "must  "
		}
		if !c.OK {
			verdict = "FAIL"
			failed[c.Must]++
		}
		fmt.Fprintf(out, "%s  %s  %s\n", verdict, weight, c.Name)
		if !c.OK {
			fmt.Fprintf(out, "      %s\n      do: %s\n", clean(c.Why), c.Hint)
		}
	}
	fmt.Fprintf(out, "%d checks, %d musts and %d shoulds failed\n", len(found.Checks), failed[true], failed[false])
}

var errNotTaken = errors.New("stopped: a notification was given up and none was taken so far; is the URL right, and the secret?")

// whileTaken stops a run in which nothing is taken: with the pauses between attempts it would go on for very long.
func whileTaken(stop context.CancelCauseFunc, next func(simulate.Progress)) func(simulate.Progress) {
	return func(p simulate.Progress) {
		if p.Tally.GivenUp > 0 && p.Tally.Statuses[http.StatusOK] == 0 {
			stop(errNotTaken)
		}
		if next != nil {
			next(p)
		}
	}
}

// progressTo shows a bar on a terminal and nothing elsewhere.
func progressTo(w io.Writer) func(simulate.Progress) {
	if !isTerminal(w) {
		return nil
	}
	var bar *progressbar.ProgressBar
	return func(p simulate.Progress) {
		if bar == nil {
			bar = progressbar.NewOptions(p.Total, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(),
				progressbar.OptionSetDescription("playing"), progressbar.OptionClearOnFinish())
		}
		bar.Describe(fmt.Sprintf("playing, %d calls", p.Tally.Calls))
		_ = bar.Set(p.Done) // it is only a picture
	}
}

func printTally(out io.Writer, t simulate.Tally) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, n int) { fmt.Fprintf(w, "%s\t%d\t\n", name, n) }
	row("played to the end", t.Entities)
	row("events", t.Events)
	row("calls", t.Calls)
	row("first", t.First)
	row("copies", t.Copies)
	row("resends", t.Resends)
	row("retries", t.Retries)
	row("forged", t.Forged)
	for _, status := range slices.Sorted(maps.Keys(t.Statuses)) {
		name := fmt.Sprintf("%d %s", status, http.StatusText(status))
		if status == 0 {
			name = "no answer"
		}
		row(name, t.Statuses[status])
	}
	for _, outcome := range slices.Sorted(maps.Keys(t.Outcomes)) {
		row(outcome, t.Outcomes[outcome])
	}
	row("not acknowledged", t.Unacknowledged)
	for _, what := range slices.Sorted(maps.Keys(t.Wrong)) {
		row("WRONG: "+what, t.Wrong[what])
	}
	fmt.Fprintf(w, "calls/s\t%.0f\t\n", float64(t.Calls)/t.Elapsed.Seconds())
	fmt.Fprintf(w, "answer p50/p99/max\t%v / %v / %v\t\n", t.Latency.P50, t.Latency.P99, t.Latency.Max)
	err := w.Flush()
	for _, f := range t.Failures {
		fmt.Fprintf(out, "%s\n  do: %s\n", clean(f.String()), f.Hint)
	}
	return err
}
