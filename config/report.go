package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Severity reports whether a configuration with a problem can be used.
type Severity int

// Severities of problems.
const (
	Error   Severity = iota // the configuration cannot be used
	Warning                 // legal, and probably not meant
	Note                    // worth knowing, and often meant
)

func (s Severity) String() string { return [...]string{"error", "warning", "note"}[s] }

// Problem is one mistake in a file. It never contains a secret nor the value of a variable.
type Problem struct {
	File     string // "" = that of the report
	Line     int    // from 1; 0 = the problem has no place in the file
	Column   int    // from 1, in characters
	Path     string // such as sinks[2].http.url; "" = the whole file
	Message  string
	Hint     string // what to do about it; "" = obvious
	Severity Severity
}

func (p Problem) format(file string) string {
	var b strings.Builder
	b.WriteString(cmp.Or(p.File, file))
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Severity != Error {
		b.WriteString(p.Severity.String() + ": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Report is everything found in one file, in the order of the file: its errors, or, when there is none, warnings and
// notes.
type Report struct {
	File     string // as it was named by the caller
	Problems []Problem
}

// Err is nil when there is no error; otherwise its text is that of the report.
func (r *Report) Err() error {
	if r.Count(Error) == 0 {
		return nil
	}
	return errors.New(r.String())
}

// Count tells how many problems of a severity there are.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, p := range r.Problems {
		if p.Severity == s {
			n++
		}
	}
	return n
}

// String has a line for every problem, such as
//
//	relay.yaml:12:5: sinks[2].http.url: scheme "ftp" is not supported (use http or https)
func (r *Report) String() string {
	lines := make([]string, len(r.Problems))
	for i, p := range r.Problems {
		lines[i] = p.format(r.File)
	}
	return strings.Join(lines, "\n")
}

// maxProblems bounds a report to what somebody may read. More take a file of another kind.
const maxProblems = 100

func (r *Report) add(p Problem) { r.Problems = append(r.Problems, p) }

// finish puts the problems in order. In a file with errors only those are left: warnings often follow from them.
func (r *Report) finish(data []byte) {
	severity := Warning
	if r.Count(Error) > 0 {
		severity = Error
		r.Problems = slices.DeleteFunc(r.Problems, func(p Problem) bool { return p.Severity != Error })
	}
	slices.SortStableFunc(r.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(r.Problems) - maxProblems; more > 0 {
		r.Problems = append(r.Problems[:maxProblems], Problem{Message: fmt.Sprintf("and %d more", more), Severity: severity})
	}
	r.clamp(data)
}

// clamp moves problems that are outside of the file, where the YAML parser now and then places a token, to the nearest
// place in it.
func (r *Report) clamp(data []byte) {
	lines := bytes.Split(data, []byte("\n"))
	for i := range r.Problems {
		p := &r.Problems[i]
		if p.File != "" { // done there
			continue
		}
		p.Line = min(p.Line, len(lines))
		if p.Line > 0 {
			p.Column = min(p.Column, utf8.RuneCount(lines[p.Line-1])+1)
		}
	}
}
