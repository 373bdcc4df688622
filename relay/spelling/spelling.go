// Package spelling finds the name that somebody who wrote an unknown one probably meant.
package spelling

import "fmt"

// Hint returns a hint with the known name that is nearest to what was written, or "" when none is near.
func Hint(written string, known []string) string {
	if name := Nearest(written, known); name != "" {
		return fmt.Sprintf("did you mean %q?", name)
	}
	return ""
}

// Nearest returns the known name that takes the fewest edits to reach, if they are few for its length; "" when none does.
func Nearest(written string, known []string) string {
	best, fewest := "", 4
	for _, name := range known {
		if n := edits(written, name); n < fewest && n <= max(1, len(name)/3) {
			best, fewest = name, n
		}
	}
	return best
}

// edits counts the insertions, deletions, replacements and swaps of neighbours that make b of a. Names of very
// different length are not compared: the count could only be large.
func edits(a, b string) int {
	if len(a) > len(b)+4 || len(b) > len(a)+4 {
		return len(a) + len(b)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
