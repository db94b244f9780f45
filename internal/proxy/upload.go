package proxy

import (
	"errors"
	"io"
	"sync"
)

// keptBody is how much of a request's body is kept, so that it can be sent once more.
const keptBody = 64 << 10

var errSuperseded = errors.New("the request is being sent to another replica")

// upload is the body of a request. What has been read of it is kept up to keptBody, so that another
// attempt can begin at the front, while nothing is read before a replica wants it.
type upload struct {
	mu      sync.Mutex
	from    io.Reader
	kept    []byte
	over    bool  // more than keptBody was read: there is no second attempt
	err     error // of from; io.EOF at the end
	current *sending
	begun   func() // called before the first read; nil is fine
}

// sending is one attempt's view of an upload. Only the newest one reads.
type sending struct {
	upload *upload
	at     int
}

// start begins an attempt. An earlier one that still reads gets errSuperseded; what it has read is kept.
func (u *upload) start() *sending {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current = &sending{upload: u}
	return u.current
}

// repeatable reports whether another attempt can begin at the front.
func (u *upload) repeatable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.over
}

// broken is what went wrong with reading from the client, nil when nothing did.
func (u *upload) broken() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == io.EOF {
		return nil
	}
	return u.err
}

func (s *sending) Read(p []byte) (int, error) {
	u := s.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.current != s {
		return 0, errSuperseded
	}
	if !u.over && s.at < len(u.kept) {
		n := copy(p, u.kept[s.at:])
		s.at += n
		return n, nil
	}
	if u.err != nil {
		return 0, u.err
	}
	if u.begun != nil {
		u.begun()
		u.begun = nil
	}
	n, err := u.from.Read(p)
	u.err = err
	s.at += n
	if !u.over && len(u.kept)+n > keptBody {
		u.over, u.kept = true, nil
	}
	if !u.over {
		u.kept = append(u.kept, p[:n]...)
	}
	return n, err
}

// Close leaves the client's body open: another attempt may need it, and the server closes it.
func (s *sending) Close() error { return nil }
