package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spillway-dev/spillway/internal/api"
)

func TestFindFile(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{"spillway.yaml", "shop/spillway.yaml", "shop/staging.yaml", "shop/web/main.go"} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(castleFile), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ here, file, dir, want string }{
		{here: ".", want: "spillway.yaml"},
		{here: "shop/web", want: "shop/spillway.yaml"}, // the nearest above
		{here: ".", dir: "shop", want: "shop/spillway.yaml"},
		{here: "shop", file: "staging.yaml", want: "shop/staging.yaml"},
		{here: ".", dir: "shop", file: "staging.yaml", want: "shop/staging.yaml"},
		{here: "shop", dir: "web", want: ""}, // a directory that is named must have it
		{here: "shop", file: "nothing.yaml", want: ""},
	} {
		t.Chdir(filepath.Join(root, tt.here))
		c := cli{file: tt.file}
		got, err := c.findFile(tt.dir)
		if tt.want == "" {
			if exitCode(err) != exitUsage {
				t.Errorf("%+v: found %q, %v; want a usage error", tt, got, err)
			}
			continue
		}
		got, absErr := filepath.Abs(got)
		if want := filepath.Join(root, tt.want); err != nil || absErr != nil || got != want {
			t.Errorf("%+v: found %q, %v; want %q", tt, got, err, want)
		}
	}
}

func TestAppOf_DoesNotMindOtherMistakes(t *testing.T) {
	dir := appDir(t, castleFile+"budgett: 3\n")
	if app, err := appOf(filepath.Join(dir, appFile)); app != "castle" || err != nil {
		t.Errorf("the app is %q, %v; want castle", app, err)
	}
}

func TestServerElsewhere_NeedsTheToken(t *testing.T) {
	t.Chdir(t.TempDir())
	dir := stateDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	server := api.NewServer(api.Config{Engine: resting(), Log: slog.New(slog.DiscardHandler), Dir: dir, Listen: "127.0.0.1:0"})
	if err := server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }() // ended and waited for by the cleanup
	t.Cleanup(func() { cancel(); <-done })
	url := "http://" + server.Addr()
	token, err := os.ReadFile(filepath.Join(dir, api.TokenName))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
	}{
		{[]string{"--dir", dir}, exitDone}, // it is where the server left it
		{[]string{"--dir", "/nonexistent", "--token", strings.TrimSpace(string(token))}, exitDone},
		{[]string{"--dir", "/nonexistent", "--token", "guessed"}, exitDenied},
		{[]string{"--dir", "/nonexistent"}, exitDenied},
		{[]string{"--server", "ftp://x"}, exitUsage},
	} {
		got := invoke(ctx, dir, append([]string{"ps", "--server", url}, tt.args...)...)
		if got.code != tt.code {
			t.Errorf("%q: exit code %d, want %d\n%s", tt.args, got.code, tt.code, got.stderr)
		}
	}
}

func TestOnThisMachine(t *testing.T) {
	for server, want := range map[string]bool{
		"http://127.0.0.1:7300": true, "http://localhost:7300": true, "https://[::1]:7300": true,
		"https://shop.example.com": false, "http://10.0.0.1:7300": false, "http://localhost.example.com": false, "http://127.0.0.1@example.com": false, "%": false,
	} {
		if got := onThisMachine(server); got != want {
			t.Errorf("%s: %t, want %t", server, got, want)
		}
	}
	// The key to the apps of this machine is not told to a server elsewhere.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, api.TokenName), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]string{"http://localhost:7300": "secret", "http://10.0.0.1:7300": ""} {
		c := cli{dir: dir, getenv: func(string) string { return "" }}
		if got, err := c.bearer(place{Server: server}); got != want || err != nil {
			t.Errorf("%s is told %q, %v; want %q", server, got, err, want)
		}
	}
}

func TestPickApp_SaysHowToBegin(t *testing.T) {
	t.Chdir(t.TempDir())
	home, dir := t.TempDir(), stateDir(t)
	t.Cleanup(serveOn(t, dir, &actor{}))
	empty, err := api.NewClient("unix://"+filepath.Join(dir, api.SocketName), "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(home, ".config", "spillway", "contexts.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"version": 1, "contexts": [{"name": "shop", "kubernetes": {"namespace": "shop", "context": "k"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for context, want := range map[string]string{"local": "then spillway up", "shop": "then spillway deploy --context shop"} {
		c := newCLI(nil, &strings.Builder{}, &strings.Builder{}, func(name string) string { return map[string]string{"HOME": home}[name] })
		c.dir, c.context = c.defaultDir(), context
		if _, err := c.pickApp(t.Context(), empty); exitCode(err) != exitFailed || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", context, err, want)
		}
	}
}
