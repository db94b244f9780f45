package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/spillway-dev/spillway"
)

// maxSocketPath is the longest path that the kernel takes for a unix socket, in bytes.
const maxSocketPath = 107

// listenSocket takes the unix socket, and removes the one that a server left behind when it was killed.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path %s is too long for a unix socket (%d bytes, at most %d); choose a shorter --dir: %w",
			path, len(path), maxSocketPath, spillway.ErrInvalid)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	// The mode is set on the socket before it has a name, so there is no moment in which others may use it.
	private := func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}
	l, err := (&net.ListenConfig{Control: private}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// removeStale removes a socket that nobody answers on.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way: it is not a socket; move it, or use another --dir: %w", path, spillway.ErrConflict)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("a Spillway server answers at %s already; stop it, or use another --dir: %w", path, spillway.ErrConflict), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("see whether a server answers at %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the socket of a server that is gone: %w", err)
	}
	return nil
}

func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the address %s is in use by another program; choose another one with --listen: %w", address, spillway.ErrConflict)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

type peerKey struct{}

// withPeer notes who is at the other end of a connection to the unix socket. Connections over TCP have
// no such note.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer(conn))
}

// peer names the user at the other end: "uid 0 (root)". The kernel vouches for the number.
func peer(conn *net.UnixConn) string {
	const unknown = "unix socket"
	raw, err := conn.SyscallConn()
	if err != nil {
		return unknown
	}
	var who *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		who, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err != nil || failed != nil {
		return unknown
	}
	uid := strconv.FormatUint(uint64(who.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return fmt.Sprintf("uid %s (%s)", uid, u.Username)
	}
	return "uid " + uid
}
