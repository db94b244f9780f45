package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What is between these lines of README.md is written by publish.
const (
	markBegin = "<!-- results: written by make bench -->"
	markEnd   = "<!-- end of results -->"
)

// publish writes the tables into README.md and draws cpu.svg.
func publish(dir string, r results) error {
	if err := os.WriteFile(filepath.Join(dir, "cpu.svg"), []byte(plot(r)), 0o644); err != nil {
		return err
	}
	file := filepath.Join(dir, "README.md")
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := insert(string(old), report(r))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// insert puts a text between the marks.
func insert(document, text string) (string, error) {
	before, rest, ok := strings.Cut(document, markBegin)
	_, after, closed := strings.Cut(rest, markEnd)
	if !ok || !closed {
		return "", fmt.Errorf("it lacks the lines %q and %q, between which the results go", markBegin, markEnd)
	}
	return before + markBegin + "\n" + text + markEnd + after, nil
}

// report is all that README.md says about a run.
func report(r results) string {
	var b strings.Builder
	b.WriteString("\n" + about(r) + "\n")
	b.WriteString("### Goals\n\n" + goalTable(r))
	b.WriteString("\n### Could not be measured\n\n" + unmeasuredList(r))
	for _, c := range cases() {
		if table := caseTable(r, c); table != "" {
			from := string(c.by)
			if c.by == bySteady {
				from = fmt.Sprintf("our own open loop, %s requests/s", number(r.Rate, 0))
			}
			fmt.Fprintf(&b, "\n### %s\n\n`%s`, load from %s.\n\n%s", c.title, c.name, from, table)
		}
	}
	b.WriteString("\n### One release or two\n\n" + dividedNote(r))
	return b.String()
}

// about says when and where it was.
func about(r results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s at commit %s: %d rounds of %g s each, %d cores of %s, Linux %s.", r.Date, orUnknown(r.Commit), r.Rounds, r.Seconds, r.Machine.Cores, r.Machine.CPU, r.Machine.Kernel)
	lowest, highest := math.Inf(1), math.Inf(-1)
	for _, m := range r.Measurements {
		lowest, highest = min(lowest, m.Load), max(highest, m.Load)
	}
	if len(r.Measurements) > 0 {
		fmt.Fprintf(&b, " Load of the machine meanwhile: %.1f to %.1f (the measurements themselves make about 3).", lowest, highest)
	}
	if r.Note != "" {
		b.WriteString(" " + r.Note)
	}
	b.WriteString("\n\nVersions: ")
	names := make([]string, 0, len(r.Versions))
	for name := range r.Versions {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", name, orUnknown(strings.TrimPrefix(r.Versions[name], "go")))
	}
	b.WriteString(".\n")
	return b.String()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// goalTable compares with the goals.
func goalTable(r results) string {
	rows := [][]string{{"", "at most", "median", "lowest to highest round", ""}}
	for _, g := range goals() {
		list := g.value(r)
		spread := "–"
		if len(list) > 0 {
			spread = fmt.Sprintf("%.2f to %.2f", list[0], list[len(list)-1])
		}
		rows = append(rows, []string{g.text, fmt.Sprintf("%g", g.limit), number(median(list), 2), spread, g.verdict(list)})
	}
	return markdown(rows)
}

// caseTable has a row per peer, the one with the least CPU first; "" when nothing was measured.
func caseTable(r results, c testCase) string {
	type row struct {
		subject
		cpu float64
	}
	var list []row
	for _, name := range c.peers {
		if s := (subject{name, c.name}); len(r.of(s)) > 0 {
			list = append(list, row{s, r.median(s, cpuOf)})
		}
	}
	if len(list) == 0 {
		return ""
	}
	slices.SortStableFunc(list, func(a, b row) int { return compareFloats(a.cpu, b.cpu) })
	rows := [][]string{{"", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/request", "RSS MB", "CPU / HAProxy", "CPU / ReverseProxy"}}
	for _, s := range list {
		ms := func(f figure) string { return number(r.median(s.subject, f)/1000, 2) }
		of := func(peer string) string {
			return number(r.ratio(s.subject, subject{peer, c.name}, cpuOf), 2)
		}
		cells := []string{title(s.peer), number(r.median(s.subject, rpsOf), 0), ms(func(m measurement) float64 { return m.P50 }), ms(p99Of), ms(func(m measurement) float64 { return m.P999 })}
		if s.cpu == 0 {
			cells = append(cells, "–", "–", "–", "–")
		} else {
			cells = append(cells, number(s.cpu, 1), number(r.median(s.subject, rssOf), 0), of("haproxy"), of("plain"))
		}
		rows = append(rows, cells)
	}
	return markdown(rows)
}

// dividedNote says what a canary release costs.
func dividedNote(r results) string {
	var b strings.Builder
	for _, name := range []string{"spillway", "spillway-general"} {
		list := r.ratios(subject{name, "small"}, subject{name, "undivided"}, cpuOf)
		if len(list) > 0 {
			fmt.Fprintf(&b, "%s: with users divided between two releases and the newer one on trial, %.2f of the CPU that one release without a trial takes (rounds: %.2f to %.2f).\n", title(name), median(list), list[0], list[len(list)-1])
		}
	}
	if b.Len() == 0 {
		return "Not measured.\n"
	}
	return b.String()
}

// unmeasuredList names what is missing, and why.
func unmeasuredList(r results) string {
	if len(r.Unmeasured) == 0 {
		return "Nothing: all peers were measured in all their cases.\n"
	}
	var b strings.Builder
	for _, u := range r.Unmeasured {
		where := "in no case"
		if u.Case != "" {
			where = "in `" + u.Case + "`"
		}
		fmt.Fprintf(&b, "- %s could not be measured %s: %s\n", title(u.Peer), where, strings.Join(strings.Fields(u.Reason), " "))
	}
	return b.String()
}

// title is a peer's name for people.
func title(name string) string {
	titles := map[string]string{
		"direct": "no proxy", "nginx": "nginx", "haproxy": "HAProxy", "caddy": "Caddy", "traefik": "Traefik",
		"plain": "httputil.ReverseProxy", "spillway": "Spillway", "spillway-general": "Spillway, general engine",
	}
	if t := titles[name]; t != "" {
		return t
	}
	return name
}

// markdown is a table whose first row is the head; the first column is text, the others are right-aligned.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		escaped := make([]string, len(row))
		for j, cell := range row {
			escaped[j] = strings.ReplaceAll(cell, "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(escaped, " | "))
		if i == 0 {
			b.WriteString("|---" + strings.Repeat("|--:", len(row)-1) + "|\n")
		}
	}
	return b.String()
}

// number writes thousands with commas; what is not a number is a dash.
func number(f float64, decimals int) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "–"
	}
	text := fmt.Sprintf("%.*f", decimals, f)
	whole, rest, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		return whole + "." + rest
	}
	return whole
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
