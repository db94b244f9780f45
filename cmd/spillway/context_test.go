package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/kube"
)

// away runs the program as somebody whose home is a directory, with no variable of Spillway's.
func away(t *testing.T, home, stdin string, args ...string) invocation {
	t.Helper()
	var stdout, stderr strings.Builder
	c := newCLI(strings.NewReader(stdin), &stdout, &stderr, func(name string) string { return map[string]string{"HOME": home}[name] })
	code := c.run(t.Context(), args)
	return invocation{code, stdout.String(), stderr.String()}
}

func TestContext_NamesServers(t *testing.T) {
	home := t.TempDir()
	for _, step := range []struct {
		stdin string
		args  string
		code  int
		want  string // in either output
	}{
		{"", "context", exitDone, "* local         this machine"},
		{"", "context add Prod --server http://10.0.0.1:7300", exitUsage, "cannot be called"},
		{"", "context add local --server http://10.0.0.1:7300", exitUsage, "taken"},
		{"", "context add prod", exitUsage, "where is it?"},
		{"", "context add prod --server 10.0.0.1", exitUsage, "not the address"},
		{"", "context add prod --server http://10.0.0.1:7300 --token -", exitUsage, "no token"},
		{"secret\n", "context add prod --server http://10.0.0.1:7300 --token -", exitDone, "context use prod"},
		{"", "context add prod --server http://10.0.0.2:7300", exitUsage, "already"},
		{"", "context use nope", exitUsage, "there is: local, prod"},
		{"", "context use prod", exitDone, "about http://10.0.0.1:7300 now"},
		{"", "context list", exitDone, "* prod          http://10.0.0.1:7300"},
		{"", "status -a x --context prod --server http://10.0.0.3:7300", exitUsage, "contradict"},
		{"", "context remove prod", exitDone, "this machine now"},
		{"", "context remove prod", exitUsage, "no context prod"},
	} {
		got := away(t, home, step.stdin, strings.Fields(step.args)...)
		if got.code != step.code || !strings.Contains(got.stdout+got.stderr, step.want) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s%s", step.args, got.code, step.code, step.want, got.stdout, got.stderr)
		}
		if strings.Contains(got.stdout+got.stderr, "secret") {
			t.Errorf("%s tells the token", step.args)
		}
	}
	info, err := os.Stat(filepath.Join(home, ".config", "spillway", "contexts.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of contexts: %v, %v", info, err)
	}
}

// kubeconfig is a file that leads to an API server.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	text := `{apiVersion: v1, kind: Config, current-context: here, clusters: [{name: c, cluster: {server: "` + server + `"}}],
  users: [{name: u, user: {}}], contexts: [{name: here, context: {cluster: c, user: u}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestContextAdd_SaysThatThereIsNoServer(t *testing.T) {
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/shop/") {
			io.WriteString(w, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"spillway-token"},"data":{"token":"c2VjcmV0"}}`)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404}`)
	}))
	defer cluster.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	for _, c := range []struct {
		server, namespace string
		says              bool
	}{{cluster.URL, "shop", false}, {cluster.URL, "eyes", true}, {gone.URL, "eyes", false}} {
		got := away(t, t.TempDir(), "", "context", "add", "there", "--kubernetes", "--namespace", c.namespace, "--kubeconfig", kubeconfig(t, c.server))
		if says := strings.Contains(got.stderr, "note: there is no Spillway server in namespace eyes"); got.code != exitDone || says != c.says || !strings.Contains(got.stderr, "context use there") || strings.Contains(got.stderr, "note:") != c.says {
			t.Errorf("%s: exit code %d\n%s", c.namespace, got.code, got.stderr)
		}
	}
}

func TestWayTo_UsesTheContextThatThereIs(t *testing.T) {
	home, file := t.TempDir(), kubeconfig(t, "https://127.0.0.1:1")
	c := newCLI(strings.NewReader(""), io.Discard, io.Discard, func(name string) string { return map[string]string{"HOME": home}[name] })
	k := inCluster{Namespace: "shop", Kubeconfig: file}
	if got, want := c.wayTo(k), "spillway context add shop --kubernetes --namespace shop --kubeconfig "+file; got != want {
		t.Errorf("without a context: %s, want %s", got, want)
	}
	if err := c.addContext(place{Name: "prod", Kubernetes: &inCluster{Namespace: "shop", Kubeconfig: file}}); err != nil {
		t.Fatal(err)
	}
	if got := c.wayTo(k); got != "spillway context use prod" {
		t.Errorf("with a context: %s", got)
	}
	if got := c.wayTo(inCluster{Namespace: "eyes", Kubeconfig: file}); !strings.HasPrefix(got, "spillway context add eyes ") {
		t.Errorf("with that of another namespace: %s", got)
	}
}

// Another cluster may have a context of the same name in a file that is looked at later.
func TestPinCluster_KeepsTheFilesThatThereAre(t *testing.T) {
	home, file, other := t.TempDir(), kubeconfig(t, "https://127.0.0.1:1"), kubeconfig(t, "https://127.0.0.1:2")
	own := filepath.Join(home, ".kube", "config")
	if err := errors.Join(os.Mkdir(filepath.Dir(own), 0o700), os.Rename(kubeconfig(t, "https://127.0.0.1:3"), own)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ flag, variable, want, server string }{
		{file, other, file, "https://127.0.0.1:1"},
		{"", file, file, "https://127.0.0.1:1"},
		{"", other + ":" + file + ":", other + ":" + file, "https://127.0.0.1:2"},
		{"", "", own, "https://127.0.0.1:3"},
	} {
		c := newCLI(strings.NewReader(""), io.Discard, io.Discard, func(name string) string {
			return map[string]string{"HOME": home, "KUBECONFIG": row.variable}[name]
		})
		k := inCluster{Namespace: "shop", Kubeconfig: row.flag}
		if err := c.pinCluster(&k); err != nil || k.Kubeconfig != row.want || k.Context != "here" {
			t.Errorf("%+v: %+v, %v", row, k, err)
			continue
		}
		if config, _, err := kube.Connect(k.Kubeconfig, k.Context, k.Namespace); err != nil || config.Host != row.server {
			t.Errorf("%+v leads to %+v, %v", row, config, err)
		}
	}
}

func TestContext_WhatCounts(t *testing.T) {
	home := t.TempDir()
	text, err := json.Marshal(contexts{Version: contextsVersion, Current: "prod", Places: []place{{Name: "prod", Server: "http://10.0.0.1:1", Token: "secret"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(home, ".config", "spillway"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".config", "spillway", "contexts.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		set  func(*cli)
		env  map[string]string
		want string // URL; "" = this machine
	}{
		{"the current one", func(*cli) {}, nil, "http://10.0.0.1:1"},
		{"--context", func(c *cli) { c.context = "local" }, nil, ""},
		{"--dir", func(c *cli) { c.dir = "/else" }, nil, ""},
		{"SPILLWAY_DIR", func(*cli) {}, map[string]string{"SPILLWAY_DIR": "/else"}, ""},
		{"--server", func(c *cli) { c.server = "http://10.0.0.9:1" }, nil, "http://10.0.0.9:1"},
		{"--context before SPILLWAY_SERVER", func(c *cli) { c.server, c.context = "http://10.0.0.9:1", "prod" }, map[string]string{"SPILLWAY_SERVER": "http://10.0.0.9:1"}, "http://10.0.0.1:1"},
	} {
		c := newCLI(nil, &strings.Builder{}, &strings.Builder{}, func(name string) string {
			if name == "HOME" {
				return home
			}
			return tt.env[name]
		})
		c.dir = c.defaultDir()
		tt.set(c)
		at, err := c.chosen()
		if err != nil || at.Server != tt.want {
			t.Errorf("%s: %+v, %v; want %q", tt.name, at, err, tt.want)
		}
		if token, err := c.bearer(place{Server: "http://10.0.0.9:1"}); token != "" || err != nil {
			t.Errorf("%s: a server without a name is told %q", tt.name, token)
		}
	}
}
