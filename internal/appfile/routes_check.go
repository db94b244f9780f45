package appfile

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// checkRoutes reports what rules say against each other's services, hosts and keys.
func checkRoutes(r *report, root, services *node) {
	owned := map[string]string{} // hosts that always reach one track or the dark colour
	public := false
	for _, s := range services.entries {
		public = public || len(listed(s.child("host"))) > 0
		for _, host := range texts(s.child("standby").child("host")) {
			owned[host] = "the standby of " + s.name
		}
		if tracks := s.child("tracks"); tracks != nil {
			for _, t := range tracks.entries {
				for _, host := range texts(t.child("host")) {
					owned[host] = "the track " + t.name + " of " + s.name
				}
			}
		}
	}
	for i, item := range listed(root.child("routes")) {
		if item.bad || item.kind != aMapping {
			continue
		}
		path := fmt.Sprintf("routes[%d]", i)
		checkRoute(r, item, path, services)
		for k, host := range listed(item.child("host")) {
			if owner := owned[host.text]; owner != "" && !host.bad {
				r.add(host, fmt.Sprintf("%s.host[%d]", path, k), fmt.Sprintf("%s is the host of %s, which all of its requests reach", quote(host.text), owner), "remove it")
			}
		}
		if !public && !has(item, "host") {
			r.add(&node{place: item.place}, path, "has no host, and no service has one", "write host: shop.example.com")
		}
	}
}

// checkRoute reports what one rule says against itself.
func checkRoute(r *report, n *node, path string, services *node) {
	redirect, sends := find(n, "redirect")
	to, goes := find(n, "to")
	switch {
	case sends && goes:
		r.add(&node{place: redirect.key}, path+".redirect", "the rule has a redirect and a to", "keep one of them")
	case !sends && !goes:
		r.add(&node{place: n.place}, path, "does not say what becomes of the requests", "write to: SERVICE, or redirect: URL")
	}
	if sends {
		for _, name := range []string{"rewrite", "request-headers", "mirror", "timeout", "retries", "max-body"} {
			if e, ok := find(n, name); ok {
				r.add(&node{place: e.key}, join(path, name), "is for requests that somebody gets, and these are redirected", "remove it, or the redirect")
			}
		}
	}
	if redirect.node != nil && !redirect.bad && leadsBack(n, redirect.node) {
		r.add(redirect.node, path+".redirect", "leads to where the request came from", "write to: URL, or scheme: https")
	}
	if goes && !to.bad {
		checkTo(r, to.node, path+".to", services)
	}
	for i, item := range listed(n.child("mirror")) {
		at, target := path+".mirror", item
		if n.child("mirror").kind == aList {
			at = fmt.Sprintf("%s[%d]", at, i)
		}
		if item.kind == aMapping {
			at, target = at+".to", item.child("to")
		}
		checkTarget(r, target, at, services)
	}
	checkPrefixes(r, n, path)
	checkMethods(r, n, path)
	checkUsers(r, n, path)
	cors := n.child("cors")
	if text(cors.child("credentials"), "") == "true" && slices.Contains(texts(cors.child("origins")), "*") {
		r.add(cors.child("credentials"), path+".cors.credentials", "with the origin * every site could act for a user that is logged in", "list the origins")
	}
}

// leadsBack reports whether a redirect leads a request to where it came from.
func leadsBack(rule, redirect *node) bool {
	to := redirect
	if redirect.kind == aMapping {
		if has(redirect, "scheme") {
			return false
		}
		if to = redirect.child("to"); to == nil {
			return !has(redirect, "to")
		}
	}
	return to.text == text(rule.child("path"), "/*")
}

// checkMethods reports what the proxy refuses before it asks any rule.
func checkMethods(r *report, n *node, path string) {
	list := n.child("method")
	for i, method := range listed(list) {
		at := path + ".method"
		if list.kind == aList {
			at = fmt.Sprintf("%s[%d]", at, i)
		}
		if method.text == http.MethodConnect || method.text == http.MethodTrace {
			r.add(method, at, method.text+" is served to nobody", "remove it")
		}
	}
}

// maxCost is the most that a hash by bcrypt may cost.
const maxCost = 14

// checkUsers reports hashes that would keep the machine busy.
func checkUsers(r *report, n *node, path string) {
	users := n.child("users")
	if users == nil {
		return
	}
	for _, e := range users.entries {
		if parts := strings.Split(e.text, "$"); !e.bad && len(parts) > 2 {
			if cost, err := strconv.Atoi(parts[2]); err == nil && cost > maxCost {
				r.add(e.node, fmt.Sprintf("%s.users.%s", path, e.name), fmt.Sprintf("the hash has the cost %d: each step doubles the time of a login, and %d takes about a second", cost, maxCost), "write what htpasswd -nB -C 10 "+e.name+" prints")
			}
		}
	}
}

// checkPrefixes reports something to put in place of a prefix where the path is none.
func checkPrefixes(r *report, n *node, path string) {
	prefix := strings.HasSuffix(text(n.child("path"), "/*"), "/*")
	if has(n, "path") && n.child("path") == nil {
		return // it is bad itself
	}
	for _, k := range []struct{ name, part string }{{"rewrite", "path"}, {"redirect", "to"}} {
		value, at := n.child(k.name), join(path, k.name)
		if value != nil && value.kind == aMapping {
			value, at = value.child(k.part), join(at, k.part)
		}
		if value != nil && strings.HasSuffix(value.text, "/*") && !prefix {
			hint := "write the whole path"
			if of := text(n.child("path"), "/x"); !strings.HasPrefix(of, "~") {
				hint += ", or path: " + strings.TrimRight(of, "/") + "/*"
			}
			r.add(value, at, quote(value.text)+" is put in place of a prefix, and the path of the rule is none", hint)
		}
	}
}

// checkTo reports targets that there are not, and weights of which nobody gets anything.
func checkTo(r *report, to *node, path string, services *node) {
	if to.kind != aList {
		checkTarget(r, to, path, services)
		return
	}
	sum, seen := 0, map[string]bool{}
	for i, item := range to.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case item.bad:
			return
		case item.kind != to.items[0].kind:
			r.add(item, at, "servers without a weight stand beside those with one", "write {to: URL, weight: N} for each")
			return
		case item.kind == aMapping:
			name := targetOf(item.child("to")).Name()
			if seen[name] && name != "" {
				r.add(item, at, name+" is listed twice", "remove one, and give the other the weight of both")
			}
			seen[name] = true
			checkTarget(r, item.child("to"), at+".to", services)
			sum += whole(item.child("weight"), 1)
		default:
			sum++
		}
	}
	if sum == 0 {
		r.add(to, path, "the weights are all 0: nobody gets the requests", "give one of them a weight of 1")
	}
}

// checkTarget reports a service or a track that there is not.
func checkTarget(r *report, n *node, path string, services *node) {
	if n == nil || n.bad || n.kind != aText || strings.Contains(n.text, "://") {
		return
	}
	service, track, onTrack := strings.Cut(n.text, "@")
	var names []string
	for _, s := range services.entries {
		names = append(names, s.name)
	}
	s, ok := find(services, service)
	if !ok {
		r.add(n, path, "there is no service "+quote(service), suggestService(r, service, names))
		return
	}
	if text(s.child("protocol"), "") == string(spillway.TCP) {
		r.add(n, path, service+" speaks tcp, and routes lead requests of HTTP", "have users reach it by listen: \":6379\"")
		return
	}
	if !onTrack || track == spillway.StableTrack { // which is always there
		return
	}
	tracks := s.child("tracks")
	if tracks == nil {
		r.add(n, path, service+" has no tracks", "write to: "+service)
	} else if _, ok := find(tracks, track); !ok {
		var known []string
		for _, t := range tracks.entries {
			known = append(known, t.name)
		}
		r.add(n, path, service+" has no track "+quote(track), "its tracks are "+strings.Join(known, ", "))
	}
}

// Warnings are what is allowed in an app file and can hardly be meant, with line and column: rules of routes that no
// request ever reaches, or that change nothing. The text is one that ParseEnvironment takes for the environment.
func Warnings(file string, text []byte, env string) spillway.FieldErrors {
	app, err := ParseEnvironment(file, text, env)
	if err != nil || len(app.Routes) == 0 {
		return nil
	}
	if env == "" {
		env = production
	}
	root := effective(read(&report{file: file}, text, fileShape()), env)
	items := listed(root.child("routes"))
	var list spillway.FieldErrors
	for i, rule := range app.Routes {
		if meant := hostMeant(app, i); meant != "" && !has(items[i], "host") {
			list = append(list, spillway.FieldError{File: file, Line: items[i].line, Column: items[i].column, Path: fmt.Sprintf("routes[%d]", i),
				Problem: fmt.Sprintf("the rule for %s changes nothing: without host it is for the hosts of %s, which gets their requests anyway", rule, rule.To[0].Service),
				Hint:    "write host: " + meant})
		}
		for j, other := range app.Routes {
			if i == j || !takesAll(other, rule, j < i) {
				continue
			}
			list = append(list, spillway.FieldError{File: file, Line: items[i].line, Column: items[i].column, Path: fmt.Sprintf("routes[%d]", i),
				Problem: fmt.Sprintf("the rule for %s never counts: that for %s in line %d takes all of its requests", rule, other, items[j].line),
				Hint:    "remove one, or make the other fit less"})
			break
		}
	}
	return list
}

// hostMeant is a host of another service, if rule i only leads to the service that has all of the rule's hosts, and no other
// rule is about these; else "".
func hostMeant(app spillway.App, i int) string {
	rule := app.Routes[i]
	if len(rule.To) != 1 || rule.To[0].Service == "" || rule.To[0].Track != "" {
		return ""
	}
	bare := spillway.HTTPRule{Hosts: rule.Hosts, Path: rule.Path, Methods: rule.Methods, Headers: rule.Headers, Query: rule.Query, Cookies: rule.Cookies, To: rule.To}
	if !reflect.DeepEqual(rule, bare) {
		return ""
	}
	var own, others []string
	for _, s := range app.Services {
		if s.Name == rule.To[0].Service {
			own = s.Host
		} else {
			others = append(others, s.Host...)
		}
	}
	if len(others) == 0 || slices.ContainsFunc(rule.Hosts, func(h string) bool { return !slices.Contains(own, h) }) {
		return ""
	}
	for j, other := range app.Routes {
		if j != i && slices.ContainsFunc(rule.Hosts, func(h string) bool { return slices.Contains(other.Hosts, h) }) {
			return ""
		}
	}
	return others[0]
}

// takesAll reports whether a rule goes before another one and fits every request that that fits.
func takesAll(by, rule spillway.HTTPRule, first bool) bool {
	if c := by.Compare(rule); c > 0 || c == 0 && !first {
		return false
	}
	among := func(few, all []spillway.FieldMatch) bool {
		return !slices.ContainsFunc(few, func(m spillway.FieldMatch) bool { return !slices.Contains(all, m) })
	}
	hosts := !slices.ContainsFunc(rule.Hosts, func(h string) bool { return !slices.Contains(by.Hosts, h) })
	methods := len(by.Methods) == 0 || len(rule.Methods) > 0 && !slices.ContainsFunc(rule.Methods, func(m string) bool { return !slices.Contains(by.Methods, m) })
	return hosts && methods && among(by.Headers, rule.Headers) && among(by.Cookies, rule.Cookies) && among(by.Query, rule.Query) && covers(by.Path, rule.Path)
}

// covers reports whether every path of b is one of a, as far as that can be told of patterns.
func covers(a, b spillway.PathMatch) bool {
	switch {
	case a == b, a.Kind == "", a.Kind == spillway.PathPrefix && a.Text == "":
		return true
	case a.Kind != spillway.PathPrefix:
		return false
	case b.Kind == spillway.PathPattern:
		anchored, ok := strings.CutPrefix(b.Text, "^")
		expression, err := regexp.Compile(anchored)
		if !ok || err != nil {
			return false
		}
		literal, _ := expression.LiteralPrefix()
		return strings.HasPrefix(literal, a.Text+"/")
	}
	return b.Kind != "" && (b.Text == a.Text || strings.HasPrefix(b.Text, a.Text+"/"))
}
