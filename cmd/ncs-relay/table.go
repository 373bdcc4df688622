package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is a page that is made for a terminal before it is shown.
type screen struct {
	bytes.Buffer
	width int
}

// widthOf is how many columns a line may have; 0 = as many as it takes, for what reads a pipe or a file.
func widthOf(out io.Writer) int {
	switch out := out.(type) {
	case *screen:
		return out.width
	case *os.File:
		const usual = 80
		if width, _, err := term.GetSize(int(out.Fd())); err == nil {
			return max(width, usual/2)
		} else if term.IsTerminal(int(out.Fd())) {
			return usual
		}
	}
	return 0
}

// table writes rows in columns below a head.
func table(out io.Writer, head string, rows func(row func(cells ...any))) error {
	return tryTable(out, head, func(row func(cells ...any)) error { rows(row); return nil })
}

// tryTable is table where getting the rows can fail; then it writes nothing. Where a terminal is too narrow for a row it is written in
// several lines, those after the first indented.
func tryTable(out io.Writer, head string, rows func(row func(cells ...any)) error) error {
	all := [][]string{strings.Split(head, ",")}
	err := rows(func(cells ...any) {
		row := make([]string, len(cells))
		for i, cell := range cells {
			row[i] = fmt.Sprint(cell)
		}
		all = append(all, row)
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, layOut(all, widthOf(out)))
	return err
}

// layOut makes lines of rows that are not wider than width, which is 0 for no bound or at least 40.
func layOut(rows [][]string, width int) string {
	for _, gap := range []int{2, 1} {
		if text := inColumns(rows, gap); width == 0 || widest(text) <= width {
			return text
		}
	}
	return folded(rows, width)
}

func inColumns(rows [][]string, gap int) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, gap, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush() // to memory
	return b.String()
}

func widest(text string) (columns int) {
	for line := range strings.Lines(text) {
		columns = max(columns, utf8.RuneCountInString(strings.TrimRight(line, " \n")))
	}
	return columns
}

// folded writes as many columns in a line as there is room for.
func folded(rows [][]string, width int) string {
	const indent = 2
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], min(utf8.RuneCountInString(cell), width-indent))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		at := 0
		for i, cell := range row {
			switch {
			case i == 0:
			case at+2+widths[i] <= width:
				b.WriteString("  ")
				at += 2
			default:
				b.WriteString("\n" + strings.Repeat(" ", indent))
				at = indent
			}
			cell = cut(cell, width-indent)
			b.WriteString(cell + strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(cell))))
			at += widths[i]
		}
		b.WriteByte('\n')
	}
	var trimmed strings.Builder
	for line := range strings.Lines(b.String()) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return trimmed.String()
}
