package pipeline

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// digestDir digests the names, modes and contents of everything below dir, "sha256:…". Two directories
// have the same digest when a program could not tell them apart, but by times and owners:
//
//	<type><space><length of name>:<name><space><length of content>:<content>
//
// for each entry in the order of filepath.WalkDir, with type d, f, x (executable file) or l (the
// content is where it points). What is named except is left out.
func digestDir(dir, except string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir || name == except {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		entry := func(sort string, size int64) {
			fmt.Fprintf(sum, "%s %d:%s %d:", sort, len(relative), filepath.ToSlash(relative), size)
		}
		switch info.Mode().Type() {
		case fs.ModeDir:
			entry("d", 0)
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			entry("l", int64(len(target)))
			io.WriteString(sum, target)
		case 0:
			sort := "f"
			if mode(info) == 0o755 {
				sort = "x"
			}
			entry(sort, info.Size())
			return digestFile(sum, name, info.Size())
		} // a socket or pipe that a build left behind is no content
		return nil
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// digestFile adds exactly size bytes of a file to a sum.
func digestFile(sum io.Writer, name string, size int64) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.CopyN(sum, file, size)
	return err
}

// hexOf is a digest as the name of a directory.
func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }
