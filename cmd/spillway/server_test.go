package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/api"
)

// A server that cannot start has taken its socket by then, and gives it back.
func TestClose_GivesBackWhatAServerThatCannotStartTook(t *testing.T) {
	dir, err := os.MkdirTemp("", "sw") // short, because a unix socket is in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := serverOptions{dir: dir, http: taken.Addr().String(), listen: "127.0.0.1:0"}
	if o.self, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	in, err := assemble(t.Context(), o, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.run(t.Context(), o, func() { t.Error("it runs") }); !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("it ended with %v", err)
	}
	if err := in.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, api.SocketName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its socket is left: %v", err)
	}
}
