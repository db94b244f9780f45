package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// format is the version of every JSON file that this package writes.
const format = 1

// unfinished begins the name of a file that is being written; the pid of the writer and "-" follow.
const unfinished = ".tmp-"

// removeUnfinished removes a file that a crash left behind. One whose writer still runs is the business of
// that: the first and the last act of a process that outlives servers is to write its record.
func removeUnfinished(path string) error {
	pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), unfinished), "-")
	if n, err := strconv.Atoi(pid); err == nil && n != os.Getpid() && syscall.Kill(n, 0) == nil {
		return nil
	}
	if err := os.Remove(path); !missing(err) {
		return err
	}
	return nil
}

// saveJSON replaces the file at path so that a crash at any moment leaves the old or the new content.
func saveJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, fmt.Sprintf("%s%d-*", unfinished, os.Getpid())) // mode 0600: environments may hold secrets
	if err != nil {
		return fmt.Errorf("save %s: %w", path, err)
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadJSON reads a file that saveJSON wrote. A missing file is fs.ErrNotExist. Anything that this version
// cannot read is an error and the file stays as it is.
func loadJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return fmt.Errorf("%s is damaged (%w); move it away to go on without it", path, err)
	}
	if head.Version != format {
		return fmt.Errorf("%s has format %d, this program reads format %d; run the version that wrote it", path, head.Version, format)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s is damaged (%w); move it away to go on without it", path, err)
	}
	return nil
}

// missing reports that a file or directory does not exist.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
