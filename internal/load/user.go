package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// user is one worker's client: one connection at a time, and perhaps cookies.
type user struct {
	plan    Plan
	client  *http.Client
	written atomic.Int64 // bytes sent on all of its connections
}

func newUser(p Plan) *user {
	u := &user{plan: p}
	dialer := &net.Dialer{Timeout: p.Timeout}
	u.client = &http.Client{
		Timeout: p.Timeout,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dialer.DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return &conn{Conn: c, written: &u.written}, nil
			},
			DisableCompression: true,
			IdleConnTimeout:    30 * time.Second, // well before servers give up on it
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if p.Cookies {
		u.client.Jar, _ = cookiejar.New(nil) // the error is always nil
	}
	return u
}

func (u *user) close() { u.client.CloseIdleConnections() }

// conn counts what is written to it.
type conn struct {
	net.Conn
	written *atomic.Int64
}

// Write counts before it writes, so that a request that may have left is never taken for one that has not.
func (c *conn) Write(b []byte) (int, error) {
	c.written.Add(int64(len(b)))
	return c.Conn.Write(b)
}

// answer is what came back: a status, or an error, or both when the body broke off.
type answer struct {
	status  int
	release string
	err     error
}

// ask sends one request and reads the whole answer. A connection that the server had closed before the
// request was written has cost nobody anything, so ask tries once more, on a new one.
func (u *user) ask(ctx context.Context) answer {
	before := u.written.Load()
	a := u.try(ctx)
	if a.err != nil && u.written.Load() == before && ctx.Err() == nil {
		return u.try(ctx)
	}
	return a
}

func (u *user) try(ctx context.Context) answer {
	r, err := http.NewRequestWithContext(ctx, u.plan.Method, u.plan.URL, u.body())
	if err != nil {
		return answer{err: err}
	}
	r.ContentLength = int64(len(u.plan.Body))
	r.Host = u.plan.Host
	if u.plan.Header != nil {
		r.Header = u.plan.Header.Clone()
	}
	response, err := u.client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return answer{status: response.StatusCode, release: response.Header.Get("X-Spillway-Release"), err: err}
}

// body gives a body that cannot be rewound. The transport repeats a request that it can rewind when the
// connection dies, and that would hide what this package is there to see. It takes no body at all for
// rewindable too, but only with the methods that are safe to repeat.
func (u *user) body() io.Reader {
	switch u.plan.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		if u.plan.Body == "" {
			return http.NoBody
		}
	}
	return io.NopCloser(strings.NewReader(u.plan.Body))
}

// classify says what kind of failure an answer is; "" is none.
func classify(a answer) Class {
	switch {
	case timedOut(a.err):
		return Timeout
	case errors.Is(a.err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(a.err, syscall.ECONNRESET), errors.Is(a.err, syscall.EPIPE),
		errors.Is(a.err, io.EOF), errors.Is(a.err, io.ErrUnexpectedEOF):
		return Reset
	case a.err != nil:
		return Other
	case a.status >= 500:
		return Status5xx
	case a.status >= 400:
		return StatusOther
	}
	return ""
}

func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}
