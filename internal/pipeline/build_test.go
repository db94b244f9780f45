package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
)

func service(dir, shell string) spillway.Service {
	return spillway.Service{Name: "www", Build: &spillway.Build{Dir: dir, Command: spillway.Command{Shell: shell}}}
}

func quiet(string) {}

// build builds and fails the test when that fails.
func build(t *testing.T, b *pipeline.Builder, tree pipeline.Tree, s spillway.Service) spillway.Artefact {
	t.Helper()
	var output []string
	a, err := b.Build(t.Context(), tree, s, func(line string) { output = append(output, line) })
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(output, "\n"))
	}
	if err := b.Exists(a); err != nil {
		t.Fatal(err)
	}
	return a
}

func digest(t *testing.T, b *pipeline.Builder, tree pipeline.Tree, s spillway.Service) string {
	t.Helper()
	d, err := b.SourceDigest(tree, s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// output runs a program of an artefact as a replica would.
func output(t *testing.T, a spillway.Artefact, program string) string {
	t.Helper()
	cmd := exec.Command(program)
	cmd.Dir = a.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
	return string(out)
}

const program = "package main\n\nfunc main() { print(%q) }\n"

func TestBuild_MakesGoProgramNamedAfterItsDirectory(t *testing.T) {
	need(t, "go")
	t.Setenv("GOPROXY", "off")
	b, dir := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{
		"go.mod": "module example.com/shop/v2\n\ngo 1.21\n", "main.go": fmt.Sprintf(program, "shop"), "cmd/admin/main.go": fmt.Sprintf(program, "admin"),
		"www/go.mod": "module example.com/site\n\ngo 1.21\n", "www/main.go": fmt.Sprintf(program, "www"), "www/page.html": "hi",
	}))
	for dir, program := range map[string]string{".": "shop", "www": "www", "cmd/admin": "admin"} {
		a := build(t, b, tree, service(dir, ""))
		if got := output(t, a, "./"+program); got != program {
			t.Errorf("build %s: ./%s prints %q", dir, program, got)
		}
	}
	nothingLeft(t, dir)
}

func TestBuild_SeesReplacedModulesBesideIt(t *testing.T) {
	need(t, "go")
	t.Setenv("GOPROXY", "off")
	source := write(t, map[string]string{
		"www/go.mod":  "module example.com/www\n\ngo 1.21\n\nrequire example.com/lib v0.0.0\n\nreplace example.com/lib => ../lib\n",
		"www/main.go": "package main\n\nimport \"example.com/lib\"\n\nfunc main() { print(lib.Text) }\n",
		"lib/go.mod":  "module example.com/lib\n\ngo 1.21\n", "lib/lib.go": "package lib\n\nconst Text = \"one\"\n",
	})
	b, _ := newBuilder(t)
	if got := output(t, build(t, b, unpacked(t, b, source), service("www", "")), "./www"); got != "one" {
		t.Errorf("prints %q", got)
	}
	add(t, source, map[string]string{"lib/lib.go": "package lib\n\nconst Text = \"two\"\n"})
	if got := output(t, build(t, b, unpacked(t, b, source), service("www", "")), "./www"); got != "two" {
		t.Errorf("after a change of the library it prints %q", got)
	}
}

func TestBuild_SaysThatThereIsNoProgram(t *testing.T) {
	need(t, "go")
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"go.mod": "module example.com/lib\n\ngo 1.21\n", "lib.go": "package lib\n"}))
	_, err := b.Build(t.Context(), tree, service(".", ""), quiet)
	if err == nil || !strings.Contains(err.Error(), "no package main") {
		t.Errorf("got %v", err)
	}
	// go build -o shop would write shop/shop.
	tree = unpacked(t, b, write(t, map[string]string{"go.mod": "module example.com/shop\n", "main.go": "package main\n", "shop/x.go": "package shop\n"}))
	if _, err := b.Build(t.Context(), tree, service(".", ""), quiet); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "as a directory there is") {
		t.Errorf("got %v", err)
	}
}

func TestBuild_RunsTheCommandInACleanCopyAndEnvironment(t *testing.T) {
	t.Setenv("SMTP_PASSWORD", "secret")
	t.Setenv("GOFLAGS", "-mod=mod")
	t.Setenv("npm_config_registry", "http://127.0.0.1:1")
	source := write(t, map[string]string{"www/in.txt": "in", "backend/x": "x", "spillway.yaml": "app: x"})
	b, state := newBuilder(t)
	tree := unpacked(t, b, source)
	a := build(t, b, tree, service("www", `cat in.txt > out.txt; cat >> out.txt; env | grep -c -e SMTP -e SPILLWAY > secrets.txt; env | grep -e GOFLAGS -e npm_config_reg > passed.txt; ls .. > beside.txt`))
	got := list(t, a.Dir)
	got["passed.txt"] = strings.Join(slices.Sorted(strings.FieldsSeq(got["passed.txt"])), " ")
	same(t, got, map[string]string{
		"in.txt": "in", "out.txt": "in", "secrets.txt": "0\n", "beside.txt": "backend\nwww\n",
		"passed.txt": "GOFLAGS=-mod=mod npm_config_registry=http://127.0.0.1:1",
	})
	same(t, list(t, tree.Dir), map[string]string{"www/in.txt": "in", "backend/x": "x", "spillway.yaml": "app: x"})
	// The command above mentions "..", so it sees everything. One that does not sees its directory.
	a = build(t, b, tree, service("www", `touch count; find $(dirname $PWD) -type f | wc -l > count`))
	if got := strings.TrimSpace(list(t, a.Dir)["count"]); got != "2" { // in.txt and count itself
		t.Errorf("the build sees %s files", got)
	}
	if !strings.HasPrefix(a.Dir, state) || !filepath.IsAbs(a.Dir) {
		t.Errorf("the artefact is in %s", a.Dir)
	}
	nothingLeft(t, state)
}

func TestBuild_WithoutCommandTheDirectoryIsTheArtefact(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"index.html": "hi", "sub/x": "x", "run*": "", "spillway.yaml": "app: x"}))
	same(t, list(t, build(t, b, tree, spillway.Service{Name: "web"}).Dir), map[string]string{"index.html": "hi", "sub/x": "x", "run*": ""})
	same(t, list(t, build(t, b, tree, service("sub", "")).Dir), map[string]string{"x": "x"})
}

func TestBuild_DetectsNode(t *testing.T) {
	bin := write(t, map[string]string{"npm*": "#!/bin/sh\necho \"$@\" > args\n"})
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{
		"locked/package.json": `{}`, "locked/package-lock.json": `{}`, "plain/package.json": `{"scripts": {}}`,
		"open/package.json": `{"dependencies": {"ws": "8"}}`, "broken/package.json": `{`, "image/Dockerfile": "FROM scratch",
	}))
	if got := list(t, build(t, b, tree, service("locked", "")).Dir)["args"]; got != "ci\n" {
		t.Errorf("npm was called with %q", got)
	}
	build(t, b, tree, service("plain", ""))
	for dir, says := range map[string]string{"open": "package-lock.json", "broken": "not JSON", "image": "builds no images", "nothing": "no directory"} {
		if _, err := b.Build(t.Context(), tree, service(dir, ""), quiet); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want ErrInvalid that says %q", dir, err, says)
		}
	}
}

func TestBuild_BuildsTheSameSourceOnce(t *testing.T) {
	counter := filepath.Join(t.TempDir(), "count")
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"www/a": "a"}))
	s := service("www", "echo built >> "+counter)
	artefacts := make([]spillway.Artefact, 4)
	var group sync.WaitGroup
	for i := range artefacts {
		group.Go(func() { // owned by this test, which waits below; ends with Build
			artefacts[i], _ = b.Build(t.Context(), tree, s, quiet)
		})
	}
	group.Wait()
	artefacts = append(artefacts, build(t, b, tree, s))
	if text, _ := os.ReadFile(counter); string(text) != "built\n" {
		t.Errorf("the command ran so often: %q", text)
	}
	if got := slices.Compact(artefacts); len(got) != 1 || got[0].Source != digest(t, b, tree, s) {
		t.Errorf("got %+v", got)
	}
}

func TestBuild_TellsHowACommandFailed(t *testing.T) {
	b, dir := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"www/a": "a"}))
	var lines []string
	_, err := b.Build(t.Context(), tree, service("www", "seq 30; echo oops >&2; exit 3"), func(line string) { lines = append(lines, line) })
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"build www", "seq 30; echo oops", "exit code 3", "\n  12\n", "\n  30\n  oops\n", "next:", "sees only www"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "\n  11\n") || len(lines) != 31 {
		t.Errorf("got %d lines and %v", len(lines), err)
	}
	if _, err := b.Build(t.Context(), tree, service("www", "no-such-program-here"), quiet); err == nil || !strings.Contains(err.Error(), "not found (exit code 127)") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, dir)
	if entries, _ := os.ReadDir(filepath.Join(dir, "artefacts")); len(entries) > 0 {
		t.Errorf("a failed build left %v", entries)
	}
}

func TestBuild_SaysWhichToolIsMissing(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"go.mod": "module x\n", "main.go": "package main\n"}))
	t.Setenv("PATH", t.TempDir())
	if _, err := b.Build(t.Context(), tree, service(".", ""), quiet); !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "go is not installed") || !strings.Contains(err.Error(), "; install it and deploy again") {
		t.Errorf("got %v", err)
	}
	b.ToolsBy("take another image")
	if _, err := b.Build(t.Context(), tree, service(".", ""), quiet); err == nil || !strings.Contains(err.Error(), "; take another image and deploy again") || strings.Contains(err.Error(), "install it") {
		t.Errorf("where nothing can be installed: %v", err)
	}
}

func TestBuild_CutsLongLines(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"a": "a"}))
	var lines []string
	_, err := b.Build(t.Context(), tree, service(".", `head -c 50000 /dev/zero | tr '\0' x; printf '\r\nshort\n\nlast'`), func(line string) { lines = append(lines, line) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{strings.Repeat("x", 16<<10) + "…", "short", "", "last"}; !slices.Equal(lines, want) {
		t.Errorf("got %d lines: %.80q", len(lines), lines)
	}
}

// gone waits until a process ends; a zombie has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("process %d still runs: %s", pid, stat)
		}
	}
}

func TestBuild_CancelKillsTheChildrenToo(t *testing.T) {
	b, dir := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"a": "a"}))
	ctx, cancel := context.WithCancelCause(t.Context())
	pid := 0
	_, err := b.Build(ctx, tree, service(".", "sleep 1000 & echo $!; wait"), func(line string) {
		pid, _ = strconv.Atoi(line)
		cancel(errors.New("the client went away"))
	})
	if err == nil || !strings.Contains(err.Error(), "the client went away") || pid == 0 {
		t.Fatalf("got %v, pid %d", err, pid)
	}
	gone(t, pid)
	nothingLeft(t, dir)
}

func TestBuild_EndsWhatACommandLeftInTheBackground(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"a": "a"}))
	a := build(t, b, tree, service(".", "sleep 1000 >/dev/null 2>&1 & echo $! > pid"))
	pid, err := strconv.Atoi(strings.TrimSpace(list(t, a.Dir)["pid"]))
	if err != nil {
		t.Fatal(err)
	}
	gone(t, pid)
}

func TestBuild_HasALimitOfTime(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"a": "a"}))
	b.Limit(1<<20, 100, 20*time.Millisecond)
	_, err := b.Build(t.Context(), tree, service(".", "sleep 1000"), quiet)
	if err == nil || !strings.Contains(err.Error(), "longer than 20ms") {
		t.Errorf("got %v", err)
	}
}

func TestSourceDigest_ChangesWithWhatTheBuildSees(t *testing.T) {
	b, _ := newBuilder(t)
	base := map[string]string{"www/a": "a", "www/run*": "x", "backend/b": "b", "spillway.yaml": "app: x"}
	with := func(changes map[string]string, gone ...string) pipeline.Tree {
		files := maps.Clone(base)
		maps.Copy(files, changes)
		for _, name := range gone {
			delete(files, name)
		}
		return unpacked(t, b, write(t, files))
	}
	tree, www := with(nil), service("www", "make")
	whole := spillway.Service{Name: "web"}
	for name, same := range map[string]bool{
		"again":       digest(t, b, with(nil), www) == digest(t, b, tree, www),
		"app file":    digest(t, b, with(map[string]string{"spillway.yaml": "app: y"}), whole) == digest(t, b, tree, whole),
		"other tier":  digest(t, b, with(map[string]string{"backend/b": "c"}), www) == digest(t, b, tree, www),
		"other name":  digest(t, b, tree, spillway.Service{Name: "x", Build: www.Build}) == digest(t, b, tree, www),
		"whole again": digest(t, b, with(nil), whole) == digest(t, b, tree, whole),
	} {
		if !same {
			t.Errorf("%s: the digest changed", name)
		}
	}
	for name, same := range map[string]bool{
		"content":          digest(t, b, with(map[string]string{"www/a": "b"}), www) == digest(t, b, tree, www),
		"name":             digest(t, b, with(map[string]string{"www/c": "a"}, "www/a"), www) == digest(t, b, tree, www),
		"mode":             digest(t, b, with(map[string]string{"www/run": "x"}, "www/run*"), www) == digest(t, b, tree, www),
		"link":             digest(t, b, with(map[string]string{"www/l": "->a"}), www) == digest(t, b, tree, www),
		"command":          digest(t, b, tree, service("www", "make all")) == digest(t, b, tree, www),
		"directory":        digest(t, b, tree, service("backend", "make")) == digest(t, b, tree, www),
		"whole, a tier":    digest(t, b, with(map[string]string{"backend/b": "c"}), whole) == digest(t, b, tree, whole),
		"command with ..":  digest(t, b, with(map[string]string{"backend/b": "c"}), service("www", "make -C ..")) == digest(t, b, tree, service("www", "make -C ..")),
		"link to the side": digest(t, b, with(map[string]string{"backend/b": "c", "www/l": "->../backend"}), www) == digest(t, b, with(map[string]string{"www/l": "->../backend"}), www),
		"go.work above":    digest(t, b, with(map[string]string{"backend/b": "c", "go.work": ""}), www) == digest(t, b, with(map[string]string{"go.work": ""}), www),
		"npm file above":   digest(t, b, with(map[string]string{"backend/b": "c", "www/package.json": `{"x": "file:../backend"}`}), www) == digest(t, b, with(map[string]string{"www/package.json": `{"x": "file:../backend"}`}), www),
	} {
		if same {
			t.Errorf("%s: the digest did not change", name)
		}
	}
}

func TestExists_TellsWhatIsGone(t *testing.T) {
	for name, harm := range map[string]func(a spillway.Artefact, home string) (spillway.Artefact, error){
		"all":       func(a spillway.Artefact, home string) (spillway.Artefact, error) { return a, os.RemoveAll(home) },
		"directory": func(a spillway.Artefact, _ string) (spillway.Artefact, error) { return a, os.RemoveAll(a.Dir) },
		"marker": func(a spillway.Artefact, home string) (spillway.Artefact, error) {
			return a, os.Remove(filepath.Join(home, "artefact.json"))
		},
		"content": func(a spillway.Artefact, _ string) (spillway.Artefact, error) { a.Digest = "sha256:00"; return a, nil },
		"nothing": func(spillway.Artefact, string) (spillway.Artefact, error) { return spillway.Artefact{}, nil },
	} {
		b, _ := newBuilder(t)
		a := build(t, b, unpacked(t, b, write(t, map[string]string{"www/a": "a"})), service("www", ""))
		a, err := harm(a, filepath.Dir(filepath.Dir(a.Dir)))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Exists(a); !errors.Is(err, spillway.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", name, err)
		}
	}
}

// age makes everything that a builder keeps a day old.
func age(t *testing.T, dir string) {
	t.Helper()
	old := time.Now().Add(-24 * time.Hour)
	for _, pattern := range []string{"artefacts/*/artefact.json", "sources/*"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range names {
			if err := os.Chtimes(name, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPrune_KeepsWhatIsWantedAndWhatIsFresh(t *testing.T) {
	b, dir := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"a/x": "x", "b/x": "x", "c/x": "x", "d/x": "x"}))
	held := build(t, b, tree, service("d", ""))
	wanted, found, stale := service("a", ""), service("b", ""), service("c", "mkdir locked; touch locked/x; chmod 500 locked")
	kept, again, gone := build(t, b, tree, wanted), build(t, b, tree, found), build(t, b, tree, stale)
	age(t, dir)
	build(t, b, tree, found) // a deploy that has not stored its release yet
	if err := b.Hold(held); err != nil {
		t.Fatal(err)
	}
	fresh := build(t, b, tree, service("c", "echo fresh"))
	if err := b.Prune(func(a spillway.Artefact) bool { return a == kept }); err != nil {
		t.Fatal(err)
	}
	for _, a := range []spillway.Artefact{kept, again, held, fresh} {
		if err := b.Exists(a); err != nil {
			t.Error(err)
		}
	}
	if err := b.Exists(gone); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("the stale one: got %v, want ErrNotFound", err)
	}
	if err := b.Hold(gone); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("hold the stale one: got %v, want ErrNotFound", err)
	}
	if _, err := os.Stat(tree.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old source: got %v", err)
	}
	nothingLeft(t, dir)
}

func TestNewBuilder_SweepsWhatACrashLeft(t *testing.T) {
	b, dir := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"www/a": "a"}))
	a := build(t, b, tree, service("www", ""))
	add(t, dir, map[string]string{"temp/build-1/tree/x": "half", "temp/source-1/x": "half"})
	b, err := pipeline.NewBuilder(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, dir)
	if err := b.Exists(a); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// The marker of format 1 must stay readable; one that a newer Spillway wrote is left alone.
func TestBuild_ReadsMarkerOfItsFormat(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"www/a": "a"}))
	a := build(t, b, tree, service("www", ""))
	marker := filepath.Join(filepath.Dir(filepath.Dir(a.Dir)), "artefact.json")
	stored, err := os.ReadFile("testdata/artefact.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(marker); string(got) != string(stored) {
		t.Errorf("writes %s, format 1 is %s", got, stored)
	}
	for text, says := range map[string]string{`{"version": 2}`: "format 2", `{`: "cannot be read", "": "cannot be read"} {
		if err := os.WriteFile(marker, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Build(t.Context(), tree, service("www", ""), quiet); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: Build says %v", text, err)
		}
		if err := b.Exists(a); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: Exists says %v", text, err)
		}
		if got, _ := os.ReadFile(marker); string(got) != text {
			t.Errorf("%q: was overwritten", text)
		}
	}
}

func TestBuilder_SaysThatTheDiskIsFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	_, err = full.WriteString("x")
	b, dir := newBuilder(t)
	err = b.Disk("build www", fmt.Errorf("copy the source: %w", err))
	if !errors.Is(err, spillway.ErrUnavailable) || !strings.Contains(err.Error(), "the disk of "+dir+" is full") {
		t.Errorf("got %v", err)
	}
}
