package spillway_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// module is the import path of the root package.
const module = "github.com/spillway-dev/spillway"

// A tree is the parsed source of one module: nested modules and testdata are not part of it.
type tree struct {
	fset  *token.FileSet
	files []*source // sorted by path
	info  *types.Info
}

// A source is one parsed file.
type source struct {
	*ast.File
	path string // relative to where the test runs, slash-separated
	dir  string // relative to the module: "." or "internal/rollout"
	test bool
}

// in reports whether the file belongs to one of the directories or to one below.
func (s *source) in(dirs ...string) bool {
	for _, d := range dirs {
		if s.dir == d || strings.HasPrefix(s.dir, d+"/") {
			return true
		}
	}
	return false
}

// load parses every file of the module at root and resolves the names in it.
func load(root string) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), info: &types.Info{Uses: map[*ast.Ident]types.Object{}}}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != root && outside(file, d.Name()):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(file) != ".go":
			return nil
		}
		f, err := parser.ParseFile(t.fset, file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		t.files = append(t.files, &source{
			File: f, path: filepath.ToSlash(file), dir: filepath.ToSlash(dir), test: strings.HasSuffix(file, "_test.go"),
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	t.resolve()
	return t, nil
}

// outside reports whether a directory is not part of the module, by the go command's own rules.
func outside(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil || name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

// resolve finds out what each identifier refers to, as far as one package alone can tell: local names,
// names of the package, imported packages. The type checker does it well without any import: what it
// cannot know becomes an error, and errors are of no interest here.
func (t *tree) resolve() {
	packages := map[string][]*ast.File{}
	for _, s := range t.files {
		key := s.dir + " " + s.Name.Name
		packages[key] = append(packages[key], s.File)
	}
	config := types.Config{Importer: hollow{}, Error: func(error) {}}
	for key, files := range packages {
		_, _ = config.Check(key, t.fset, files, t.info)
	}
}

// hollow imports packages with nothing in them.
type hollow map[string]*types.Package

func (h hollow) Import(importPath string) (*types.Package, error) {
	name := path.Base(importPath)
	if regexp.MustCompile(`^v\d+$`).MatchString(name) {
		name = path.Base(path.Dir(importPath))
	}
	p := types.NewPackage(importPath, name)
	p.MarkComplete()
	return p, nil
}

// qualified gives "time.Now" for a selector of an imported package, by import path and whatever the file
// calls it, and "" for any other node.
func (t *tree) qualified(n ast.Node) string {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	id, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	p, ok := t.info.Uses[id].(*types.PkgName)
	if !ok {
		return ""
	}
	return p.Imported().Path() + "." + sel.Sel.Name
}

// global gives the package-level variable of this package that an expression is, or is a part of.
func (t *tree) global(e ast.Expr) *types.Var {
	switch e := e.(type) {
	case *ast.Ident:
		v, ok := t.info.Uses[e].(*types.Var)
		if ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
			return v
		}
	case *ast.SelectorExpr:
		return t.global(e.X)
	case *ast.IndexExpr:
		return t.global(e.X)
	case *ast.SliceExpr:
		return t.global(e.X)
	case *ast.StarExpr:
		return t.global(e.X)
	case *ast.ParenExpr:
		return t.global(e.X)
	}
	return nil
}

// imports calls f with each import of the file.
func (s *source) imports(f func(at token.Pos, importPath string)) {
	for _, spec := range s.Imports {
		importPath, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			panic(err) // the parser has read it
		}
		f(spec.Pos(), importPath)
	}
}

// standard reports whether an import path belongs to the standard library.
func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// own gives the directory in the module of one of its import paths.
func own(importPath string) (dir string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}
