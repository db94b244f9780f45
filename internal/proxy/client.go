package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// patience is how long a call waits for a proxy that is just being replaced.
	patience = 5 * time.Second
	// callTimeout is the longest call, when the caller's context sets nothing shorter.
	callTimeout = 15 * time.Second
	retryPause  = 20 * time.Millisecond
	watchPause  = 200 * time.Millisecond
)

// Client speaks to the proxy that serves on a directory. It has no connection of its own: each call
// reaches the process that serves then. It may be used by several goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// Dial makes a client of the proxy on a directory (Config.Dir). It does not connect.
func Dial(dir string) *Client {
	socket := filepath.Join(dir, socketName)
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true, // the next call may have to reach another process
	}}}
}

// Push has a table served. When it returns nil, every new request meets the table, and no request is given
// to an endpoint that the table lacks or drains any more. A private address that another program has and a
// certificate that cannot be read do not hold the rest back; Report.Dead tells them. Errors: ErrStale (a
// newer revision is served), ErrConflict (a host or address belongs to another app; or the table ends a
// trial as if its candidate had not been found harmful: see Report first), ErrInvalid, ErrUnavailable (no
// proxy answers).
func (c *Client) Push(ctx context.Context, t spillway.Table) error {
	text, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("push table of %s: %w", t.App, err)
	}
	return c.call(ctx, http.MethodPut, "/table", text, nil)
}

// Remove has the table of an app forgotten. ErrNotFound when there is none.
func (c *Client) Remove(ctx context.Context, app spillway.Ref) error {
	return c.call(ctx, http.MethodDelete, "/table?app="+url.QueryEscape(string(app)), nil, nil)
}

// Report says what is served for an app, its open requests, counts and evidence. ErrNotFound when the
// proxy has no table of the app, ErrUnavailable when no proxy answers.
func (c *Client) Report(ctx context.Context, app spillway.Ref) (spillway.Report, error) {
	var r spillway.Report
	err := c.call(ctx, http.MethodGet, "/report?app="+url.QueryEscape(string(app)), nil, &r)
	return r, err
}

// Routes tell what the proxy does with the requests to the hosts of an app. None when it has no table of the app.
func (c *Client) Routes(ctx context.Context, app spillway.Ref) ([]spillway.RouteLine, error) {
	var lines []spillway.RouteLine
	err := c.call(ctx, http.MethodGet, "/routes?app="+url.QueryEscape(string(app)), nil, &lines)
	return lines, err
}

// Hold has new requests to the public hosts of an app wait, each for up to a time; with 0, it lets them go on. It gives
// the hold as it is or, with 0, as it was: zero when there was none.
func (c *Client) Hold(ctx context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error) {
	var h spillway.Hold
	err := c.call(ctx, http.MethodPut, "/hold?app="+url.QueryEscape(string(app))+"&for="+wait.String(), nil, &h)
	return h, err
}

// Explain says what would become of a request to a host of an app, without making it. ErrInvalid when it is none.
func (c *Client) Explain(ctx context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	var answer spillway.RouteAnswer
	text, err := json.Marshal(q)
	if err != nil {
		return answer, err
	}
	err = c.call(ctx, http.MethodPost, "/routes/test?app="+url.QueryEscape(string(app)), text, &answer)
	return answer, err
}

// Info describes the proxy. ErrUnavailable when none answers.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var i Info
	err := c.call(ctx, http.MethodGet, "/info", nil, &i)
	return i, err
}

// Watch calls changed, from one goroutine, when a report of an app may differ: a candidate tripped, a
// verdict changed, a draining endpoint has no request left; and for every app whenever it has connected
// anew. It blocks until ctx ends and returns its error; a proxy that is away is waited for.
func (c *Client) Watch(ctx context.Context, changed func(spillway.Ref)) error {
	for ctx.Err() == nil {
		c.watchOnce(ctx, changed)
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
	return ctx.Err()
}

// watchOnce follows one connection to its end, whatever ends it: Watch connects again.
func (c *Client) watchOnce(ctx context.Context, changed func(spillway.Ref)) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/watch", nil)
	if err != nil {
		return
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var app spillway.Ref
		if lines.Decode(&app) != nil {
			return
		}
		changed(app)
	}
}

// call makes a call, again and again while the proxy says that it is being replaced.
func (c *Client) call(ctx context.Context, method, path string, body []byte, result any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	until := time.Now().Add(patience)
	for {
		again, err := c.once(ctx, method, path, body, result)
		if !again || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

// once makes one call. again: a proxy is there and is being replaced.
func (c *Client) once(ctx context.Context, method, path string, body []byte, result any) (again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return false, fmt.Errorf("no proxy answers on %s: %w: %w", c.socket, err, spillway.ErrUnavailable)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, fmt.Errorf("the proxy on %s broke off: %w: %w", c.socket, err, spillway.ErrUnavailable)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode == http.StatusServiceUnavailable, remoteError(text)
	}
	if result == nil {
		return false, nil
	}
	if err := json.Unmarshal(text, result); err != nil {
		return false, fmt.Errorf("the proxy on %s is not understood: %w", c.socket, err)
	}
	return false, nil
}

// remoteError is the error that the proxy sent, with the sentinel that it had there.
func remoteError(text []byte) error {
	var e wireError
	if json.Unmarshal(text, &e) != nil {
		return fmt.Errorf("proxy: %s", text)
	}
	for _, s := range sentinels {
		if e.Kind == s.err.Error() {
			return &remote{e.Text, s.err}
		}
	}
	return errors.New(e.Text)
}

// remote is an error with the text that the proxy gave it, which names the sentinel already.
type remote struct {
	text string
	is   error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.is }
