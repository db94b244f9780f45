package oci_test

import (
	"context"
	"debug/elf"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/oci"
)

// tree is the artefact of most tests.
func tree() map[string]string {
	return map[string]string{"www*": program(elf.EM_X86_64, ""), "page.html": "hello", "data/a": "1", "data/b": "-> a"}
}

func TestPush_MakesAnImageOfAStaticProgram(t *testing.T) {
	h := newHouse(t)
	r := open(t, oci.Config{Repository: h.host + "/shop/test"})
	a := artefact(t, "sha256:a", tree())
	got, err := r.Push(t.Context(), "castle", service("www", "./www"), a)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(got.Image, h.host+"/shop/test/castle-www@sha256:") || got.Digest != a.Digest || got.Dir != a.Dir || got.Source != a.Source {
		t.Errorf("got %+v", got)
	}
	image := pull(t, got.Image)
	want := map[string]string{
		"app/": "755", "app/data/": "755", "app/data/a": "644 1", "app/data/b": "-> a", "app/page.html": "644 hello",
		"app/www": strings.TrimSpace("755 " + program(elf.EM_X86_64, "")),
		"tmp/":    "1777", "etc/": "755", "etc/ssl/": "755", "etc/ssl/certs/": "755", "etc/ssl/certs/ca-certificates.crt": "644 authorities",
		"etc/passwd": "644 root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin",
		"etc/group":  "644 root:x:0:\nnonroot:x:65532:",
	}
	if got := files(t, image); !maps.Equal(got, want) {
		t.Errorf("the layers hold %q, want %q", got, want)
	}
	c := configOf(t, image)
	if c.OS != "linux" || c.Architecture != "amd64" || c.Config.User != "65532:65532" || c.Config.WorkingDir != "/app" || c.Config.StopSignal != "SIGTERM" ||
		!slices.Equal(c.Config.Entrypoint, []string{"./www"}) || c.Config.Cmd != nil || c.Config.Labels["dev.spillway.artefact"] != "sha256:a" {
		t.Errorf("the configuration is %+v", c)
	}
}

func TestPush_GivesTheSameArtefactTheSameDigest(t *testing.T) {
	var digests []string
	for range 2 {
		h := newHouse(t)
		a := artefact(t, "sha256:a", tree())
		old := time.Now().Add(-time.Duration(len(digests)) * time.Hour)
		if err := os.Chtimes(filepath.Join(a.Dir, "www"), old, old); err != nil {
			t.Fatal(err)
		}
		got, err := open(t, oci.Config{Repository: h.host + "/shop"}).Push(t.Context(), "castle", service("www", "./www"), a)
		if err != nil {
			t.Fatal(err)
		}
		_, digest, _ := strings.Cut(got.Image, "@")
		digests = append(digests, digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("got %v", digests)
	}
	for name, change := range map[string]func(files map[string]string, conf *oci.Config, s *spillway.Service){
		"content":    func(files map[string]string, _ *oci.Config, _ *spillway.Service) { files["page.html"] = "bye" },
		"executable": func(files map[string]string, _ *oci.Config, _ *spillway.Service) { files["page.html*"] = "hello" },
		"user":       func(_ map[string]string, c *oci.Config, _ *spillway.Service) { c.User = "1000" },
		"signal":     func(_ map[string]string, _ *oci.Config, s *spillway.Service) { s.Stop.Signal = "SIGINT" },
		"run":        func(_ map[string]string, _ *oci.Config, s *spillway.Service) { s.Run.Shell = "./www -v" },
	} {
		h := newHouse(t)
		f, conf, s := tree(), oci.Config{Repository: h.host + "/shop"}, service("www", "./www")
		change(f, &conf, &s)
		got, err := open(t, conf).Push(t.Context(), "castle", s, artefact(t, "sha256:"+name, f))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(got.Image, digests[0]) {
			t.Errorf("%s: the digest is the same", name)
		}
	}
}

func TestPush_SendsNothingThatIsThere(t *testing.T) {
	h := newHouse(t)
	conf := oci.Config{Repository: h.host + "/shop"}
	conf.Authorities = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(conf.Authorities, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, conf)
	push := func(r *oci.Registry, run string) (image string, uploads int64) {
		before := h.uploads.Load()
		got, err := r.Push(t.Context(), "castle", service("www", run), artefact(t, "sha256:a", tree()))
		if err != nil {
			t.Fatal(err)
		}
		return got.Image, h.uploads.Load() - before
	}
	first, n := push(r, "./www")
	if n != 4 { // two layers, the configuration, the manifest
		t.Errorf("%d uploads at first", n)
	}
	for who, again := range map[string]*oci.Registry{"the same": r, "another": open(t, conf)} {
		if image, n := push(again, "./www"); image != first || n != 0 {
			t.Errorf("%s server: %s after %s, %d uploads", who, image, first, n)
		}
	}
	if image, n := push(r, "./www -v"); image == first || n != 2 {
		t.Errorf("with another command: %s, %d uploads, want those of the configuration and the manifest", image, n)
	}
}

func TestPush_LeavesVariablesToWhoRunsIt(t *testing.T) {
	h := newHouse(t)
	r := open(t, oci.Config{Repository: h.host + "/shop"})
	for run, want := range map[string][]string{
		"./www --port $PORT": nil, "exec ./www 'a b' \"\\$5\"": {"./www", "a b", "$5"}, `./www ""`: {"./www", ""}, "/app/www": {"/app/www"},
	} {
		got, err := r.Push(t.Context(), "castle", service("www", run), artefact(t, "sha256:a", tree()))
		if err != nil {
			t.Fatal(err)
		}
		if c := configOf(t, pull(t, got.Image)); !slices.Equal(c.Config.Entrypoint, want) {
			t.Errorf("%s: entry point %q, want %q", run, c.Config.Entrypoint, want)
		}
	}
}

func TestPush_SaysWhatAnImageOfNothingElseCannotRun(t *testing.T) {
	h := newHouse(t)
	r := open(t, oci.Config{Repository: h.host + "/shop"})
	const linker = "/lib64/ld-linux-x86-64.so.2"
	a := artefact(t, "sha256:a", map[string]string{
		"static*": program(elf.EM_X86_64, ""), "dynamic*": program(elf.EM_X86_64, linker), "arm*": program(elf.EM_AARCH64, ""), "data": "x", "text*": "hello",
		"app.py*": "#!/usr/bin/env python3\n", "run.sh*": "#!/bin/sh\n", "broken*": elf.ELFMAG, "out": "-> /bin/sh", "venv/python": "-> python3", "venv/python3": "-> ../../usr/bin/python3", "dir/x": "",
	})
	for run, says := range map[string][]string{
		"./static | tee log": {"there is no /bin/sh", "run has a |", "empty but for the artefact", "./www --port $PORT", "--base-image"},
		"./dynamic":          {"no " + linker, "no static program", "CGO_ENABLED=0", "--base-image"},
		"./arm":              {"built for arm64", "nodes are amd64", "GOARCH=amd64"},
		"./data":             {"nobody may execute it", "chmod +x"},
		"./text":             {"neither a program for Linux nor a script"},
		"./app.py":           {"no /usr/bin/env", "is a script for it", "--base-image"},
		"./run.sh":           {"no /bin/sh", "is a script for it"},
		"./broken":           {"broken program"},
		"./none":             {"the build left no such file"},
		"dir":                {"no dir in its image", "from the PATH", "./dir"},
		"./dir":              {"no program"},
		"./":                 {"no program"},
		"/usr/bin/web":       {"no /usr/bin/web"},
		"python3 app.py":     {"no python3", "from the PATH"},
		"./out":              {"no /bin/sh", "./out is a link to it", "--base-image"},
		"./venv/python app":  {"no /usr/bin/python3", "./venv/python is a link to it"},
	} {
		_, err := r.Push(t.Context(), "castle", service("www", run), a)
		for _, want := range says {
			if !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", run, err, want)
			}
		}
	}
	s := service("www", "./static")
	s.Release = spillway.Command{Shell: "./migrate && ./seed"}
	if _, err := r.Push(t.Context(), "castle", s, a); err == nil || !strings.Contains(err.Error(), "release has a &") {
		t.Errorf("a release command for the shell: %v", err)
	}
	s = service("www", "")
	s.Run.Exec = []string{"./static", "$HOME"}
	if _, err := r.Push(t.Context(), "castle", s, a); err == nil || !strings.Contains(err.Error(), "$HOME") || !strings.Contains(err.Error(), "write it under env") {
		t.Errorf("a list with a variable of the machine: %v", err)
	}
	if n := h.uploads.Load(); n != 0 {
		t.Errorf("%d uploads of what cannot run", n)
	}
}

func TestPush_UponABase(t *testing.T) {
	h := newHouse(t)
	config := v1.ConfigFile{Architecture: "amd64", Config: v1.Config{
		Env: []string{"PATH=/opt/bin:/bin", "LANG=C"}, User: "node", Entrypoint: []string{"/entry"}, Cmd: []string{"x"}, Labels: map[string]string{"of": "base"},
	}}
	base := h.base(t, config,
		map[string]string{"usr/bin/sh": "sh", "bin": "-> usr/bin", "lib64": "-> /usr/lib64", "usr/lib64/ld.so": "ld", "opt/bin/python3": "-> ../py/python", "opt/py/python": "py", "gone": "x", "dir/gone": "x"},
		map[string]string{".wh.gone": "", "dir/.wh..wh..opq": ""})
	r := open(t, oci.Config{Repository: h.host + "/shop", Base: base})
	a := artefact(t, "sha256:a", map[string]string{"dynamic*": program(elf.EM_X86_64, "/lib64/ld.so"), "other*": program(elf.EM_X86_64, "/lib/musl.so"),
		"venv/python": "-> /opt/bin/python3", "link": "-> dynamic", "far": "-> /app/link"})
	for run, want := range map[string][]string{
		"./dynamic": {"./dynamic"}, "./dynamic > log": {"/bin/sh", "-c", "./dynamic > log"}, "python3 app.py": {"python3", "app.py"}, "./venv/python x": {"./venv/python", "x"}, "./link": {"./link"}, "./far": {"./far"}, "/bin/sh -c x": {"/bin/sh", "-c", "x"},
	} {
		got, err := r.Push(t.Context(), "castle", service("www", run), a)
		if err != nil {
			t.Errorf("%s: %v", run, err)
			continue
		}
		image := pull(t, got.Image)
		c := configOf(t, image).Config
		if !slices.Equal(c.Entrypoint, want) || c.Cmd != nil || c.User != "node" || !slices.Equal(c.Env, config.Config.Env) || c.Labels["of"] != "base" || c.WorkingDir != "/app" {
			t.Errorf("%s: the configuration is %+v", run, c)
		}
		layers, err := image.Layers()
		if err != nil || len(layers) != 3 {
			t.Errorf("%s: %d layers, %v", run, len(layers), err)
		}
	}
	for run, says := range map[string]string{"./other": "no /lib/musl.so", "/gone": "no /gone", "/dir/gone": "no /dir/gone", "ruby x": "no ruby", "/bin/none": "no /bin/none"} {
		_, err := r.Push(t.Context(), "castle", service("www", run), a)
		if !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "the base image "+base+" has none") {
			t.Errorf("%s: got %v, want %q", run, err, says)
		}
	}
	other := open(t, oci.Config{Repository: h.host + "/shop", Base: base, Architecture: "arm64"})
	if _, err := other.Push(t.Context(), "castle", service("www", "./dynamic"), a); err == nil || !strings.Contains(err.Error(), "is for amd64, and the nodes are arm64") {
		t.Errorf("a base for another machine: %v", err)
	}
	none := open(t, oci.Config{Repository: h.host + "/shop", Base: h.host + "/none:1"})
	if _, err := none.Push(t.Context(), "castle", service("www", "./dynamic"), a); !errors.Is(err, spillway.ErrNotFound) || !strings.Contains(err.Error(), "read the base image") {
		t.Errorf("a base that is not there: %v", err)
	}
}

func TestPush_NamesWhatIsMissing(t *testing.T) {
	a := artefact(t, "sha256:a", tree())
	if _, err := open(t, oci.Config{}).Push(t.Context(), "castle", service("www", "./www"), a); err == nil || !strings.Contains(err.Error(), "--registry HOST[:PORT]/NAME") {
		t.Errorf("without a registry: %v", err)
	}
	h := newHouse(t)
	r := open(t, oci.Config{Repository: h.host + "/shop"})
	if _, err := r.Push(t.Context(), "castle", service("www", "./www"), spillway.Artefact{Digest: "sha256:b", Dir: filepath.Join(t.TempDir(), "gone")}); err == nil || !strings.Contains(err.Error(), "artefact") {
		t.Errorf("an artefact that is gone: %v", err)
	}
}

func TestNew_RefusesWhatCannotBe(t *testing.T) {
	for _, conf := range []oci.Config{
		{Repository: "shop"}, {Repository: "shop/web"}, {Repository: "http://registry.example.com/shop"}, {Repository: "registry.example.com"},
		{Repository: "registry.example.com/"}, {Repository: "registry.example.com/shop:1"}, {Repository: "registry.example.com/Shop"},
		{Base: "No Image"}, {User: "root"}, {User: "1:b"},
	} {
		if _, err := oci.New(conf); !errors.Is(err, spillway.ErrInvalid) {
			t.Errorf("%+v: %v", conf, err)
		}
	}
	if _, err := oci.New(oci.Config{Authorities: "/none.pem"}); err == nil {
		t.Error("authorities that are not there are taken")
	}
}

func TestNew_SweepsWhatACrashLeft(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layers")
	for range 2 { // the second time the directory is there
		if _, err := oci.New(oci.Config{Temp: dir}); err != nil {
			t.Fatal(err)
		}
		left := filepath.Join(dir, "spillway-layer-1.tar.gz")
		if err := errors.Join(os.WriteFile(left, nil, 0o600), os.WriteFile(filepath.Join(dir, "other"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := oci.New(oci.Config{Temp: dir}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestPush_CanBeCancelled(t *testing.T) {
	h := newHouse(t)
	r := open(t, oci.Config{Repository: h.host + "/shop"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Push(ctx, "castle", service("www", "./www"), artefact(t, "sha256:a", tree())); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
