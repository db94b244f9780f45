package appfile

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// maxRoutes bounds the rules of one app: a table with all of them is sent at every change.
const maxRoutes = 1000

// Defaults of the keys in this file that the root package does not name.
const (
	defaultRedirect = 302
	defaultCORSAge  = spillway.Duration(5 * time.Second)
	defaultPer      = spillway.Duration(time.Second)
)

// The patterns of the values of a rule.
var (
	wildHost     = regexp.MustCompile(`^(\*\.)?` + strings.TrimPrefix(hostName.String(), "^"))
	routePath    = regexp.MustCompile(`^(/|(/[A-Za-z0-9._~!$&'()+,;=:@%/-]*)?/\*|/[A-Za-z0-9._~!$&'()+,;=:@%/-]*|~ *[^ ].*)$`)
	plainPath    = regexp.MustCompile(`^(/|(/[A-Za-z0-9._~!$&'()+,;=:@%/-]*)?/\*|/[A-Za-z0-9._~!$&'()+,;=:@%/-]*)$`)
	methodName   = regexp.MustCompile("^[A-Z0-9!#$%&'*+.^_`|~-]+$")
	fieldName    = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	fieldValue   = regexp.MustCompile(`^([!-~]([ -~\t]*[!-~])?)?$`)
	queryRule    = regexp.MustCompile(`^([^=&#\s]+)=(.+)$`)
	targetText   = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?(@[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?)?|https?://[^\s/?#@]+[^\s?#]*)$`)
	redirectText = regexp.MustCompile(`^((https?:)?//[^/?#@\s]+)?((/[A-Za-z0-9._~!$&'()+,;=:@%/-]*)?/\*|/[A-Za-z0-9._~!$&'()+,;=:@%/-]*)?$`)
	originText   = regexp.MustCompile(`^(\*|https?://(\*\.)?[a-z0-9.-]+(:[0-9]{1,5})?)$`)
	hashText     = regexp.MustCompile(`^(\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}|sha256:[0-9a-f]{64})$`)
	userName     = regexp.MustCompile(`^[!-9;-~]+$`)
	badEscape    = regexp.MustCompile(`%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)`)
	dotSegment   = regexp.MustCompile(`(?i)/(\.|%2e)(\.|%2e)?(/|$)`)
)

// routesKey is the key of the rules.
func routesKey() key {
	return key{name: "routes", example: "[{host: shop.example.com, path: /api/*, to: web}]", shape: fewShape{listShape{routeShape()}, maxRoutes},
		doc: "Rules for requests that the hosts and tracks of services do not say enough about. The most specific rule that fits a request counts, as in the Gateway API: exact host, longest wildcard; exact path, longest prefix, pattern, any path (/* or none); method; headers and cookies; query; the first of the file."}
}

func routeShape() objectShape {
	return objectShape{name: "a mapping with at least to: SERVICE or redirect: URL", keys: slices.Concat(matchKeys(), actionKeys(), guardKeys())}
}

// matchKeys say which requests a rule is about.
func matchKeys() []key {
	return []key{
		{name: "host", example: "shop.example.com", shape: anyShape{wildHostText(), listShape{wildHostText()}},
			doc: "The hosts of the requests: shop.example.com, or *.example.com for all below one. Without it, the hosts of the service in to; where that has none, of all services."},
		{name: "path", example: "/api/*", shape: pathMatchText(),
			doc: "The path: /x is exactly that, /x/* is /x and all below it, ~ EXPRESSION is what the regular expression (RE2) finds. Without it, any, as /*."},
		{name: "method", example: "POST", shape: anyShape{methodText(), listShape{methodText()}}, doc: "The method, or several of which one is enough."},
		{name: "header", example: "X-Beta=1", shape: fieldShape("header", headerRule),
			doc: "Headers that a request must all carry: NAME=VALUE, NAME=* for any value, NAME=~EXPRESSION."},
		{name: "cookie", example: "beta=1", shape: fieldShape("cookie", cookieRule), doc: "Cookies that a request must all carry, written as headers are."},
		{name: "query", example: "page=1", shape: fieldShape("query parameter", queryRule), doc: "Parameters that the query must all have, written as headers are."},
	}
}

// actionKeys say what becomes of the requests.
func actionKeys() []key {
	return []key{
		{name: "to", example: "web", shape: anyShape{targetShape(), listShape{anyShape{baseURL(), weightedShape()}}},
			doc: "Where they go: a service, SERVICE@TRACK for one of its tracks, SERVICE@stable for what no track has, the URL of a server that Spillway does not run, or a list of such URLs. Or a list of {to, weight}: each user stays with one."},
		{name: "redirect", example: "https://shop.example.com/new", shape: anyShape{redirectToText(), redirectShape()},
			doc: "The client is sent there instead: a URL, or a path. /new/* at its end stands for what follows the prefix of path."},
		{name: "rewrite", example: "/v2/*", shape: anyShape{plainPathText(), rewriteShape()},
			doc: "The path that the service is asked for: /x, or /x/* instead of the prefix of path; or a mapping with path and host."},
		{name: "request-headers", example: "{set: {X-Tier: gold}, remove: [X-Debug]}", shape: editShape(), doc: "Changes of the header that the service gets."},
		{name: "response-headers", example: "{set: {Cache-Control: no-store}}", shape: editShape(), doc: "Changes of the header of the answer."},
		{name: "cors", example: `{origins: ["https://shop.example.com"]}`, shape: corsShape(), doc: "Which other sites' pages may ask. Preflight requests are answered by the proxy."},
		{name: "mirror", example: "{to: shadow, share: 10%}", shape: anyShape{targetShape(), mirrorShape(), listShape{mirrorShape()}},
			doc: "Who gets a copy of the requests. The answers are thrown away. No copy is made of a request whose body is larger than 64 KiB, nor while 128 copies are under way; the metric spillway_proxy_mirror_skipped_total counts those."},
	}
}

// guardKeys bound what a request may take and who may make it.
func guardKeys() []key {
	return []key{
		{name: "timeout", example: "10s", shape: durationShape{time.Millisecond, day}, doc: "The longest time until the answer is whole."},
		{name: "retries", example: "2", shape: wholeShape{"a number of attempts", 0, 10}, doc: "How many further attempts a request that may be repeated has, each at another replica or server: with one alone there is no further attempt. 0 is none."},
		{name: "max-body", example: "10Mi", shape: amountShape{"an amount of bytes like 10Mi", memoryAmount, parseBody}, doc: "The largest body of a request."},
		{name: "rate", example: "{requests: 10, per: 1s, burst: 20}", shape: rateShape(), doc: "How many requests one client may make; more are answered 429."},
		{name: "users", example: "{ann: $2y$10$…}", shape: usersShape(), doc: "Who may come in by basic authentication: names and hashes of passwords, as htpasswd -nB prints them, or sha256: and 64 hexadecimal digits of the SHA-256 of a long random one."},
		{name: "allow", example: "[10.0.0.0/8]", shape: anyShape{networkText(), listShape{networkText()}}, doc: "Networks or addresses whose clients may come in; others are answered 403."},
	}
}

// wildHostText is the name of a host, or of all below one.
func wildHostText() textShape {
	exact := hostText()
	return textShape{name: "a host name", pattern: wildHost, problem: func(text string) (string, string) {
		below, wild := strings.CutPrefix(text, "*.")
		if strings.Contains(below, "*") {
			return quote(text) + " has a * that is not its whole first label", "write *.example.com for all hosts below one"
		}
		problem, hint := exact.problem(below)
		if wild && problem != "" {
			return quote(text) + " is not a * before a host name", "write *.example.com for all hosts below one"
		}
		return problem, hint
	}}
}

// pathMatchText is what a path has to be.
func pathMatchText() textShape {
	plain := plainPathText()
	return textShape{name: "a path like /x, /x/* or ~ ^/x$", pattern: routePath, problem: func(text string) (string, string) {
		if pattern, ok := strings.CutPrefix(text, "~"); ok {
			return badPattern(strings.TrimSpace(pattern))
		}
		return plain.problem(text)
	}}
}

// plainPathText is a path or a prefix.
func plainPathText() textShape {
	return textShape{name: "a path like /x or /x/*", pattern: plainPath, problem: func(text string) (string, string) {
		before := strings.TrimSuffix(text, "/*")
		switch {
		case !strings.HasPrefix(text, "/"):
			return quote(text) + " does not begin with /", "write /" + strings.TrimLeft(text, "~ ")
		case strings.Contains(before, "*"):
			return quote(text) + " has a * that does not follow its last /", "write " + strings.TrimRight(before, "*") + "/* for all below, or ~ and a regular expression"
		case strings.ContainsAny(text, "?#"):
			return quote(text) + " has a query or fragment", "write the parameters under query"
		case badEscape.MatchString(text):
			return quote(text) + " has a % without two hexadecimal digits behind it", "write %25 for a %"
		case dotSegment.MatchString(before):
			return quote(text) + " has a segment . or .., which no request has when rules look at it", "write the path that it leads to"
		}
		return "", ""
	}}
}

// badPattern says what is wrong with a regular expression.
func badPattern(text string) (problem, hint string) {
	if text == "" {
		return "the pattern is empty", "write ~ ^/v[0-9]+/"
	}
	if _, err := regexp.Compile(text); err != nil {
		return quote(text) + " is no regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "), "the syntax is that of RE2, without lookahead and backreferences"
	}
	return "", ""
}

func methodText() textShape {
	return textShape{name: "a method like POST", pattern: methodName, problem: func(text string) (string, string) {
		if upper := strings.ToUpper(text); upper != text && methodName.MatchString(upper) {
			return quote(text) + " is not written as methods are", "write " + upper
		}
		return "", ""
	}}
}

// fieldShape is what a request must carry.
func fieldShape(kind string, pattern *regexp.Regexp) shape {
	pattern = regexp.MustCompile(`^([^=\s]+=~.+|` + strings.TrimSuffix(strings.TrimPrefix(pattern.String(), "^"), "$") + `)$`)
	rule := textShape{name: "a " + kind + " as NAME=VALUE", pattern: pattern, problem: func(text string) (string, string) {
		name, value, ok := strings.Cut(text, "=")
		switch expression, isPattern := strings.CutPrefix(value, "~"); {
		case ok && value == "" && name != "":
			return quote(text) + " has no value", "write " + text + "VALUE, or " + text + "* for any"
		case ok && isPattern:
			return badPattern(expression)
		}
		return "", ""
	}}
	return anyShape{rule, listShape{rule}}
}

// targetShape is somebody who gets requests.
func targetShape() textShape {
	return textShape{name: "a service, SERVICE@TRACK or a URL", pattern: targetText, problem: func(text string) (string, string) {
		if strings.Contains(text, "://") {
			return baseURL().problem(text)
		}
		return "", ""
	}}
}

func weightedShape() objectShape {
	return objectShape{name: "a mapping with to and weight", keys: []key{
		{name: "to", required: true, example: "web", shape: anyShape{targetShape(), listShape{baseURL()}}, doc: "A service, SERVICE@TRACK, a URL, or a list of URLs."},
		{name: "weight", required: true, example: "90", shape: wholeShape{"a weight", 0, 1_000_000}, doc: "Its part of the sum of all weights; 0 is nobody."},
	}}
}

// redirectToText is where a client is sent.
func redirectToText() textShape {
	return textShape{name: "a URL, or a path like /x or /x/*", pattern: redirectText, problem: func(text string) (string, string) {
		switch _, err := redirectTo(text); {
		case text == "":
			return "is empty", "write a URL like https://shop.example.com, or a path"
		case strings.ContainsAny(text, "?#"):
			return quote(text) + " has a query or fragment: the query of the request is kept", "remove what begins with ? or #"
		case err != nil:
			return err.Error(), ""
		}
		if i := strings.Index(text, "/*"); i >= 0 && i < len(text)-2 {
			return quote(text) + " has a * that is not at its end", ""
		}
		return "", ""
	}}
}

func redirectShape() objectShape {
	return objectShape{name: "a mapping with to and status", keys: []key{
		{name: "to", example: "https://shop.example.com/new", shape: redirectToText(), doc: "A URL or a path; what it leaves out stays as it was asked for."},
		{name: "scheme", example: "https", shape: choiceShape{"http", "https"}, doc: "Only the scheme changes."},
		{name: "status", example: "308", value: defaultRedirect, shape: statusShape{wholeShape{"a status", 301, 308}}, doc: "301, 302, 303, 307 or 308."},
	}}
}

// statusShape is the status of a redirect.
type statusShape struct{ wholeShape }

func (s statusShape) check(r *report, n *node, path, hint string) {
	if !slices.Contains([]string{"301", "302", "303", "307", "308"}, n.text) {
		r.add(n, path, n.text+" is no status of a redirect", "write 308 for good, 307 for now, or 301, 302, 303 for clients that may ask again by GET")
	}
}

func (s statusShape) schema() map[string]any {
	return map[string]any{"enum": []int{301, 302, 303, 307, 308}}
}

func rewriteShape() objectShape {
	return objectShape{name: "a mapping with path and host", keys: []key{
		{name: "path", example: "/v2/*", shape: plainPathText(), doc: "The path: /x, or /x/* instead of the prefix of the rule's path."},
		{name: "host", example: "old.example.com", shape: hostText(), doc: "The host that the service is asked for."},
	}}
}

func editShape() objectShape {
	fields := dictShape{name: "a mapping of headers", keyName: "a header's name", pattern: fieldName, keyHint: "use letters, digits and -",
		problem: reservedField, of: anyShape{textShape{name: "the value of a header", pattern: fieldValue}, literalShape{}}, data: true, example: "x", min: 1, max: 50}
	name := textShape{name: "a header's name", pattern: fieldName, problem: reservedField}
	return objectShape{name: "a mapping with set, add and remove", keys: []key{
		{name: "set", example: "{X-Tier: gold}", shape: fields, doc: "Headers that have this value then, whatever they had."},
		{name: "add", example: "{X-Tier: gold}", shape: fields, doc: "Headers that have this value too."},
		{name: "remove", example: "[X-Debug]", shape: listShape{name}, doc: "Headers that are not there then."},
	}}
}

// reservedField says that a header is about one connection, or about the body, and not a rule's to change.
func reservedField(name string) (problem, hint string) {
	switch lower := strings.ToLower(name); {
	case strings.HasPrefix(lower, "x-spillway-") || strings.HasPrefix(lower, "x-forwarded-"):
		return quote(name) + " is the proxy's own", "remove it"
	}
	switch strings.ToLower(name) {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "trailer", "upgrade", "content-length":
		return quote(name) + " says how a message is sent, which the proxy decides", "remove it"
	case "host":
		return quote(name) + " is not changed like other headers", "write rewrite: {host: other.example.com}"
	}
	return "", ""
}

func corsShape() objectShape {
	name := textShape{name: "a header's name, or *", pattern: fieldName}
	return objectShape{name: "a mapping with at least origins", keys: []key{
		{name: "origins", required: true, example: `["https://shop.example.com"]`, shape: listShape{textShape{name: "an origin like https://shop.example.com, https://*.example.com or *", pattern: originText}},
			doc: "The sites whose pages may ask."},
		{name: "methods", example: "[PUT, DELETE]", shape: listShape{methodText()}, doc: `Methods besides GET, HEAD and POST; "*" is all.`},
		{name: "headers", example: "[X-Token]", shape: listShape{name}, doc: `Headers that requests may have; "*" is all.`},
		{name: "expose", example: "[X-Total]", shape: listShape{name}, doc: "Headers of the answer that pages may read."},
		{name: "credentials", example: "true", value: false, shape: boolShape{}, doc: "Requests may come with cookies."},
		{name: "age", example: "10m", value: defaultCORSAge.String(), shape: durationShape{0, day}, doc: "How long a browser may remember the answer to a preflight request."},
	}}
}

func mirrorShape() objectShape {
	return objectShape{name: "a mapping with to and share", keys: []key{
		{name: "to", required: true, example: "shadow", shape: anyShape{targetShape(), listShape{baseURL()}}, doc: "A service, SERVICE@TRACK, a URL, or a list of URLs."},
		{name: "share", example: "10%", value: "100%", shape: textShape{name: `a share like "25%"`, pattern: shareText, problem: tooMuch}, doc: "The share of the requests."},
	}}
}

func rateShape() objectShape {
	return objectShape{name: "a mapping with requests and per", keys: []key{
		{name: "requests", required: true, example: "10", shape: wholeShape{"a number of requests", 1, 1_000_000}, doc: "How many requests."},
		{name: "per", example: "1s", value: defaultPer.String(), shape: durationShape{time.Second, day}, doc: "In this time."},
		{name: "burst", example: "20", shape: wholeShape{"a number of requests", 1, 1_000_000}, doc: "How many may come at once after a pause; as many as requests when it is not there."},
		{name: "by", example: "header X-Api-Key", shape: keySourceText(), doc: "What tells clients apart: header NAME or cookie NAME. Without it, and for requests that do not carry it, their address; of IPv6 its /64."},
	}}
}

func usersShape() dictShape {
	hash := textShape{name: "a hash like $2y$10$… of htpasswd -nB, or sha256:…", pattern: hashText, problem: func(text string) (string, string) {
		if hashText.MatchString(text) {
			return "", ""
		}
		return "is no hash of a password that Spillway knows", "write what htpasswd -nB NAME prints behind the colon; a password itself never belongs here"
	}}
	return dictShape{name: "a mapping of users", keyName: "a user's name", pattern: userName, keyHint: "use letters and digits, without colon", of: hash, data: true, example: "$2y$10$…", min: 1, max: 1000}
}

// networkText is a network, or one address.
func networkText() textShape {
	return textShape{name: "a network like 10.0.0.0/8", pattern: filled, problem: func(text string) (string, string) {
		if _, err := netip.ParseAddr(text); err == nil {
			return "", ""
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return quote(text) + " is neither a network nor an address", "write 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1"
		case p.Masked() != p:
			return quote(text) + " has bits behind its length", fmt.Sprintf("write %s", p.Masked())
		}
		return "", ""
	}}
}

// parseBody says what is wrong with the largest body of requests.
func parseBody(text string) string {
	if v, err := spillway.ParseBytes(text); err != nil || v < 1 {
		return text + " is no amount of bytes that a body can have"
	}
	return ""
}
