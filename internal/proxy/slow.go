package proxy

import (
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
}

func (s *slowBody) Read(p []byte) (int, error) {
	now := time.Now()
	if s.begun.IsZero() {
		s.begun = now
	}
	if now.Sub(s.set) > time.Second { // not at each read: it is seldom needed
		s.set = now
		until := now.Add(bodyIdle)
		if s.length > 0 {
			if due := s.begun.Add(bodyGrace + time.Duration(s.read/bodyRate)*time.Second); due.Before(until) {
				until = due
			}
		}
		s.rush(until)
	}
	n, err := s.from.Read(p)
	s.read += int64(n)
	return n, err
}
