package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// pinProgram copies our own program into the state directory and gives the copy's path. The proxy and the
// first moments of every replica are started from the copy, so that they are of the server's version, and
// can be started at all, when the file that the server was started from is replaced or deleted while it
// runs. Copies of other versions are removed: what runs of them goes on.
func pinProgram(dir, self string) (string, error) {
	pinned := filepath.Join(dir, "bin", "spillway-"+digestFile(self))
	if _, err := os.Stat(pinned); err == nil {
		return pinned, nil
	}
	if err := os.MkdirAll(filepath.Dir(pinned), 0o700); err != nil {
		return "", fmt.Errorf("keep a copy of the program: %w", err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "bin", "*"))
	if err != nil {
		return "", err
	}
	temp := pinned + ".new"
	if err := copyProgram(self, temp); err != nil {
		return "", fmt.Errorf("keep a copy of the program: %w", err)
	}
	if err := os.Rename(temp, pinned); err != nil {
		return "", fmt.Errorf("keep a copy of the program: %w", err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return "", fmt.Errorf("remove the copy of an older program: %w", err)
		}
	}
	return pinned, nil
}

func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o700)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Sync()
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}

// fingerprint identifies a program file, so that a server can tell whether the proxy that runs is of the same.
func fingerprint(path string) string { return version() + "+" + digestFile(path) }

// digestFile is the beginning of the SHA-256 of a file; "unknown" when it cannot be read.
func digestFile(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "unknown"
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}
