package proxy

import (
	"errors"
	"net/http"
	"syscall"
	"time"
)

const (
	// maxStreams is how many requests a client may have open on one connection of HTTP/2.
	maxStreams = 250
	// clientFiles are what one client may take: its connection, at two addresses, that to the replica, and a pipe
	// between them.
	clientFiles = 5
	// spareFiles are for everything else: listeners, files, the control socket. It is a quarter where there are few.
	spareFiles = 128
	// complainEvery is how often it is logged that there are too many connections.
	complainEvery = 10 * time.Second
)

// errFull: a client may have many requests on one connection.
var errFull = errors.New("as many requests are being answered as it has file descriptors for")

// mostConnections is how many connections of clients a public address takes, and how many requests are answered at once:
// as many as there are descriptors for.
func mostConnections() int64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1 << 10
	}
	files := int64(min(limit.Cur, 1<<24))
	return max((files-min(spareFiles, files/4))/clientFiles, 1)
}

// lacks refuses a request because the proxy itself is short of something. That says nothing about a release.
func (x *exchange) lacks(err error) {
	x.lease.drop()
	x.plane.complain("the proxy is short of something itself; if these are users, raise the limit of open files of the server (ulimit -n, LimitNOFILE=)", "error", err)
	x.refuse(&refusal{status: http.StatusServiceUnavailable, reason: "the proxy itself has too much to do: " + reasonOf(err), kind: tooMany})
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
