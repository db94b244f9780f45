package spillway

import (
	"net/netip"
	"slices"
	"strings"
)

// Protocol is what a service speaks. The zero value is HTTP/1.1, as HTTP.
type Protocol string

// The protocols. Users of the first three come by host name, over HTTP/1.1 or HTTP/2.
const (
	HTTP Protocol = "http" // HTTP/1.1; the default
	H2C  Protocol = "h2c"  // HTTP/2 without TLS
	GRPC Protocol = "grpc" // gRPC: HTTP/2 without TLS, with trailers
	TCP  Protocol = "tcp"  // connections that are passed through as they are
)

// Protocols lists every protocol in the order of the documentation.
var Protocols = []Protocol{HTTP, H2C, GRPC, TCP}

// Announce is the version of the PROXY protocol in which a replica is told who connects
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt). The zero value is none.
type Announce string

// The versions of the PROXY protocol.
const (
	AnnounceV1 Announce = "v1" // one line of text
	AnnounceV2 Announce = "v2" // binary
)

// Addresses lists the public addresses of all services that speak TCP, sorted, without repetition.
func (a App) Addresses() []string {
	var list []string
	for _, s := range a.Services {
		list = append(list, s.Listen...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Collide reports whether two addresses like ":6379", "10.0.0.1:6379" or "[::1]:6379" cannot both be listened at:
// they have the same port, and the same host or one without.
func Collide(a, b string) bool {
	i, j := strings.LastIndexByte(a, ':'), strings.LastIndexByte(b, ':')
	if i < 0 || j < 0 || a[i:] != b[j:] {
		return false
	}
	host := func(text string) netip.Addr {
		ip, _ := netip.ParseAddr(strings.Trim(text, "[]"))
		return ip
	}
	x, y := host(a[:i]), host(b[:j])
	everywhere := func(ip netip.Addr) bool { return !ip.IsValid() || ip.IsUnspecified() }
	return everywhere(x) || everywhere(y) || x.Unmap() == y.Unmap()
}
