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
	pack   *os.File
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
	app, err := appfile.Parse(file, text)
	if err != nil {
		return nil, err
	}
	s := &source{app: app, ref: spillway.Ref(app.Name), dir: filepath.Dir(file), file: filepath.Base(file)}
	if name, _, _ := strings.Cut(c.app, "@"); c.app != "" {
		if name != app.Name {
			return nil, usage("--app %s, but %s is the file of %s; leave --app out, or deploy the directory of %s", c.app, file, app.Name, name)
		}
		s.ref = spillway.Ref(c.app)
	}
	if s.pack, err = os.CreateTemp("", "spillway-*.tar.gz"); err != nil {
		return nil, fmt.Errorf("pack %s: %w", s.dir, err)
	}
	if s.packed, err = pipeline.Pack(s.pack, s.dir); err != nil {
		s.close()
		return nil, fmt.Errorf("pack %s: %w", s.dir, err)
	}
	return s, nil
}

// request gives a request from the start of the packed source; it can be asked for again.
func (s *source) request(strategy spillway.Strategy, ifRelease int, note string) (api.DeployRequest, error) {
	if _, err := s.pack.Seek(0, 0); err != nil {
		return api.DeployRequest{}, fmt.Errorf("read the packed source: %w", err)
	}
	_, env, _ := strings.Cut(string(s.ref), "@")
	return api.DeployRequest{
		Source: s.pack, File: s.file, Env: env, Strategy: strategy, IfRelease: ifRelease,
		Commit: s.packed.Commit, Dirty: s.packed.Dirty, Note: note,
	}, nil
}

// tell says what was packed, and what was left out of it.
func (s *source) tell(c *cli) {
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
	s.pack.Close()
	os.Remove(s.pack.Name())
}
