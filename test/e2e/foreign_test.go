package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// foreign is a program that was not written for Spillway.
type foreign struct {
	in   *installation
	dir  string
	host string
}

// first deploys an app file for the first time, with a page and perhaps other files beside it.
func first(t *testing.T, host, file string, others map[string]string) *foreign {
	t.Helper()
	f := &foreign{in: install(t), dir: t.TempDir(), host: host}
	writeFile(t, filepath.Join(f.dir, "spillway.yaml"), file)
	for name, text := range others {
		writeFile(t, filepath.Join(f.dir, name), text)
	}
	f.page(t, "one")
	f.in.spillwayIn(f.dir, "deploy").want(t, 0).tells(t, "release 1", "serves everybody")
	f.serves(t, "one")
	return f
}

func (f *foreign) page(t *testing.T, text string) {
	t.Helper()
	writeFile(t, filepath.Join(f.dir, "index.html"), text+"\n")
}

func (f *foreign) serves(t *testing.T, want string) {
	t.Helper()
	if status, text := f.in.get(f.host, "/"); status != 200 || strings.TrimSpace(text) != want {
		t.Errorf("%s: got %d %q, want 200 %q", f.host, status, text, want)
	}
}

// story is the life of an app: a change, second thoughts, and a way back to a release that was left.
func (f *foreign) story(t *testing.T, replicas int) {
	t.Helper()
	app := strings.TrimSuffix(f.host, ".localhost")
	f.page(t, "two")
	f.serves(t, "one") // what is in the directory is not served before it is deployed
	f.in.spillwayIn(f.dir, "plan").want(t, 10).tells(t, "source")
	f.in.spillwayIn(f.dir, "deploy").want(t, 0).tells(t, "undo: spillway rollback")
	f.serves(t, "two")
	f.in.spillwayIn(f.dir, "deploy").want(t, 0) // nothing changed
	if n := f.in.newest(app); n != 2 {
		t.Errorf("a deploy without a change made release %d", n)
	}
	f.in.spillwayIn(f.dir, "rollback").want(t, 0)
	f.serves(t, "one")
	f.in.spillwayIn(f.dir, "rollback", "2").want(t, 0)
	f.serves(t, "two")
	f.in.spillwayIn(f.dir, "promote").want(t, 0) // ends the watch, which keeps the old release warm
	f.in.healthy(app, 2, commandWithin)
	f.in.exactly("hello", replicas)
}

// The file of README.md, in a fresh directory: a program that knows nothing of Spillway.
func TestForeignPrograms_Python(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	f := first(t, "hello.localhost", `app: hello
services:
  web:
    run: python3 -m http.server $PORT --bind $HOST
    host: hello.localhost
    health: /
    scale: 2
`, nil)
	f.story(t, 2)
}

// nginx takes its port from a file, so run writes that file first. It has a master and workers, and ends
// gently on SIGQUIT.
func TestForeignPrograms_Nginx(t *testing.T) {
	t.Parallel()
	need(t, "nginx")
	f := first(t, "hello.localhost", `app: hello
services:
  web:
    run: |
      dir=$(mktemp -d)
      sed "s|USER|$(id -un)|; s|LISTEN|$HOST:$PORT|; s|ROOT|$PWD|; s|DIR|$dir|g" nginx.conf > $dir/nginx.conf
      exec nginx -c $dir/nginx.conf -e stderr
    host: hello.localhost
    health: /
    scale: 2
    stop: {signal: SIGQUIT}
`, map[string]string{"nginx.conf": nginxConf})
	f.story(t, 2)
}

// nginxConf names a user, because else the workers of root are nobody, who may not read the release.
const nginxConf = `user USER;
daemon off;
worker_processes 2;
pid DIR/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path DIR; proxy_temp_path DIR; fastcgi_temp_path DIR; uwsgi_temp_path DIR; scgi_temp_path DIR;
  server { listen LISTEN; root ROOT; }
}
`
