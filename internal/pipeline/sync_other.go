//go:build !linux

package pipeline

import (
	"io/fs"
	"os"
	"path/filepath"
)

// syncTree makes everything below dir safe on disk.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		return file.Sync()
	})
}
