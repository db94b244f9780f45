package proxy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// ways are the rules of all tables together, and the hosts of their edges, made for being looked up: a request is
// led by hashes of its host and path, so that it costs the same among ten thousand rules as with one. They never
// change; a push makes new ones.
type ways struct {
	hosts map[string]*site // by the whole name
	below map[string]*site // wildcards, by what follows the *: ".example.com"

	guarded bool // a rule guards paths: see guards

	patterns map[string]*regexp.Regexp // of all rules, so that the next ways need not make them again
	limiters map[string]*limiter       // by limiterKey, so that a push forgives nobody
	vaults   map[string]*vault         // by the hash of a password: which passwords were found right
}

// site is what one host, or all below one, have.
type site struct {
	host     string            // as in the file: "*.example.com"
	exact    map[string][]*way // by the whole path; each list is in the order of precedence, as those below
	prefixes map[string][]*way // by prefix: "/api"; "" is any path
	deepest  int               // elements of the longest prefix
	patterns []*way
	rest     *way   // the edge that has the host; nil = none
	all      []*way // in the order of precedence
}

// way is where a request goes: by a rule, or to the edge that has its host.
type way struct {
	app  *app
	rule spillway.HTTPRule // zero: it is the rest of its host
	name string            // of the rule, as people are told it; "" = there is none
	host string            // of its site
	arms []wayArm          // none: it is answered by the proxy

	headers, cookies, query []matcher
	path                    *regexp.Regexp // of a pattern

	// What an exchange has to know. Zero is what it does without a rule.
	timeout time.Duration
	maxBody int64
	retries int // attempts after the first; -1 = as without a rule

	changes bool // of the request: see outbound
	stops   bool // it may be answered without anybody being asked: see instant
	replies bool // the answer's header is changed: see answered
	allow   []netip.Prefix
	limiter *limiter
	users   *door
	mirrors []mirror
	veils   *way   // it refuses: the path as it came is not one of this rule, and may be taken for reading, which is
	reading string // a path
	salt    uint64 // deals users to arms, whatever their buckets are dealt to elsewhere
	total   int    // sum of the weights of arms
}

// wayArm is one target of a rule.
type wayArm struct {
	edge   *edge
	weight int
}

// plainWay leads to an edge and does nothing else.
func plainWay(e *edge, host string) *way {
	return &way{app: e.app, host: host, arms: []wayArm{{e, 1}}, total: 1, retries: -1}
}

// private reports whether the way is that of a replica.
func (w *way) private() bool { return len(w.arms) > 0 && w.arms[0].edge.private() }

// guards reports whether the way lets some come in only. Paths must not lead around it.
func (w *way) guards() bool { return w.users != nil || w.allow != nil }

// resends is how often a request may be sent again that may have reached a replica.
func (w *way) resends() int {
	if w.retries < 0 {
		return maxResends
	}
	return w.retries
}

// first is the edge by which the user behind a request is found out. All edges of an app agree about that. nil when
// the way leads to nobody.
func (w *way) first() *edge {
	if len(w.arms) == 0 {
		return nil
	}
	return w.arms[0].edge
}

// edge is the one to which a user of a bucket is led. A user stays with one as long as the weights do; the buckets
// are mixed anew for each rule, so that no release is tried with the users of one target only.
func (w *way) edge(bucket spillway.Share) *edge {
	if len(w.arms) <= 1 {
		return w.first()
	}
	part := int(mixed(w.salt+uint64(bucket)) % uint64(w.total))
	for _, a := range w.arms {
		if part -= a.weight; part < 0 {
			return a.edge
		}
	}
	return w.first()
}

// mixed spreads a number over 64 bits (the finisher of SplitMix64).
func mixed(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// newWays begins ways that take over from old ones what outlives a push; old may be nil.
func newWays() *ways {
	return &ways{
		hosts: map[string]*site{}, below: map[string]*site{},
		patterns: map[string]*regexp.Regexp{}, limiters: map[string]*limiter{}, vaults: map[string]*vault{},
	}
}

// site gives that of a host or wildcard, made when it is new.
func (t *ways) site(host string) *site {
	all, key := t.hosts, host
	if name, ok := strings.CutPrefix(host, "*"); ok {
		all, key = t.below, name
	}
	if all[key] == nil {
		all[key] = &site{host: host}
	}
	return all[key]
}

// add adds the hosts and rules of one app's table. edges are those of the table, in its order. plane.mu is held.
func (t *ways) add(a *app, edges []*edge, old *ways) error {
	targets := map[string]*edge{}
	for _, e := range edges {
		for _, host := range e.spec.Hosts {
			host = normalHost(host)
			t.site(host).rest = plainWay(e, host)
		}
		if e.spec.Target != "" {
			targets[e.spec.Target] = e
		}
	}
	rules := slices.Clone(a.table.Route.Rules)
	slices.SortStableFunc(rules, spillway.HTTPRule.Compare)
	for _, rule := range rules {
		w, err := t.wayOf(a, rule, targets, old)
		if err != nil {
			return fmt.Errorf("route %s: %w", rule, err)
		}
		t.guarded = t.guarded || w.guards()
		for _, host := range rule.Hosts {
			one := *w
			one.host = normalHost(host)
			t.site(one.host).add(&one)
		}
	}
	t.share()
	return nil
}

func (s *site) add(w *way) {
	s.all = append(s.all, w)
	switch text := w.rule.Path.Text; w.rule.Path.Kind {
	case spillway.PathExact:
		if s.exact == nil {
			s.exact = map[string][]*way{}
		}
		text = normalPath(text)
		s.exact[text] = append(s.exact[text], w)
	case spillway.PathPattern:
		s.patterns = append(s.patterns, w)
	default: // a prefix, or any path, which is that of all
		if s.prefixes == nil {
			s.prefixes = map[string][]*way{}
		}
		text = normalPath(text)
		s.prefixes[text] = append(s.prefixes[text], w)
		s.deepest = max(s.deepest, strings.Count(text, "/"))
	}
}

// ruled reports whether the site has rules, so that paths matter.
func (s *site) ruled() bool {
	return s.exact != nil || s.prefixes != nil || s.patterns != nil
}

// wayOf makes a rule ready.
func (t *ways) wayOf(a *app, rule spillway.HTTPRule, targets map[string]*edge, old *ways) (*way, error) {
	w := &way{app: a, rule: rule, name: rule.String(), timeout: time.Duration(rule.Timeout), maxBody: int64(rule.MaxBody), retries: -1}
	if rule.Retries != nil {
		w.retries = *rule.Retries
	}
	for _, to := range rule.To {
		e := targets[to.Name()]
		if e == nil {
			return nil, fmt.Errorf("no edge is called %s: %w", to.Name(), spillway.ErrInvalid)
		}
		if weight := to.Weight; weight > 0 || len(rule.To) == 1 {
			weight = max(weight, 1)
			w.arms, w.total = append(w.arms, wayArm{e, weight}), w.total+weight
		}
	}
	if len(w.arms) == 0 && rule.Redirect == nil {
		return nil, fmt.Errorf("it leads to nobody: %w", spillway.ErrInvalid)
	}
	w.salt = hashKey(a.ref, rule.String())
	var err error
	if rule.Path.Kind == spillway.PathPattern {
		if w.path, err = t.pattern(rule.Path.Text, old); err != nil {
			return nil, err
		}
	}
	for _, kind := range []struct {
		to   *[]matcher
		from []spillway.FieldMatch
	}{{&w.headers, rule.Headers}, {&w.cookies, rule.Cookies}, {&w.query, rule.Query}} {
		for _, m := range kind.from {
			next := matcher{FieldMatch: m}
			if m.Kind == "pattern" {
				if next.pattern, err = t.pattern(m.Text, old); err != nil {
					return nil, err
				}
			}
			*kind.to = append(*kind.to, next)
		}
	}
	return w, t.filters(w, targets, old)
}

// filters makes ready what a rule does to requests beside leading them.
func (t *ways) filters(w *way, targets map[string]*edge, old *ways) error {
	rule := &w.rule
	for _, text := range rule.Allow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, alone := netip.ParseAddr(text)
			if alone != nil {
				return fmt.Errorf("allow %s: %w: %w", text, err, spillway.ErrInvalid)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		w.allow = append(w.allow, p)
	}
	if rule.Rate != nil {
		key := limiterKey(w.app.ref, *rule)
		w.limiter = old.limiter(key)
		if w.limiter == nil {
			w.limiter = newLimiter(*rule.Rate)
		}
		t.limiters[key] = w.limiter
	}
	if len(rule.Users) > 0 {
		w.users = t.door(rule.Users, old)
	}
	for _, m := range rule.Mirror {
		e := targets[m.Name()]
		if e == nil {
			return fmt.Errorf("no edge is called %s: %w", m.Name(), spillway.ErrInvalid)
		}
		w.mirrors = append(w.mirrors, mirror{e, m.Share})
	}
	w.changes = rule.Rewrite != nil || rule.Request != nil
	w.stops = rule.Redirect != nil || rule.CORS != nil || w.allow != nil || w.limiter != nil || w.users != nil || w.maxBody > 0
	w.replies = rule.Response != nil || rule.CORS != nil
	return nil
}

// pattern is a regular expression, made only when neither these ways nor the old ones have it.
func (t *ways) pattern(text string, old *ways) (*regexp.Regexp, error) {
	p := t.patterns[text]
	if p == nil && old != nil {
		p = old.patterns[text]
	}
	if p == nil {
		var err error
		if p, err = regexp.Compile(text); err != nil {
			return nil, fmt.Errorf("pattern %q: %w: %w", text, err, spillway.ErrInvalid)
		}
	}
	t.patterns[text] = p
	return p, nil
}

func (t *ways) limiter(key string) *limiter {
	if t == nil {
		return nil
	}
	return t.limiters[key]
}

// limiterKey identifies what is limited: the rule by what it fits, and the limit.
func limiterKey(app spillway.Ref, rule spillway.HTTPRule) string {
	limit, err := json.Marshal(rule.Rate)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return string(app) + " " + rule.String() + " " + string(limit)
}

// checkRules refuses rules that cannot be served.
func checkRules(t spillway.Table) error {
	a := &app{ref: t.App, table: t}
	edges := make([]*edge, 0, len(t.Route.Edges))
	for _, spec := range t.Route.Edges {
		edges = append(edges, &edge{app: a, spec: spec})
	}
	return newWays().add(a, edges, nil)
}

// dividesUsers reports whether a rule leads its users to several targets, so that each has to be known again.
func dividesUsers(r spillway.HTTPRule) bool {
	n := 0
	for _, to := range r.To {
		if to.Weight > 0 {
			n++
		}
	}
	return n > 1
}
