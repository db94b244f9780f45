package pipeline_test

import (
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/spillway-dev/spillway"
)

// An image of others was never built: there is nothing on disk that could be missing.
func TestExists_KnowsImagesOfOthers(t *testing.T) {
	b, _ := newBuilder(t)
	image := spillway.Artefact{Digest: "sha256:a", Image: "postgres@sha256:a"}
	if err := errors.Join(b.Exists(image), b.Hold(image)); err != nil {
		t.Error(err)
	}
	image.Dir, image.Source = "/gone", "sha256:b"
	if err := b.Exists(image); !errors.Is(err, spillway.ErrNotFound) {
		t.Errorf("a directory that is gone: %v", err)
	}
}

// A Go program that is to run in an image of nothing else asks no dynamic linker, however the machine has set up cgo.
func TestBuild_ForImagesGoProgramsAreStatic(t *testing.T) {
	need(t, "go")
	b, _ := newBuilder(t)
	tree := unpacked(t, b, write(t, map[string]string{
		"web/go.mod":  "module example.com/web\n\ngo 1.26\n",
		"web/main.go": "package main\n\nimport (\n\t\"net\"\n\t\"os/user\"\n)\n\nfunc main() { net.Listen(\"tcp\", \"\"); user.Current() }\n",
	}))
	before := digest(t, b, tree, service("web", ""))
	b.ForImages()
	if digest(t, b, tree, service("web", "")) == before {
		t.Error("the digest of the source is the same: what was built before would be taken")
	}
	t.Setenv("GOFLAGS", "-tags=extra")
	a := build(t, b, tree, service("web", ""))
	program, err := elf.Open(filepath.Join(a.Dir, "web"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the program needs a dynamic linker")
		}
	}
	info, err := buildinfo.ReadFile(filepath.Join(a.Dir, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(info.Settings, debug.BuildSetting{Key: "-tags", Value: "extra,netgo,osusergo"}) {
		t.Errorf("built with %v: the tags of the server's GOFLAGS are lost", info.Settings)
	}
}
