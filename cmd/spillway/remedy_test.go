package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spillway-dev/spillway/internal/proxy"
)

// Each error about the state directory that is the machine's names what to do, and stays what it is.
func TestStateError_SaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	me := userName(os.Geteuid())
	file := filepath.Join(dir, "lock")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 54321, -1); err != nil {
			t.Fatal(err)
		}
	}
	_, locker := ownerOf(file)
	const other = "or use another one: --dir DIR, or SPILLWAY_DIR=DIR"
	for name, c := range map[string]struct {
		err  error
		want string // "" = nothing is added
	}{
		"no error":   {},
		"file":       {&fs.PathError{Op: "open", Path: file, Err: syscall.EACCES}, file + " belongs to " + locker + ", and this is " + me + ": run it as " + locker + ", " + other},
		"to be made": {&fs.PathError{Op: "mkdir", Path: filepath.Join(dir, "a", "b"), Err: syscall.EACCES}, dir + " belongs to " + me + ", "},
		"full":       {&fs.PathError{Op: "write", Path: file, Err: syscall.ENOSPC}, "free space on the file system of " + dir + " (df -h " + dir},
		"quota":      {syscall.EDQUOT, "free space on the file system of " + dir},
		"read only":  {syscall.EROFS, "mount the file system of " + dir + " for writing, " + other},
		"another":    {errors.New("damaged"), ""},
	} {
		if c.err != nil {
			c.err = fmt.Errorf("lock the state directory: %w", c.err)
		}
		got := stateError(dir, c.err)
		switch {
		case c.want == "" && got != c.err:
			t.Errorf("%s: %v", name, got)
		case c.want != "" && (!errors.Is(got, c.err) || !strings.Contains(got.Error(), "; ") || !strings.Contains(got.Error(), c.want)):
			t.Errorf("%s: %v has no %q", name, got, c.want)
		}
	}
}

// An address that cannot be listened at is told with what to do, by the flag that it was given with.
func TestListenError_SaysWhatToDo(t *testing.T) {
	err := addressFree("https", "192.0.2.1:0") // no machine's (RFC 5737)
	if err == nil || !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "this machine has no such address: see ip addr, or leave it out (--https :PORT)") {
		t.Errorf("%v", err)
	}
	refused := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EACCES)}
	for _, want := range []string{"users cannot be served on 127.0.0.1:80: ", "permission denied", "(--http :8080)", "AmbientCapabilities=CAP_NET_BIND_SERVICE", "ip_unprivileged_port_start"} {
		if err := listenError("http", "127.0.0.1:80", refused); !strings.Contains(err.Error(), want) {
			t.Errorf("%v has no %q", err, want)
		}
	}
}

func TestDescriptorCheck_SaysHowManyClientsThereMayBe(t *testing.T) {
	if got := descriptorCheck(proxy.Info{}); got != nil {
		t.Errorf("of a proxy that does not say: %+v", got)
	}
	for files, state := range map[uint64]string{64: "warn", 1024: "warn", 4096: "ok", 1 << 20: "ok"} {
		got := descriptorCheck(proxy.Info{Files: files, Most: 224})
		if len(got) != 1 || got[0].State != state || !strings.Contains(got[0].Text, fmt.Sprintf("may open %d files, which is enough for 224 connections", files)) || (state == "ok") != (got[0].Remedy == "") {
			t.Errorf("%d: %+v", files, got)
		}
		if state == "warn" && (!strings.Contains(got[0].Remedy, "LimitNOFILE=") || !strings.Contains(got[0].Remedy, "ulimit -n")) {
			t.Errorf("%d: %+v", files, got)
		}
	}
}
