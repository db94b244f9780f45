package pipeline

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree makes everything below dir safe on disk, with one call for the whole file system: an
// artefact can have tens of thousands of files.
func syncTree(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(file.Fd()))), file.Close())
}
