package proxy

import (
	"fmt"
	"io"
	"time"
)

const (
	// bodyIdle is how long a client may send nothing of a body that it has announced.
	bodyIdle = 60 * time.Second
	// bodyGrace is how long a body may take however slow it comes; after that it has to have come at
	// bodyRate on the whole. Only the rate of a body of known length is looked at: one without may be a stream.
	bodyGrace = 20 * time.Second
	bodyRate  = 256 // bytes a second
)

// slowBody reads the body of a client that may not want to send it: the time of each read is limited, and
// the rate of all of them.
type slowBody struct {
	from   io.Reader
	rush   func(until time.Time) // sets when the next bytes must be there
	length int64
	begun  time.Time
	read   int64
	set    time.Time // when rush was called last
	paced  bool      // with the time that the rate allows, which is over before bodyIdle
}

// tooSlow is a body that did not come in time, in words for the client.
type tooSlow string

func (t tooSlow) Error() string { return string(t) }

func (s *slowBody) Read(p []byte) (int, error) {
	now := time.Now()
	if s.begun.IsZero() {
		s.begun = now
	}
	if now.Sub(s.set) > time.Second { // not at each read: it is seldom needed
		s.set = now
		until := now.Add(bodyIdle)
		if s.paced = false; s.length > 0 {
			if due := s.begun.Add(bodyGrace + time.Duration(s.read/bodyRate)*time.Second); due.Before(until) {
				until, s.paced = due, true
			}
		}
		s.rush(until)
	}
	n, err := s.from.Read(p)
	s.read += int64(n)
	switch {
	case err == nil || !isTimeout(err):
		return n, err
	case s.paced:
		return n, tooSlow(fmt.Sprintf("the body of the request came slower than %d bytes a second after %s", bodyRate, bodyGrace))
	}
	return n, tooSlow(fmt.Sprintf("nothing of the body of the request came for %s", bodyIdle))
}
