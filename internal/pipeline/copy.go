package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// appFile is no part of what services are built from: else each change of a setting would rebuild and
// restart every service that is built from the whole source.
const appFile = "spillway.yaml"

// digest is the SourceDigest of a recipe for a source.
func (r recipe) digest(t Tree) (string, error) {
	content, err := digestDir(filepath.Join(t.Dir, filepath.FromSlash(r.scope)), filepath.Join(t.Dir, appFile))
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(struct {
		Version             int
		Content, Scope, Dir string
		Shell, Program      string
		Exec                []string
	}{format, content, r.scope, r.dir, r.command.Shell, r.program, r.command.Exec})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(text)), nil
}

// copyScope copies one directory of a source, without the app file, to the same place below to.
func copyScope(ctx context.Context, source, to, scope string) error {
	return filepath.WalkDir(filepath.Join(source, filepath.FromSlash(scope)), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		relative, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		if relative == appFile {
			return nil
		}
		target := filepath.Join(to, relative)
		switch d.Type() {
		case fs.ModeDir:
			return os.MkdirAll(target, 0o755)
		case fs.ModeSymlink:
			link, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		return copyFile(name, target)
	})
}

// copyFile copies one file. It is a copy, not a hard link: a build may write to it.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode(info))
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
