package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// Builder keeps sources and artefacts on disk and makes the ones into the others. Its methods may be
// called at the same time. One directory has one Builder: a second would sweep what the first builds.
//
//	dir/sources/<digest>/           an unpacked source; swept by NewBuilder
//	dir/artefacts/<source digest>/  tree/ and artefact.json, which is written last
//	dir/temp/                       what is being made; swept by NewBuilder
//	dir/home/                       HOME of builds when the server has none
type Builder struct {
	sources   string
	artefacts string
	temp      string
	home      string
	log       *slog.Logger

	static bool   // ForImages
	tools  string // ToolsBy

	timeout  time.Duration // of one build command
	maxBytes int64         // of one source
	maxFiles int

	storing sync.Mutex               // held to move into and out of sources and artefacts
	mu      sync.Mutex               // guards busy
	busy    map[string]chan struct{} // builds that run, by source digest; closed when they end
}

const (
	buildTimeout = 15 * time.Minute
	// grace is how long Prune leaves what nothing refers to yet: a deploy between Build and the
	// moment its release is stored.
	grace = 6 * time.Hour
	// format is the version of artefact.json.
	format = 1
)

// NewBuilder opens the directory, makes it if needed, and removes what a crash left unfinished.
func NewBuilder(dir string, log *slog.Logger) (*Builder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open builder: %w", err)
	}
	b := &Builder{
		sources: filepath.Join(dir, "sources"), artefacts: filepath.Join(dir, "artefacts"),
		temp: filepath.Join(dir, "temp"), home: filepath.Join(dir, "home"), log: log,
		timeout: buildTimeout, maxBytes: maxSourceBytes, maxFiles: maxSourceFiles,
		busy: map[string]chan struct{}{},
	}
	// A source is needed only while it is deployed, and no deploy outlives the server.
	for _, swept := range []string{b.temp, b.sources} {
		if err := removeAll(swept); err != nil {
			return nil, fmt.Errorf("sweep unfinished builds: %w", err)
		}
	}
	for _, made := range []string{b.sources, b.artefacts, b.temp, b.home} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			return nil, b.disk("open builder", err)
		}
	}
	return b, nil
}

// ForImages has Go programs for which no command is written built without what would tie them to the libraries of this
// machine, so that they run in an image of nothing else. It is called before the first build.
func (b *Builder) ForImages() { b.static = true }

// ToolsBy says how people bring a tool to where this program runs, other than to install it there: "put the server upon an
// image that has it". It is called before the first build.
func (b *Builder) ToolsBy(remedy string) { b.tools = remedy }

// SourceDigest digests what a service is built from: its scope without the app file, and how it is
// built. Two services with the same digest have the same artefact.
func (b *Builder) SourceDigest(t Tree, s spillway.Service) (string, error) {
	r, err := b.recipe(t, s)
	if err != nil {
		return "", err
	}
	return r.digest(t)
}

// Build makes the artefact of one service, or finds it when the same SourceDigest was built before.
// The log is called with each line of the build's output, at most 16 KiB of it, from one goroutine at
// a time. An error of the command names it, says how it ended and shows its last lines.
func (b *Builder) Build(ctx context.Context, t Tree, s spillway.Service, log func(string)) (spillway.Artefact, error) {
	r, err := b.recipe(t, s)
	if err != nil {
		return spillway.Artefact{}, err
	}
	source, err := r.digest(t)
	if err != nil {
		return spillway.Artefact{}, fmt.Errorf("digest source of %s: %w", s.Name, err)
	}
	release, err := b.claim(ctx, source)
	if err != nil {
		return spillway.Artefact{}, fmt.Errorf("build %s: %w", s.Name, err)
	}
	defer release()
	if a, err := b.stored(source); err == nil {
		return a, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return spillway.Artefact{}, fmt.Errorf("build %s: %w", s.Name, err)
	}
	a, err := b.produce(ctx, t, s.Name, r, source, log)
	if err != nil {
		return spillway.Artefact{}, b.disk("build "+s.Name, err)
	}
	return a, nil
}

// claim waits until no other build of the same source runs. The caller calls release when its own ends.
func (b *Builder) claim(ctx context.Context, source string) (release func(), err error) {
	for {
		b.mu.Lock()
		other, taken := b.busy[source]
		if !taken {
			done := make(chan struct{})
			b.busy[source] = done
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				delete(b.busy, source)
				close(done)
			}, nil
		}
		b.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// produce builds in a temporary directory and moves the result to its place when it is complete.
func (b *Builder) produce(ctx context.Context, t Tree, service string, r recipe, source string, log func(string)) (spillway.Artefact, error) {
	temp, err := os.MkdirTemp(b.temp, "build-")
	if err != nil {
		return spillway.Artefact{}, err
	}
	defer b.discard(temp)
	tree := filepath.Join(temp, "tree")
	if err := copyScope(ctx, t.Dir, tree, r.scope); err != nil {
		return spillway.Artefact{}, fmt.Errorf("copy the source: %w", err)
	}
	if !r.command.Zero() {
		began := time.Now()
		if err := b.run(ctx, filepath.Join(tree, r.dir), r, log); err != nil {
			return spillway.Artefact{}, err
		}
		b.log.Info("built", "service", service, "source", source, "took", time.Since(began).Round(time.Millisecond))
	}
	digest, err := digestDir(filepath.Join(tree, r.dir), "")
	if err != nil {
		return spillway.Artefact{}, fmt.Errorf("digest artefact: %w", err)
	}
	home := filepath.Join(b.artefacts, hexOf(source))
	a := spillway.Artefact{Digest: digest, Dir: filepath.Join(home, "tree", r.dir), Source: source}
	if err := complete(temp, marker{Version: format, Digest: digest, Source: source, Dir: r.dir}); err != nil {
		return spillway.Artefact{}, err
	}
	b.storing.Lock()
	defer b.storing.Unlock()
	if err := os.Rename(temp, home); err != nil {
		return spillway.Artefact{}, err
	}
	return a, syncPath(b.artefacts)
}

// marker is artefact.json: the artefact beside it is complete. Its directory is relative to tree/, so
// that the state directory can be moved.
type marker struct {
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	Source  string `json:"source"`
	Dir     string `json:"dir"`
}

const markerFile = "artefact.json"

// complete makes the tree in dir safe on disk and then writes the marker.
func complete(dir string, m marker) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := syncTree(filepath.Join(dir, "tree")); err != nil {
		return fmt.Errorf("write artefact to disk: %w", err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(dir, markerFile))
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return syncPath(dir) // the rename that makes it visible is the caller's
}

// stored finds the artefact of a source and makes it fresh for Prune. It is fs.ErrNotExist when the
// source was not built.
func (b *Builder) stored(source string) (spillway.Artefact, error) {
	b.storing.Lock()
	defer b.storing.Unlock()
	home := filepath.Join(b.artefacts, hexOf(source))
	m, err := readMarker(home)
	if err != nil {
		return spillway.Artefact{}, err
	}
	now := time.Now()
	if err := os.Chtimes(filepath.Join(home, markerFile), now, now); err != nil {
		return spillway.Artefact{}, err
	}
	return spillway.Artefact{Digest: m.Digest, Dir: filepath.Join(home, "tree", m.Dir), Source: m.Source}, nil
}

// readMarker reads the marker of an artefact.
func readMarker(home string) (marker, error) {
	name := filepath.Join(home, markerFile)
	text, err := os.ReadFile(name)
	if err != nil {
		return marker{}, err
	}
	var m marker
	if err := json.Unmarshal(text, &m); err != nil {
		return marker{}, fmt.Errorf("%s cannot be read: %w; remove the directory %s and deploy again", name, err, home)
	}
	if m.Version != format {
		return marker{}, fmt.Errorf("%s has format %d, and this version of Spillway reads %d", name, m.Version, format)
	}
	return m, nil
}

// Exists reports nil when an artefact is there and complete, or was never built: an image of others. It is
// ErrNotFound when it is not: it was pruned, or removed by hand.
func (b *Builder) Exists(a spillway.Artefact) error {
	if !a.Built() && a.Image != "" {
		return nil
	}
	m, err := readMarker(filepath.Join(b.artefacts, hexOf(a.Source)))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the artefact %s is gone: deploy its commit again: %w", a.Dir, spillway.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if m.Digest != a.Digest {
		return fmt.Errorf("the artefact %s is another one now (%s, not %s): deploy its commit again: %w", a.Dir, m.Digest, a.Digest, spillway.ErrNotFound)
	}
	if info, err := os.Stat(a.Dir); err != nil || !info.IsDir() {
		return fmt.Errorf("the artefact %s is gone although it was built: remove %s and deploy its commit again: %w",
			a.Dir, filepath.Join(b.artefacts, hexOf(a.Source)), spillway.ErrNotFound)
	}
	return nil
}

// Hold makes an artefact fresh for Prune, as if it had just been found again: for a deploy that takes it over
// from a release that may be forgotten meanwhile. Its errors are those of Exists.
func (b *Builder) Hold(a spillway.Artefact) error {
	b.storing.Lock()
	defer b.storing.Unlock()
	if err := b.Exists(a); err != nil || !a.Built() {
		return err
	}
	now := time.Now()
	return os.Chtimes(filepath.Join(b.artefacts, hexOf(a.Source), markerFile), now, now)
}

// Prune removes the artefacts that keep does not want and all sources, except those that were made or
// found again in the last six hours: a deploy that is under way may need them.
func (b *Builder) Prune(keep func(spillway.Artefact) bool) error {
	var failed []error
	for _, kind := range []string{b.artefacts, b.sources} {
		entries, err := os.ReadDir(kind)
		if err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		for _, e := range entries {
			if err := b.pruneOne(kind, e.Name(), keep); err != nil {
				failed = append(failed, fmt.Errorf("prune %s: %w", filepath.Join(kind, e.Name()), err))
			}
		}
	}
	return errors.Join(failed...)
}

// pruneOne removes one artefact or source. It is moved away first: a crash while it is removed leaves
// something in temp, not half an artefact.
func (b *Builder) pruneOne(kind, name string, keep func(spillway.Artefact) bool) error {
	home := filepath.Join(kind, name)
	fresh := home
	if kind == b.artefacts {
		m, err := readMarker(home)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			fresh = filepath.Join(home, markerFile)
			if keep(spillway.Artefact{Digest: m.Digest, Dir: filepath.Join(home, "tree", m.Dir), Source: m.Source}) {
				return nil
			}
		}
	}
	away := filepath.Join(b.temp, "pruned-"+name)
	moved, err := func() (bool, error) {
		b.storing.Lock()
		defer b.storing.Unlock()
		info, err := os.Stat(fresh)
		if err != nil || time.Since(info.ModTime()) < grace {
			return false, err
		}
		return true, os.Rename(home, away)
	}()
	if err != nil || !moved {
		return err
	}
	b.log.Info("pruned", "dir", home)
	return removeAll(away)
}

// discard removes a temporary directory, if it is still there.
func (b *Builder) discard(dir string) {
	if err := removeAll(dir); err != nil {
		b.log.Warn("cannot remove a temporary directory; the next start removes it", "dir", dir, "error", err)
	}
}

// removeAll removes a directory with everything in it, also what a build made read-only.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(name, 0o700) // RemoveAll below tells when it did not help
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// disk says in words that the disk is full; any other error it only says the work of.
func (b *Builder) disk(work string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: the disk of %s is full; free some space and deploy again: %w (%w)", work, strings.TrimSuffix(b.temp, "/temp"), err, spillway.ErrUnavailable)
	}
	return fmt.Errorf("%s: %w", work, err)
}
