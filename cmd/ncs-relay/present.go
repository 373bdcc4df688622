package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// clean makes one line of a text from outside, without what would command the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// short is clean, and cut to fit into a table.
func short(s string) string { return cut(clean(s), 78) }

// cut bounds a text to so many characters.
func cut(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return s
}

// fitting is short for a terminal. Elsewhere, in a pipe or a file, nothing is cut.
func fitting(out io.Writer) func(string) string {
	if widthOf(out) > 0 {
		return short
	}
	return clean
}

// dash stands for what is not there.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is a duration for people: 12s, 3m12s, 5h7m, 2d3h.
func age(d time.Duration) string {
	d = max(0, d).Truncate(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// ago is how old a moment is.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return age(now.Sub(t))
}

// until is how far off a moment is.
func until(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Sub(now) < time.Second:
		return "now"
	}
	return "in " + age(t.Sub(now))
}

// size is a number of bytes for people.
func size(bytes int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}

// printJSON writes one document.
func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// confirm asks before what cannot be taken back. Nobody there to ask, it wants --yes.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return usagef("would %s; --yes does it", question)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s? [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err == nil && strings.EqualFold(strings.TrimSpace(answer), "y") {
		return nil
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "nothing was done")
	return errReported
}

func addYes(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask")
}

func addJSON(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// group makes a command that has others below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}

// listing is a list of the API, page by page.
type listing struct {
	limit  int
	all    bool
	asJSON bool
}

func (l *listing) add(cmd *cobra.Command) {
	cmd.Flags().IntVar(&l.limit, "limit", 50, "how many at most")
	cmd.Flags().BoolVar(&l.all, "all", false, "all there are")
	cmd.Flags().BoolVar(&l.asJSON, "json", false, "print JSON, one object a line")
}

// pageSize is the API's bound for one page.
const pageSize = 1000

// each calls fn with the items under a name in the answers, until there are enough. more says that there are others.
func (l *listing) each(ctx context.Context, c *adminClient, path, name string, query url.Values, fn func(json.RawMessage) error) (more bool, err error) {
	if l.limit < 1 {
		return false, usagef("--limit: %d is not above 0", l.limit)
	}
	for left := l.limit; ; {
		page := pageSize
		if !l.all {
			page = min(left, pageSize)
		}
		query.Set("limit", strconv.Itoa(page))
		var answer map[string]json.RawMessage
		if err := c.get(ctx, path, query, &answer); err != nil {
			return false, err
		}
		var items []json.RawMessage
		if err := json.Unmarshal(answer[name], &items); err != nil {
			return false, fmt.Errorf("the relay's list: %w", err)
		}
		for _, item := range items {
			if err := fn(item); err != nil {
				return false, err
			}
		}
		next := ""
		if raw, ok := answer["next"]; ok {
			if err := json.Unmarshal(raw, &next); err != nil {
				return false, fmt.Errorf("the relay's list: %w", err)
			}
		}
		left -= len(items)
		if next == "" || !l.all && left <= 0 {
			return next != "", nil
		}
		query.Set("cursor", next)
	}
}

// printList writes a list: as lines of JSON, or as a table with a row for each item.
func printList[T any](cmd *cobra.Command, l *listing, c *adminClient, path, name string, given map[string]string, head string, row func(T, time.Time) []any) error {
	out, now := cmd.OutOrStdout(), time.Now()
	var more bool
	var err error
	if l.asJSON {
		more, err = l.each(cmd.Context(), c, path, name, query(given), func(item json.RawMessage) error {
			_, err := fmt.Fprintf(out, "%s\n", item)
			return err
		})
	} else {
		err = tryTable(out, head, func(write func(...any)) (err error) {
			more, err = l.each(cmd.Context(), c, path, name, query(given), func(item json.RawMessage) error {
				var v T
				if err := json.Unmarshal(item, &v); err != nil {
					return fmt.Errorf("the relay's list: %w", err)
				}
				write(row(v, now)...)
				return nil
			})
			return err
		})
	}
	if err == nil && more {
		fmt.Fprintf(cmd.ErrOrStderr(), "there are more than %d: --limit or --all\n", l.limit)
	}
	return err
}
