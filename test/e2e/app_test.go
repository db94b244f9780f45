package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"text/template"

	"github.com/spillway-dev/spillway/internal/e2etest"
)

// app is an app of the test's own program, in a directory of its own. Change its fields, then deploy it.
type app struct {
	t   *testing.T
	dir string

	Name     string
	Self     string
	Strategy string            // rolling, …
	Steps    string            // of a canary: "5%, 50%"
	Tiers    bool              // web needs peer, a private service; both change with every release
	Scale    int               // replicas of each service
	Watch    string            // "1s"
	Deadline string            // "10s"
	Pause    bool              // thin evidence pauses the rollout, which is the default of a file
	Env      map[string]string // of web
	PeerEnv  map[string]string // of peer
	Lines    []string          // of web, besides these
	Top      []string          // of the file, besides these
	N        int               // rises with every bump
}

// newApp gives an app that was not deployed yet: two replicas, rolling, a short watch.
func newApp(t *testing.T, name string) *app {
	return &app{
		t: t, dir: t.TempDir(), Name: name, Self: self, Strategy: "rolling", Scale: 2, Watch: "1s", Deadline: "20s",
		Env: map[string]string{}, PeerEnv: map[string]string{},
	}
}

var appTemplate = template.Must(template.New("app").Parse(`app: {{.Name}}
services:
  web:
    run: [{{.Self}}, site]
    host: {{.Host}}
    health: /healthz
    scale: {{.Scale}}
    strategy: {{.Strategy}}
{{- if .Steps}}
    steps: [{{.Steps}}]
{{- end}}
    env: {N: "{{.N}}"{{range $k, $v := .Env}}, {{$k}}: "{{$v}}"{{end}}}
{{- range .Lines}}
    {{.}}
{{- end}}
{{- if .Tiers}}
    needs: [peer]
  peer:
    run: [{{.Self}}, site]
    health: /healthz
    scale: {{.Scale}}
    env: {N: "{{.N}}"{{range $k, $v := .PeerEnv}}, {{$k}}: "{{$v}}"{{end}}}
{{- end}}
watch: {{.Watch}}
deadline: {{.Deadline}}
{{- if not .Pause}}
thin: promote
{{- end}}
{{- range .Top}}
{{.}}
{{- end}}
`))

// Host is the name at which the app is reached.
func (a *app) Host() string { return a.Name + ".localhost" }

// bump makes the next deploy a new release.
func (a *app) bump() *app { a.N++; return a }

// write writes the app file and gives its directory.
func (a *app) write() string {
	a.t.Helper()
	var text bytes.Buffer
	if err := appTemplate.Execute(&text, a); err != nil {
		a.t.Fatal(err)
	}
	writeFile(a.t, filepath.Join(a.dir, "spillway.yaml"), text.String())
	return a.dir
}

// castle copies examples/castle, so that the test can change it, and gives the directory.
func castle(t *testing.T) string { t.Helper(); return example(t, "castle") }

// example copies an example, so that the test can change it, and gives the directory.
func example(t *testing.T, name string) string {
	t.Helper()
	return e2etest.Example(t, root(), name)
}

// replace changes a text in a file; that it is there is part of the test.
var replace = e2etest.Replace

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
