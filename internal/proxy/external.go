package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// deadAfter is how many tries in a row have to fail before a server is called dead.
const deadAfter = 3

// reach is how the tries to reach a server by URL went. Replicas have probes; these servers have users only.
type reach struct {
	mu     sync.Mutex
	missed int // tries since the last answer
	why    string
}

// miss counts a try without an answer, and reports whether the server is dead from now on.
func (r *reach) miss(err error) (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed++
	r.why = reasonOf(err)
	return r.missed == deadAfter
}

// hit counts an answer, and reports whether the server was dead until now.
func (r *reach) hit() (news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = r.missed >= deadAfter
	r.missed = 0
	return news
}

// dead says why the server cannot be reached: "connection refused (12 of the last 12 tries)"; "" when it can.
func (r *reach) dead() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.missed < deadAfter {
		return ""
	}
	return fmt.Sprintf("%s (%d of the last %d tries)", r.why, r.missed, r.missed)
}

// reasonOf is the innermost reason of a failed try, without the addresses around it.
func reasonOf(err error) string {
	var f *fault
	var number syscall.Errno
	var name *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &number):
		return number.Error()
	case errors.As(err, &name):
		return name.Err
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.As(err, &f):
		return f.err.Error()
	}
	return err.Error()
}

// judgeReach learns from an attempt whether a server by URL can be reached: it cannot when there was no
// connection or no answer in time. What is said about replicas is the platform's business. Either is passed over for a while when it
// does not answer.
func (p *plane) judgeReach(e *endpoint, err error, now time.Time) {
	if pause := e.learn(err, now); pause > 0 {
		p.log.Info("endpoint is passed over", "app", e.App, "endpoint", e.name(), "pause", pause, "reason", reasonOf(err))
	}
	if !e.external() {
		return
	}
	var f *fault
	var news bool
	switch {
	case err == nil:
		if news = e.reach.hit(); news {
			p.log.Info("server by url answers again", "app", e.App, "server", e.Address)
		}
	case errors.As(err, &f) && (f.kind == noConnection || f.kind == late):
		if news = e.reach.miss(err); news {
			p.log.Warn("server by url cannot be reached", "app", e.App, "server", e.Address, "reason", e.reach.dead())
		}
	}
	if news {
		p.watch.tell(e.App)
	}
}

// external reports whether the endpoint is a server by URL.
func (e *endpoint) external() bool { return isURL(e.Address) }

func isURL(address string) bool { return strings.Contains(address, "://") }

// serverURL reads the URL of a server: http or https, a host, perhaps a port and a path.
func serverURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err == nil && ((u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		err = errors.New("not of the form http://host:port/path")
	}
	if err != nil {
		return nil, fmt.Errorf("server %q: %w: %w", text, err, spillway.ErrInvalid)
	}
	return u, nil
}
