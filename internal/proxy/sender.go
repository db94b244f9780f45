package proxy

import (
	"errors"
	"syscall"
	"time"
)

const (
	dialTimeout   = 2 * time.Second
	answerTimeout = 60 * time.Second // from the end of the request to the first byte of the answer
	// idleTimeout is below the 5 s after which common servers close idle connections, so that a
	// request seldom meets a connection that is being closed.
	idleTimeout = 4 * time.Second
)

// sender makes attempts at one replica, server or heir. It never sends a request twice that must not be
// repeated. Its errors are faults.
type sender interface {
	send(out *outgoing) (*reply, error)
	closeIdle()             // the connections that are kept
	prune(before time.Time) // those that are kept since before
}

// fault is why a replica gave no answer, by what may be done about it.
type fault struct {
	kind faultKind
	err  error
}

type faultKind int

const (
	noConnection faultKind = iota // nothing listens there
	unsent                        // connected, but not one byte of the request was written
	lost                          // sent, at least in part, and no answer began
	late                          // no answer in time
	spoilt                        // an answer began, and cannot be used
	short                         // not tried: the proxy itself has no file descriptor, port or memory left for it
)

func (f *fault) Error() string {
	switch f.kind {
	case noConnection:
		return "cannot be connected to: " + f.err.Error()
	case late:
		return "did not answer in time: " + f.err.Error()
	case short:
		return "was not asked, the proxy is short of something itself: " + f.err.Error()
	case spoilt:
		return "gave no answer that can be passed on: " + f.err.Error()
	}
	return "closed the connection before it answered: " + f.err.Error()
}

func (f *fault) Unwrap() error { return f.err }

// dialFault is why there is no connection. It says nothing of the server when the proxy is short of something.
func dialFault(err error) *fault {
	for _, number := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, number) {
			return &fault{short, err}
		}
	}
	return &fault{noConnection, err}
}

func isShort(err error) bool {
	var f *fault
	return errors.As(err, &f) && f.kind == short
}
