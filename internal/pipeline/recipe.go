package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// recipe is how the artefact of a service is made. Paths are relative to the source, slash-separated.
type recipe struct {
	scope   string           // what the build sees; "." is the whole source
	dir     string           // in scope: where the command runs, and what becomes the artefact
	command spillway.Command // zero: dir is the artefact as it is
	program string           // a program that the command must leave in dir; "" = none
}

// recipe finds out how this Builder builds a service of a source.
func (b *Builder) recipe(t Tree, s spillway.Service) (recipe, error) {
	r, err := recipeOf(t, s)
	if err == nil && b.static && r.program != "" {
		// The names of hosts and users are what the standard library asks the C library for. A program that uses cgo
		// itself still does: to turn it off would break it in other ways.
		tags := "netgo,osusergo"
		for flag := range strings.FieldsSeq(os.Getenv("GOFLAGS")) { // a flag of the command replaces one of GOFLAGS
			if own, ok := strings.CutPrefix(flag, "-tags="); ok {
				tags = own + "," + tags
			}
		}
		r.command.Exec = slices.Insert(slices.Clone(r.command.Exec), 2, "-tags="+tags)
	}
	return r, err
}

// recipeOf finds out how to build a service of a source.
func recipeOf(t Tree, s spillway.Service) (recipe, error) {
	if s.Build == nil {
		return recipe{scope: ".", dir: "."}, nil
	}
	dir := path.Clean(s.Build.Dir)
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return recipe{}, fmt.Errorf("open source: %w", err)
	}
	defer root.Close()
	info, err := root.Lstat(dir)
	if err != nil || !info.IsDir() {
		return recipe{}, fmt.Errorf("build %s: the source has no directory %s (is it empty, a link or ignored by git?): %w", s.Name, dir, spillway.ErrInvalid)
	}
	d := directory{fs: root.FS(), dir: dir}
	found := recipe{dir: dir, command: s.Build.Command}
	if found.command.Zero() {
		if found.command, found.program, err = d.detect(s.Name); err != nil {
			return recipe{}, err
		}
	}
	found.scope, err = d.scope(root, found.command)
	return found, err
}

// directory is one directory of a source.
type directory struct {
	fs  fs.FS
	dir string
}

// has reports whether a file is there.
func (d directory) has(name string) bool {
	_, err := fs.Stat(d.fs, path.Join(d.dir, name))
	return err == nil
}

// text gives a file; "" when it cannot be read.
func (d directory) text(name string) string {
	text, _ := fs.ReadFile(d.fs, path.Join(d.dir, name))
	return string(text)
}

// detect finds the build command of a directory for which the app file names none, and the program
// that the command makes.
func (d directory) detect(service string) (spillway.Command, string, error) {
	_, inModule := d.module()
	switch {
	case inModule:
		program := d.program()
		if info, err := fs.Stat(d.fs, path.Join(d.dir, program)); err == nil && info.IsDir() {
			return spillway.Command{}, "", fmt.Errorf("build %s: the program of %s would be named %s, as a directory there is; "+
				"name another: build: {dir: %s, command: go build -o bin/%s .}: %w", service, d.dir, program, d.dir, program, spillway.ErrInvalid)
		}
		return spillway.Command{Exec: []string{"go", "build", "-trimpath", "-buildvcs=false", "-o", program, "."}}, program, nil
	case d.has("package.json"):
		command, err := d.detectNode(service)
		return command, "", err
	case d.has("Dockerfile"):
		return spillway.Command{}, "", fmt.Errorf("build %s: %s has a Dockerfile, and Spillway builds no images from it; "+
			"write build: {dir: %s, command: …} with the command that builds it, or push the image and write image: REF instead of build: %w", service, d.dir, d.dir, spillway.ErrInvalid)
	}
	return spillway.Command{}, "", nil
}

// module gives the directory of the Go module that a directory with a Go program belongs to: its own,
// or the nearest above it.
func (d directory) module() (string, bool) {
	if d.has("go.mod") {
		return d.dir, true
	}
	if sources, _ := fs.Glob(d.fs, path.Join(d.dir, "*.go")); len(sources) == 0 {
		return "", false
	}
	for dir := d.dir; dir != "."; {
		dir = path.Dir(dir)
		if (directory{d.fs, dir}).has("go.mod") {
			return dir, true
		}
	}
	return "", false
}

var (
	modulePath  = regexp.MustCompile(`(?m)^module\s+"?([^\s"]+)`)
	versionPart = regexp.MustCompile(`^v[0-9]+$`)
)

// program is the name of the Go program of a directory: that of the directory, as in "run: ./www" for
// "build: ./www"; for the whole source, the last part of the module's path.
func (d directory) program() string {
	if d.dir != "." {
		return path.Base(d.dir)
	}
	m := modulePath.FindStringSubmatch(d.text("go.mod"))
	if m == nil {
		return "app"
	}
	name := path.Base(m[1])
	if versionPart.MatchString(name) && path.Dir(m[1]) != "." {
		name = path.Base(path.Dir(m[1]))
	}
	return name
}

// detectNode finds the command for a package.json.
func (d directory) detectNode(service string) (spillway.Command, error) {
	if d.has("package-lock.json") {
		return spillway.Command{Exec: []string{"npm", "ci"}}, nil
	}
	var file struct{ Dependencies map[string]any }
	if err := json.Unmarshal([]byte(d.text("package.json")), &file); err != nil {
		return spillway.Command{}, fmt.Errorf("build %s: %s is not JSON: %w (%w)", service, path.Join(d.dir, "package.json"), err, spillway.ErrInvalid)
	}
	if len(file.Dependencies) > 0 && !d.has("node_modules") {
		return spillway.Command{}, fmt.Errorf("build %s: %s has dependencies and no package-lock.json beside it; "+
			"run npm install there and commit the lock file: %w", service, path.Join(d.dir, "package.json"), spillway.ErrInvalid)
	}
	return spillway.Command{}, nil
}

var replacement = regexp.MustCompile(`(?m)=>\s*"?(\.[^\s"]*)`)

// scope finds what a build in the directory has to see. It errs on the side of too much: a scope that
// is too small fails the build, one that is too large builds it more often than needed.
func (d directory) scope(root *os.Root, command spillway.Command) (string, error) {
	if d.dir == "." || strings.Contains(command.Shell, "..") ||
		slices.ContainsFunc(command.Exec, func(word string) bool { return strings.Contains(word, "..") }) {
		return ".", nil
	}
	for dir := d.dir; ; dir = path.Dir(dir) {
		if (directory{d.fs, dir}).has("go.work") {
			return ".", nil
		}
		if dir == "." {
			break
		}
	}
	scope := d.dir
	if module, ok := d.module(); ok {
		scope = module
		for _, m := range replacement.FindAllStringSubmatch((directory{d.fs, module}).text("go.mod"), -1) {
			if !filepath.IsLocal(m[1]) {
				return ".", nil
			}
		}
	}
	if strings.Contains(d.text("package.json"), "file:..") {
		return ".", nil
	}
	leaves, err := linksOut(root, scope)
	if leaves || err != nil {
		return ".", err
	}
	return scope, nil
}

// linksOut reports whether a link below a directory of a source leads out of the directory.
func linksOut(source *os.Root, dir string) (bool, error) {
	root, err := source.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	leaves := false
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		if _, err := root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			leaves = true
			return fs.SkipAll
		}
		return nil
	})
	return leaves, err
}
