package proxy

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// find gives the way of a request: of the rules of its host, or else of the longest wildcard that its host is below,
// the first that fits; then the edge that has the host. A path by which a server could be led behind a rule that
// guards it leads to a way that refuses.
func (t *ways) find(c *call) (*way, bool) {
	path := "" // normal; made when a site has rules
	w, ok := t.findAt(c, &path)
	if ok && t.guarded && veiled(path) {
		if no := t.evades(c, path, w); no != nil {
			return no, true
		}
	}
	return w, ok
}

// nobody refuses a request that has no way.
func (t *ways) nobody(host string) *refusal {
	if len(t.sitesOf(host)) > 0 {
		return &refusal{status: http.StatusNotFound, reason: "no rule of the host fits"}
	}
	return &refusal{status: http.StatusNotFound, reason: "no app answers to this host"}
}

// evades gives a way that refuses a request whose veiled path can be taken for one that another rule guards; nil when
// there is none. That rule stands in for it, without anybody that it leads to.
func (t *ways) evades(c *call, path string, w *way) *way {
	for _, reading := range readings(path) {
		if other, ok := t.findAt(c, &reading); ok && other != w && other.guards() {
			no := *other
			no.arms, no.veils, no.reading = nil, other, reading
			return &no
		}
	}
	return nil
}

// findAt is find with a normal path, which is made when it is "" and a site has rules.
func (t *ways) findAt(c *call, path *string) (*way, bool) {
	if s := t.hosts[c.name]; s != nil {
		if w := s.find(c, path); w != nil {
			return w, true
		}
	}
	if len(t.below) == 0 {
		return nil, false
	}
	for rest := c.name; ; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return nil, false
		}
		if s := t.below[rest[i:]]; s != nil && (len(rest) < len(c.name) || i > 0) {
			if w := s.find(c, path); w != nil {
				return w, true
			}
		}
		rest = rest[i+1:]
	}
}

func (s *site) find(c *call, path *string) *way {
	if s.ruled() && strings.HasPrefix(c.path, "/") {
		if *path == "" {
			*path = normalPath(c.path)
		}
		for list := range s.candidates(*path) {
			for _, w := range list {
				if w.lacks(c, *path) == nothing {
					return w
				}
			}
		}
	}
	return s.rest
}

// candidates gives lists of ways for a path, in the order of precedence. The path of all fits but of patterns.
func (s *site) candidates(path string) func(yield func([]*way) bool) {
	return func(yield func([]*way) bool) {
		if list := s.exact[path]; list != nil && !yield(list) {
			return
		}
		if s.prefixes != nil {
			for prefix := range prefixesOf(path, s.deepest) {
				if list := s.prefixes[prefix]; prefix != "" && list != nil && !yield(list) {
					return
				}
			}
		}
		if s.patterns != nil && !yield(s.patterns) {
			return
		}
		if list := s.prefixes[""]; list != nil {
			yield(list)
		}
	}
}

// prefixesOf gives the prefixes of a path by elements, the longest first, of at most so many elements:
// "/a/b", "/a", "" of "/a/b".
func prefixesOf(path string, most int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		elements, end := 0, len(path)
		for i := 1; i < len(path); i++ {
			if path[i] == '/' {
				if elements++; elements == most {
					end = i
					break
				}
			}
		}
		if most == 0 {
			end = 0
		}
		for prefix := path[:end]; ; {
			if !yield(prefix) || prefix == "" {
				return
			}
			prefix = prefix[:strings.LastIndexByte(prefix, '/')]
		}
	}
}

// matcher is one condition about a header, cookie or parameter.
type matcher struct {
	spillway.FieldMatch
	pattern *regexp.Regexp
}

// is reports whether a value is what is asked for.
func (m *matcher) is(value string) bool {
	switch m.Kind {
	case "present":
		return true
	case "pattern":
		return m.pattern.MatchString(value)
	}
	return value == m.Text
}

// lack is a condition of a rule that a request does not meet.
type lack struct {
	what string // "", "path", "method", "header", "cookie" or "query"
	i    int    // which of those conditions
}

var nothing = lack{}

// lacks gives the first condition of the rule that a request with the normal path does not meet.
func (w *way) lacks(c *call, path string) lack {
	if w.path != nil && !w.path.MatchString(path) {
		return lack{what: "path"}
	}
	if len(w.rule.Methods) > 0 && !w.takes(c) {
		return lack{what: "method"}
	}
	for i := range w.headers {
		if !w.headers[i].inHeader(c) {
			return lack{"header", i}
		}
	}
	for i := range w.cookies {
		if !w.cookies[i].inCookies(c) {
			return lack{"cookie", i}
		}
	}
	for i := range w.query {
		if !w.query[i].inQuery(c.query) {
			return lack{"query", i}
		}
	}
	return nothing
}

// takes reports whether the method is one of the rule's. A browser's question whether it may ask by one of them
// belongs to the rule that says so.
func (w *way) takes(c *call) bool {
	method := c.method
	if w.rule.CORS != nil {
		if asked := preflight(c); asked != "" {
			method = asked
		}
	}
	for _, m := range w.rule.Methods {
		if m == method {
			return true
		}
	}
	return false
}

func (m *matcher) inHeader(c *call) bool {
	if http1.Is(m.Name, "Host") {
		return m.is(c.host)
	}
	for v := range c.header.All(m.Name) {
		if m.is(v) {
			return true
		}
	}
	return false
}

func (m *matcher) inCookies(c *call) bool {
	for v := range c.header.Cookies(m.Name) {
		if m.is(v) {
			return true
		}
	}
	return false
}

// inQuery looks at the first parameter of the name, as the Gateway API has it.
func (m *matcher) inQuery(query string) bool {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		if unescaped(name) == m.Name {
			return m.is(unescaped(value))
		}
	}
	return false
}

// unescaped is a part of a query as it is meant; as it is written when it means nothing.
func unescaped(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
