package appfile

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// report collects the mistakes of one file.
type report struct {
	file   string
	errors spillway.FieldErrors
}

// add notes a mistake in a value and marks the value, so that nothing is concluded from it. A nil
// value is the file as a whole.
func (r *report) add(n *node, path, problem, hint string) {
	e := spillway.FieldError{File: r.file, Path: path, Problem: problem, Hint: hint}
	if n != nil {
		n.bad = true
		e.Line, e.Column = n.line, n.column
	}
	r.errors = append(r.errors, e)
}

// err gives the mistakes in the order of the text, each once; nil when there is none. An anchor that
// is used twice would otherwise report its mistakes twice.
func (r *report) err() error {
	if len(r.errors) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errors, func(a, b spillway.FieldError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(r.errors, func(a, b spillway.FieldError) bool {
		return a.Line > 0 && a.Line == b.Line && a.Column == b.Column && a.Problem == b.Problem
	})
}

// closest gives the one of names that is nearest to a misspelt one, or "" when none is near: it ends
// with what was written (SIGTERM with TERM), or at most a third of the letters, at least one, differ.
func closest(wrong string, names []string) string {
	for _, name := range names {
		if len(wrong) > 2 && strings.HasSuffix(strings.ToLower(name), strings.ToLower(wrong)) {
			return name
		}
	}
	best, distance := "", max(1, len(wrong)/3)+1
	for _, name := range names {
		if d := edits(strings.ToLower(wrong), strings.ToLower(name)); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// edits is the number of letters to insert, remove, replace or swap with their neighbour that make b
// of a (optimal string alignment): edits("scael", "scale") is 1.
func edits(a, b string) int {
	before, above := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := above[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, above[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
