package e2etest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Example copies an example of the repository at root, so that the test can change it, and gives the directory.
func Example(t *testing.T, root, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "examples", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Replace changes a text in a file, where it comes first; that it is there is part of the test.
func Replace(t *testing.T, file, old, new string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s does not contain %q", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Triggers is a copy of examples/triggers in a git repository.
type Triggers struct {
	t   *testing.T
	Dir string
}

// NewTriggers makes one whose program says that it is of version "1". Nothing is committed yet.
func NewTriggers(t *testing.T, root string) *Triggers {
	t.Helper()
	tr := &Triggers{t, Example(t, root, "triggers")}
	tr.Edit("    scale: 2\n", "    scale: 2\n    env: {VERSION: \"1\"}\n")
	tr.Git("init", "-q")
	return tr
}

// Edit changes a text of the app file.
func (tr *Triggers) Edit(old, new string) {
	tr.t.Helper()
	Replace(tr.t, filepath.Join(tr.Dir, "spillway.yaml"), old, new)
}

// Version makes the next deploy one of another version, and commits that.
func (tr *Triggers) Version(from, to string) {
	tr.t.Helper()
	tr.Edit(`VERSION: "`+from+`"`, `VERSION: "`+to+`"`)
	tr.Commit()
}

// Git runs git in the repository and gives what it prints.
func (tr *Triggers) Git(args ...string) string {
	tr.t.Helper()
	cmd := exec.Command("git", append([]string{"-C", tr.Dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.com"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		tr.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Commit commits everything.
func (tr *Triggers) Commit() {
	tr.t.Helper()
	tr.Git("add", ".")
	tr.Git("commit", "-q", "-m", "another version")
}

// Slow opens a request that takes as long as its URL says, waits for its first line, and gives its text when it has ended.
func Slow(t *testing.T, browser *http.Client, url string) <-chan string {
	t.Helper()
	response, err := browser.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	text := make(chan string, 1)
	// Owned by the test; ends with the request, which has a time limit. Nobody waits: the channel has room.
	go func() {
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			body = fmt.Append(body, err)
		}
		text <- string(body)
	}()
	return text
}

var acknowledged = regexp.MustCompile(`serves everybody after (\S+) \(route acknowledged\)`)

// Acknowledged is how long a command says in its output that it took until the new route was served.
func Acknowledged(t *testing.T, output string) time.Duration {
	t.Helper()
	m := acknowledged.FindStringSubmatch(output)
	if m == nil {
		t.Fatalf("want the time until the route was acknowledged in the output %s", output)
	}
	d, err := time.ParseDuration(m[1])
	if err != nil {
		t.Fatalf("%v in the output %s", err, output)
	}
	return d
}
