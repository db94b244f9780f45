package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// stateError adds to an error about the state directory what to do about it, where the machine and not Spillway
// is the reason; nil stays nil.
func stateError(dir string, err error) error {
	const other = "or use another one: --dir DIR, or SPILLWAY_DIR=DIR"
	switch {
	case errors.Is(err, fs.ErrPermission):
		path := dir
		if of := (*fs.PathError)(nil); errors.As(err, &of) {
			path = of.Path
		}
		path, owner := ownerOf(path)
		return fmt.Errorf("%w; %s belongs to %s, and this is %s: run it as %s, %s", err, path, owner, userName(os.Geteuid()), owner, other)
	case full(err):
		return fmt.Errorf("%w; free space on the file system of %s (df -h %s; df -i %s), %s", err, dir, dir, dir, other)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount the file system of %s for writing, %s", err, dir, other)
	}
	return err
}

// full reports that an error is about a file system, or a quota, without room.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// ownerOf finds who owns a path or, where it is not there, the directory that it would be in.
func ownerOf(path string) (found, owner string) {
	for {
		if info, err := os.Stat(path); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return path, userName(int(st.Uid))
			}
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path, userName(0)
		}
		path = parent
	}
}

// userName is the name of a user or, where nobody knows it, "user 1000".
func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return cmp.Or(u.Username, "user "+id)
	}
	return "user " + id
}

// listenError is why users cannot be served on an address of a flag, and what to do about it.
func listenError(flag, address string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		port := map[string]string{"http": "8080", "https": "8443"}[flag]
		return fmt.Errorf("users cannot be served on %s: %w; name a port from 1024 on (--%s :%s), or let the server have this one: AmbientCapabilities=CAP_NET_BIND_SERVICE in its systemd unit, or sysctl net.ipv4.ip_unprivileged_port_start=80 (setcap on the program does not reach the proxy)", address, err, flag, port)
	}
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("users cannot be served on %s: %w; this machine has no such address: see ip addr, or leave it out (--%s :PORT)", address, err, flag)
	}
	return fmt.Errorf("users cannot be served on %s: %w; choose another address: --%s ADDR", address, err, flag)
}
