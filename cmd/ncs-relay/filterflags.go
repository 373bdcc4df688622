package main

import (
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// filterHelp are the fields of a filter. The API checks what they hold.
var filterHelp = map[string]string{
	"sink":    "only of this sink",
	"source":  "only from this source",
	"product": "only of this product, such as cloud_recording",
	"event":   "only this event: uploaded, cloud_recording.uploaded, or its number with --product",
	"entity":  "only about this recording, channel, task or agent",
	"id":      "only the event with this id",
	"reason":  "only with this text in the reason",
	"since":   "only received since: 2h, 3d, or a time such as 2006-01-02T15:04:05Z",
	"until":   "only received before: as --since",
}

// filterFlags are the filter of a command.
type filterFlags struct {
	cmd    *cobra.Command
	values map[string]*string
}

// addFilter gives a command a flag for each field.
func addFilter(cmd *cobra.Command, fields ...string) *filterFlags {
	f := &filterFlags{cmd, make(map[string]*string, len(fields))}
	for _, field := range fields {
		f.values[field] = cmd.Flags().String(field, "", filterHelp[field])
	}
	return f
}

// given are the fields on the command line. One that is empty is among them, and the relay refuses it: an unset variable
// of a script must not select everything.
func (f *filterFlags) given() (map[string]string, error) {
	given := make(map[string]string)
	for field, value := range f.values {
		if !f.cmd.Flags().Changed(field) {
			continue
		}
		given[field] = *value
		if (field == "since" || field == "until") && *value != "" {
			at, err := parseMoment(*value, time.Now())
			if err != nil {
				return nil, usagef("--%s: %q is neither a time such as 2006-01-02T15:04:05Z nor an age such as 2h or 3d", field, *value)
			}
			given[field] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	return given, nil
}

// parseMoment reads a time, or how long ago it was.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if age, err := parseAge(s); err == nil {
		return now.Add(-age), nil
	}
	return time.Parse(time.RFC3339, s)
}

// parseAge reads a duration that is not negative; besides what Go reads, 3d.
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	age, err := time.ParseDuration(s)
	if err == nil && age < 0 {
		err = errors.New("negative")
	}
	return age, err
}

// describe is a filter for people.
func describe(given map[string]string) string {
	if len(given) == 0 {
		return "everything"
	}
	var parts []string
	for _, field := range slices.Sorted(maps.Keys(given)) {
		parts = append(parts, field+"="+given[field])
	}
	return strings.Join(parts, " ")
}

// query is a filter as parameters of a list.
func query(given map[string]string) url.Values {
	values := make(url.Values)
	for field, value := range given {
		values.Set(field, value)
	}
	return values
}

// request is a filter as the body of a change, with other members.
func request(given map[string]string, others map[string]any) map[string]any {
	body := make(map[string]any)
	for field, value := range given {
		body[field] = value
	}
	maps.Copy(body, others)
	return body
}
