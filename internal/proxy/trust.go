package proxy

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
)

// trust says of whom it is believed for whom they speak: in forwarded headers, and in headers of the PROXY
// protocol. These are the networks of Config.Trust, and this machine: what is on it is a TLS terminator in
// front, a replica, or the proxy that is being replaced. The zero value believes who comes over loopback.
type trust struct {
	listed []netip.Prefix
	own    atomic.Pointer[map[netip.Addr]bool] // addresses of this machine's interfaces, as of the last look
}

// extend adds networks to the list.
func (t *trust) extend(networks []netip.Prefix) {
	for _, p := range networks {
		t.listed = append(t.listed, p.Masked())
	}
}

// look reads the addresses of this machine, which may change. When they cannot be read, those known stay.
func (t *trust) look() {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	t.own.Store(&own)
}

// trusts reports whether the word of who connects from the address counts.
func (t *trust) trusts(ip netip.Addr) bool { return t.lists(ip) || t.here(ip) }

// lists reports whether the address is in a network of the list.
func (t *trust) lists(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range t.listed {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// here reports whether the address is this machine's.
func (t *trust) here(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() {
		return true
	}
	own := t.own.Load()
	return own != nil && (*own)[ip]
}

// Behind says in one text whom the proxy believes, so that two ways to run it can be compared: "10.0.0.0/8", or
// "PROXY 10.0.0.0/8".
func (c Config) Behind() string {
	var parts []string
	if c.ProxyProtocol {
		parts = append(parts, "PROXY")
	}
	for _, p := range c.Trust {
		parts = append(parts, p.Masked().String())
	}
	return strings.Join(parts, " ")
}
