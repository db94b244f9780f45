package proxy

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// call is a request as an engine took it in, before anything was decided about it. Its strings are the
// request's own: nobody changes them.
type call struct {
	method string
	host   string // of the Host header or :authority, as it came: "Shop.example.com:8080"
	name   string // the same as hosts are looked up: "shop.example.com"
	target string // what is asked for, as it is passed on: "/a%20b?c=d", or "*"
	path   string // of target, still escaped: "/a%20b"
	query  string // of target, still escaped, without the question mark
	header http1.Fields
	named  bool  // Connection names fields that go no further, beside the usual ones
	major  int   // of the client's HTTP version
	minor  int   // as above
	length int64 // of the body in bytes; 0 = there is none, -1 = it ends when it ends
	expect bool  // the client waits for 100 before it sends the body
	// upgrade: the client asks for another protocol on its connection, which can be taken over.
	upgrade bool
	trailer func() http1.Fields // behind the body, once that was read; nil = there is none

	peer   string         // the address of who is connected: "192.0.2.7"
	client netip.Addr     // the same, or whom a trusted one says that it forwards for
	local  netip.AddrPort // where the client is connected to
	secure bool           // by TLS
	ours   bool           // the client is trusted with what it says about whom it forwards for
}

// aim sets host and target of a call and what follows from them. What the rules see of the path is what the
// replica gets.
func (c *call) aim(host, target string) {
	c.host, c.name, c.target = host, normalHost(host), target
	c.path, c.query, _ = strings.Cut(target, "?")
	if path := forwardedPath(c.path); path != c.path {
		c.target = path + target[len(c.path):]
		c.path = path
	}
}

// idempotent reports whether the request may reach a replica twice as far as its method and header say.
func (c *call) idempotent() bool {
	switch c.method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return !c.upgrade
	}
	return !c.upgrade && c.header.Get("Idempotency-Key") != ""
}

// scheme is the one by which the user came, as far as that is known: "http" or "https", and nothing else whatever a
// trusted peer says, because it goes into Location and to replicas. Of a list, the first was nearest to the user.
func (c *call) scheme() string {
	if c.secure {
		return "https"
	}
	if c.ours {
		first, _, _ := strings.Cut(c.header.Get("X-Forwarded-Proto"), ",")
		if first = strings.Trim(first, " \t"); http1.Is(first, "https") || http1.Is(first, "wss") {
			return "https"
		}
	}
	return "http"
}

// behind is the client for whom a chain of trusted ones speaks: the last address in X-Forwarded-For that is not
// trusted itself. c.client is who is connected.
func (t *trust) behind(c *call) netip.Addr {
	client := c.client
	if !c.ours || !c.header.Has("X-Forwarded-For") {
		return client
	}
	var chain []string
	for list := range c.header.All("X-Forwarded-For") {
		for address := range http1.Tokens(list) {
			chain = append(chain, address)
		}
	}
	for _, address := range slices.Backward(chain) {
		next, err := netip.ParseAddr(address)
		if err != nil {
			return client // whoever wrote that, nobody knows what it means
		}
		if client = next.Unmap(); !t.trusts(client, c.local.Addr()) {
			return client
		}
	}
	return client
}
