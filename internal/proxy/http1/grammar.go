package http1

import (
	"net/netip"
	"strings"
)

// isToken reports whether s is a token as of RFC 9110, 5.6.2: the name of a method or of a field.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return true
}

var tokenBytes = func() (t [256]bool) {
	for c := range 256 {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		t[c] = letter || '0' <= c && c <= '9' || c > ' ' && strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0
	}
	return t
}()

// isValue reports whether s may be the value of a field: no control character but the tabulator.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// IsHost reports whether s is a name or an address, with or without a port.
func IsHost(s string) bool {
	name := s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		name = s[:i]
		port := s[i+1:]
		if len(port) > 5 || len(port) == 5 && port > "65535" {
			return false
		}
		for j := range len(port) {
			if !isDigit(port[j]) {
				return false
			}
		}
	}
	if strings.HasPrefix(name, "[") {
		inner, ok := strings.CutSuffix(name[1:], "]")
		a, err := netip.ParseAddr(inner)
		return ok && err == nil && a.Is6()
	}
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || isDigit(c)
		if !letter && strings.IndexByte("-._~!$&'()*+;=%", c) < 0 {
			return false
		}
	}
	return name != ""
}

// ParseLength reads a Content-Length: digits only, at most 18 of them.
func ParseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
