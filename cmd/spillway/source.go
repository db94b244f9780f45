package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
	"github.com/spillway-dev/spillway/internal/appfile"
	"github.com/spillway-dev/spillway/internal/pipeline"
)

// source is the directory of an app, checked and packed into a temporary file.
type source struct {
	app    spillway.App
	ref    spillway.Ref
	dir    string // of the app file
	file   string // base name of the app file
	packed pipeline.Packed
	pack   *os.File // nil with from

	from    string // the environment whose release is taken over; "" = the directory is packed
	release int    // of it; 0 = the one that serves there
}

// openSource checks the app file in dir ("" = here or above) and packs its directory. Every mistake of
// the file is found here, before any server is asked.
func (c *cli) openSource(dir string) (*source, error) {
	file, err := c.findFile(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("read the app file: %w", err)
	}
	ref, err := c.inEnvironment(c.app)
	if err != nil {
		return nil, err
	}
	name, env, _ := strings.Cut(string(ref), "@")
	app, err := appfile.ParseEnvironment(file, text, env)
	if err != nil {
		return nil, err
	}
	if name != "" && name != app.Name {
		return nil, usage("--app %s, but %s is the file of %s; leave --app out, or deploy the directory of %s", c.app, file, app.Name, name)
	}
	c.warn(appfile.Warnings(file, text, env))
	s := &source{app: app, ref: refOf(app.Name, env), dir: filepath.Dir(file), file: filepath.Base(file)}
	if s.pack, err = os.CreateTemp("", "spillway-*.tar.gz"); err != nil {
		return nil, fmt.Errorf("pack %s: %w", s.dir, err)
	}
	if s.packed, err = pipeline.Pack(s.pack, s.dir); err != nil {
		s.close()
		return nil, fmt.Errorf("pack %s: %w", s.dir, err)
	}
	return s, nil
}

// takenOver is a source that the server has already: a release of an environment, 0 = the one that serves there.
func takenOver(app spillway.Ref, from string, release int) *source {
	return &source{ref: app, from: from, release: release}
}

// request gives a request from the start of the packed source; it can be asked for again.
func (s *source) request(o deployOptions) (api.DeployRequest, error) {
	name, env, _ := strings.Cut(string(s.ref), "@")
	r := api.DeployRequest{
		File: s.file, Env: env, Strategy: spillway.Strategy(o.strategy), IfRelease: o.ifRelease, Note: o.note,
		Track: o.track, NotBefore: o.notBefore, Force: o.when.now,
	}
	if s.from != "" {
		r.App, r.From, r.Release = name, s.from, s.release
		return r, nil
	}
	if _, err := s.pack.Seek(0, 0); err != nil {
		return r, fmt.Errorf("read the packed source: %w", err)
	}
	r.Source, r.Commit, r.Dirty = s.pack, s.packed.Commit, s.packed.Dirty
	return r, nil
}

// tell says what was packed, and what was left out of it.
func (s *source) tell(c *cli) {
	if s.from != "" {
		name, _, _ := strings.Cut(string(s.ref), "@")
		what := "what serves"
		if s.release != 0 {
			what = release(s.release)
		}
		c.say("%s: %s in %s is taken over; nothing is built", s.ref, what, refOf(name, s.from))
		return
	}
	from := ""
	if s.packed.Commit != "" {
		from = " at commit " + commit(spillway.Source{Commit: s.packed.Commit, Dirty: s.packed.Dirty})
	}
	c.say("%s: %s packed from %s%s", s.ref, count(s.packed.Files, "file"), s.dir, from)
	for _, path := range s.packed.Skipped {
		c.say("left out %s: no release can hold it (a link to outside of %s, or no regular file)", clean(path), s.dir)
	}
}

// close removes the packed file.
func (s *source) close() {
	if s.pack == nil {
		return
	}
	s.pack.Close()
	os.Remove(s.pack.Name())
}
