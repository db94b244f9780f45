package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kubeResults are all that a run on a cluster found.
type kubeResults struct {
	Date, Commit           string
	Machine                machine
	Apps, Compared, Rounds int
	Measured               []contest
}

// memory is that of one process, in bytes.
type memory struct{ Now, Most int64 }

// contest is what was found of one contender.
type contest struct {
	Title       string
	Memory      map[int]memory // by how many apps there were
	Created     float64        // seconds until the apps of the comparison were there
	CreateCalls map[string]int
	Changes     []change

	// The rest is of Spillway with all apps.
	CreatedAll  float64
	Quiet       map[string]int // calls in a minute in which nothing happened
	QuietCPU    float64        // seconds of it
	FlatOut     reaction       // to changes of which each is made as soon as the one before was acted on
	Hourly      reaction       // to changes at the pace at which each app has one in an hour
	Started     float64        // seconds from the start until a change made before it was acted on
	StartCalls  map[string]int
	StartMemory memory
}

// reaction is how quickly something was done about changes.
type reaction struct {
	Reactions []float64 // ms from a change of an App to the first write of its new Deployment, sorted
	Decisions []float64 // ms of each round meanwhile, sorted
	Waits     []float64 // ms that each waited for its turn, sorted
}

// change is one in which all apps of the comparison got another image.
type change struct {
	Seconds float64 // until the last was at rest
	Half    float64 // median of the apps, each from its own change
	CPU     float64 // seconds of the controller
	Calls   map[string]int
	Memory  memory
	Load    float64
}

// memoryOf reads what the kernel says of a process.
func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for _, field := range []struct {
		name string
		to   *int64
	}{{"VmRSS", &m.Now}, {"VmHWM", &m.Most}} {
		found := regexp.MustCompile(field.name + `:\s+(\d+) kB`).FindSubmatch(text)
		if found == nil {
			return m, fmt.Errorf("process %d has no %s", pid, field.name)
		}
		n, _ := strconv.ParseInt(string(found[1]), 10, 64) // digits
		*field.to = n << 10
	}
	return m, nil
}

// loadNow is the load of the machine over the last minute.
func loadNow() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return math.NaN()
	}
	first, _, _ := bytes.Cut(text, []byte(" "))
	f, _ := strconv.ParseFloat(string(first), 64) // the kernel writes numbers here
	return f
}

// share is the value below which a share of a sorted list is.
func share(list []float64, of float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	return list[min(int(of*float64(len(list))), len(list)-1)]
}

const (
	kubeBegin = "<!-- results: written by make bench-kube -->"
	kubeEnd   = "<!-- end of the results of make bench-kube -->"
)

// publish writes kube.json, and the tables into README.md.
func (r *kubeResults) publish(dir string) error {
	text, err := json.Marshal(r) // in one line: thousands of rounds are in it
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "kube.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	file := filepath.Join(dir, "README.md")
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), kubeBegin)
	_, after, closed := strings.Cut(rest, kubeEnd)
	if !ok || !closed {
		return fmt.Errorf("%s lacks the lines %q and %q", file, kubeBegin, kubeEnd)
	}
	return os.WriteFile(file, []byte(before+kubeBegin+"\n\n"+r.report()+"\n"+kubeEnd+after), 0o644)
}

func (r *kubeResults) report() string {
	var b strings.Builder
	low, high := math.Inf(1), math.Inf(-1)
	for _, m := range r.Measured {
		for _, c := range m.Changes {
			low, high = min(low, c.Load), max(high, c.Load)
		}
	}
	fmt.Fprintf(&b, "Measured %s at commit %s: %d cores of %s, Linux %s, beside the cluster itself and other work: load %.1f to %.1f.\n\n",
		r.Date, orUnknown(r.Commit), r.Machine.Cores, r.Machine.CPU, r.Machine.Kernel, low, high)
	fmt.Fprintf(&b, "%d apps of %d pods each, one image change for all at once, medians of %d such rounds:\n\n", r.Compared, replicas, r.Rounds)
	rows := [][]string{{""}}
	for _, m := range r.Measured {
		rows[0] = append(rows[0], m.Title)
	}
	for _, line := range r.lines() {
		row := []string{line.text}
		for _, m := range r.Measured {
			row = append(row, number(line.of(m), line.decimals))
		}
		rows = append(rows, row)
	}
	b.WriteString(markdown(rows) + "\nThe calls of a change, by what is asked, for each app:\n\n")
	rows = [][]string{{"", "calls for each app"}}
	for _, m := range r.Measured {
		rows = append(rows, []string{m.Title, r.kinds(m)})
	}
	b.WriteString(markdown(rows))
	for _, m := range r.Measured {
		if len(m.FlatOut.Reactions) > 0 {
			b.WriteString("\n" + r.alone(m))
		}
	}
	return b.String()
}

type kubeLine struct {
	text     string
	decimals int
	of       func(contest) float64
}

func (r *kubeResults) lines() []kubeLine {
	over := func(f func(change) float64) func(contest) float64 {
		return func(m contest) float64 {
			var list []float64
			for _, c := range m.Changes {
				list = append(list, f(c))
			}
			return median(list)
		}
	}
	mega := func(n int64) float64 { return float64(n) / 1e6 }
	apps := float64(r.Compared)
	return []kubeLine{
		{"memory without apps, MB", 0, func(m contest) float64 { return mega(m.Memory[0].Now) }},
		{fmt.Sprintf("memory with %d apps at rest, MB", r.Compared), 0, func(m contest) float64 { return mega(m.Memory[r.Compared].Now) }},
		{"memory after a change, MB", 0, over(func(c change) float64 { return mega(c.Memory.Now) })},
		{"the most by then, MB", 0, over(func(c change) float64 { return mega(c.Memory.Most) })},
		{"until all had the new image, s", 1, over(func(c change) float64 { return c.Seconds })},
		{"until an app had it, median, s", 1, over(func(c change) float64 { return c.Half })},
		{"CPU for each app, ms", 0, over(func(c change) float64 { return c.CPU * 1000 / apps })},
		{"API calls for each app", 1, over(func(c change) float64 { return float64(sumOf(c.Calls)) / apps })},
		{"of them writes", 1, over(func(c change) float64 { return float64(writesOf(c.Calls)) / apps })},
		{"until new apps were there, s", 1, func(m contest) float64 { return m.Created }},
	}
}

// kinds lists the calls of the last change by what is asked.
func (r *kubeResults) kinds(m contest) string {
	calls := m.Changes[len(m.Changes)-1].Calls
	names := slices.SortedFunc(maps.Keys(calls), func(a, b string) int { return calls[b] - calls[a] })
	var words []string
	for _, name := range names {
		if each := float64(calls[name]) / float64(r.Compared); each >= 0.05 {
			words = append(words, fmt.Sprintf("%s %s", name, number(each, 1)))
		}
	}
	return strings.Join(words, ", ")
}

// alone is what was found of a contender with all apps.
func (r *kubeResults) alone(m contest) string {
	mega := func(n int64) string { return number(float64(n)/1e6, 0) }
	rows := [][]string{{fmt.Sprintf("%s, %s apps, %s pods", m.Title, number(float64(r.Apps), 0), number(float64(r.Apps*replicas), 0)), "", "at most"}}
	all := m.Memory[r.Apps]
	rows = append(rows,
		[]string{"memory at rest, MB", mega(all.Now), "300"},
		[]string{"the most until then, MB", mega(all.Most), ""},
	)
	rows = append(rows, reacted("each app changes once in an hour", m.Hourly)...)
	rows = append(rows, reacted("one change after the other", m.FlatOut)...)
	rows = append(rows,
		[]string{"API calls in a quiet minute, without the lease", number(float64(sumOf(m.Quiet)), 0), ""},
		[]string{"CPU in a quiet minute, s", number(m.QuietCPU, 2), ""},
		[]string{"started anew, until a change made before the start was acted on, s", number(m.Started, 1), ""},
		[]string{"API calls of a start", number(float64(sumOf(m.StartCalls)), 0), ""},
		[]string{"the most memory of a start, MB", mega(m.StartMemory.Most), ""},
	)
	return markdown(rows)
}

// reacted is how quickly something was done about changes, as rows.
func reacted(when string, r reaction) [][]string {
	if len(r.Reactions) == 0 {
		return nil
	}
	return [][]string{
		{when + ": decision (load, observe, decide, save, apply), p50, ms", number(share(r.Decisions, 0.5), 1), ""},
		{fmt.Sprintf("the same, p99 of %s, ms", number(float64(len(r.Decisions)), 0)), number(share(r.Decisions, 0.99), 1), "200"},
		{"its wait for its turn before that, p99, ms", number(share(r.Waits, 0.99), 1), ""},
		{"from a change of an App to the write of its new Deployment, p50, ms", number(share(r.Reactions, 0.5), 1), ""},
		{fmt.Sprintf("the same, p99 of %d, ms", len(r.Reactions)), number(share(r.Reactions, 0.99), 1), ""},
	}
}
