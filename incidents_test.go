package spillway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestIncidents_HaveTests holds docs/incidents.md to its promise: each row of its tables names tests that exist.
func TestIncidents_HaveTests(t *testing.T) {
	text, err := os.ReadFile("docs/incidents.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, problems := untested(string(text))
	for _, problem := range problems {
		t.Errorf("docs/incidents.md:%s", problem)
	}
	if rows < 25 {
		t.Errorf("docs/incidents.md has %d incidents, want at least 25", rows)
	}
}

func TestIncidents_FindsWhatIsMissing(t *testing.T) {
	tests := []struct {
		text string
		rows int
		want string
	}{
		{"| class | here | tests |\n|---|---|---|\n| a | b | `root TestIncidents_HaveTests` |", 1, ""},
		{"| a | b | `scenario blue_green_is_one_switch`, `internal/sim TestScenarios` |", 1, ""},
		{"text\n\n- a list | with | bars", 0, ""},
		{"| a | b |  |", 1, "1: names no test"},
		{"| a | b | by hand |", 1, "1: names no test"},
		{"| a | b | TestIncidents_HaveTests |", 1, "1: names no test"},
		{"| a `root TestX` | b | c |", 1, "1: names no test"},
		{"| a | b |", 1, "1: wants three columns: class, here, tests"},
		{"\n| a | b | `scenario gone` |", 1, "2: there is no scenario gone"},
		{"| a | b | `root TestIncidents` |", 1, "1: there is no test root TestIncidents"},
		{"| a | b | `internal/gone TestGone` |", 1, "1: there is no test internal/gone TestGone"},
		{"| a | b | `root TestIncidents_HaveTests`, `internal/sim/doc.go` |", 1, "1: internal/sim/doc.go is not the name of a test"},
	}
	for _, tt := range tests {
		rows, problems := untested(tt.text)
		if got := strings.Join(problems, "; "); rows != tt.rows || got != tt.want {
			t.Errorf("untested(%q) = %d rows, %q; want %d, %q", tt.text, rows, got, tt.rows, tt.want)
		}
	}
}

var quoted = regexp.MustCompile("`([^`]*)`")

// untested counts the rows of the tables of a document, and lists those whose last column names no test, or one
// that does not exist, as "line: what". The head of a table begins with "| class".
func untested(text string) (rows int, problems []string) {
	for i, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| class") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 {
			problems = append(problems, fmt.Sprintf("%d: wants three columns: class, here, tests", i+1))
			continue
		}
		names := quoted.FindAllStringSubmatch(cells[2], -1)
		if len(names) == 0 {
			problems = append(problems, fmt.Sprintf("%d: names no test", i+1))
		}
		for _, name := range names {
			if problem := missing(name[1]); problem != "" {
				problems = append(problems, fmt.Sprintf("%d: %s", i+1, problem))
			}
		}
	}
	return rows, problems
}

// missing says what is wrong with a name like "scenario two_words" or "internal/proxy TestName"; "" = it exists.
func missing(name string) string {
	place, test, ok := strings.Cut(name, " ")
	if !ok {
		return name + " is not the name of a test"
	}
	if place == "scenario" {
		if _, err := os.Stat(filepath.Join("internal/sim/testdata/scenarios", test+".txt")); err != nil {
			return "there is no scenario " + test
		}
		return ""
	}
	if place == "root" {
		place = "."
	}
	files, _ := filepath.Glob(filepath.Join(place, "*_test.go")) // the pattern is well formed
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains("\n"+string(text), "\nfunc "+test+"(t *testing.T) {") {
			return ""
		}
	}
	return "there is no test " + name
}
