package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// versionTime is how long a program may take to say its version.
const versionTime = 20 * time.Second

// findPeers finds or builds all that are asked for. One that cannot be had says so and keeps nobody up.
func findPeers(ctx context.Context, o options, dir string) (map[string]*peer, error) {
	list := map[string]*peer{"direct": {name: "direct", title: "direct, no proxy"}}
	wanted := func(name string) bool { return o.peers == "" || strings.Contains(","+o.peers+",", ","+name+",") }
	if err := ownPeers(ctx, o, dir, list); err != nil {
		return nil, err
	}
	path, _ := program("nginx") // needed has looked
	list["nginx"] = &peer{name: "nginx", title: "nginx", start: startNginxProxy, version: versionOf(ctx, path, "-v")}
	list["haproxy"] = &peer{name: "haproxy", title: "HAProxy", start: startHAProxy}
	if path, ok := program("haproxy"); ok {
		list["haproxy"].version = versionOf(ctx, path, "-v")
	} else {
		list["haproxy"].missing = "it is not installed; on Debian: apt-get install haproxy"
	}
	for _, name := range []string{"caddy", "traefik"} {
		if !wanted(name) {
			continue
		}
		built := builtPeers(o)[name]
		p := &peer{name: name, title: built.title, version: built.version}
		list[name] = p
		path, err := findBuilt(ctx, o, name)
		if err != nil {
			p.missing = err.Error()
			continue
		}
		p.start = built.start(path)
		if filepath.Base(filepath.Dir(path)) != name+"-"+built.version { // it is not from our cache
			p.version = versionOf(ctx, path, "version")
		}
	}
	for name := range list {
		if !wanted(name) {
			delete(list, name)
		}
	}
	return list, nil
}

// A builtPeer is one that is built from its Go module where it is missing.
type builtPeer struct {
	name, title, version, named string
	build                       func(time.Duration) func(context.Context, string) error
	start                       func(string) func(context.Context, setup) (*process, error)
}

func builtPeers(o options) map[string]builtPeer {
	return map[string]builtPeer{
		"caddy":   {"caddy", "Caddy", caddyVersion, o.caddy, buildCaddy, startCaddy},
		"traefik": {"traefik", "Traefik", traefikVersion, o.traefik, buildTraefik, startTraefik},

		argoRollouts: {argoRollouts, "Argo Rollouts", argoVersion, o.kube.argo, buildArgo, nil}, // of the benchmark on a cluster
	}
}

// findBuilt gives the program of a built peer, and builds it where that is wanted.
func findBuilt(ctx context.Context, o options, name string) (string, error) {
	p, ok := builtPeers(o)[name]
	if !ok {
		return "", fmt.Errorf("%q is not built here", name)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	build := p.build(o.buildTime)
	if !o.build {
		build = nil
	}
	return find(ctx, p.named, filepath.Join(cache, "spillway-bench", p.name+"-"+p.version, p.name), build)
}

// ownPeers builds Spillway and the plain proxy.
func ownPeers(ctx context.Context, o options, dir string, list map[string]*peer) error {
	spillwayPath, plainPath := filepath.Join(dir, "spillway"), filepath.Join(dir, "plain")
	own := [3]string{spillwayPath, "..", "./cmd/spillway"}
	if o.profile != "" {
		own = [3]string{spillwayPath, ".", "./profiled"}
	}
	for _, b := range [][3]string{own, {plainPath, ".", "./plain"}} { // each with the versions of its own go.mod
		if _, err := outputIn(ctx, 10*time.Minute, b[1], []string{"CGO_ENABLED=0"}, "go", "build", "-o", b[0], b[2]); err != nil {
			return fmt.Errorf("%w (this program runs in the directory bench)", err)
		}
	}
	list["plain"] = &peer{name: "plain", title: "httputil.ReverseProxy", start: startPlain(plainPath), version: runtime.Version()}
	list["spillway"] = &peer{name: "spillway", title: "Spillway", start: startSpillway(spillwayPath, o.profile), after: checkTrial, version: commit(ctx)}
	list["spillway-general"] = &peer{
		name: "spillway-general", title: "Spillway, general engine", start: startSpillway(spillwayPath, o.profile, engineVariable+"=general"), after: checkTrial,
	}
	return nil
}

// versionOf is the first number with dots that a program prints, or what it failed with.
func versionOf(ctx context.Context, name string, args ...string) string {
	out, err := output(ctx, versionTime, append([]string{name}, args...)...)
	if err != nil {
		return err.Error()
	}
	if v := regexp.MustCompile(`\d+(\.\d+)+[\w.+~-]*`).FindString(out); v != "" {
		return v
	}
	return lastLines(out, 1)
}

// toolVersions are those of what makes the load, and of Go.
func toolVersions(ctx context.Context) map[string]string {
	list := map[string]string{"go": strings.TrimPrefix(runtime.Version(), "go")}
	if out, err := output(ctx, versionTime, "sh", "-c", "wrk -v; true"); err == nil { // it ends with 1 after -v
		list["wrk"] = regexp.MustCompile(`\d+(\.\d+)+`).FindString(out)
	}
	if _, ok := program("h2load"); ok {
		list["h2load"] = versionOf(ctx, "h2load", "--version")
	}
	return list
}

// thisMachine describes where we are.
func thisMachine() machine {
	m := machine{CPU: "unknown", Cores: runtime.NumCPU(), Kernel: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if name := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); name != nil {
			m.CPU = string(name[1])
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = regexp.MustCompile(`^\d+\.\d+`).FindString(string(text))
	}
	return m
}
