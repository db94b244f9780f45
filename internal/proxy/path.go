package proxy

import (
	"bytes"
	"slices"
	"strings"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// normalPath is a path as rules look at it: its dot segments are resolved (RFC 3986, 5.2.4; "%2e" is a dot), and
// what is escaped needlessly is not, so that "/%61dmin/." is "/admin/". Empty segments stay, and an escaped slash
// is no slash. A path that is normal already is given back as it is.
func normalPath(path string) string {
	if strings.IndexByte(path, '%') >= 0 {
		path = plainEscapes(path)
	}
	if !strings.Contains(path, "/.") {
		return path
	}
	return withoutDots(path)
}

// forwardedPath is a path as it is passed on: as it came, unless it has dot segments. Then it is normal, so that a
// server cannot take it for another one than the rules did.
func forwardedPath(path string) string {
	if !strings.Contains(path, "/.") && strings.IndexByte(path, '%') < 0 {
		return path
	}
	plain := plainEscapes(path)
	if normal := withoutDots(plain); normal != plain {
		return normal
	}
	return path
}

// plainEscapes takes the escapes of characters away that may stand in a path as they are, and writes the others in
// upper case.
func plainEscapes(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		switch {
		case path[i] != '%':
			b.WriteByte(path[i])
			continue
		case i+2 >= len(path) || http1.HexDigit(path[i+1]) < 0 || http1.HexDigit(path[i+2]) < 0: // it means itself, and not what may become of it
			b.WriteString("%25")
			continue
		}
		if c := byte(http1.HexDigit(path[i+1])<<4 | http1.HexDigit(path[i+2])); plainInPath(c) {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

// plainInPath reports whether a character needs no escape within a segment (RFC 3986, 3.3).
func plainInPath(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0
}

// withoutDots resolves the segments . and .. of a path.
func withoutDots(path string) string {
	out := make([]byte, 0, len(path))
	for rest := path; rest != ""; {
		segment := rest
		if i := strings.IndexByte(rest[1:], '/'); i >= 0 {
			segment = rest[:i+1]
		}
		rest = rest[len(segment):]
		switch segment {
		case "/.", "/..":
			if segment == "/.." {
				out = out[:max(bytes.LastIndexByte(out, '/'), 0)]
			}
			if rest == "" {
				out = append(out, '/')
			}
		default:
			out = append(out, segment...)
		}
	}
	if len(out) == 0 {
		return "/"
	}
	return string(out)
}

// veiled reports whether servers differ about a normal path: it has an empty segment or an escaped slash.
func veiled(path string) bool {
	return strings.Contains(path, "//") || strings.Contains(path, "%2F")
}

// readings are the paths that a server may take a veiled one for. Some decode an escaped slash, some merge slashes,
// before they resolve dot segments or after it, and nginx does all of that: "/a/..%2F/b" is "/b" there.
func readings(path string) []string {
	decoded := strings.ReplaceAll(path, "%2F", "/")
	var list []string
	for _, reading := range []string{
		withoutDots(merged(decoded)), merged(withoutDots(decoded)), withoutDots(decoded), withoutDots(merged(path)),
	} {
		if reading != path && !slices.Contains(list, reading) {
			list = append(list, reading)
		}
	}
	return list
}

// merged is a path without empty segments, but for that at its end.
func merged(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}
