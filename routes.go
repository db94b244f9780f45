package spillway

import (
	"cmp"
	"strings"
)

// HTTPRule is one rule of routes: which requests it is about, and what becomes of them. Its words and its
// precedence are those of the Gateway API's HTTPRoute.
//
// Of the rules that fit a request one counts: that of an exact host before that of the longest wildcard, then see
// Compare, then the first of the file. Requests to a host of a service that no rule fits are the service's.
type HTTPRule struct {
	Hosts   []string     `json:"hosts"`             // as they are in Service.Host; at least one
	Path    PathMatch    `json:"path,omitzero"`     // zero = any
	Methods []string     `json:"methods,omitempty"` // "POST"; one is enough, none = any
	Headers []FieldMatch `json:"headers,omitempty"` // all of them, as of Query and Cookies
	Query   []FieldMatch `json:"query,omitempty"`
	Cookies []FieldMatch `json:"cookies,omitempty"`

	To       []Target  `json:"to,omitempty"`       // one has it, by weight; none with Redirect
	Redirect *Redirect `json:"redirect,omitempty"` // the answer, without asking anybody

	Rewrite  *Rewrite    `json:"rewrite,omitempty"`
	Request  *HeaderEdit `json:"request,omitempty"`  // of the header that the service gets
	Response *HeaderEdit `json:"response,omitempty"` // of the header of the answer
	CORS     *CORS       `json:"cors,omitempty"`
	Mirror   []Mirror    `json:"mirror,omitempty"`
	Timeout  Duration    `json:"timeout,omitempty"`  // until the answer is whole; 0 = none of the rule's own
	Retries  *int        `json:"retries,omitempty"`  // attempts after the first; nil = what the data plane does by itself
	MaxBody  Bytes       `json:"max_body,omitempty"` // of the request; 0 = none of the rule's own
	Rate     *RateLimit  `json:"rate,omitempty"`
	// Users may come in by basic authentication; their passwords as bcrypt ("$2y$10$…") or, for random ones that a
	// machine made, "sha256:" and 64 hexadecimal digits. None = everybody.
	Users map[string]string `json:"users,omitempty"`
	Allow []string          `json:"allow,omitempty"` // networks whose clients may come in, "10.0.0.0/8"; none = all
}

// PathMatch is what the path of a request has to be, with its dot segments resolved.
type PathMatch struct {
	Kind string `json:"kind"` // one of the kinds below; "" = any path
	// Text is the path, escaped as in a request; of a prefix without a slash at its end, "" for all of them. A prefix
	// fits whole elements: "/a" fits "/a" and "/a/b", not "/ab". Of a pattern it is the expression (RE2).
	Text string `json:"text"`
}

// The kinds of a PathMatch, by precedence.
const (
	PathExact   = "exact"
	PathPrefix  = "prefix"
	PathPattern = "pattern"
)

// FieldMatch is what a request has to carry: a header, a cookie or a parameter of its query.
type FieldMatch struct {
	Name string `json:"name"`           // the case of a header's does not matter
	Kind string `json:"kind,omitempty"` // "" = Text exactly, "present" = whatever its value, "pattern" = Text is an RE2 expression
	Text string `json:"text,omitempty"`
}

// StableTrack is the name of the track that every service has: what users reach whom no other track has.
const StableTrack = "stable"

// Target is where requests of a rule go.
type Target struct {
	Service string   `json:"service,omitempty"`
	Track   string   `json:"track,omitempty"`  // only this lane of the service, StableTrack is one too; "" = its users are divided as ever
	URLs    []string `json:"urls,omitempty"`   // instead of a service: servers that Spillway does not run
	Weight  int      `json:"weight,omitempty"` // its part of the sum of the weights of all targets; of one alone it does not matter
}

// Redirect is an answer that sends the client elsewhere. What is empty stays as it was asked for.
type Redirect struct {
	Scheme string `json:"scheme,omitempty"` // "https"
	Host   string `json:"host,omitempty"`
	Port   int    `json:"port,omitempty"` // 0 = that of Scheme; without one, as it was asked for
	Path   string `json:"path,omitempty"`
	Prefix string `json:"prefix,omitempty"` // instead of the prefix that the rule fits: "/new"; "/" removes it
	Status int    `json:"status"`           // 301, 302, 303, 307 or 308
}

// Rewrite is what a service is asked for instead of what the client asked for. What is empty stays.
type Rewrite struct {
	Host   string `json:"host,omitempty"`
	Path   string `json:"path,omitempty"`
	Prefix string `json:"prefix,omitempty"` // as of Redirect
}

// HeaderEdit changes a header: first what it removes, then what it sets, then what it adds.
type HeaderEdit struct {
	Set    []HeaderField `json:"set,omitempty"` // sorted by name, as Add
	Add    []HeaderField `json:"add,omitempty"`
	Remove []string      `json:"remove,omitempty"`
}

// HeaderField is one line of a header.
type HeaderField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// CORS says which other sites' pages may ask. The data plane answers their preflight requests.
type CORS struct {
	Origins     []string `json:"origins"`           // "https://shop.example.com", "https://*.example.com", or "*"
	Methods     []string `json:"methods,omitempty"` // besides GET, HEAD and POST; "*" = all
	Headers     []string `json:"headers,omitempty"` // of requests; "*" = all
	Expose      []string `json:"expose,omitempty"`  // headers of answers that a page may read
	Credentials bool     `json:"credentials,omitempty"`
	Age         Duration `json:"age,omitempty"` // how long a browser may remember a preflight; default 5s
}

// Mirror is somebody who gets a copy of requests; the answers are thrown away and are evidence of nothing.
type Mirror struct {
	Target
	Share Share `json:"share"` // of the requests
}

// RateLimit is how many requests one client may make.
type RateLimit struct {
	Requests int       `json:"requests"`
	Per      Duration  `json:"per"`
	Burst    int       `json:"burst"`       // how many at once after a pause; at least 1
	By       KeySource `json:"by,omitzero"` // what tells clients apart; zero = their address, of IPv6 its /64
}

// Name is what the edge to a target is called: "web", "web@canary", or its URLs with commas in between.
func (t Target) Name() string {
	switch {
	case len(t.URLs) > 0:
		return strings.Join(t.URLs, ",")
	case t.Track != "":
		return t.Service + "@" + t.Track
	}
	return t.Service
}

// Compare orders rules of the same host by precedence: an exact path, then the longest prefix, then a pattern, then any
// path; a method; the number of header and cookie matches; the number of query matches. 0 = the first of the file counts.
func (r HTTPRule) Compare(o HTTPRule) int {
	length := 0
	if r.Path.rank() == 1 && o.Path.rank() == 1 {
		length = cmp.Compare(len(o.Path.Text), len(r.Path.Text))
	}
	return cmp.Or(cmp.Compare(r.Path.rank(), o.Path.rank()), length,
		cmp.Compare(min(len(o.Methods), 1), min(len(r.Methods), 1)),
		cmp.Compare(len(o.Headers)+len(o.Cookies), len(r.Headers)+len(r.Cookies)),
		cmp.Compare(len(o.Query), len(r.Query)))
}

// rank is the place of a kind. No path at all is the prefix of all of them, as the Gateway API has it; where patterns
// belong it leaves open.
func (p PathMatch) rank() int {
	switch {
	case p.Kind == PathExact:
		return 0
	case p.Kind == PathPrefix && p.Text != "":
		return 1
	case p.Kind == PathPattern:
		return 2
	}
	return 3
}

// String is the rule's match as people write it: "POST shop.example.com/api/* header X-Beta=1".
func (r HTTPRule) String() string {
	text := strings.Join(r.Hosts, ",") + r.Path.String()
	if len(r.Methods) > 0 {
		text = strings.Join(r.Methods, ",") + " " + text
	}
	for _, kind := range []struct {
		name string
		list []FieldMatch
	}{{"header", r.Headers}, {"cookie", r.Cookies}, {"query", r.Query}} {
		for _, m := range kind.list {
			text += " " + kind.name + " " + m.String()
		}
	}
	return text
}

// String is the match as the app file has it: "/a", "/a/*", "~ ^/a$"; "/*" for any path.
func (p PathMatch) String() string {
	switch p.Kind {
	case PathExact:
		return p.Text
	case PathPattern:
		return " ~ " + p.Text
	}
	return p.Text + "/*"
}

// String is the match as the app file has it: "X-Beta=1", "X-Beta=*", "X-Beta=~^[0-9]$".
func (m FieldMatch) String() string {
	switch m.Kind {
	case "present":
		return m.Name + "=*"
	case "pattern":
		return m.Name + "=~" + m.Text
	}
	return m.Name + "=" + m.Text
}
