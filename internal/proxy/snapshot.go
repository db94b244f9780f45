package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// snapshotVersion is the format of snapshot.json.
	snapshotVersion = 1
	saveDelay       = 100 * time.Millisecond // failures of this long are saved together
	saveEvery       = 5 * time.Second        // while a candidate is tried, for its good answers
)

// snapshot is all that a proxy needs to go on after a restart.
type snapshot struct {
	Version int        `json:"version"`
	Apps    []savedApp `json:"apps"` // sorted by app
}

type savedApp struct {
	Table  spillway.Table  `json:"table"`
	Memory json.RawMessage `json:"memory,omitempty"` // of the newest trial
	Hold   *spillway.Hold  `json:"hold,omitempty"`   // requests are held
}

func (p *plane) snapshotPath() string { return filepath.Join(p.dir, "snapshot.json") }

// save writes the snapshot, unless an heir does.
func (p *plane) save() error {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	if p.frozen {
		p.mu.Unlock()
		return nil
	}
	text := p.snapshot(nil)
	p.mu.Unlock()
	return writeFile(p.snapshotPath(), text)
}

// snapshot is the snapshot as stored. With an heir, the heir is told whatever is judged from here on.
// p.mu is held.
func (p *plane) snapshot(h *heir) []byte {
	s := snapshot{Version: snapshotVersion, Apps: []savedApp{}}
	for _, a := range p.apps {
		saved := savedApp{Table: a.table, Hold: a.gate.told()}
		if a.trial != nil {
			saved.Memory = a.trial.memory(h)
		}
		s.Apps = append(s.Apps, saved)
	}
	slices.SortFunc(s.Apps, func(x, y savedApp) int {
		return compareKeys(endpointKey{App: x.Table.App}, endpointKey{App: y.Table.App})
	})
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // tables came from JSON
	}
	return text
}

// soon has the snapshot saved within saveDelay.
func (p *plane) soon() {
	select {
	case p.dirty <- struct{}{}:
	default: // it is due already
	}
}

// keepSaved saves when something asks for it, until ctx ends.
func (p *plane) keepSaved(ctx context.Context) {
	every := time.NewTicker(saveEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			if !p.trying() {
				continue
			}
		case <-p.dirty:
			select {
			case <-ctx.Done():
				return
			case <-time.After(saveDelay):
			}
		}
		if err := p.save(); err != nil {
			p.log.Error("the snapshot could not be saved; trying again", "error", err)
			p.soon()
		}
	}
}

// trying reports whether a candidate is being tried.
func (p *plane) trying() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.apps {
		if a.table.Route.Trial != nil {
			return true
		}
	}
	return false
}

// load serves the snapshot in the directory, if there is one. What cannot be read is left as it is.
func (p *plane) load() error {
	text, err := os.ReadFile(p.snapshotPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	var format struct{ Version int }
	if err := json.Unmarshal(text, &format); err != nil {
		return p.unreadable("is damaged", err)
	}
	if format.Version != snapshotVersion {
		return fmt.Errorf("snapshot %s has version %d and this program knows %d: start the version of spillway that wrote it: %w", p.snapshotPath(), format.Version, snapshotVersion, spillway.ErrInvalid)
	}
	var s snapshot
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return p.unreadable("cannot be read", err)
	}
	trials := make([]*trial, len(s.Apps))
	for i, saved := range s.Apps { // all are checked before the first is served
		if trials[i], err = saved.check(); err != nil {
			return p.unreadable("cannot be served", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, saved := range s.Apps {
		p.restore(saved.Table, trials[i])
		if h := saved.Hold; h != nil {
			p.apps[saved.Table.App].gate.close(h.Since, time.Duration(h.For))
		}
	}
	p.log.Info("snapshot loaded", "apps", len(s.Apps))
	return nil
}

func (p *plane) unreadable(what string, err error) error {
	return fmt.Errorf("snapshot %s %s: %w; move it away to start with nothing until the server pushes its tables", p.snapshotPath(), what, err)
}

// check gives the trial of a saved app, nil when there is none.
func (s savedApp) check() (*trial, error) {
	if err := checkTable(s.Table); err != nil || len(s.Memory) == 0 {
		return nil, err
	}
	var m struct{ Trial int64 }
	if err := json.Unmarshal(s.Memory, &m); err != nil {
		return nil, err
	}
	return newTrial(spillway.Trial{ID: m.Trial, Memory: s.Memory})
}

// restore serves one app of a snapshot. p.mu is held.
func (p *plane) restore(t spillway.Table, trial *trial) {
	p.apps[t.App] = &app{plane: p, ref: t.App, trial: trial, tallies: map[string]*tally{}}
	p.readCertificates(t)
	bound := p.bind(t)
	p.swap(t)
	p.accept(bound)
}

// writeFile replaces a file at once: whoever reads it finds the old or the new text, also after a crash.
func writeFile(path string, text []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
