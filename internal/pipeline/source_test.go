package pipeline_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/pipeline"
)

// write makes files in a new directory. A name that ends with * is executable, a text that begins with
// -> is a link.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	add(t, dir, files)
	return dir
}

func add(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		bare, executable := strings.CutSuffix(name, "*")
		file := filepath.Join(dir, bare)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(text, "->"); link {
			err = os.Symlink(target, file)
		} else if executable {
			err = os.WriteFile(file, []byte(text), 0o755)
		} else {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// list gives everything below a directory: files with their text, executable ones with *, links with ->.
func list(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		relative, _ := filepath.Rel(dir, name)
		if info.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(name)
			found[relative] = "->" + target
			return err
		}
		if info.Mode()&0o111 != 0 {
			relative += "*"
		}
		text, err := os.ReadFile(name)
		found[relative] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if g, ok := got[name]; !ok || g != text {
			t.Errorf("%s: got %q, want %q", name, g, text)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: should not be there", name)
		}
	}
}

func pack(t *testing.T, dir string) (pipeline.Packed, []byte) {
	t.Helper()
	var archive bytes.Buffer
	packed, err := pipeline.Pack(&archive, dir)
	if err != nil {
		t.Fatal(err)
	}
	return packed, archive.Bytes()
}

func newBuilder(t *testing.T) (*pipeline.Builder, string) {
	t.Helper()
	dir := t.TempDir()
	b, err := pipeline.NewBuilder(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// unpacked packs a directory and unpacks it.
func unpacked(t *testing.T, b *pipeline.Builder, dir string) pipeline.Tree {
	t.Helper()
	_, archive := pack(t, dir)
	tree, err := b.Unpack(t.Context(), bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// nothingLeft fails when temporary files are left.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(filepath.Join(dir, "temp")); err != nil || len(entries) > 0 {
		t.Errorf("left in temp: %v %v", entries, err)
	}
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("this test needs %s in PATH; install it", program)
	}
}

func gitRepo(t *testing.T, files map[string]string) string {
	t.Helper()
	need(t, "git")
	dir := write(t, files)
	gitIn(t, dir, "init", "-q")
	gitIn(t, dir, "config", "user.name", "Test")
	gitIn(t, dir, "config", "user.email", "test@example.com")
	gitIn(t, dir, "config", "commit.gpgsign", "false")
	return dir
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestPack_OutsideOfGitTakesAllButTheUsualLeftovers(t *testing.T) {
	files := map[string]string{
		"a.txt": "a", "bin/run*": "#!/bin/sh\n", "link": "->bin/run", "dangling": "->bin/nothing", "deep/er/b": "",
	}
	dir := write(t, files)
	add(t, dir, map[string]string{".git/config": "x", "web/node_modules/m/i.js": "x", ".spillway/state": "x"})
	b, state := newBuilder(t)
	packed, _ := pack(t, dir)
	if packed.Files != 5 || packed.Bytes != 11 || packed.Commit != "" || packed.Dirty || packed.Skipped != nil {
		t.Errorf("got %+v", packed)
	}
	same(t, list(t, unpacked(t, b, dir).Dir), files)
	nothingLeft(t, state)
}

func TestPack_GivesTheSameBytesForTheSameFiles(t *testing.T) {
	files := map[string]string{"b": "b", "a/x": "x", "a-b": "y", "run*": "z", "l": "->b"}
	one, two := write(t, files), write(t, files)
	old := time.Unix(1_000_000_000, 0)
	if err := errors.Join(os.Chtimes(filepath.Join(two, "b"), old, old), os.Chmod(filepath.Join(two, "b"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, first := pack(t, one)
	_, second := pack(t, two)
	if !bytes.Equal(first, second) {
		t.Error("the archives differ")
	}
}

func TestPack_LeavesOutWhatNoReleaseCanHold(t *testing.T) {
	dir := write(t, map[string]string{"a": "a", "in": "->a", "out": "->/etc/passwd", "up": "->../..", "chain": "->here/..", "here": "->."})
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	packed, _ := pack(t, dir)
	if want := []string{"chain", "out", "pipe", "sock", "up"}; !slices.Equal(packed.Skipped, want) {
		t.Errorf("skipped %v, want %v", packed.Skipped, want)
	}
	b, _ := newBuilder(t)
	same(t, list(t, unpacked(t, b, dir).Dir), map[string]string{"a": "a", "in": "->a", "here": "->."})
}

func TestPack_InGitTakesWhatGitDoesNotIgnore(t *testing.T) {
	dir := gitRepo(t, map[string]string{".gitignore": "*.log\n/out/\n", "a": "a", "gone": "x", "web/index.html": "hi", "é b": "odd name"})
	gitIn(t, dir, "add", ".")
	gitIn(t, dir, "commit", "-q", "-m", "first")
	packed, _ := pack(t, dir)
	if packed.Commit != gitIn(t, dir, "rev-parse", "HEAD") || len(packed.Commit) != 40 || packed.Dirty {
		t.Errorf("got %+v of a clean tree", packed)
	}
	add(t, dir, map[string]string{"x.log": "x", "out/bin": "x", "new": "n", "web/new.css": "c", "web/x.log": "x"})
	add(t, dir, map[string]string{"nested/.git/HEAD": "ref: refs/heads/main\n"}) // not a whole repository: git lists nothing of it
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	b, _ := newBuilder(t)
	if packed, _ := pack(t, dir); !packed.Dirty || packed.Files != 6 {
		t.Errorf("got %+v of a dirty tree", packed)
	}
	same(t, list(t, unpacked(t, b, dir).Dir), map[string]string{
		".gitignore": "*.log\n/out/\n", "a": "a", "new": "n", "web/index.html": "hi", "web/new.css": "c", "é b": "odd name",
	})
	same(t, list(t, unpacked(t, b, filepath.Join(dir, "web")).Dir), map[string]string{"index.html": "hi", "new.css": "c"})
	// A directory that git ignores as a whole can be deployed all the same.
	same(t, list(t, unpacked(t, b, filepath.Join(dir, "out")).Dir), map[string]string{"bin": "x"})
}

func TestPack_TakesRepositoriesInside(t *testing.T) {
	dir := gitRepo(t, map[string]string{"a": "a"})
	inner := gitRepo(t, map[string]string{"lib.go": "package lib", ".gitignore": "*.o", "x.o": "x"})
	if err := os.Rename(inner, filepath.Join(dir, "inner")); err != nil {
		t.Fatal(err)
	}
	b, _ := newBuilder(t)
	same(t, list(t, unpacked(t, b, dir).Dir), map[string]string{"a": "a", "inner/lib.go": "package lib", "inner/.gitignore": "*.o"})
}

// In a hook git says by environment which repository is meant: the one with the hook.
func TestPack_IgnoresTheRepositoryOfAHook(t *testing.T) {
	other, dir := gitRepo(t, map[string]string{"other": "x"}), gitRepo(t, map[string]string{"a": "a"})
	t.Setenv("GIT_DIR", filepath.Join(other, ".git"))
	if packed, _ := pack(t, dir); packed.Files != 1 || !packed.Dirty || packed.Commit != "" {
		t.Errorf("got %+v, want the one file of a repository without a commit", packed)
	}
}

func TestPack_NamesDirectoryThatIsNotThere(t *testing.T) {
	_, err := pipeline.Pack(io.Discard, filepath.Join(t.TempDir(), "nothing"))
	if err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("got %v", err)
	}
}

// archive makes a gzipped tar of entries as an attacker would.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	w := tar.NewWriter(compressed)
	for _, h := range entries {
		content := strings.Repeat("x", int(h.Size))
		h.Mode = 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), compressed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func file(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 3} }
func link(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

func TestUnpack_RefusesWhatDoesNotStayInside(t *testing.T) {
	whole := archive(t, file("a"), file("b"))
	for name, bad := range map[string]struct {
		archive []byte
		says    string
	}{
		"parent":             {archive(t, file("../evil")), "leads out"},
		"parent below":       {archive(t, file("a/../../evil")), "leads out"},
		"absolute":           {archive(t, file("/tmp/evil")), "leads out"},
		"directory above":    {archive(t, tar.Header{Name: "../evil/", Typeflag: tar.TypeDir}), "leads out"},
		"no name":            {archive(t, tar.Header{Typeflag: tar.TypeReg}), "leads out"},
		"link above":         {archive(t, link("l", "../..")), "leads out"},
		"absolute link":      {archive(t, link("l", "/etc")), "leads out"},
		"link by a link":     {archive(t, link("a", "b/.."), link("b", ".")), "leads out"},
		"file behind a link": {archive(t, link("l", ".."), file("l/evil")), "leads out"},
		"link to itself":     {archive(t, link("l", "l")), "leads out"},
		"hard link":          {archive(t, file("a"), tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}), "neither"},
		"device":             {archive(t, tar.Header{Name: "d", Typeflag: tar.TypeChar}), "neither"},
		"pipe":               {archive(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}), "neither"},
		"one name twice":     {archive(t, file("a"), file("a")), "two entries"},
		"file as directory":  {archive(t, file("a"), file("a/b")), "two entries"},
		"through a link":     {archive(t, file("a"), link("l", "a"), file("l")), "two entries"},
		"very long name":     {archive(t, file(strings.Repeat("n", 300))), "too long"},
		"cut in the middle":  {whole[:len(whole)/2], "ends early"},
		"cut at the end":     {whole[:len(whole)-4], "ends early"},
		"nothing":            {nil, "ends early"},
		"no archive":         {[]byte("hello, this is no archive"), "not a gzipped tar"},
		"damaged":            {append(slices.Clone(whole[:len(whole)-8]), 1, 2, 3, 4, 5, 6, 7, 8), "not a gzipped tar"},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := newBuilder(t)
			_, err := b.Unpack(t.Context(), bytes.NewReader(bad.archive))
			if !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), bad.says) {
				t.Errorf("got %v, want ErrInvalid that says %q", err, bad.says)
			}
			nothingLeft(t, dir)
			if _, err := os.Lstat(filepath.Join(dir, "temp", "evil")); err == nil {
				t.Error("something was written outside")
			}
			if _, err := os.Lstat(filepath.Join(dir, "evil")); err == nil {
				t.Error("something was written outside")
			}
		})
	}
}

func TestUnpack_RefusesTooMuch(t *testing.T) {
	b, dir := newBuilder(t)
	b.Limit(64<<10, 3, time.Minute)
	bomb := archive(t, tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: 1 << 20})
	if _, err := b.Unpack(t.Context(), bytes.NewReader(bomb)); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "64Ki") {
		t.Errorf("too many bytes: got %v", err)
	}
	four := archive(t, file("a"), file("b"), file("c"), file("d"))
	if _, err := b.Unpack(t.Context(), bytes.NewReader(four)); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "3 files") {
		t.Errorf("too many files: got %v", err)
	}
	if _, err := b.Unpack(t.Context(), bytes.NewReader(archive(t, file("a"), file("b"), file("c")))); err != nil {
		t.Errorf("just enough: got %v", err)
	}
	nothingLeft(t, dir)
}

func TestUnpack_StopsWithItsContext(t *testing.T) {
	b, dir := newBuilder(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Unpack(ctx, bytes.NewReader(archive(t, file("a")))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	nothingLeft(t, dir)
}

func TestUnpack_StoresTheSameSourceOnce(t *testing.T) {
	b, dir := newBuilder(t)
	source := write(t, map[string]string{"a": "a"})
	one, two := unpacked(t, b, source), unpacked(t, b, source)
	if one != two || !strings.HasPrefix(one.Digest, "sha256:") || !filepath.IsAbs(one.Dir) {
		t.Errorf("got %+v and %+v", one, two)
	}
	add(t, source, map[string]string{"b": ""})
	if three := unpacked(t, b, source); three.Digest == one.Digest {
		t.Error("another source has the same digest")
	}
	nothingLeft(t, dir)
}

func TestFile_ReadsOneFile(t *testing.T) {
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{"conf/spillway.yaml": "app: x", "big": strings.Repeat("x", 1<<20+1)}))
	if text, err := b.File(tree, "conf/spillway.yaml"); err != nil || string(text) != "app: x" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := b.File(tree, "spillway.yaml"); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("missing: got %v", err)
	}
	for _, name := range []string{"../../artefacts", "big", "/etc/hostname", "conf"} {
		if _, err := b.File(tree, name); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

// The digest names artefacts on disk: another formula would build everything anew.
func TestDigest_StaysWhatItWas(t *testing.T) {
	dir := write(t, map[string]string{"a": "hello", "bin/run*": "#!", "l": "->a"})
	got, err := pipeline.DigestDir(dir)
	// printf 'f 1:a 5:hellod 3:bin 0:x 7:bin/run 2:#!l 1:l 1:a' | sha256sum
	const want = "sha256:1de0b42974dec93a122a21c572c3db9c603751d2bf50689a599eae5a2e24a111"
	if err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
