package proxy

import (
	"net/netip"
	"testing"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

func TestTrust_FindsTheClientBehindWhomItBelieves(t *testing.T) {
	var balancers trust
	balancers.extend([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	for _, row := range []struct {
		peer  string
		lines []string
		want  string
	}{
		{"203.0.113.9", []string{"198.51.100.1"}, "203.0.113.9"},
		{"10.0.0.1", nil, "10.0.0.1"},
		{"10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1", []string{"192.0.2.66, 198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1", []string{"192.0.2.66", "198.51.100.1, 10.0.0.2"}, "198.51.100.1"},
		{"10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1", []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"127.0.0.1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
	} {
		c := &call{client: netip.MustParseAddr(row.peer), local: netip.MustParseAddrPort("192.0.2.1:80")}
		c.ours = balancers.trusts(c.client, c.local.Addr())
		for _, line := range row.lines {
			c.header = append(c.header, http1.Field{Name: "x-forwarded-for", Value: line})
		}
		if got := balancers.behind(c); got.String() != row.want {
			t.Errorf("%s says %q: %s, want %s", row.peer, row.lines, got, row.want)
		}
	}
}
