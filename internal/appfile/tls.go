package appfile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway"
)

// autoTLS is the word for a certificate from an authority.
const autoTLS = "auto"

// pairExample is how two files are written.
const pairExample = "tls: {cert: /etc/ssl/shop.pem, key: /etc/ssl/shop.key}"

// tlsShape is auto, or a mapping that says where the certificate comes from.
func tlsShape() shape { return anyShape{choiceShape{autoTLS}, sourceShape{tlsKeys()}} }

// tlsKeys are those of both sources: which of them go together is for sourceShape to say.
func tlsKeys() objectShape {
	return objectShape{name: "a mapping with cert and key, or acme", keys: []key{
		{name: "cert", example: "/etc/ssl/shop.pem", shape: absolutePath(), doc: "The absolute path of the PEM certificate chain."},
		{name: "key", example: "/etc/ssl/shop.key", shape: absolutePath(), doc: "The absolute path of the PEM private key."},
		{name: "acme", example: "{email: ops@example.com}", shape: objectShape{name: "a mapping with email, ca and root", keys: []key{
			{name: "email", example: "ops@example.com", shape: textShape{name: "an e-mail address", pattern: emailText}, doc: "Whom the certificate authority may write to."},
			{name: "ca", example: "https://acme.example.com/directory", value: "https://acme-v02.api.letsencrypt.org/directory",
				shape: textShape{name: "an https URL", pattern: directoryURL}, doc: "The URL of the authority's ACME directory."},
			{name: "root", example: "/etc/ssl/ca.pem", shape: absolutePath(), doc: "The absolute path of PEM certificates by which a private authority's own server is known."},
		}}, doc: "A certificate for each name from a certificate authority: what tls: auto does, with settings."},
		{name: "redirect", example: "true", shape: boolShape{},
			doc: "Whether requests by HTTP are sent to HTTPS. By default they are with auto and acme, and are not with files."},
	}}
}

// sourceShape is the mapping: it has cert and key, or acme.
type sourceShape struct{ objectShape }

func (s sourceShape) check(r *report, n *node, path, hint string) {
	s.objectShape.check(r, n, path, hint)
	acme, automatic := find(n, "acme")
	cert, key := has(n, "cert"), has(n, "key")
	at := &node{place: n.place}
	switch {
	case n.removed.line > 0:
		at.place = n.removed
	case n.key.line > 0:
		at.place = n.key
	}
	switch {
	case automatic && (cert || key):
		r.add(&node{place: acme.key}, join(path, "acme"), "stands beside cert and key: there is one certificate", "keep either acme, or cert and key; an environment removes what it does not want with null")
	case automatic:
	case !cert && !key:
		r.add(at, path, "has no certificate", "write tls: auto, or "+pairExample)
	case !cert:
		r.add(at, join(path, "cert"), "is missing", "write cert: /etc/ssl/shop.pem")
	case !key:
		r.add(at, join(path, "key"), "is missing", "write key: /etc/ssl/shop.key")
	}
}

func (s sourceShape) schema() map[string]any {
	schema := s.objectShape.schema()
	schema["anyOf"] = []any{map[string]any{"required": []string{"cert", "key"}}, map[string]any{"required": []string{"acme"}}}
	return schema
}

func buildTLS(n *node) *spillway.TLS {
	if n == nil {
		return nil
	}
	acme := n.child("acme")
	auto := n.kind == aText || acme != nil
	redirect := auto
	if own := n.child("redirect"); own != nil {
		redirect = own.text == "true"
	}
	return &spillway.TLS{
		Cert: text(n.child("cert"), ""), Key: text(n.child("key"), ""), Redirect: redirect,
		Auto: auto, Email: text(acme.child("email"), ""), CA: text(acme.child("ca"), ""), Root: text(acme.child("root"), ""),
	}
}

// checkTLS reports names for which no authority gives a certificate in the way that this version asks.
func checkTLS(r *report, service entry, path string) {
	n := service.child("tls")
	if n == nil || n.bad || n.kind == aMapping && n.child("acme") == nil {
		return
	}
	private := n.kind == aMapping && has(n.child("acme"), "ca")
	hosts := func(n *node, path string) {
		for i, host := range listed(n) {
			problem, hint := noCertificate(host.text, private)
			if host.bad || problem == "" {
				continue
			}
			at := path
			if n.kind == aList {
				at = fmt.Sprintf("%s[%d]", path, i)
			}
			// The name is good; so it is not marked, and others may still say something about it.
			r.add(&node{place: host.place}, at, problem, hint)
		}
	}
	hosts(service.child("host"), path+".host")
	hosts(service.child("standby").child("host"), path+".standby.host")
	if tracks := service.child("tracks"); tracks != nil {
		for _, t := range tracks.entries {
			hosts(t.child("host"), join(path+".tracks", t.name)+".host")
		}
	}
}

// reservedNames are top-level names that lead nowhere in public (RFC 2606, 6761, 6762, 8375 and ICANN's internal).
var reservedNames = []string{"localhost", "local", "test", "example", "invalid", "internal", "home.arpa"}

// noCertificate says why no authority gives a certificate for a name, and what to do; private: the authority is one
// of the user's own, which may know names that nobody else knows.
func noCertificate(host string, private bool) (problem, hint string) {
	files := "give the files: " + pairExample
	_, err := netip.ParseAddr(host)
	switch {
	case strings.Contains(host, "*"):
		return "a certificate for the wildcard " + quote(host) + " is given only to who changes its DNS, which Spillway cannot do", "list each name, or " + files
	case err == nil:
		return quote(host) + " is an address, and clients tell a server no address before they want its certificate", "use a name, or remove tls"
	case private:
		return "", ""
	case slices.ContainsFunc(reservedNames, func(name string) bool { return host == name || strings.HasSuffix(host, "."+name) }), !strings.Contains(host, "."):
		return "no public authority gives a certificate for " + quote(host) + ", because it is no name of the public DNS",
			"name your own authority: tls: {acme: {ca: https://ca.example.com/directory}}, or " + files
	}
	return "", ""
}
