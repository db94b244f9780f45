package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// Lines tell what the data plane does with the requests to a table's hosts, as if it served that table.
func Lines(t spillway.Table) ([]spillway.RouteLine, error) {
	ways, err := waysFor(t)
	if err != nil {
		return nil, err
	}
	return ways.lines(t.App), nil
}

// Explain says what would become of a request if the data plane served a table.
func Explain(t spillway.Table, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	ways, err := waysFor(t)
	if err != nil {
		return spillway.RouteAnswer{}, err
	}
	return ways.explain(t.App, q, keys{}, nil)
}

// waysFor are the ways of a table that nobody serves.
func waysFor(t spillway.Table) (*ways, error) {
	if err := checkTable(t); err != nil {
		return nil, err
	}
	a := &app{plane: &plane{endpoints: map[endpointKey]*endpoint{}}, ref: t.App, table: t, tallies: map[string]*tally{}}
	var edges []*edge
	for _, spec := range t.Route.Edges {
		edges = append(edges, newEdge(a, spec, nil))
	}
	ways := newWays()
	return ways, ways.add(a, edges, nil)
}

// explain says what would become of a request to a host of an app, by the code that a request goes through. Nothing
// is counted. aside says where a request by HTTP is sent because its host is served by HTTPS; nil = nowhere.
func (t *ways) explain(app spillway.Ref, q spillway.RouteQuery, k keys, aside func(*call) (string, bool)) (spillway.RouteAnswer, error) {
	c, no, err := callFor(q)
	switch {
	case err != nil:
		return spillway.RouteAnswer{}, err
	case no != nil:
		return spillway.RouteAnswer{Status: no.status, Text: no.reason}, nil
	}
	w, ok := t.find(c)
	if ok && q.Key != "" && w.first() != nil {
		if sources := w.first().cohort.Key; len(sources) > 0 { // as if the request carried it; another rule may fit then
			name, value := sources[0].Name, q.Key
			if sources[0].Kind == "cookie" {
				name, value = "Cookie", name+"="+value
			}
			c.header = append(http1.Fields{{Name: name, Value: value}}, c.header...)
			w, ok = t.find(c)
		}
	}
	won := w
	if ok && w.veils != nil {
		won = w.veils
	}
	answer := spillway.RouteAnswer{Passed: t.passed(app, c, won)}
	if !ok {
		no := t.nobody(c.name)
		answer.Status, answer.Text = no.status, no.reason
		return answer, nil
	}
	if w.app.ref != app {
		return spillway.RouteAnswer{App: w.app.ref, Status: http.StatusNotFound, Text: fmt.Sprintf("the host is one of %s, not of %s", w.app.ref, app)}, nil
	}
	line := w.line()
	answer.App, answer.Line = w.app.ref, &line
	if aside != nil {
		if to, ok := aside(c); ok {
			answer.Status, answer.Text = http.StatusPermanentRedirect, to
			return answer, nil
		}
	}
	look := *w
	look.limiter = nil // a look takes no token
	if q.Client == "" && look.allow != nil && look.veils == nil {
		look.allow = nil // nobody said where it comes from
		answer.Notes = append(answer.Notes, "as for a client from "+strings.Join(w.rule.Allow, ", ")+": others are answered 403; say which with --client ADDRESS")
	}
	if at := look.instant(c, time.Now()); at != nil {
		answer.Status, answer.Text = at.status, at.reason
		if to := at.header.Get("Location"); to != "" {
			answer.Text = to
		}
		return answer, nil
	}
	out := w.outbound(c)
	answer.Asked = out.host + out.target
	who := w.first().identify(c, k)
	answer.Key, answer.Bucket = who.key != 0 && who.cookie == "", who.bucket
	give(&answer, w.edge(who.bucket), c, who)
	return answer, nil
}

// explain says what would become of a request to a host of an app now.
func (p *plane) explain(app spillway.Ref, q spillway.RouteQuery) (spillway.RouteAnswer, error) {
	answer, err := p.routing.Load().ways.explain(app, q, p.keys, func(c *call) (string, bool) {
		if c.secure {
			return "", false
		}
		return p.redirectOf(c.host, c.target, p.keys.keepsScheme(c))
	})
	if err != nil || answer.Leg == nil {
		return answer, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.apps[app]; a != nil {
		if h := a.gate.told(); h != nil {
			answer.Notes = append(answer.Notes, fmt.Sprintf("the app is held: the request waits at the proxy, for up to %s", h.For))
		}
	}
	return answer, nil
}

// give says who of an edge answers a user.
func give(answer *spillway.RouteAnswer, e *edge, c *call, who unit) {
	leg := legOf(e)
	answer.Leg = &leg
	if len(e.arms) == 0 {
		answer.Status, answer.Text = http.StatusServiceUnavailable, closedReason(e.spec)
		return
	}
	i, _ := e.chosen(c, who.bucket)
	if i < 0 {
		i = e.arm(who.bucket)
		answer.Why = fmt.Sprintf("bucket %d of %d", who.bucket, spillway.Whole)
	} else {
		rule := slices.IndexFunc(e.spec.Rules, func(r spillway.Rule) bool {
			j, _ := e.track(r.Track, who.bucket)
			return j >= 0 && fits(r.Match, c)
		})
		answer.Why = fmt.Sprintf("%s %s=%s", e.spec.Rules[rule].Kind, e.spec.Rules[rule].Name, e.spec.Rules[rule].Value)
	}
	if len(e.arms) == 1 && len(e.spec.Rules) == 0 && len(answer.Line.To) == 1 {
		answer.Why = "everybody"
	}
	got := leg.Backends[i]
	answer.Got = &got
}

// callFor is a request as an engine would give it, or what the engine answers to one that it gives nobody.
func callFor(q spillway.RouteQuery) (*call, *refusal, error) {
	u, err := url.Parse(q.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, nil, fmt.Errorf("%q is not a URL like http://shop.example.com/path: %w", q.URL, spillway.ErrInvalid)
	}
	c := &call{method: q.Method, major: 1, minor: 1, secure: u.Scheme == "https"}
	host := u.Host
	for _, f := range q.Header {
		if http1.Is(f.Name, "Host") {
			host = f.Value
			continue
		}
		c.header = append(c.header, http1.Field{Name: f.Name, Value: f.Value})
	}
	_, rest, _ := strings.Cut(q.URL, "://") // as it is written: a URL would be printed another way
	target := "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		target = rest[i:]
	}
	target, _, _ = strings.Cut(target, "#")
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	c.aim(host, target)
	c.client = netip.IPv6Unspecified()
	if q.Client != "" {
		if c.client, err = netip.ParseAddr(q.Client); err != nil {
			return nil, nil, fmt.Errorf("the client %q is no address: %w", q.Client, spillway.ErrInvalid)
		}
	}
	c.peer = c.client.String()
	return c, misread(c, host, target), nil
}

// misread is what the engine answers to a request that no rule is asked about; nil = it is read. target and host are
// as they came.
func misread(c *call, host, target string) *refusal {
	if no := http1.CheckTarget(c.method, target, host); no != nil {
		return &refusal{status: no.Status, reason: no.Reason}
	}
	if no := unserved(c.method); no != nil {
		return no
	}
	for text := range c.header.All("Content-Length") {
		length, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			return &refusal{status: http.StatusBadRequest, reason: "Content-Length is not one number"}
		}
		c.length = int64(length)
	}
	return nil
}

// passed are the rules that a request does not go by, in the order in which they would be tried: those of its host,
// and those of the wildcards that it is below.
func (t *ways) passed(app spillway.Ref, c *call, won *way) []spillway.RoutePass {
	path := normalPath(c.path)
	var list []spillway.RoutePass
	behind := false
	for _, s := range t.sitesOf(c.name) {
		for _, w := range s.all {
			why := w.misses(c, path)
			switch {
			case w == won:
				behind = true
				continue
			case w.app.ref != app:
				continue
			case why != "":
			case behind:
				why = "it fits too, and goes behind the one that counts"
			default:
				why = "it fits, and is not tried"
			}
			list = append(list, spillway.RoutePass{Host: w.host, Match: w.match(), Why: why})
		}
		if s.rest != nil && s.rest == won {
			behind = true
		}
	}
	return list
}

// sitesOf are those of a host and of the wildcards that it is below, in the order in which find tries them.
func (t *ways) sitesOf(name string) []*site {
	var list []*site
	if s := t.hosts[name]; s != nil {
		list = append(list, s)
	}
	for i := 1; i < len(name); i++ {
		if s := t.below[name[i:]]; name[i] == '.' && s != nil {
			list = append(list, s)
		}
	}
	return list
}

// misses says what a request lacks that a rule asks for; "" = nothing.
func (w *way) misses(c *call, path string) string {
	if p := w.rule.Path; p.Kind == spillway.PathExact && path != normalPath(p.Text) ||
		p.Kind == spillway.PathPrefix && path != normalPath(p.Text) && !strings.HasPrefix(path, normalPath(p.Text)+"/") {
		return "its path is " + path
	}
	l := w.lacks(c, path)
	switch l.what {
	case "":
		return ""
	case "path":
		return "its path is " + path
	case "method":
		return "its method is " + c.method
	case "header":
		return "it does not have the header " + w.headers[l.i].String()
	case "cookie":
		return "it does not have the cookie " + w.cookies[l.i].String()
	}
	return "it does not have the query parameter " + w.query[l.i].String()
}
