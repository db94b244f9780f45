package proxy

import (
	"net/netip"
	"slices"
	"strings"
)

// trust says of whom it is believed for whom they speak: in forwarded headers, and in headers of the PROXY
// protocol. These are the networks of Config.Trust, and this machine: what is on it is a TLS terminator in
// front, a replica, or the proxy that is being replaced. The zero value believes this machine.
type trust struct{ listed []netip.Prefix }

// extend adds networks to the list.
func (t *trust) extend(networks []netip.Prefix) {
	for _, p := range networks {
		t.listed = append(t.listed, p.Masked())
	}
}

// trusts reports whether the word of who connects from the address counts, to which address of ours they do.
func (t *trust) trusts(ip, local netip.Addr) bool { return t.lists(ip) || here(ip, local) }

// lists reports whether the address is in a network of the list.
func (t *trust) lists(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(t.listed, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// here reports whether who connects from the address to a local one is on this machine: over loopback, or at the
// same address.
func here(ip, local netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return ip.IsLoopback() || ip.IsValid() && ip == local.Unmap().WithZone("")
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
