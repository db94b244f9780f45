package main

import (
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spillway-dev/spillway/internal/proxy"
)

// behindOptions are the flags about what stands in front of the proxy.
type behindOptions struct {
	trust   []string // "10.0.0.0/8", "192.0.2.7"
	headers bool     // connections from there begin with a header of the PROXY protocol
}

func (b *behindOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&b.trust, "trust", nil, "`NETWORK` of load balancers, such as 10.0.0.0/8, whose word about who the client is counts; that of this machine always does, so a proxy on it must set X-Forwarded-For itself; may be repeated")
	cmd.Flags().BoolVar(&b.headers, "proxy-protocol", false, "connections from the networks of --trust begin with a header of the PROXY protocol (v1 or v2); those to HTTP from this machine may")
}

// check finds networks that are none.
func (b *behindOptions) check() error {
	for _, text := range b.trust {
		if _, err := network(text); err != nil {
			return usage("--trust %s is no network; write 10.0.0.0/8, or an address like 192.0.2.7", text)
		}
	}
	if b.headers && len(b.trust) == 0 {
		return usage("--proxy-protocol needs to know who may send such a header; add --trust 10.0.0.0/8, with the network of your load balancers")
	}
	return nil
}

// network reads a network, or an address as the network of it alone.
func network(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return ip.Prefix(ip.BitLen())
}

// networks are those of --trust, once they are checked.
func (b *behindOptions) networks() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range b.trust {
		if p, err := network(text); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// args are the flags again, for a process that gets the same.
func (b *behindOptions) args() []string {
	var args []string
	for _, text := range b.trust {
		args = append(args, "--trust", text)
	}
	if b.headers {
		args = append(args, "--proxy-protocol")
	}
	return args
}

// same reports whether a proxy that says of itself whom it believes was started with these flags.
func (b *behindOptions) same(said string) bool {
	return proxy.Config{Trust: b.networks(), ProxyProtocol: b.headers}.Behind() == said
}

// given reports whether any of the flags was.
func (b *behindOptions) given() bool { return len(b.trust) > 0 || b.headers }
