package proxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// keptBody is how much of a request's body is kept, so that it can be sent once more.
const keptBody = 64 << 10

var (
	errSuperseded = errors.New("the request is being sent to another replica")
	errTooLarge   = errors.New("it is larger than the route allows")
)

// upload is the body of a request. What has been read of it is kept up to keptBody, so that another
// attempt can begin at the front, while nothing is read before a replica wants it.
type upload struct {
	reading sync.Mutex // one attempt reads at a time; taken before mu
	mu      sync.Mutex
	from    io.Reader
	kept    []byte
	over    bool         // more than keptBody was read: there is no second attempt
	err     error        // of from; io.EOF at the end
	read    atomic.Int64 // bytes of from; an attempt may hang in a Read, so it has no lock
	waits   atomic.Bool  // somebody waits for bytes of from
	came    time.Time    // the end of it
	limit   int64        // more bytes than this are an error; 0 = any number
	current *sending
	begun   func() // called before the first read; nil is fine. reading guards it
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

// stop ends the present attempt: what is left of the body is not read for it any more.
func (u *upload) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current = nil
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

// rest waits a moment until nobody reads, so that broken knows how the last read ended.
func (u *upload) rest() {
	poll(time.Now().Add(stopTime), func() bool {
		free := u.reading.TryLock()
		if free {
			u.reading.Unlock()
		}
		return free
	})
}

// whole reports whether all of the body was read.
func (u *upload) whole() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err == io.EOF
}

// filled: all bytes that were announced are here, whether or not the client has said yet that they are all.
func (u *upload) filled() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err, u.came = io.EOF, time.Now()
	}
}

// wanted reports whether an attempt reads the body, or is going to.
func (u *upload) wanted() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.current != nil && u.err == nil
}

// late reports whether the body is not here because of the client, or came after a moment only.
func (u *upload) late(until time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err == nil && u.waits.Load() || u.err == io.EOF && u.came.After(until)
}

// content is the whole body, if it was read and is still there. A request without one has an empty one.
func (u *upload) content() (body []byte, whole bool) {
	if u == nil {
		return nil, true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.kept, u.err == io.EOF && !u.over
}

// again gives what was kept and is not sent yet. done: there is nothing to be read of the client for now.
func (s *sending) again(p []byte) (n int, done bool, err error) {
	u := s.upload
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.current != s:
		return 0, true, errSuperseded
	case !u.over && s.at < len(u.kept):
		n = copy(p, u.kept[s.at:])
		s.at += n
		return n, true, nil
	case u.err != nil:
		return 0, true, u.err
	}
	return 0, false, nil
}

func (s *sending) Read(p []byte) (int, error) {
	if n, done, err := s.again(p); done {
		return n, err
	}
	u := s.upload
	u.reading.Lock()
	defer u.reading.Unlock()
	if n, done, err := s.again(p); done { // somebody else has read meanwhile
		return n, err
	}
	if u.begun != nil {
		u.begun()
		u.begun = nil
	}
	u.waits.Store(true)
	n, err := u.from.Read(p)
	u.waits.Store(false)
	u.mu.Lock()
	defer u.mu.Unlock()
	if read := u.read.Add(int64(n)); u.limit > 0 && read > u.limit {
		n, err = 0, errTooLarge
	}
	if u.err = err; err == io.EOF {
		u.came = time.Now()
	}
	s.at += n
	if !u.over && len(u.kept)+n > keptBody {
		u.over, u.kept = true, nil
	}
	if !u.over {
		u.kept = append(u.kept, p[:n]...)
	}
	if u.current != s {
		return 0, errSuperseded
	}
	return n, err
}

// Close leaves the client's body open: another attempt may need it, and the server closes it.
func (s *sending) Close() error { return nil }
