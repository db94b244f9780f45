package proxy

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// instant is an answer of the proxy's own to a request that nobody else is asked about.
type instant struct {
	status int
	reason string       // for a page that says why; "" = there is no page
	header http1.Fields // besides those of every answer
}

// instant is the answer of a way that does not let a request through, or has no need to; nil = go on. The order is:
// who may come at all, what browsers ask beforehand, how often, who it is, and then what is wanted.
func (w *way) instant(c *call, now time.Time) *instant {
	if !w.stops {
		return nil
	}
	if w.veils != nil {
		return w.no(http.StatusBadRequest, fmt.Sprintf("a server may take this path for %s, which only some may ask for; ask for that, without // and %%2F", shortened(w.reading)))
	}
	if w.allow != nil && !w.allows(c.client) {
		return w.no(http.StatusForbidden, "clients from "+c.client.String()+" may not come in here")
	}
	if cors := w.rule.CORS; cors != nil && preflight(c) != "" {
		return &instant{status: http.StatusNoContent, header: corsFields(cors, c)}
	}
	if w.limiter != nil {
		if wait := w.limiter.take(w.limiter.client(w.app.ref, c), now); wait > 0 {
			no := w.no(http.StatusTooManyRequests, fmt.Sprintf("more than %d requests in %s of this client", w.rule.Rate.Requests, w.rule.Rate.Per))
			no.header = append(no.header, http1.Field{Name: "Retry-After", Value: strconv.Itoa(int(math.Ceil(wait.Seconds())))})
			return no
		}
	}
	if w.users != nil {
		open, crowded := w.users.opens(c)
		switch {
		case crowded:
			no := w.no(http.StatusTooManyRequests, "too many passwords are being looked at")
			no.header = http1.Fields{{Name: "Retry-After", Value: "1"}}
			return no
		case !open:
			no := w.no(http.StatusUnauthorized, "a name and a password are needed")
			no.header = http1.Fields{{Name: "WWW-Authenticate", Value: `Basic realm="` + w.host + `", charset="UTF-8"`}}
			return no
		}
	}
	if w.maxBody > 0 && c.length > w.maxBody {
		return w.no(http.StatusRequestEntityTooLarge, fmt.Sprintf("a body of %d bytes is larger than %s", c.length, w.rule.MaxBody))
	}
	if w.rule.Redirect != nil {
		return w.redirect(c)
	}
	return nil
}

// shortened is a path as a reason has it.
func shortened(path string) string {
	const most = 100
	if len(path) > most {
		return path[:most] + "…"
	}
	return path
}

// no refuses a request with a page that names the route.
func (w *way) no(status int, reason string) *instant {
	return &instant{status: status, reason: "route " + w.rule.String() + ": " + reason}
}

func (w *way) allows(client netip.Addr) bool {
	client = client.Unmap().WithZone("")
	return slices.ContainsFunc(w.allow, func(p netip.Prefix) bool { return p.Contains(client) })
}

// redirect sends the client elsewhere. The port goes with the scheme: one that is the usual one is not written.
func (w *way) redirect(c *call) *instant {
	r := w.rule.Redirect
	scheme, host, port := cmp.Or(r.Scheme, c.scheme()), cmp.Or(r.Host, c.name), ""
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	switch {
	case r.Port != 0:
		port = strconv.Itoa(r.Port)
	case r.Scheme == "": // where it came to, whichever host it is sent to: as the Gateway API has it
		port = portOf(c.host)
	}
	if port != "" && !(scheme == "http" && port == "80") && !(scheme == "https" && port == "443") {
		host += ":" + port
	}
	location := scheme + "://" + host + w.moved(c, r.Path, r.Prefix)
	if c.query != "" {
		location += "?" + c.query
	}
	return &instant{status: r.Status, header: http1.Fields{{Name: "Location", Value: location}}}
}

// portOf is the port in a Host header; "" when there is none.
func portOf(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.IndexByte(host[i:], ']') >= 0 || strings.Count(host, ":") > 1 && !strings.Contains(host, "]") {
		return ""
	}
	return host[i+1:]
}

// moved is the path of a request with a whole other path, or with its prefix replaced.
func (w *way) moved(c *call, path, prefix string) string {
	switch {
	case path != "":
		return path
	case prefix == "":
		return c.path
	}
	rest := strings.TrimPrefix(normalPath(c.path), normalPath(w.rule.Path.Text))
	if prefix == "/" {
		prefix = ""
	}
	if prefix+rest == "" {
		return "/"
	}
	if rest != "" && rest[0] != '/' { // of any path
		rest = "/" + rest
	}
	return prefix + rest
}

// outbound is the call as the service gets it: c itself when nothing about it changes.
func (w *way) outbound(c *call) *call {
	path := c.path
	if rewrite := w.rule.Rewrite; rewrite != nil && strings.HasPrefix(path, "/") {
		path = w.moved(c, rewrite.Path, rewrite.Prefix)
	}
	if !w.changes && path == c.path {
		return c
	}
	next, host, target := *c, c.host, path
	if w.rule.Rewrite != nil && w.rule.Rewrite.Host != "" {
		host = w.rule.Rewrite.Host
	}
	if strings.Contains(c.target, "?") {
		target += "?" + c.query
	}
	next.aim(host, target)
	if edit := w.rule.Request; edit != nil {
		next.header = edited(unedited(c.header, edit), edit)
		if c.trailer != nil {
			next.trailer = func() http1.Fields { return unedited(c.trailer(), edit) }
		}
	}
	return &next
}

// answered is the header of an answer as the client gets it.
func (w *way) answered(c *call, h http1.Fields) http1.Fields {
	if !w.replies {
		return h
	}
	if cors := w.rule.CORS; cors != nil {
		own := corsFields(cors, c)
		h = slices.DeleteFunc(slices.Clone(h), func(f http1.Field) bool {
			return len(f.Name) > 15 && strings.EqualFold(f.Name[:15], "Access-Control-")
		})
		h = append(h, own...)
	}
	if w.rule.Response != nil {
		h = edited(h, w.rule.Response)
	}
	return h
}

// edited is a header with what an edit removes, sets and adds. The header given is not changed.
func edited(h http1.Fields, edit *spillway.HeaderEdit) http1.Fields {
	next := make(http1.Fields, 0, len(h)+len(edit.Set)+len(edit.Add))
	for _, f := range h {
		if !edits(edit, f.Name) {
			next = append(next, f)
		}
	}
	for _, f := range slices.Concat(edit.Set, edit.Add) {
		next = append(next, http1.Field{Name: f.Name, Value: f.Value})
	}
	return next
}

// preflight is the method that a browser asks about before it uses it; "" when the request is none of that kind.
func preflight(c *call) string {
	if c.method != http.MethodOptions || !c.header.Has("Origin") {
		return ""
	}
	return c.header.Get("Access-Control-Request-Method")
}

// corsFields are the fields that tell a browser whether the page may ask: those of a preflight request when it is one,
// and else those of the answer. A page that may not gets none of them.
func corsFields(cors *spillway.CORS, c *call) http1.Fields {
	var fields http1.Fields
	add := func(name, value string) { fields = append(fields, http1.Field{Name: name, Value: value}) }
	add("Vary", "Origin")
	origin := c.header.Get("Origin")
	if origin == "" || !allowsOrigin(cors, origin) {
		return fields
	}
	if slices.Contains(cors.Origins, "*") && !cors.Credentials {
		add("Access-Control-Allow-Origin", "*")
	} else {
		add("Access-Control-Allow-Origin", origin)
	}
	if cors.Credentials {
		add("Access-Control-Allow-Credentials", "true")
	}
	asked := preflight(c)
	if asked == "" {
		if len(cors.Expose) > 0 {
			add("Access-Control-Expose-Headers", strings.Join(cors.Expose, ", "))
		}
		return fields
	}
	methods := []string{"GET", "HEAD", "POST"}
	for _, method := range cors.Methods {
		if !slices.Contains(methods, method) {
			methods = append(methods, method)
		}
	}
	if slices.Contains(cors.Methods, "*") {
		methods = []string{asked} // with credentials a * is only a name
	}
	add("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	switch names := c.header.Get("Access-Control-Request-Headers"); {
	case slices.Contains(cors.Headers, "*") && names != "":
		add("Access-Control-Allow-Headers", names)
	case len(cors.Headers) > 0:
		add("Access-Control-Allow-Headers", strings.Join(cors.Headers, ", "))
	}
	add("Access-Control-Max-Age", strconv.Itoa(int(time.Duration(cors.Age).Seconds())))
	return fields
}

// allowsOrigin reports whether pages of an origin may ask. "https://*.example.com" is any name below example.com.
func allowsOrigin(cors *spillway.CORS, origin string) bool {
	return slices.ContainsFunc(cors.Origins, func(allowed string) bool {
		if scheme, below, ok := strings.Cut(allowed, "://*."); ok {
			name, under := strings.CutSuffix(origin, "."+below)
			return under && strings.HasPrefix(name, scheme+"://") && len(name) > len(scheme)+3
		}
		return allowed == "*" || allowed == origin
	})
}
