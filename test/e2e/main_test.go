package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillway-dev/spillway/internal/e2etest"
)

// binary is the program under test, and self is this test program, which the apps run as their services:
// see site_test.go and rpc_test.go. Both are set once, before any test.
var binary, self string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "site" {
		os.Exit(runSite())
	}
	if len(os.Args) > 1 && os.Args[1] == "rpc" {
		os.Exit(runRPC())
	}
	os.Exit(buildAndRun(m))
}

// buildAndRun builds the program as it is released, without cgo.
func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "spillway-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "spillway")
	if err := e2etest.Build(root(), "./cmd/spillway", binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := os.Symlink("spillway", filepath.Join(dir, "oops")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if self, err = os.Executable(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// root is the directory of the product's module.
func root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err) // the working directory is gone
	}
	return dir
}
