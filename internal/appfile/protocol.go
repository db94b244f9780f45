package appfile

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// listenPattern is an address to listen at: a port, and an IP before it or none.
var listenPattern = regexp.MustCompile(`^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-fA-F:.]+\])?:[1-9][0-9]{0,4}$`)

// recreatedDrain is the longest wait for open connections of a service of TCP whose strategy is recreate. Programs keep
// connections open between two requests, and while they do, nobody serves: new connections are held for 2 s, and no longer.
const recreatedDrain = spillway.Duration(250 * time.Millisecond)

// addressText is an address at which connections are taken.
func addressText() textShape {
	return textShape{name: "an address like :6379 or 10.0.0.1:6379", pattern: listenPattern, problem: func(text string) (string, string) {
		host, port := "", text
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			host, port = text[:i], text[i+1:]
		}
		if n, err := strconv.Atoi(port); err == nil && n > 65535 {
			return quote(text) + " has no port that there is", "ports go up to 65535"
		}
		ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case !listenPattern.MatchString(text) && host != "" && err != nil:
			return quote(text) + " is not :PORT or IP:PORT", "a name is no address to listen at: write listen: \":" + port + "\""
		case host != "" && listenPattern.MatchString(text) && (err != nil || strings.HasPrefix(host, "[") != ip.Is6()):
			return quote(text) + " has no IP before its port", "write listen: \":" + port + "\", or an IP of this machine before it"
		}
		return "", ""
	}}
}

// checkProtocol reports keys that make no sense for what a service speaks: a connection of TCP that is passed
// through as it is carries no host, path, header or cookie.
func checkProtocol(r *report, service entry, path string) {
	protocol := service.child("protocol")
	if protocol != nil && protocol.bad {
		return
	}
	speaks := text(protocol, string(spillway.HTTP))
	if speaks != string(spillway.TCP) {
		for _, name := range []string{"listen", "proxy_protocol"} {
			if e, ok := find(service.node, name); ok {
				r.add(&node{place: e.key}, join(path, name), "is for protocol tcp, and "+service.name+" speaks "+speaks, "write protocol: tcp, or remove "+name)
			}
		}
		return
	}
	for _, no := range []struct{ name, why, instead string }{
		{"host", "a connection of TCP carries no host name", "write listen: \":6379\" to have users reach it, or remove host"},
		{"tls", "connections of protocol tcp are passed through as they are", "have the program itself speak TLS, and remove tls"},
		{"synthetic", "there are no requests to make to a service that speaks tcp", "remove synthetic"},
	} {
		if e, ok := find(service.node, no.name); ok {
			r.add(&node{place: e.key}, join(path, no.name), no.why, no.instead)
		}
	}
	if standby := service.child("standby"); standby != nil {
		if host, ok := find(standby, "host"); ok {
			r.add(&node{place: host.key}, path+".standby.host", "a connection of TCP carries no host name", "remove it")
		}
	}
	tracks := service.child("tracks")
	if tracks == nil {
		return
	}
	for _, t := range tracks.entries {
		if t.bad || t.kind != aMapping {
			continue
		}
		for _, e := range t.entries {
			switch e.name {
			case "cookie", "header", "host", "urls":
				r.add(&node{place: e.key}, join(join(path+".tracks", t.name), e.name), "a connection of TCP carries no "+carried(e.name),
					"give the track a share: the address of a client decides on which side it is")
			}
		}
	}
}

// carried is what of a request a key of a track is about.
func carried(key string) string {
	switch key {
	case "host":
		return "host name"
	case "urls":
		return "request that could go to a URL"
	}
	return key
}

// checkAddresses reports an address that two services have.
func checkAddresses(r *report, services *node) {
	type owner struct {
		name, address string
		line          int
	}
	var owners []owner
	for _, s := range services.entries {
		list := s.child("listen")
		for i, item := range listed(list) {
			if item.bad {
				continue
			}
			at := join("services", s.name) + ".listen"
			if list.kind == aList {
				at = fmt.Sprintf("%s[%d]", at, i)
			}
			taken := false
			for _, o := range owners {
				if !taken && spillway.Collide(o.address, item.text) {
					taken = true
					r.add(item, at, fmt.Sprintf("%s is taken by %s already, which listens at %s, in line %d", quote(item.text), o.name, o.address, o.line), "give each its own port")
				}
			}
			if !taken {
				owners = append(owners, owner{s.name, item.text, item.line})
			}
		}
	}
}
