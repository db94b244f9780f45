package main

import (
	"io"
	"strings"
	"text/tabwriter"
)

// table collects rows of cells and prints them in columns under a heading. Empty cells print as "-".
type table struct {
	rows [][]string
}

func newTable(heading ...string) *table { return &table{rows: [][]string{heading}} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table; a table without rows is nothing at all.
func (t *table) print(w io.Writer) error {
	if len(t.rows) < 2 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, cells := range t.rows {
		for i, cell := range cells {
			if cell == "" {
				cells[i] = "-"
			}
			cells[i] = clean(cells[i])
		}
		if _, err := io.WriteString(tw, strings.Join(cells, "\t")+"\n"); err != nil {
			return err
		}
	}
	return tw.Flush()
}
