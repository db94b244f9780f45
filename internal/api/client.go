package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// Client asks a server. Its methods are those of Engine and give the same errors: they wrap the same
// sentinels and hold the same field errors. When no server answers they wrap ErrUnavailable. A Client
// may be used by any number of goroutines.
type Client struct {
	http  *http.Client
	base  string // "http://127.0.0.1:7300", without a slash at the end
	token string
	place string // what to call the server in messages

	reached atomic.Bool // it has answered
}

// NewClient makes a client of the server at a target: unix:///var/lib/spillway/spillway.sock, or
// http://127.0.0.1:7300 with a token. It does not connect yet. A target of another form is ErrInvalid.
func NewClient(target, token string) (*Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	c := &Client{token: token, http: &http.Client{
		Transport: transport,
		// The API never redirects, and a token must not go elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if path, ok := strings.CutPrefix(target, "unix://"); ok && strings.HasPrefix(path, "/") {
		c.base, c.place, transport.Proxy = "http://localhost", path, nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return c, nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%q is not the address of a server; write http://127.0.0.1:7300 or unix:///path/%s: %w", target, SocketName, spillway.ErrInvalid)
	}
	c.base = u.Scheme + "://" + u.Host
	c.place = c.base
	return c, nil
}

// NewClientOver makes a client of a server to which transport finds the way and for which it has what lets it in. place
// is what messages call the server.
func NewClientOver(transport http.RoundTripper, place string) *Client {
	return &Client{base: "http://localhost", place: place, http: &http.Client{
		Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Info describes the server.
func (c *Client) Info(ctx context.Context) (Info, error) {
	return ask[Info](ctx, c, http.MethodGet, "/v1/info", nil)
}

// Apps lists the apps, sorted.
func (c *Client) Apps(ctx context.Context) ([]spillway.Ref, error) {
	overviews, err := c.Overviews(ctx)
	refs := make([]spillway.Ref, len(overviews))
	for i, o := range overviews {
		refs[i] = o.App
	}
	return refs, err
}

// Overviews says how every app is now.
func (c *Client) Overviews(ctx context.Context) ([]spillway.Overview, error) {
	return ask[[]spillway.Overview](ctx, c, http.MethodGet, "/v1/apps", nil)
}

// Overview says how an app is now.
func (c *Client) Overview(ctx context.Context, app spillway.Ref) (spillway.Overview, error) {
	return ask[spillway.Overview](ctx, c, http.MethodGet, appPath(app, ""), nil)
}

// Releases lists the releases of an app, newest first.
func (c *Client) Releases(ctx context.Context, app spillway.Ref) ([]spillway.Release, error) {
	return ask[[]spillway.Release](ctx, c, http.MethodGet, appPath(app, "/releases"), nil)
}

// Release gives one release of an app.
func (c *Client) Release(ctx context.Context, app spillway.Ref, number int) (spillway.Release, error) {
	return ask[spillway.Release](ctx, c, http.MethodGet, appPath(app, "/releases/"+strconv.Itoa(number)), nil)
}

// Replicas lists what runs of an app.
func (c *Client) Replicas(ctx context.Context, app spillway.Ref) ([]spillway.Replica, error) {
	return ask[[]spillway.Replica](ctx, c, http.MethodGet, appPath(app, "/replicas"), nil)
}

// Ask stores an intent. Who asks and when are filled in by the server.
func (c *Client) Ask(ctx context.Context, app spillway.Ref, intent spillway.Intent) (spillway.Intent, error) {
	return ask[spillway.Intent](ctx, c, http.MethodPost, appPath(app, "/intents"), intent)
}

// Who says which release a user had at a time.
func (c *Client) Who(ctx context.Context, app spillway.Ref, q WhoQuery) (Who, error) {
	v := url.Values{}
	set(v, "key", q.Key)
	setTime(v, "at", q.At)
	return ask[Who](ctx, c, http.MethodGet, appPath(app, "/who?"+v.Encode()), nil)
}

// Routes tell what the proxy does with the requests to the hosts of an app.
func (c *Client) Routes(ctx context.Context, app spillway.Ref) ([]spillway.RouteLine, error) {
	return ask[[]spillway.RouteLine](ctx, c, http.MethodGet, appPath(app, "/routes"), nil)
}

// TestRoute says what would become of a request, which is not made.
func (c *Client) TestRoute(ctx context.Context, app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	return ask[spillway.RouteAnswer](ctx, c, http.MethodPost, appPath(app, "/routes/test"), q)
}

// Hold has new requests to the public hosts of an app wait, each for up to a time; with 0, it lets them go on. It gives
// the hold as it is or, with 0, as it was.
func (c *Client) Hold(ctx context.Context, app spillway.Ref, wait time.Duration) (spillway.Hold, error) {
	return ask[spillway.Hold](ctx, c, http.MethodPut, appPath(app, "/hold"), HoldRequest{spillway.Duration(wait)})
}

// Doctor says what is well and what is not on the machine of the server.
func (c *Client) Doctor(ctx context.Context) ([]spillway.Check, error) {
	return ask[[]spillway.Check](ctx, c, http.MethodGet, "/v1/doctor", nil)
}

// Plan says what a deploy would do. It reads r.Source.
func (c *Client) Plan(ctx context.Context, r DeployRequest) (spillway.Plan, error) {
	var plan spillway.Plan
	answer, err := c.do(ctx, http.MethodPost, "/v1/plan?"+deployQuery(r), "application/gzip", sourceOf(r))
	if err != nil {
		return plan, err
	}
	return plan, c.decode(answer, &plan)
}

// ask sends a body as JSON, if there is one, and reads the answer.
func ask[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var result T
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return result, err
		}
		reader = bytes.NewReader(text)
	}
	answer, err := c.do(ctx, method, path, "application/json", reader)
	if err != nil {
		return result, err
	}
	return result, c.decode(answer, &result)
}

// do sends a request and gives an answer that went well; its body is the caller's to close.
func (c *Client) do(ctx context.Context, method, path, media string, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", media)
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	c.reached.Store(true)
	if answer.StatusCode < 300 {
		return answer, nil
	}
	defer answer.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxBody)).Decode(&f); err != nil || f.Error.Kind == "" {
		return nil, c.stranger(answer.Status)
	}
	return nil, &f.Error
}

// decode reads an answer of one document.
func (c *Client) decode(answer *http.Response, v any) error {
	defer answer.Body.Close()
	err := json.NewDecoder(answer.Body).Decode(v)
	var syntax *json.SyntaxError
	var shape *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &shape) {
		return c.stranger(err.Error())
	}
	if err != nil {
		return c.broken(answer.Request.Context(), err)
	}
	return nil
}

// unreachable says in words why no answer came.
func (c *Client) unreachable(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("you may not use %s; run this as the user that runs the server, or use --server with --token: %w", c.place, spillway.ErrDenied)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no Spillway server answers at %s; start one with: spillway server   (or spillway up): %w", c.place, spillway.ErrUnavailable)
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without method and address, which people did not type
	}
	switch {
	case ctx.Err() == nil && wrapped != nil && wrapped.Op == "Post" && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
		return fmt.Errorf("the Spillway server at %s went away before it answered (%w); what it was asked for may be done all the same: see spillway status: %w", c.place, err, spillway.ErrUnavailable)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, spillway.ErrUnavailable), errors.Is(err, spillway.ErrDenied), errors.Is(err, spillway.ErrInvalid):
		return err // of a transport that says by itself what the matter is
	case !c.reached.Load():
		return fmt.Errorf("the Spillway server at %s cannot be reached: %w: %w", c.place, err, spillway.ErrUnavailable)
	}
	return c.broken(ctx, err)
}

// broken is an answer that ended too early. When the caller's own context ended it, that is the error.
func (c *Client) broken(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	return fmt.Errorf("the Spillway server at %s went away: %w: %w", c.place, err, spillway.ErrUnavailable)
}

// stranger is an answer that no Spillway server gives.
func (c *Client) stranger(what string) error {
	return fmt.Errorf("what answers at %s is not a Spillway server (%s); check --server and --dir: %w", c.place, what, spillway.ErrUnavailable)
}

// appPath is the path of something of an app.
func appPath(app spillway.Ref, rest string) string {
	return "/v1/apps/" + url.PathEscape(string(app)) + rest
}

// deployQuery writes the parameters of a deploy as query.deploy reads them.
func deployQuery(r DeployRequest) string {
	q := url.Values{}
	set(q, "file", r.File)
	set(q, "env", r.Env)
	set(q, "strategy", string(r.Strategy))
	setNumber(q, "if_release", int64(r.IfRelease))
	set(q, "commit", r.Commit)
	setFlag(q, "dirty", r.Dirty)
	set(q, "note", r.Note)
	set(q, "track", r.Track)
	setTime(q, "not_before", r.NotBefore)
	setFlag(q, "force", r.Force)
	set(q, "app", r.App)
	set(q, "from", r.From)
	setNumber(q, "release", int64(r.Release))
	return q.Encode()
}

// sourceOf is the source that is sent with a deploy; none when artefacts are taken over.
func sourceOf(r DeployRequest) io.Reader {
	if r.Source == nil {
		return http.NoBody
	}
	return io.NopCloser(r.Source)
}

func set(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

func setNumber(q url.Values, name string, value int64) {
	if value != 0 {
		q.Set(name, strconv.FormatInt(value, 10))
	}
}

func setTime(q url.Values, name string, value time.Time) {
	if !value.IsZero() {
		q.Set(name, value.UTC().Format(time.RFC3339Nano))
	}
}

func setFlag(q url.Values, name string, value bool) {
	if value {
		q.Set(name, "1")
	}
}
