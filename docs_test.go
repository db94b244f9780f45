package spillway_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitectureNamesExist holds the documents to the code: a path in backticks exists, and the names
// behind it are declared there, as in `internal/rollout/decide.go` · `Decide` · `Status.Clone`.
func TestArchitectureNamesExist(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range stale(string(text)) {
			t.Errorf("%s:%s", document, problem)
		}
	}
}

func TestArchitectureNamesExist_FindsWhatIsGone(t *testing.T) {
	tests := []struct{ text, want string }{
		{"`units.go` · `Share` and `Share.Of` · `Percent`", ""},
		{"`docs/adr/`, `docs/adr` and `go test ./...`", ""},
		{"`internal/gone.go`", "1: internal/gone.go does not exist"},
		{"\n`internal/gone/`", "2: internal/gone/ does not exist"},
		{"`units.go` · `Share.Of` · `Gone`", "1: units.go declares no Gone"},
		{"`units.go` · `Share.Gone()`, `units.go` · `Whole`", "1: units.go declares no Share.Gone"},
		{"```\n`internal/gone.go` in a block of code\n```", ""},
	}
	for _, tt := range tests {
		if got := strings.Join(stale(tt.text), "; "); got != tt.want {
			t.Errorf("stale(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

var (
	// place is a path of this repository in backticks, with the names that follow it.
	place = regexp.MustCompile("`((?:cmd|docs|internal|examples|test|tools|bench)/[\\w./-]*|[\\w-]+\\.go)`((?:\\s*·\\s*`[\\w.*()]+`)*)")
	named = regexp.MustCompile("`([\\w.*()]+)`")
	block = regexp.MustCompile("(?ms)^```.*?^```")
)

// stale lists what a document names and the repository does not have, as "line: what".
func stale(text string) []string {
	text = block.ReplaceAllStringFunc(text, func(code string) string { return strings.Repeat("\n", strings.Count(code, "\n")) })
	var problems []string
	for i, line := range strings.Split(text, "\n") {
		for _, m := range place.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(m[1]); err != nil {
				problems = append(problems, fmt.Sprintf("%d: %s does not exist", i+1, m[1]))
				continue
			}
			for _, n := range named.FindAllStringSubmatch(m[2], -1) {
				name := strings.NewReplacer("(", "", ")", "", "*", "").Replace(n[1])
				if !declares(m[1], name) {
					problems = append(problems, fmt.Sprintf("%d: %s declares no %s", i+1, m[1], name))
				}
			}
		}
	}
	return problems
}

// declares reports whether a file declares a name: Decide, Loop or Loop.Run.
func declares(file, name string) bool {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return false
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && d.Name.Name == name || d.Recv != nil && receiver(d)+"."+d.Name.Name == name {
				return true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.Name == name {
						return true
					}
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						if id.Name == name {
							return true
						}
					}
				}
			}
		}
	}
	return false
}
