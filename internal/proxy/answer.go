package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"
)

// farewell is how long a client may still send to a replica that has ended an upgraded connection.
const farewell = 2 * time.Second

// hopHeaders belong to one connection and are not passed on (RFC 9110, 7.6.1).
var hopHeaders = [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

// forwarded is the header of a request as a replica gets it. What a client says about whom it forwards for is dropped,
// unless it is trusted.
func forwarded(r *http.Request, t *trust) http.Header {
	h := r.Header.Clone()
	upgrade, trailers := isUpgrade(h), hasToken(h["Te"], "trailers")
	protocol := h.Get("Upgrade")
	dropHop(h)
	if upgrade {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", protocol)
	}
	if trailers {
		h.Set("Te", "trailers")
	}
	if _, ok := h["User-Agent"]; !ok {
		h.Set("User-Agent", "") // else http.Transport adds its own
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	if ip, err := netip.ParseAddr(client); err != nil || !t.trusts(ip) {
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", rescuedHeader} {
			h.Del(name)
		}
	}
	h.Set("X-Forwarded-For", strings.Join(append(h["X-Forwarded-For"], client), ", "))
	if h.Get("X-Forwarded-Host") == "" {
		h.Set("X-Forwarded-Host", r.Host)
	}
	switch {
	case r.TLS != nil:
		h.Set("X-Forwarded-Proto", "https")
	case h.Get("X-Forwarded-Proto") == "":
		h.Set("X-Forwarded-Proto", "http")
	}
	return h
}

func dropHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(textproto.TrimString(name))
		}
	}
	for _, name := range hopHeaders {
		h.Del(name)
	}
}

func isUpgrade(h http.Header) bool { return hasToken(h["Connection"], "upgrade") }

func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(textproto.TrimString(t), token) {
				return true
			}
		}
	}
	return false
}

// refuse answers with a page of the proxy's own.
func refuse(w http.ResponseWriter, why *refusal) {
	h := w.Header()
	h.Set("Server", "spillway")
	h.Set("X-Spillway-Reason", why.reason)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if why.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(why.status)
	fmt.Fprintf(w, "%d %s\n\nSpillway: %s.\n", why.status, http.StatusText(why.status), why.reason)
}

// interim writes 1xx answers. They come from other goroutines than the handler's, and only while an
// attempt waits for its answer proper.
type interim struct {
	w http.ResponseWriter
	r *http.Request

	mu   sync.Mutex
	open bool
}

func (i *interim) allow(open bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.open = open
}

func (i *interim) write(code int, header textproto.MIMEHeader) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.open || !i.r.ProtoAtLeast(1, 1) {
		return
	}
	h := i.w.Header()
	for k, v := range header {
		h[k] = v
	}
	i.w.WriteHeader(code)
	clear(h)
}

// try makes one attempt at an endpoint. Interim answers go to the client as they come, but for 100: the
// client gets that when its body is first read.
func (x *exchange) try(e *endpoint) (*http.Response, error) {
	x.interim.allow(true)
	defer x.interim.allow(false)
	ctx := httptrace.WithClientTrace(x.r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code != http.StatusContinue {
				x.interim.write(code, header)
			}
			return nil
		},
	})
	return e.send(outgoing(ctx, x.r, x.header, x.body, e.base))
}

// outgoing is the request of one attempt to pass a client's request on to the server at base: with the
// Host header as it came, and with the path of base, which is mostly empty, before its own.
func outgoing(ctx context.Context, r *http.Request, header http.Header, body *upload, base *url.URL) *http.Request {
	u := *r.URL
	u.Scheme, u.Host = base.Scheme, base.Host
	if prefix := strings.TrimSuffix(base.Path, "/"); prefix != "" {
		u.Path, u.RawPath = prefix+r.URL.Path, strings.TrimSuffix(base.EscapedPath(), "/")+r.URL.EscapedPath()
	}
	out := &http.Request{
		Method: r.Method, URL: &u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host: r.Host, Header: header, ContentLength: r.ContentLength, Trailer: r.Trailer,
	}
	if body != nil {
		out.Body = body.start()
	}
	return out.WithContext(ctx)
}

// answer passes a replica's answer on to the client, and settles the lease before the client can have
// all of it: whoever asks one request after the other finds each one counted.
func (x *exchange) answer(a *arm, resp *http.Response) {
	defer resp.Body.Close()
	if resp.StatusCode >= 500 {
		x.lease.settle(true)
	}
	resp.Header.Del("X-Spillway-Release") // of a release further behind
	h := x.w.Header()
	h.Set("X-Spillway-Release", a.title())
	if x.who.cookie != "" {
		c := http.Cookie{
			Name: cookieName, Value: x.who.cookie, Path: "/", MaxAge: cookieAge,
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.header.Get("X-Forwarded-Proto") == "https",
		}
		h.Add("Set-Cookie", c.String())
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.lease.settle(false)
		join(x.plane.base, x.w, resp)
		return
	}
	if early(x.r, resp) {
		x.lease.settle(false)
	}
	err := pass(x.w, resp, x.plane.closing(), func() { x.lease.settle(false) })
	switch {
	case err == nil:
		x.lease.settle(false)
		return
	case errors.Is(err, errReplica) && !x.clientLeft():
		if resp.StatusCode < 500 {
			a.tally.fail() // it had been counted as good
		}
		x.lease.settle(true)
	default:
		x.lease.drop()
	}
	panic(http.ErrAbortHandler) // the client must see that the answer is not whole
}

// early reports whether an answer is judged by its head: it has no body, or one that may never end.
func early(r *http.Request, resp *http.Response) bool {
	return resp.ContentLength == 0 || r.Method == http.MethodHead || isEventStream(resp)
}

func isEventStream(resp *http.Response) bool {
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}

// errReplica is an answer that broke off on the replica's side.
var errReplica = errors.New("the answer broke off")

// pass copies an answer to the client. whole is called when all of it is there, before the last of it
// is written. An error that is no errReplica comes from the client's connection.
func pass(w http.ResponseWriter, resp *http.Response, lastOnConnection bool, whole func()) error {
	h := w.Header()
	dropHop(resp.Header)
	for k, v := range resp.Header {
		h[k] = append(h[k], v...)
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else the server guesses one
	}
	for k := range resp.Trailer {
		h.Add("Trailer", k)
	}
	if lastOnConnection {
		h.Set("Connection", "close")
	}
	w.WriteHeader(resp.StatusCode)
	control := http.NewResponseController(w)
	stream := resp.ContentLength < 0
	if stream || len(resp.Trailer) > 0 {
		_ = control.Flush() // a broken connection shows at the next write
	}
	announced := len(resp.Trailer)
	if err := copyBody(w, resp, stream, control, whole); err != nil {
		return err
	}
	for k, v := range resp.Trailer {
		if announced != len(resp.Trailer) {
			k = http.TrailerPrefix + k // some came unannounced
		}
		h[k] = append([]string(nil), v...)
	}
	return nil
}

func copyBody(w io.Writer, resp *http.Response, stream bool, control *http.ResponseController, whole func()) error {
	size, left := int64(16<<10), resp.ContentLength
	if 0 <= left && left < size {
		size = left + 1 // one more, so that the first read can see the end
	}
	buf := make([]byte, size)
	for {
		n, err := resp.Body.Read(buf)
		if left -= int64(n); n > 0 && left == 0 {
			whole()
		}
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if stream {
				_ = control.Flush()
			}
		}
		if err == io.EOF {
			whole()
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errReplica, err)
		}
	}
}

// join makes one connection of the client's and the replica's after they switched protocols, until both
// directions have ended, or until ctx ends.
func join(ctx context.Context, w http.ResponseWriter, resp *http.Response) {
	replica, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		refuse(w, &refusal{http.StatusBadGateway, "the replica switched protocols without a connection"})
		return
	}
	for k, v := range w.Header() {
		resp.Header[k] = v
	}
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, &refusal{http.StatusBadGateway, "the connection cannot switch protocols: " + err.Error()})
		return
	}
	defer client.Close()
	defer replica.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); replica.Close() })()
	resp.Body = nil
	if resp.Write(buffered) != nil || buffered.Flush() != nil {
		return
	}
	up := make(chan struct{})
	// Owned by this call, which waits for it; ends when the client sends no more or a side is closed.
	go func() {
		defer close(up)
		// buffered may hold the first bytes of the new protocol already. The rest is read from the
		// connection itself: the server's reader ends the request's context at the end of input.
		_, err := io.CopyN(replica, buffered, int64(buffered.Reader.Buffered()))
		if err == nil {
			_, err = io.Copy(replica, client)
		}
		if half, ok := replica.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
			replica.Close()
		}
	}()
	_, err = io.Copy(client, replica)
	if half, ok := client.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
		client.Close()
	}
	// The replica is gone. The client gets a moment to read what is left and to hang up.
	_ = client.SetReadDeadline(time.Now().Add(farewell))
	<-up
}
