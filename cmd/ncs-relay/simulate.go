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
	cmd := &cobra.Command{
		Use:   "simulate --url URL",
		Short: "Play NCS: whole recordings, signed, with copies, resends, disorder, failovers and bad signatures",
		Long: `simulate plays recordings as Agora's notification service would send them, and tallies the answers. It fails if an
answer is wrong: a forged call that was taken, a good one that was refused, an event accepted twice, or an event that
was not acknowledged in four attempts. It ends early when a notification was given up before any was taken: then the
URL or the secret is wrong, or nobody is there. Each run plays recordings of its own.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if c.URL == "" {
				return usagef("--url is needed")
			}
			if c.Secret, err = secret.read(); err != nil {
				return err
			}
			c.Seed = rand.Int64()
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
	return w.Flush()
}
