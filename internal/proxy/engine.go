package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout   = 2 * time.Second
	answerTimeout = 60 * time.Second // from the end of the request to the first byte of the answer
	// idleTimeout is below the 5 s after which common servers close idle connections, so that a
	// request seldom meets a connection that is being closed.
	idleTimeout = 4 * time.Second
)

// engine sends one request to the replica or server at r.URL.Host and gives its answer, whose body the caller
// closes. It never sends a request twice that must not be repeated. Its errors are faults.
type engine func(r *http.Request) (*http.Response, error)

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
	late                          // no answer within answerTimeout
)

func (f *fault) Error() string {
	switch f.kind {
	case noConnection:
		return "cannot be connected to: " + f.err.Error()
	case late:
		return fmt.Sprintf("did not answer within %s", answerTimeout)
	}
	return "closed the connection before it answered: " + f.err.Error()
}

func (f *fault) Unwrap() error { return f.err }

// newEngine makes an engine on http.Transport. On a reused connection that turns out to be dead the
// transport itself sends idempotent requests without body again; everything else is left to the caller.
func newEngine() (send engine, closeIdle func()) {
	dialer := net.Dialer{Timeout: dialTimeout}
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, &fault{noConnection, err}
			}
			return &wire{Conn: c}, nil
		},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialTLS(ctx, &dialer, network, address)
			if err != nil {
				return nil, &fault{noConnection, err}
			}
			return &wire{Conn: c}, nil
		},
		DisableCompression:    true,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: answerTimeout,
		ExpectContinueTimeout: time.Second,
		ReadBufferSize:        16 << 10,
		WriteBufferSize:       16 << 10,
		Protocols:             onlyHTTP1(),
	}
	return func(r *http.Request) (*http.Response, error) {
		var u usage
		resp, err := t.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: u.got})))
		if err != nil {
			return nil, u.fault(err)
		}
		return resp, nil
	}, t.CloseIdleConnections
}

func onlyHTTP1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// wire is a connection to a replica that counts its writes.
type wire struct {
	net.Conn
	writes atomic.Int64 // that wrote something, or are about to
}

func (w *wire) Write(p []byte) (int, error) {
	w.writes.Add(1)
	n, err := w.Conn.Write(p)
	if n == 0 && err != nil {
		w.writes.Add(-1)
	}
	return n, err
}

// CloseWrite tells the replica that an upgraded connection sends no more.
func (w *wire) CloseWrite() error {
	if c, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// usage is which connections a request was given, and whether it wrote to any.
type usage struct {
	mu     sync.Mutex
	wire   *wire
	before int64
	wrote  bool
}

func (u *usage) got(info httptrace.GotConnInfo) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.note()
	if w, ok := info.Conn.(*wire); ok {
		u.wire, u.before = w, w.writes.Load()
	}
}

// note looks whether the present connection was written to. u.mu is held.
func (u *usage) note() {
	if u.wire != nil && u.wire.writes.Load() != u.before {
		u.wrote = true
	}
}

// fault sorts an error of the transport.
func (u *usage) fault(err error) *fault {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.note()
	var known *fault
	var timeout net.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &timeout) && timeout.Timeout():
		return &fault{late, err}
	case !u.wrote:
		return &fault{unsent, err}
	}
	return &fault{lost, err}
}
