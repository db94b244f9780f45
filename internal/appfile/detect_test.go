package appfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/appfile"
)

// project makes a directory with a fixed name and files in it.
func project(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for file, text := range files {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDetect_WritesFileThatParses(t *testing.T) {
	const main = "package main\n\nimport \"flag\"\n\nvar port = flag.Int(\"port\", 80, \"\")\n\nfunc main() {}\n"
	for name, files := range map[string]map[string]string{
		"go":        {"go.mod": "module example.com/Shop/v2\n", "main.go": "package main\nfunc main() { os.Getenv(\"PORT\") }\n"},
		"Castle_2":  {"www/go.mod": "module www\n", "www/main.go": main, "backend/go.mod": "module b\n", "backend/main.go": "package main\nfunc main() {}\n", "docs/index.html": ""},
		"commands":  {"go.mod": "module m\n", "lib.go": "package m\n", "cmd/server/main.go": "package main\nvar a = flag.String(\"addr\", \"\", \"\")\nfunc main() { http.ListenAndServe(*a, nil) }\n", "cmd/tool/main.go": "package main\n"},
		"node":      {"package.json": `{"scripts": {"start": "node server.js --x \"y: z\" # c"}, "dependencies": {"ws": "8"}}`},
		"procfile":  {"Procfile": "web: gunicorn app:app --bind 0.0.0.0:$PORT\nworker: python work.py\nrelease: ./migrate\n", "requirements.txt": "gunicorn\n", "app.py": ""},
		"python":    {"requirements.txt": "Flask==3\n", "app.py": ""},
		"static":    {"index.html": "hi"},
		"x-x-ray":   {"x-a/index.html": "hi", "a/package.json": `{"main": "index.js"}`, "ünï/index.html": "", "img/Dockerfile": "FROM scratch"},
		"leftovers": {"a/go.mod": "module a\n", "a/lib.go": "package a\n", "b/package.json": "{}", "c/package.json": "{", "d/requirements.txt": "", "e/app.py": ""},
	} {
		t.Run(name, func(t *testing.T) {
			text, why, err := appfile.Detect(project(t, name, files))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := appfile.Parse("spillway.yaml", []byte(text)); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
			golden(t, filepath.Join("testdata", "detect", strings.ToLower(name)+".txt"), []byte(text+"\n"+strings.Join(why, "\n")+"\n"))
		})
	}
}

// What is commented out in the file must be right too when the user removes the comment sign.
func TestDetect_WritesCommentsThatParse(t *testing.T) {
	text, _, err := appfile.Detect(project(t, "static", map[string]string{"index.html": "hi"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"health", "scale", "strategy", "budget"} {
		if !strings.Contains(text, "# "+key+": ") {
			t.Errorf("%s is not in\n%s", key, text)
		}
		text = strings.Replace(text, "# "+key+": ", key+": ", 1)
	}
	app, err := appfile.Parse("spillway.yaml", []byte(text))
	if err != nil || app.Services[0].Strategy != spillway.Canary || app.Services[0].Scale != 2 {
		t.Errorf("got %+v, %v\n%s", app, err, text)
	}
}

func TestDetect_SaysThatThereIsNothing(t *testing.T) {
	_, why, err := appfile.Detect(project(t, "image", map[string]string{"Dockerfile": "FROM scratch"}))
	if !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "builds no images") || len(why) != 1 {
		t.Errorf("got %v, %v", why, err)
	}
	if _, _, err := appfile.Detect(filepath.Join(t.TempDir(), "nothing")); err == nil {
		t.Error("a directory that is not there: no error")
	}
}
