package appfile

import (
	"encoding/json"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	goMain     = regexp.MustCompile(`(?m)^package main\b`)
	goListens  = regexp.MustCompile(`ListenAndServe|net\.Listen|"PORT"`)
	goFlag     = regexp.MustCompile(`\.(?:String|Int|Uint)(?:Var)?\((?:[^,()"]+,\s*)?"(port|addr|address|listen|http)"`)
	goName     = regexp.MustCompile(`(?m)^module\s+"?([^\s"]+)`)
	goVersion  = regexp.MustCompile(`/v[0-9]+$`)
	pyEntries  = [...]string{"app.py", "main.py", "server.py"}
	nodeStarts = [...]string{"server.js", "main.js", "app.js", "index.js"}
)

// goModule finds the programs of a Go module: the one in its directory, else those in cmd/.
func (d *detection) goModule(dir, name string) {
	if source := d.goSource(dir); goMain.MatchString(source) {
		program := path.Base(dir)
		if dir == "." { // as the build names it
			if m := goName.FindStringSubmatch(d.read("go.mod")); m != nil {
				program = path.Base(goVersion.ReplaceAllString(m[1], ""))
			}
		}
		d.goProgram(found{name: name, dir: dir, run: "./" + program}, source)
		return
	}
	commands, _ := fs.ReadDir(d.tree, path.Join(dir, "cmd"))
	var programs []string
	for _, c := range commands {
		if goMain.MatchString(d.goSource(path.Join(dir, "cmd", c.Name()))) {
			programs = append(programs, path.Join(dir, "cmd", c.Name()))
		}
	}
	listening := slices.DeleteFunc(slices.Clone(programs), func(p string) bool { return !goListens.MatchString(d.goSource(p)) })
	if len(listening) > 0 {
		programs = listening
	}
	if len(programs) == 0 {
		d.say("%s is left out: neither it nor cmd/ has a package main.", path.Join(dir, "go.mod"))
	}
	for _, p := range programs {
		d.goProgram(found{name: d.free(path.Base(p)), dir: p, run: "./" + path.Base(p)}, d.goSource(p))
	}
}

// goSource is the text of the Go files in one directory, without tests.
func (d *detection) goSource(dir string) string {
	files, _ := fs.Glob(d.tree, path.Join(dir, "*.go"))
	var text strings.Builder
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			text.WriteString(d.read(file))
		}
	}
	return text.String()
}

// goProgram notes a Go program, with its port where the source says how it wants to be told.
func (d *detection) goProgram(f found, source string) {
	d.say("%s: a Go program in %s, built with go build.", f.name, f.dir)
	flag := goFlag.FindStringSubmatch(source)
	switch {
	case strings.Contains(source, `"PORT"`):
	case flag == nil:
		d.say("%s: nothing in it reads PORT: have it listen on $HOST:$PORT, or give it the port in run.", f.name)
	case flag[1] == "port":
		f.run += " -port $PORT"
	default:
		f.run += " -" + flag[1] + " $HOST:$PORT"
	}
	d.found = append(d.found, f)
}

// node finds the program of a package.json: what "npm start" would run.
func (d *detection) node(dir, name string) {
	var file struct {
		Main         string
		Scripts      map[string]string
		Dependencies map[string]any
	}
	if err := json.Unmarshal([]byte(d.read(dir, "package.json")), &file); err != nil {
		d.say("%s is left out: it is not JSON: %v.", path.Join(dir, "package.json"), err)
		return
	}
	f := found{name: name, dir: dir}
	start := slices.IndexFunc(nodeStarts[:], func(js string) bool { return d.exists(dir, js) })
	switch {
	case strings.HasPrefix(file.Scripts["start"], "node "):
		f.run = file.Scripts["start"] // without npm in between, signals reach it
	case file.Scripts["start"] != "":
		f.run = "npm start"
	case file.Main != "":
		f.run = "node " + file.Main
	case start >= 0:
		f.run = "node " + nodeStarts[start]
	default:
		d.say("%s is left out: it has neither a start script nor main.", path.Join(dir, "package.json"))
		return
	}
	d.say("%s: a Node program in %s; it must listen on process.env.PORT.", name, dir)
	if len(file.Dependencies) > 0 && !d.exists(dir, "package-lock.json") {
		d.say("%s: it has dependencies and no package-lock.json: run npm install in %s and commit it.", name, dir)
	}
	d.found = append(d.found, f)
}

// python finds a Python program and says whether there is one.
func (d *detection) python(dir, name string) bool {
	i := slices.IndexFunc(pyEntries[:], func(py string) bool { return d.exists(dir, py) })
	if i < 0 {
		if d.exists(dir, "requirements.txt") {
			d.say("%s: which program to start is not clear: there is no %s.", path.Join(dir, "requirements.txt"), strings.Join(pyEntries[:], ", "))
		}
		return false
	}
	module := strings.TrimSuffix(pyEntries[i], ".py")
	f := found{name: name, dir: dir, run: "python3 " + pyEntries[i]}
	d.say("%s: a Python program, %s.", name, path.Join(dir, pyEntries[i]))
	if !d.exists(dir, "requirements.txt") {
		d.say("%s: it must listen on the PORT of its environment.", name)
		d.found = append(d.found, f)
		return true
	}
	f.command = "python3 -m venv .venv && .venv/bin/python -m pip install -r requirements.txt"
	const python = ".venv/bin/python "
	requirements := strings.ToLower(d.read(dir, "requirements.txt"))
	switch {
	case strings.Contains(requirements, "gunicorn"):
		f.run = python + "-m gunicorn --bind $HOST:$PORT " + module + ":app"
	case strings.Contains(requirements, "uvicorn"):
		f.run = python + "-m uvicorn --host $HOST --port $PORT " + module + ":app"
	case strings.Contains(requirements, "flask"):
		f.run = python + "-m flask --app " + module + " run --host $HOST --port $PORT"
	default:
		f.run = python + pyEntries[i]
		d.say("%s: it must listen on the PORT of its environment.", name)
	}
	d.found = append(d.found, f)
	return true
}

// inVenv makes a command use the Python of the build. It starts modules, not scripts: a script names
// the directory that it was installed in, and an artefact moves after its build. A path is a program of
// the app's own and stays.
func inVenv(run string) string {
	word, rest, _ := strings.Cut(run, " ")
	if strings.Contains(word, "/") {
		return run
	}
	if word == "python" || word == "python3" {
		return ".venv/bin/python " + rest
	}
	return ".venv/bin/python -m " + run
}
