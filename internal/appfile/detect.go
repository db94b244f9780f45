package appfile

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// Detect looks at a directory and writes the app file to begin with, commented, for "spillway init".
// It also says what it found and what it could not know, a sentence each. It runs nothing and writes
// nothing. It is ErrNotFound when there is nothing in the directory that it knows how to run; the
// error then has an example to start from.
//
// A Procfile comes first, then a program in the directory itself; else each subdirectory with a
// program is a service. The service that looks like the front is public and needs the others.
func Detect(dir string) (text string, why []string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", nil, fmt.Errorf("look at the directory: %w", err)
	}
	tree := os.DirFS(dir)
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return "", nil, fmt.Errorf("look at the directory: %w", err)
	}
	d := detection{tree: tree}
	d.procfile()
	if len(d.found) == 0 {
		d.directory(".", "web")
	}
	if len(d.found) == 0 {
		for _, e := range entries {
			if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(notServices[:], e.Name()) {
				d.directory(e.Name(), e.Name())
			}
		}
	}
	if len(d.found) == 0 {
		seen := strings.Join(append([]string{""}, d.why...), "\n")
		return "", d.why, fmt.Errorf("%s has nothing that Spillway knows how to run: no Procfile, go.mod, package.json, app.py or index.html%s\n"+
			"write spillway.yaml by hand; the smallest is:\n\n%s: %w", dir, seen, strings.TrimSpace(minimal), spillway.ErrNotFound)
	}
	return d.text(toLabel(filepath.Base(dir), 40)), d.why, nil
}

// notServices are directories that hold programs, but none of the app's own to run.
var notServices = [...]string{"node_modules", "vendor", "testdata", "test", "tests", "docs", "dist", "public", "static", "examples"}

// fronts are the names of services that users reach, the likeliest first.
var fronts = [...]string{"www", "web", "frontend", "front", "site", "ui", "app", "gateway"}

// detection is what was found in one directory.
type detection struct {
	tree  fs.FS
	found []found
	why   []string
}

// found is one service.
type found struct {
	name    string
	dir     string // relative, "." is the whole source
	command string // of the build; "" = Spillway finds it
	run     string
	release string // "" = nothing is run before a release
}

// say notes something for the user.
func (d *detection) say(format string, args ...any) {
	d.why = append(d.why, fmt.Sprintf(format, args...))
}

// free makes of the name of a directory or process a service's name that no other has.
func (d *detection) free(name string) string {
	label := toLabel(name, 28)
	name = label
	for n := 2; slices.ContainsFunc(d.found, func(f found) bool { return f.name == name }); n++ {
		name = label + strconv.Itoa(n)
	}
	return name
}

func (d *detection) exists(name ...string) bool {
	_, err := fs.Stat(d.tree, path.Join(name...))
	return err == nil
}

// read gives a file; "" when it cannot be read.
func (d *detection) read(name ...string) string {
	text, _ := fs.ReadFile(d.tree, path.Join(name...))
	return string(text)
}

var procfileLine = regexp.MustCompile(`(?m)^([A-Za-z0-9_-]+):[ \t]*(\S.*?)\s*$`)

// procfile finds the services of a Procfile.
func (d *detection) procfile() {
	build := detection{tree: d.tree}
	build.directory(".", "web") // says how the directory is built
	command := ""
	if len(build.found) > 0 {
		command = build.found[0].command
	}
	release := ""
	for _, m := range procfileLine.FindAllStringSubmatch(d.read("Procfile"), -1) {
		name, run := m[1], m[2]
		if command != "" {
			run = inVenv(run)
		}
		switch {
		case name == "release":
			release = run
		case name == "web" || strings.Contains(run, "PORT"):
			d.say("Procfile: %s runs %s.", name, run)
			d.found = append(d.found, found{name: d.free(name), dir: ".", command: command, run: run})
		default:
			d.say("Procfile: %s is left out: it does not mention $PORT, and this version of Spillway runs what listens there.", name)
		}
	}
	if release != "" && len(d.found) > 0 {
		d.say("Procfile: release runs %s once, before replicas of %s start.", release, d.found[0].name)
		d.found[0].release = release
	}
}

// directory finds the service of one directory, by the first of the kinds of program that is there.
func (d *detection) directory(dir, name string) {
	name = d.free(name)
	switch {
	case d.exists(dir, "go.mod"):
		d.goModule(dir, name)
	case d.exists(dir, "package.json"):
		d.node(dir, name)
	case d.python(dir, name):
	case d.exists(dir, "index.html"):
		d.say("%s: %s is served as it is, by python3.", name, path.Join(dir, "index.html"))
		d.found = append(d.found, found{name: name, dir: dir, run: "python3 -m http.server $PORT --bind $HOST"})
	case d.exists(dir, "Dockerfile"):
		d.say("%s is left out: Spillway builds no images from it; give it build and run by hand, or push the image and write image: REF.", path.Join(dir, "Dockerfile"))
	}
}

// text is the app file.
func (d *detection) text(app string) string {
	public := 0
	for _, front := range slices.Backward(fronts[:]) { // the likeliest is looked for last and wins
		if i := slices.IndexFunc(d.found, func(f found) bool { return f.name == front }); i >= 0 {
			public = i
		}
	}
	var b strings.Builder
	b.WriteString("# What the app consists of and how a new release of it takes over.\n" +
		"# Try it here: spillway up. All keys: spillway schema.\n")
	fmt.Fprintf(&b, "app: %s\nservices:\n", scalar(app))
	for i, f := range d.found {
		fmt.Fprintf(&b, "  %s:\n", scalar(f.name))
		f.writeBuild(&b)
		fmt.Fprintf(&b, "    run: %s\n", scalar(f.run))
		if f.release != "" {
			fmt.Fprintf(&b, "    release: %s    # once, before any replica of the release starts\n", scalar(f.release))
		}
		if i != public {
			b.WriteString("    # no host: private to the app\n")
			continue
		}
		fmt.Fprintf(&b, "    host: %s.localhost    # the public name; add your own: [%s.localhost, www.example.com]\n", app, app)
		if others := d.others(public); len(others) > 0 {
			prefix := strings.ReplaceAll(strings.ToUpper(others[0]), "-", "_")
			fmt.Fprintf(&b, "    # it is given %s_HOST, %s_PORT and %s_URL in its environment\n    needs: [%s]\n", prefix, prefix, prefix, strings.Join(others, ", "))
		}
		b.WriteString("    # health: /healthz   # a path that answers 200; without it the port must accept connections\n" +
			"    # scale: 2           # replicas\n" +
			"    # strategy: canary   # or rolling (default), blue-green, recreate\n")
	}
	b.WriteString("# budget: 20             # failed requests that a rollout may cost before it is rolled back\n")
	return b.String()
}

func (f found) writeBuild(b *strings.Builder) {
	dir := "."
	if f.dir != "." {
		dir = "./" + f.dir
	}
	if f.command == "" {
		fmt.Fprintf(b, "    build: %s\n", scalar(dir))
		return
	}
	fmt.Fprintf(b, "    build:\n      dir: %s\n      command: %s\n", scalar(dir), scalar(f.command))
}

// others names the services but one.
func (d *detection) others(but int) []string {
	var names []string
	for i, f := range d.found {
		if i != but {
			names = append(names, scalar(f.name))
		}
	}
	return names
}

var plainScalar = regexp.MustCompile(`^[A-Za-z./_$]([A-Za-z0-9 ./_$=&<>+-]|:[A-Za-z0-9./_$])*$`)

// scalar writes a text as YAML, in quotes where it needs them.
func scalar(text string) string {
	word := strings.ToLower(text)
	if plainScalar.MatchString(text) && !strings.HasSuffix(text, " ") && !slices.Contains([]string{"true", "false", "null", ".inf", ".nan"}, word) {
		return text
	}
	return strconv.Quote(text)
}

var notLabel = regexp.MustCompile(`[^a-z0-9]+`)

// toLabel makes a DNS label of a name: "My_App.v2" becomes "my-app-v2".
func toLabel(name string, most int) string {
	label := strings.Trim(notLabel.ReplaceAllString(strings.ToLower(name), "-"), "-")
	for extension(label) { // would be ignored
		label = strings.TrimPrefix(label, "x-")
	}
	label = strings.Trim(label[:min(len(label), most)], "-")
	if label == "" {
		return "app"
	}
	return label
}
