// Package problem keeps the words of a report apart from the values in them. Whoever prints a report can then replace a value
// that must not be seen, and no word is taken for one.
package problem

import (
	"errors"
	"fmt"
	"strings"
)

// Report takes one thing that is wrong with a configuration. Its path is relative to what is checked, "" being that itself. problem
// says what is wrong, hint what to do about it, "" when that is obvious. What comes from the configuration stands in neither: the
// values fill the verbs of problem, and then those of hint, as in fmt. An error among them has its values apart if Errorf made it.
type Report func(path, problem, hint string, values ...any)

// Text returns problem and hint with each value as show returns it. A nil show leaves them as they are.
func Text(show func(any) any, problem, hint string, values ...any) (string, string) {
	const between = "\x00"
	problem, hint, _ = strings.Cut(sprintf(show, problem+between+hint, values), between)
	return problem, hint
}

// Errorf is fmt.Errorf for an error that Text can print with its values replaced.
func Errorf(format string, values ...any) error {
	return &worded{error: fmt.Errorf(format, values...), format: strings.ReplaceAll(format, "%w", "%v"), values: values}
}

type worded struct {
	error
	format string
	values []any
}

func (w *worded) Unwrap() error { return errors.Unwrap(w.error) }

func sprintf(show func(any) any, format string, values []any) string {
	if len(values) == 0 {
		return format
	}
	shown := make([]any, len(values))
	for i, v := range values {
		switch w, ok := v.(*worded); {
		case ok:
			shown[i] = sprintf(show, w.format, w.values)
		case show != nil:
			shown[i] = show(v)
		default:
			shown[i] = v
		}
	}
	return fmt.Sprintf(format, shown...)
}

// In returns a Report for what is at path.
func (r Report) In(path string) Report {
	return func(relative, problem, hint string, values ...any) {
		r(strings.TrimSuffix(path+"."+relative, "."), problem, hint, values...)
	}
}

// Collect returns all that check reports as one error, nil if that is nothing. Its values are shown.
func Collect(check func(Report)) error {
	var all []error
	check(func(path, problem, hint string, values ...any) {
		problem, _ = Text(nil, problem, hint, values...)
		all = append(all, fmt.Errorf("%s: %s", path, problem))
	})
	return errors.Join(all...)
}
