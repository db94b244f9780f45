package pipeline

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// syncTree makes everything below dir safe on disk, file by file. For a large node_modules that takes
// seconds; a sync of the whole file system would be one call, but waits for what others write too.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		return syncPath(name)
	})
}

// syncPath makes a file, or the names in a directory, safe on disk.
func syncPath(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
