package http1

import (
	"iter"
	"strings"
)

// Field is one line of a header: the name as it came, and the value without the white space around it.
type Field struct{ Name, Value string }

// Fields is a header, or a trailer: its lines in the order in which they came.
type Fields []Field

// Get gives the first value of a field, whatever the case of its name; "" when there is none.
func (f Fields) Get(name string) string {
	for i := range f {
		if equalFold(f[i].Name, name) {
			return f[i].Value
		}
	}
	return ""
}

// Has reports whether there is such a field.
func (f Fields) Has(name string) bool {
	for i := range f {
		if equalFold(f[i].Name, name) {
			return true
		}
	}
	return false
}

// All gives each value of a field in order, one for a line.
func (f Fields) All(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f {
			if equalFold(f[i].Name, name) && !yield(f[i].Value) {
				return
			}
		}
	}
}

// Token reports whether a list such as that of Connection has an element, whatever its case.
func (f Fields) Token(name, token string) bool {
	for i := range f {
		if equalFold(f[i].Name, name) && hasToken(f[i].Value, token) {
			return true
		}
	}
	return false
}

// Upgrades reports whether a request asks for another protocol that can be spoken through a proxy. HTTP/2 is
// not asked for in this way (RFC 9113, 3.1).
func (f Fields) Upgrades() bool {
	protocol := f.Get("Upgrade")
	return protocol != "" && !equalFold(protocol, "h2c") && f.Token("Connection", "upgrade")
}

// Cookies gives each value of a cookie of a request, in order. Quotes around it belong to it no more.
func (f Fields) Cookies(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range f {
			if !equalFold(f[i].Name, "Cookie") {
				continue
			}
			for rest := f[i].Value; rest != ""; {
				var pair string
				pair, rest, _ = strings.Cut(rest, ";")
				key, value, ok := strings.Cut(trim(pair), "=")
				if !ok || key != name {
					continue
				}
				if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
					value = value[1 : n-1]
				}
				if !yield(value) {
					return
				}
			}
		}
	}
}

// Tokens gives the elements of a comma-separated list without the white space around them, also empty ones.
func Tokens(list string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for t := range strings.SplitSeq(list, ",") {
			if !yield(trim(t)) {
				return
			}
		}
	}
}

func hasToken(list, token string) bool {
	for list != "" {
		var t string
		t, list, _ = strings.Cut(list, ",")
		if equalFold(trim(t), token) {
			return true
		}
	}
	return false
}

// trim takes spaces and tabs away, which is all that RFC 9110 calls white space around a value.
func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// equalFold is strings.EqualFold for ASCII, which is quicker to say no.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
