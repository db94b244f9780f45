package proxy

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// lookPause is how often somebody looks whether a client is there. One that has sent its last byte is taken for gone at
// the second look: the first may meet one that only has nothing more to say.
const lookPause = http1.HalfClosed

// leaves looks whether the client goes away, without reading: where it has still to send, or has sent its next request
// already, the end of what it sends is behind bytes that nobody wants yet. It blocks until the client has gone, or until
// over is closed, and reports which. A body that is being read is left to its reader, who meets its end, unless
// the connection is reset. body may be nil.
func (f *front) leaves(body *upload, over <-chan struct{}) bool {
	ticker := time.NewTicker(lookPause)
	defer ticker.Stop()
	before := false
	for {
		select {
		case <-over:
			return false
		case <-ticker.C:
		}
		sent, reset := f.sentAll()
		sent = sent && (body == nil || !body.wanted())
		if reset || sent && before {
			return true
		}
		before = sent
	}
}

// sentAll reports whether the client sends no more, and whether its connection is of no use any more.
func (f *front) sentAll() (sent, reset bool) {
	raw, err := f.wire.SyscallConn()
	if err != nil {
		return true, true
	}
	p := []unix.PollFd{{Events: unix.POLLRDHUP}}
	err = raw.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, _ = unix.Poll(p, 0) // the next look may tell more
	})
	got := p[0].Revents
	return got&unix.POLLRDHUP != 0, err != nil || got&(unix.POLLERR|unix.POLLHUP) != 0
}
