package proxy

import (
	"syscall"
	"time"
)

const (
	// maxStreams is how many requests a client may have open on one connection of HTTP/2.
	maxStreams = 250
	// clientFiles are what one client may take: its connection, that to the replica, and a pipe between them.
	clientFiles = 4
	// spareFiles are for everything else: listeners, files, the control socket.
	spareFiles = 128
	// complainEvery is how often it is logged that there are too many connections.
	complainEvery = 10 * time.Second
)

// mostConnections is how many connections of clients a public address takes: as many as there are descriptors for.
func mostConnections() int64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1 << 10
	}
	return max((int64(min(limit.Cur, 1<<24))-spareFiles)/clientFiles, 64)
}

// full reports whether the listener takes no more connections for the moment, and complains about it. Replicas
// are never turned away: who waits for them is a user whose connection was taken.
func (l *listener) full() bool {
	if l.private || l.conns.Load() < l.plane.most {
		return false
	}
	l.plane.seen.overflow.Add(1)
	if now := time.Now(); now.Sub(l.complained) > complainEvery {
		l.complained = now
		l.plane.log.Error("too many connections: new ones are closed; raise the limit of open files of the server (ulimit -n) if these are users", "address", l.address, "open", l.conns.Load())
	}
	return true
}
