package proxy

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// outside is where users come in. It does not change once the public listeners are bound.
type outside struct {
	address     string // of the public listener, as it was asked for: ":80"
	http, https int    // the ports; https 0 = there is none
}

// host is that of the address; "" = all of this machine.
func (o *outside) host() string {
	host, _, _ := net.SplitHostPort(o.address)
	return host
}

func boundPort(tcp *net.TCPListener) int { return tcp.Addr().(*net.TCPAddr).Port }

// aside answers a request by HTTP at an edge with a certificate that is for no replica: what an authority asks to see, and
// what has to come back by HTTPS.
func (x *exchange) aside() bool {
	p, c := x.plane, x.call
	if answer, ok := p.acmeAnswer(c.name, c.path); ok && c.method == http.MethodGet {
		x.add("Content-Type", "application/octet-stream") // RFC 8555, section 8.3
		x.say(http.StatusOK, answer)
		return true
	}
	location, ok := p.redirectOf(c.host, c.target, p.keys.keepsScheme(c))
	if !ok {
		return false
	}
	x.add("Server", "spillway")
	x.add("Location", location)
	x.add("Content-Type", "text/plain; charset=utf-8")
	x.add("Cache-Control", "no-store") // it is so while there is a certificate
	x.say(http.StatusPermanentRedirect, fmt.Sprintf("308 Permanent Redirect\n\nSpillway: this host is served over HTTPS: %s\n", location))
	return true
}

// keepsScheme reports whether a call is answered by whatever it came: by HTTPS, or with HTTPS behind it, as a
// terminator on this machine or the proxy that is being replaced says. Spillway's own are, too: they are for a
// replica.
func (k *keys) keepsScheme(c *call) bool {
	return c.scheme() == "https" || k.synthetic.made(c)
}

// redirectOf is where a request by HTTP goes instead: to HTTPS, when the app of its host wants that and there is
// a good certificate. host is the Host header, target the path with the query. secure: it has HTTPS behind it already.
//
// A client that named our own port reaches us directly, and so does HTTPS at our port for it. One that named
// none came by the usual port, which leads to ours, and HTTPS is then taken to be at its usual port too.
func (p *plane) redirectOf(host, target string, secure bool) (location string, ok bool) {
	if secure || p.outside.https == 0 || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, challengePath) {
		return "", false
	}
	s, ok := p.routing.Load().secure(host)
	if !ok || !s.redirect || !good(s.pair(), time.Now()) {
		return "", false
	}
	to := normalHost(host)
	_, named, err := net.SplitHostPort(host)
	if direct := err == nil || p.outside.http == 80; direct && p.outside.https != 443 && named != "80" {
		to = net.JoinHostPort(to, strconv.Itoa(p.outside.https))
	}
	return "https://" + to + target, true
}
