package spillway_test

import (
	"cmp"
	"fmt"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A rule is one promise of the architecture that the compiler does not keep for us.
type rule struct {
	name   string
	reason string // printed with every violation, so that whoever meets it knows why
	check  func(t *tree, report reporter)
}

// A reporter takes one violation.
type reporter func(at token.Pos, format string, args ...any)

// The checks read the syntax tree and need neither the network nor a build: see deps_tree_test.go for
// what they see, deps_checks_test.go for what they look at.
var rules = []rule{
	{"root-imports", "everybody imports the vocabulary, so whatever it imports, everybody does", checkRootImports},
	{"pure-imports", "a decision that can reach the world cannot be simulated, replayed or tested at speed", checkPureImports},
	{"pure-code", "the same arguments must give the same decision: time is an argument, and nothing runs beside it", checkPureCode},
	{"adapters", "adapters meet in cmd, through interfaces of their consumers, so that each can be read and replaced alone", checkAdapters},
	{"owners", "one package a dependency is the price of leaving it; a new one needs an ADR and a line in this table", checkOwners},
	{"exits", "only main may end the process: anywhere else it skips closers, and a test cannot call it", checkExits},
	{"init", "what happens before main has no caller, no context and no error", checkInit},
	{"globals", "two servers in one process must not share state; constants may be variables, but nobody changes them", checkGlobals},
	{"length", "what does not fit on a screen is not read; `// long: why` above it is the exception", checkLength},
	{"go-comment", "a goroutine says who owns it, what ends it and who waits, or it leaks", checkGoComments},
	{"docs", "an exported name is a promise, and an unwritten promise is not kept", checkDocs},
	{"names", "a name says what is inside; util, common and helpers hold what nobody could name", checkNames},
	{"surface", "a package of more than 60 exported types, functions and variables (root: 120) is two packages", checkSurface},
	{"sleep", "a test that sleeps is slow when it passes and flaky on a busy machine; use synctest, a channel or a deadline", checkSleep},
}

func TestRules(t *testing.T) {
	for _, v := range violations(t, ".") {
		t.Errorf("%s:%d: %s\n\t%s: %s", v.file, v.line, v.what, v.rule.name, v.rule.reason)
	}
}

// TestRules_EveryKindOfViolationIsFound runs the rules over a tree in which each line that breaks one says
// so in a comment: // want "rule".
func TestRules_EveryKindOfViolationIsFound(t *testing.T) {
	got := map[string]int{}
	for _, v := range violations(t, "testdata/badtree") {
		got[fmt.Sprintf("%s:%d %s", v.file, v.line, v.rule.name)]++
	}
	want := wanted(t, "testdata/badtree")
	tested := map[string]bool{}
	for v, n := range want {
		_, name, _ := strings.Cut(v, " ")
		tested[name] = true
		if got[v] != n {
			t.Errorf("%s: found %d times, want %d", v, got[v], n)
		}
	}
	for v := range got {
		if want[v] == 0 {
			t.Errorf("%s: found, but nothing is wrong there", v)
		}
	}
	for _, r := range rules {
		if !tested[r.name] {
			t.Errorf("testdata/badtree has no violation of %s: nobody knows whether it works", r.name)
		}
	}
}

// A violation is one place where a rule is broken.
type violation struct {
	file string
	line int
	what string
	rule rule
}

// violations gives the violations of all rules, sorted by place.
func violations(t *testing.T, dir string) []violation {
	t.Helper()
	tree, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []violation
	for _, r := range rules {
		r.check(tree, func(at token.Pos, format string, args ...any) {
			p := tree.fset.Position(at)
			found = append(found, violation{filepath.ToSlash(p.Filename), p.Line, fmt.Sprintf(format, args...), r})
		})
	}
	slices.SortStableFunc(found, func(a, b violation) int {
		return cmp.Or(strings.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	return found
}

// wanted counts the want comments of a tree by "file:line rule".
func wanted(t *testing.T, dir string) map[string]int {
	t.Helper()
	tree, err := load(dir)
	if err != nil {
		t.Fatal(err)
	}
	mark := regexp.MustCompile(`// want "([^"]+)"`)
	want := map[string]int{}
	for _, s := range tree.files {
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			for _, m := range mark.FindAllStringSubmatch(line, -1) {
				want[fmt.Sprintf("%s:%d %s", s.path, i+1, m[1])]++
			}
		}
	}
	return want
}
