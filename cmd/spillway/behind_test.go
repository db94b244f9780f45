package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestBehind_ChecksAndPassesItsFlagsOn(t *testing.T) {
	for _, c := range []struct {
		given behindOptions
		wrong string // "" = nothing
		args  string
		says  string
	}{
		{},
		{given: behindOptions{trust: []string{"10.1.2.3/8", "192.0.2.7", "2001:db8::/32"}, headers: true},
			args: "--trust 10.1.2.3/8 --trust 192.0.2.7 --trust 2001:db8::/32 --proxy-protocol", says: "PROXY 10.0.0.0/8 192.0.2.7/32 2001:db8::/32"},
		{given: behindOptions{trust: []string{"10.0.0.0/8"}}, args: "--trust 10.0.0.0/8", says: "10.0.0.0/8"},
		{given: behindOptions{trust: []string{"lb.example.com"}}, wrong: "is no network"},
		{given: behindOptions{trust: []string{"10.0.0.0/33"}}, wrong: "is no network"},
		{given: behindOptions{headers: true}, wrong: "add --trust"},
	} {
		err := c.given.check()
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%+v: error %v, want one with %q", c.given, err, c.wrong)
			}
			continue
		}
		if got := strings.Join(c.given.args(), " "); err != nil || got != c.args {
			t.Errorf("%+v: passed on as %q, error %v", c.given, got, err)
		}
		if !c.given.same(c.says) || c.given.same(c.says+"x") {
			t.Errorf("%+v: a proxy that says %q is taken for another", c.given, c.says)
		}
	}
	one := behindOptions{trust: []string{"192.0.2.7"}}
	if got := one.networks(); !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}) {
		t.Errorf("one address is the network %v", got)
	}
}

// Whoever reads the help learns that this machine is believed without being named.
func TestBehind_HelpSaysWhoIsBelievedAnyway(t *testing.T) {
	var flags behindOptions
	cmd := &cobra.Command{}
	flags.flags(cmd)
	for name, want := range map[string]string{"trust": "that of this machine always does, so a proxy on it must set X-Forwarded-For itself", "proxy-protocol": "those to HTTP from this machine may"} {
		if usage := cmd.Flags().Lookup(name).Usage; !strings.Contains(usage, want) {
			t.Errorf("--%s: %q has no %q", name, usage, want)
		}
	}
}
