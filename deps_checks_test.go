package spillway_test

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	pure     = []string{"internal/rollout", "internal/judge", "internal/flag", "internal/scale", "internal/alert"}
	adapters = []string{
		"internal/local", "internal/proxy", "internal/kube", "internal/store", "internal/metrics",
		"internal/notify", "internal/pipeline", "internal/oci", "internal/api", "internal/dashboard",
	}
	pureImports = []string{
		"bytes", "cmp", "encoding/json", "errors", "fmt", "maps", "math", "slices", "sort", "strconv", "strings", "time",
	}

	// impure are functions of allowed packages that ask or touch the world.
	impure = []string{
		"time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.Sleep", "time.NewTimer",
		"time.NewTicker", "time.Tick", "fmt.Print", "fmt.Printf", "fmt.Println", "fmt.Scan", "fmt.Scanf", "fmt.Scanln",
	}
)

// owners says who may import what, by import path and what is below it.
var owners = []struct {
	prefix string
	dirs   []string
}{
	{"database/sql", []string{"internal/store"}},
	{"modernc.org/sqlite", []string{"internal/store"}},                                        // docs/adr/0003
	{"github.com/spf13/cobra", []string{"cmd"}},                                               // docs/adr/0004
	{"github.com/spf13/pflag", []string{"cmd"}},                                               // docs/adr/0004
	{"go.yaml.in/yaml/v3", []string{"internal/appfile"}},                                      // docs/adr/0005
	{"golang.org/x/crypto/bcrypt", []string{"internal/proxy"}},                                // docs/adr/0023
	{"golang.org/x/sys", []string{"internal/local", "internal/proxy", "internal/api", "cmd"}}, // docs/adr/0006
	{"github.com/caddyserver/certmagic", []string{"internal/proxy"}},                          // docs/adr/0021
	{"github.com/mholt/acmez", []string{"internal/proxy"}},                                    // docs/adr/0021
	{"go.uber.org/zap", []string{"internal/proxy"}},                                           // docs/adr/0021
	{"github.com/pires/go-proxyproto", []string{"internal/proxy"}},                            // docs/adr/0022
	{"github.com/google/go-containerregistry", []string{"internal/oci"}},                      // docs/adr/0028
	{"github.com/prometheus/common", []string{"internal/kube/counts"}},                        // docs/adr/0031
	{"k8s.io", []string{"internal/kube"}},                                                     // docs/adr/0030
	{"sigs.k8s.io", []string{"internal/kube"}},                                                // docs/adr/0030
}

func checkRootImports(t *tree, report reporter) {
	for _, s := range t.files {
		s.imports(func(at token.Pos, importPath string) {
			if s.dir == "." && !s.test && !standard(importPath) {
				report(at, "the root imports %s", importPath)
			}
		})
	}
}

func checkPureImports(t *tree, report reporter) {
	for _, s := range t.files {
		s.imports(func(at token.Pos, importPath string) {
			if s.in(pure...) && !s.test && importPath != module && !slices.Contains(pureImports, importPath) {
				report(at, "a pure package imports %s", importPath)
			}
		})
	}
}

func checkPureCode(t *tree, report reporter) {
	for _, s := range t.files {
		if s.test || s.dir != "." && !s.in(pure...) {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				report(n.Pos(), "a go statement in a pure package")
			case *ast.ChanType:
				report(n.Pos(), "a channel in a pure package")
			case *ast.SelectStmt:
				report(n.Pos(), "a select in a pure package")
			case *ast.SelectorExpr:
				if name := t.qualified(n); slices.Contains(impure, name) {
					report(n.Pos(), "%s in a pure package", name)
				}
			}
			return true
		})
	}
}

func checkAdapters(t *tree, report reporter) {
	for _, s := range t.files {
		s.imports(func(at token.Pos, importPath string) {
			dir, ok := own(importPath)
			adapter := slices.Contains(adapters, dir)
			if ok && adapter && !s.in("cmd") && !s.in(dir) {
				report(at, "%s imports the adapter %s", s.dir, dir)
			}
		})
	}
}

func checkOwners(t *tree, report reporter) {
	for _, s := range t.files {
		s.imports(func(at token.Pos, importPath string) {
			if _, ok := own(importPath); ok {
				return
			}
			allowed := standard(importPath)
			for _, o := range owners {
				if importPath == o.prefix || strings.HasPrefix(importPath, o.prefix+"/") {
					allowed = s.in(o.dirs...)
				}
			}
			if !allowed {
				report(at, "%s imports %s", s.dir, importPath)
			}
		})
	}
}

func checkExits(t *tree, report reporter) {
	for _, s := range t.files {
		if s.test || s.in("cmd") {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			name := t.qualified(n)
			if name == "os.Exit" || strings.HasPrefix(name, "log.Fatal") {
				report(n.Pos(), "%s outside cmd", name)
			}
			return true
		})
	}
}

func checkInit(t *tree, report reporter) {
	for _, s := range t.files {
		for _, d := range s.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && f.Name.Name == "init" && !s.test && !s.in("cmd") {
				report(f.Pos(), "an init function outside cmd")
			}
		}
	}
}

// checkGlobals finds variables of packages that can change: those that are made to be filled, and those
// that somebody assigns to or takes the address of. It does not see a method that changes its receiver.
// "// mutable: why" on the declaration is the exception.
func checkGlobals(t *tree, report reporter) {
	for _, s := range t.files {
		if s.test || s.in("cmd") {
			continue
		}
		for _, d := range s.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR || excused("mutable", g.Doc) {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if made := t.madeToChange(g, v); made != "" && !excused("mutable", v.Doc, v.Comment) {
					report(v.Pos(), "package variable %s %s", v.Names[0].Name, made)
				}
			}
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			for _, e := range changed(n) {
				if v := t.global(e); v != nil {
					report(e.Pos(), "package variable %s is changed", v.Name())
				} else if name := t.qualified(e); name != "" {
					report(e.Pos(), "%s of another package is changed", name)
				}
			}
			return true
		})
	}
}

// madeToChange says why a variable can only be meant to change, or "".
func (t *tree) madeToChange(g *ast.GenDecl, v *ast.ValueSpec) string {
	if len(v.Values) == 0 {
		for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
			if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") }) {
				return ""
			}
		}
		return "has no value, so somebody gives it one"
	}
	for _, value := range v.Values {
		switch e := value.(type) {
		case *ast.CallExpr:
			if f, ok := e.Fun.(*ast.Ident); ok && (f.Name == "make" || f.Name == "new") {
				return "is made empty, so somebody fills it"
			}
		case *ast.UnaryExpr:
			if e.Op == token.AND && v.Names[0].Name != "_" {
				return "is a pointer to what can change"
			}
		case *ast.CompositeLit:
			if name := t.qualified(e.Type); strings.HasPrefix(name, "sync.") || strings.HasPrefix(name, "sync/atomic.") {
				return "is a " + name
			}
		}
	}
	return ""
}

// changed lists the expressions that a node assigns to, takes the address of, or clears.
func changed(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			return []ast.Expr{n.Key, n.Value}
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.Ident)
		if ok && slices.Contains([]string{"delete", "clear", "copy"}, f.Name) && len(n.Args) > 0 {
			return n.Args[:1]
		}
	}
	return nil
}

// excused reports whether one of the comments has a line "word: reason".
func excused(word string, comments ...*ast.CommentGroup) bool {
	argued := regexp.MustCompile(`(?m)^` + word + `: \S`)
	return slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return c != nil && argued.MatchString(c.Text()) })
}

// checkLength leaves tests alone: their tables are long and nobody has to keep them in mind.
func checkLength(t *tree, report reporter) {
	for _, s := range t.files {
		if s.test {
			continue
		}
		head := slices.DeleteFunc(slices.Clone(s.Comments), func(c *ast.CommentGroup) bool { return c.Pos() > s.Name.End() })
		if n := t.fset.File(s.Pos()).LineCount(); n > 500 && !excused("long", head...) {
			report(s.Package, "a file of %d lines; 500 is the limit", n)
		}
		for _, d := range s.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := t.fset.Position(f.End()).Line - t.fset.Position(f.Pos()).Line + 1
			if n > 60 && !excused("long", f.Doc) {
				report(f.Name.Pos(), "%s has %d lines; 60 is the limit", f.Name.Name, n)
			}
		}
	}
}

// checkGoComments lets one comment stand above several go statements that follow each other.
func checkGoComments(t *tree, report reporter) {
	for _, s := range t.files {
		if s.test {
			continue
		}
		said := map[int]bool{} // lines on which a comment ends, or a go statement that has one
		for _, c := range s.Comments {
			said[t.fset.Position(c.End()).Line] = true
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			g, ok := n.(*ast.GoStmt)
			if !ok {
				return true
			}
			if said[t.fset.Position(g.Pos()).Line-1] {
				said[t.fset.Position(g.End()).Line] = true
			} else {
				report(g.Pos(), "a go statement without a comment above it")
			}
			return true
		})
	}
}

func checkDocs(t *tree, report reporter) {
	documented := map[string]bool{}
	first := map[string]*source{}
	for _, s := range t.files {
		if s.test {
			continue
		}
		documented[s.dir] = documented[s.dir] || s.Doc != nil
		if first[s.dir] == nil {
			first[s.dir] = s
		}
		for _, name := range exported(s.File) {
			if !name.documented {
				report(name.Pos(), "%s has no doc comment", name.Name)
			}
		}
	}
	for dir, s := range first {
		if !documented[dir] {
			report(s.Package, "package %s has no doc comment", s.Name.Name)
		}
	}
}

// A symbol is an exported name at its declaration.
type symbol struct {
	*ast.Ident
	minor      bool // a method or a constant
	documented bool
}

// exported lists the exported names of a file, with the methods of exported types.
func exported(f *ast.File) []symbol {
	var names []symbol
	add := func(id *ast.Ident, minor bool, docs ...*ast.CommentGroup) {
		if id.IsExported() {
			names = append(names, symbol{id, minor, slices.ContainsFunc(docs, func(c *ast.CommentGroup) bool { return c != nil })})
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) {
				add(d.Name, d.Recv != nil, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					add(spec.Name, false, d.Doc, spec.Doc)
				case *ast.ValueSpec:
					for _, id := range spec.Names {
						add(id, d.Tok == token.CONST, d.Doc, spec.Doc, spec.Comment)
					}
				}
			}
		}
	}
	return names
}

// receiver gives the name of a method's type.
func receiver(f *ast.FuncDecl) string {
	name := ""
	ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && name == "" {
			name = id.Name
		}
		return name == ""
	})
	return name
}

func checkNames(t *tree, report reporter) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "manager", "misc", "base", "shared", "lib"}
	getter := regexp.MustCompile(`^Get[A-Z]`)
	for _, s := range t.files {
		if slices.Contains(vague, s.Name.Name) || slices.Contains(vague, path.Base(s.dir)) {
			report(s.Name.Pos(), "package %s says nothing about what is inside", s.Name.Name)
		}
		for _, name := range exported(s.File) {
			if getter.MatchString(name.Name) {
				report(name.Pos(), "%s: a getter has the name of what it gives", name.Name)
			}
		}
	}
}

// checkSurface counts types, functions and variables. Constants go with the type or the idea that they
// spell out, and methods with their type: neither makes a package harder to find one's way in.
func checkSurface(t *tree, report reporter) {
	count := map[string]int{}
	for _, s := range t.files {
		limit := 60
		if s.dir == "." {
			limit = 120
		}
		for _, name := range exported(s.File) {
			if s.test || name.minor {
				continue
			}
			if count[s.dir]++; count[s.dir] == limit+1 {
				report(name.Pos(), "%s is exported name %d of package %s", name.Name, limit+1, s.Name.Name)
			}
		}
	}
}

func checkSleep(t *tree, report reporter) {
	for _, s := range t.files {
		if !s.test {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if t.qualified(n) == "time.Sleep" {
				report(n.Pos(), "time.Sleep in a test")
			}
			return true
		})
	}
}
