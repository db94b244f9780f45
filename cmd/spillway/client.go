package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/appfile"
)

// appFile is the name of the app file that is looked for.
const appFile = "spillway.yaml"

// production is the environment that is meant when none is named.
const production = "production"

// client gives the way to the server that the flags name. It does not connect yet.
func (c *cli) client() (*api.Client, error) {
	at, err := c.chosen()
	if err != nil {
		return nil, err
	}
	switch {
	case at.Kubernetes != nil:
		return at.Kubernetes.client()
	case at.Server == "":
		dir, err := filepath.Abs(c.dir)
		if err != nil {
			return nil, usage("--dir %s: %w", c.dir, err)
		}
		return api.NewClient("unix://"+filepath.Join(dir, api.SocketName), "")
	}
	token, err := c.bearer(at)
	if err != nil {
		return nil, err
	}
	return api.NewClient(at.Server, token)
}

// bearer gives the token for the server of a context. That of the environment is for the server of --server alone.
func (c *cli) bearer(at place) (string, error) {
	token := cmp.Or(c.token, at.Token)
	if token == "" && at.Name == "" {
		token = c.getenv("SPILLWAY_TOKEN")
	}
	if token != "" || !onThisMachine(at.Server) {
		return token, nil
	}
	// A server of this machine left its token for those who may read its directory. It opens all apps
	// here, so a server elsewhere must not be told it.
	text, err := os.ReadFile(filepath.Join(c.dir, api.TokenName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// onThisMachine reports that a server's URL is one of loopback.
func onThisMachine(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// target gives the server and the app that a command is about: the one of -a, else of the app file
// here or above, else the only one that the server has.
func (c *cli) target(ctx context.Context) (*api.Client, spillway.Ref, error) {
	client, err := c.client()
	if err != nil {
		return nil, "", err
	}
	app, err := c.pickApp(ctx, client)
	return client, app, err
}

func (c *cli) pickApp(ctx context.Context, client *api.Client) (spillway.Ref, error) {
	if c.app != "" {
		return c.inEnvironment(c.app)
	}
	file, err := c.findFile("")
	if err == nil {
		name, err := appOf(file)
		if err != nil {
			return "", err
		}
		return c.inEnvironment(string(name))
	}
	if c.file != "" {
		return "", err
	}
	apps, err := client.Apps(ctx)
	if c.env != "" {
		apps = slices.DeleteFunc(apps, func(ref spillway.Ref) bool {
			name, _, _ := strings.Cut(string(ref), "@")
			return ref != refOf(name, c.env)
		})
	}
	switch {
	case err != nil:
		return "", err
	case len(apps) == 1:
		return apps[0], nil
	case len(apps) == 0 && c.env != "":
		return "", fmt.Errorf("no app has been deployed to %s here yet", c.env)
	case len(apps) == 0:
		if at, err := c.chosen(); err == nil && at.Kubernetes != nil {
			return "", fmt.Errorf("no app has been deployed here yet; start with: spillway init, then spillway deploy --context %s", at.Name)
		}
		return "", errors.New("no app has been deployed here yet; start with: spillway init, then spillway up")
	}
	names := make([]string, len(apps))
	for i, a := range apps {
		names[i] = string(a)
	}
	return "", usage("which app? There is no %s here, and the server has %s; say -a %s", appFile, strings.Join(names, ", "), names[0])
}

// inEnvironment is an app as -a names it, in the environment that --env names.
func (c *cli) inEnvironment(app string) (spillway.Ref, error) {
	name, env, named := strings.Cut(app, "@")
	if named && c.env != "" && refOf(name, c.env) != refOf(name, env) {
		return "", usage("--app %s and --env %s contradict each other; leave one environment out", app, c.env)
	}
	return refOf(name, cmp.Or(env, c.env)), nil
}

// appLine is the line of an app file that names the app.
var appLine = regexp.MustCompile(`(?m)^app:[ \t]*["']?([a-z0-9-]+)`)

// appOf reads the name of the app from its file. Mistakes elsewhere in the file do not matter for it:
// somebody who has just broken the file must still be able to roll back.
func appOf(file string) (spillway.Ref, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the app file: %w", err)
	}
	app, err := appfile.Parse(file, text)
	if err == nil {
		return spillway.Ref(app.Name), nil
	}
	if name := appLine.FindSubmatch(text); name != nil {
		return spillway.Ref(name[1]), nil
	}
	return "", err
}

// findFile gives the path of the app file: the one of -f, else spillway.yaml in dir, else (dir "") in
// the current directory or the nearest parent that has one.
func (c *cli) findFile(dir string) (string, error) {
	if c.file != "" {
		file := c.file
		if dir != "" && !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		if _, err := os.Stat(file); err != nil {
			return "", usage("--file %s: %w", c.file, err)
		}
		return file, nil
	}
	if dir != "" {
		file := filepath.Join(dir, appFile)
		if _, err := os.Stat(dir); err != nil {
			return "", usage("%s is no directory, no number of a release and no hash of a commit (7 to 40 digits of it: git rev-parse %s)", dir, dir)
		}
		if _, err := os.Stat(file); err != nil {
			return "", usage("there is no %s in %s; write one with: spillway init %s", appFile, dir, dir)
		}
		return file, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the current directory: %w", err)
	}
	for at := here; ; at = filepath.Dir(at) {
		file := filepath.Join(at, appFile)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
		if at == filepath.Dir(at) {
			return "", usage("there is no %s in %s or above it; write one with: spillway init", appFile, here)
		}
	}
}
