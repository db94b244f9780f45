package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// halfOpen is how long a replica may be silent once its client has said all that it has to say.
const halfOpen = 10 * time.Minute

// splice makes one connection of a client's and a replica's. Bytes are moved by the kernel; the end of each direction
// is passed on, and so is a reset.
type splice struct {
	client, replica *net.TCPConn
	head            []byte // of what the client sends
	answered        func() // called at the first byte from the replica

	said atomic.Bool  // the client has ended its direction
	left atomic.Bool  // the client is gone
	idle atomic.Int64 // longest silence of the other direction, once one has ended
}

// spliced is how a splice ended, as far as it says something about the replica.
type spliced int

const (
	answeredOnce    spliced = iota // a byte came back: whatever followed is between the two
	endedUnanswered                // the replica hung up, in order
	resetUnanswered                // the replica reset the connection before any byte came back
	leftUnanswered                 // the client left first, or the proxy did
)

// run returns when both directions have ended.
func (s *splice) run() spliced {
	up := make(chan struct{})
	// Owned by this call, which waits for it; ends when the client sends no more or a side is closed.
	go func() {
		defer close(up)
		s.up()
	}()
	end := s.down()
	<-up
	return end
}

// up passes on what the client says.
func (s *splice) up() {
	_, err := s.replica.Write(s.head)
	if err == nil {
		err = s.flow(s.replica, s.client)
	}
	if err == nil {
		s.said.Store(true)
		s.ended(s.replica, halfOpen)
		if s.replica.CloseWrite() == nil {
			return
		}
	}
	if err != nil && over(s.replica) && !over(s.client) {
		return // down sees why
	}
	s.left.Store(true)
	_ = s.replica.SetLinger(0)
	s.replica.Close()
}

// down passes on what the replica says.
func (s *splice) down() spliced {
	buf := make([]byte, 4<<10)
	n, err := s.replica.Read(buf)
	if n == 0 {
		return s.unanswered(err)
	}
	s.answered()
	if _, err = s.client.Write(buf[:n]); err == nil {
		err = s.flow(s.client, s.replica)
	}
	s.hangUp(err)
	return answeredOnce
}

// unanswered ends a connection on which nothing came back.
func (s *splice) unanswered(err error) spliced {
	said, left := s.said.Load(), s.left.Load()
	// Who wrote first to a connection that was reset is told so, and who reads then sees an end like any other. So
	// the state of the socket counts: it is closed, and we have not closed it, not even our direction.
	reset := errors.Is(err, syscall.ECONNRESET) || (errors.Is(err, io.EOF) && !said && over(s.replica))
	if errors.Is(err, io.EOF) && !reset {
		err = nil
	}
	if reset && err == io.EOF {
		err = syscall.ECONNRESET
	}
	s.hangUp(err)
	switch {
	case left:
		return leftUnanswered
	case reset:
		return resetUnanswered
	case err == nil && !said:
		return endedUnanswered
	}
	return leftUnanswered
}

// hangUp tells the client that the replica has ended: in order, or by a reset. Then the client gets a moment to read what
// is left and to hang up: the replica counts as busy until then.
func (s *splice) hangUp(err error) {
	if err == nil {
		s.ended(s.client, farewell)
		if s.client.CloseWrite() == nil {
			return
		}
	}
	for _, c := range []*net.TCPConn{s.client, s.replica} {
		_ = c.SetLinger(0)
		c.Close()
	}
}

// ended bounds the silence of the direction that is left, from whom it is read.
func (s *splice) ended(from *net.TCPConn, silence time.Duration) {
	s.idle.Store(int64(silence))
	_ = from.SetReadDeadline(time.Now().Add(silence))
}

// flow copies until from ends; then it returns nil. Once the other direction has ended, only as long as there is
// something to copy.
func (s *splice) flow(to, from *net.TCPConn) error {
	for {
		n, err := io.Copy(to, from)
		if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		_ = from.SetReadDeadline(time.Now().Add(time.Duration(s.idle.Load())))
	}
}

// over reports whether the kernel has done with a connection: it was reset or given up, or both directions have ended.
func over(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	closed := true // also when it is closed here
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err != nil || info.State == unix.BPF_TCP_CLOSE
	})
	return closed
}
