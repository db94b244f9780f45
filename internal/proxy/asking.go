package proxy

import (
	"net"
	"os"
	"syscall"
)

// asking writes a request and reads the first of its answer in one wait of the poller. net would try to
// read before it waits, in vain: a server needs its time.
type asking struct {
	raw  syscall.RawConn
	step func(fd uintptr) bool
	out  []byte // not written yet
	in   []byte // for the answer
	n    int    // of it
	sent int    // of out
	err  error
}

// newAsking is for one connection. It is nil when that is not of TCP itself.
func newAsking(c net.Conn) *asking {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	a := &asking{raw: raw}
	a.step = a.next
	return a
}

// ask writes out, and if that succeeds at once waits for the first bytes of the answer. n is 0 when all of it has to
// be done in the usual way from where it stands, or when it failed.
//
// Whoever waits sees what comes from now on. What had come before, to a request that was not asked, may be seen no
// sooner than at the end of the time for reading: then the usual read finds it.
func (a *asking) ask(out, in []byte) (sent, n int, err error) {
	a.out, a.in, a.n, a.sent, a.err = out, in, 0, 0, nil
	err = a.raw.Read(a.step)
	if err == nil {
		err = a.err
	}
	a.out, a.in = nil, nil
	return a.sent, a.n, err
}

// next is called when the wait begins, and each time that something may have come.
func (a *asking) next(fd uintptr) (done bool) {
	for a.sent == 0 {
		n, err := syscall.Write(int(fd), a.out)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return true
		case err != nil:
			a.err = os.NewSyscallError("write", err)
			return true
		}
		a.sent = n
		return n < len(a.out)
	}
	for {
		n, err := syscall.Read(int(fd), a.in)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		}
		a.n, a.err = max(n, 0), os.NewSyscallError("read", err)
		return true
	}
}
