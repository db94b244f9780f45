package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The versions of the peers that are built from their Go modules.
const (
	caddyVersion   = "v2.11.9"
	traefikVersion = "v3.7.9"
	argoVersion    = "v1.10.1"
)

// find gives a peer's program: the one that was named, the one in the cache, the one in PATH, or, where
// build is given, a new one in the cache.
func find(ctx context.Context, named, cached string, build func(ctx context.Context, to string) error) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if _, err := os.Stat(cached); err == nil {
		return cached, nil
	}
	if path, err := exec.LookPath(filepath.Base(cached)); err == nil {
		return path, nil
	}
	if build == nil {
		return "", fmt.Errorf("there is none at %s and none in PATH, and -build=false", cached)
	}
	fmt.Fprintf(os.Stderr, "building %s; this is done once and may take long\n", cached)
	if err := os.MkdirAll(filepath.Dir(cached), 0o755); err != nil {
		return "", err
	}
	fresh := cached + ".new"
	if err := build(ctx, fresh); err != nil {
		return "", err
	}
	return cached, os.Rename(fresh, cached)
}

// buildCaddy builds Caddy with its standard modules.
func buildCaddy(longest time.Duration) func(context.Context, string) error {
	return func(ctx context.Context, to string) error {
		dir := filepath.Dir(to)
		files := map[string]string{
			"go.mod": "module caddy\n\ngo 1.25\n\nrequire github.com/caddyserver/caddy/v2 " + caddyVersion + "\n",
			"main.go": `package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
`}
		if err := writeAll(dir, files); err != nil {
			return err
		}
		if _, err := outputIn(ctx, longest, dir, nil, "go", "mod", "tidy", "-e"); err != nil {
			return err
		}
		return goBuild(ctx, longest, dir, to, ".")
	}
}

// argoRollouts is the program of Argo Rollouts, and its name among what is built.
const argoRollouts = "argo-rollouts"

// buildArgo builds Argo Rollouts from a copy of its module, whose replacements count there.
func buildArgo(longest time.Duration) func(context.Context, string) error {
	return func(ctx context.Context, to string) error {
		dir, err := copyModule(ctx, longest, "github.com/argoproj/argo-rollouts@"+argoVersion, to)
		if err != nil {
			return err
		}
		return goBuild(ctx, longest, dir, to, "./cmd/rollouts-controller")
	}
}

// copyModule copies a module to where a program is built of it.
func copyModule(ctx context.Context, longest time.Duration, module, to string) (dir string, err error) {
	out, err := output(ctx, longest, "go", "mod", "download", "-json", module)
	if err != nil {
		return "", err
	}
	from := between(out, `"Dir": "`, `"`)
	if from == "" {
		return "", fmt.Errorf("go mod download does not say where the module is: %s", lastLines(out, 3))
	}
	dir = filepath.Join(filepath.Dir(to), "source")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.CopyFS(dir, os.DirFS(from))
}

// buildTraefik builds Traefik from a copy of its module. The module lacks a nested one that go.mod names,
// with two types that its own configuration is extended by elsewhere: here they are empty.
func buildTraefik(longest time.Duration) func(context.Context, string) error {
	return func(ctx context.Context, to string) error {
		dir, err := copyModule(ctx, longest, "github.com/traefik/traefik/v3@"+traefikVersion, to)
		if err != nil {
			return err
		}
		files := map[string]string{
			"go.mod": "module github.com/traefik/traefik/dynamic/ext\n\ngo 1.26\n",
			"ext.go": `package ext

type HTTP struct{}

func (in *HTTP) DeepCopyInto(out *HTTP) { *out = *in }

type Router struct{}

func (in *Router) DeepCopyInto(out *Router) { *out = *in }
`}
		if err := writeAll(filepath.Join(dir, "pkg", "config", "dynamic", "ext"), files); err != nil {
			return err
		}
		return goBuild(ctx, longest, dir, to, "./cmd/traefik")
	}
}

// goBuild builds a program without cgo, as all Go programs here, and lets others go first.
func goBuild(ctx context.Context, longest time.Duration, dir, to, pkg string) error {
	_, err := outputIn(ctx, longest, dir, []string{"CGO_ENABLED=0"}, "nice", "-n", "10", "go", "build", "-mod=mod", "-o", to, pkg)
	return err
}

func writeAll(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// between is the text after the first a, up to the next b; "" without them.
func between(text, a, b string) string {
	_, text, ok := strings.Cut(text, a)
	if !ok {
		return ""
	}
	text, _, ok = strings.Cut(text, b)
	if !ok {
		return ""
	}
	return text
}
