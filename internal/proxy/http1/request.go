package http1

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Refusal is why a request cannot be taken. The connection has to be closed after the answer: where the next
// request begins is not known.
type Refusal struct {
	Status int    // 400, 414, 417, 431, 501 or 505
	Reason string // a sentence without its full stop
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }

func bad(format string, args ...any) *Refusal {
	return &Refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// Request is the head of a request. Its strings share one piece of memory, which is its own.
type Request struct {
	Method string
	Host   string // of an absolute target, else of the Host header
	Target string // in origin form, as "/a?b"; or "*"
	Minor  int    // of the version HTTP/1.Minor: 0 or 1
	Fields Fields // all of them, also those about the connection
	Length int64  // of the body; 0 = there is none, -1 = it comes in chunks

	Close   bool // the client wants the connection closed after the answer
	Upgrade bool // it wants another protocol
	Expect  bool // it waits for "100 Continue"
	Named   bool // Connection names fields that go no further, beside the usual ones

	raw string // the whole head
}

// ReadRequest reads the head of the next request. It gives a *Refusal, or the error of the connection: io.EOF
// when it ended before the first byte.
func (r *Reader) ReadRequest(req *Request) error {
	n, err := r.awaitHead()
	if err != nil {
		return err
	}
	refusal := req.parse(string(r.buf[r.r : r.r+n]))
	if refusal != nil {
		return refusal
	}
	r.Discard(n)
	return nil
}

// awaitHead reads until a whole head is buffered, and gives its length. One empty line before it does not
// matter (RFC 9112, 2.2).
func (r *Reader) awaitHead() (int, error) {
	if b := r.Buffered(); len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		r.r += 2
	}
	r.Since = time.Time{}
	for first := len(r.Buffered()) < 2; ; {
		if n := r.head(); n > 0 {
			if n > MaxHead {
				return 0, &Refusal{http.StatusRequestHeaderFieldsTooLarge, ErrFull.Error()}
			}
			return n, nil
		}
		if r.Since.IsZero() && len(r.Buffered()) > 0 {
			if r.Since = time.Now(); r.Begun != nil {
				r.Begun()
			}
		}
		err := r.Fill()
		switch {
		case err == ErrFull:
			return 0, r.tooLarge()
		case err != nil && len(r.Buffered()) > 0:
			return 0, noEOF(err)
		case err != nil:
			return 0, err
		}
		if b := r.Buffered(); first && len(b) >= 2 {
			first = false
			if b[0] == '\r' && b[1] == '\n' {
				r.r += 2
			}
		}
	}
}

// tooLarge refuses a head, by what it is that is too large.
func (r *Reader) tooLarge() *Refusal {
	if !strings.Contains(string(r.Buffered()), "\n") {
		return &Refusal{http.StatusRequestURITooLong, "the request line is longer than 16 KiB"}
	}
	return &Refusal{http.StatusRequestHeaderFieldsTooLarge, ErrFull.Error()}
}

// parse reads a whole head.
func (r *Request) parse(head string) *Refusal {
	*r = Request{Fields: r.Fields[:0], raw: head}
	line, rest, refusal := cutLine(head)
	if refusal == nil {
		refusal = r.parseLine(line)
	}
	if refusal == nil {
		r.Fields, refusal = parseFields(r.Fields, rest)
	}
	if refusal == nil {
		refusal = r.parseFraming()
	}
	return refusal
}

// cutLine cuts off the first line, whose end is CR LF.
func cutLine(text string) (line, rest string, refusal *Refusal) {
	i := strings.IndexByte(text, '\n')
	if i < 1 || text[i-1] != '\r' {
		return "", "", bad("a line of the head ends without CR LF")
	}
	return text[:i-1], text[i+1:], nil
}

// parseLine reads the request line: three parts with one space between.
func (r *Request) parseLine(line string) *Refusal {
	method, rest, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	switch {
	case !ok || !ok2 || !isToken(method):
		return bad("the request line is not METHOD TARGET HTTP/1.1")
	case len(method) > 64:
		return &Refusal{http.StatusNotImplemented, "the method is longer than 64 characters"}
	case version == "HTTP/1.1":
		r.Minor = 1
	case version == "HTTP/1.0":
	case len(version) == 8 && version[:5] == "HTTP/" && isDigit(version[5]) && version[6] == '.' && isDigit(version[7]):
		return &Refusal{http.StatusHTTPVersionNotSupported, "the version " + version + " is not spoken here"}
	default:
		return bad("the request line does not end with a version like HTTP/1.1")
	}
	r.Method = method
	return r.parseTarget(target)
}

// parseTarget reads a target in origin form, in absolute form or, for OPTIONS, "*". The target of CONNECT is
// left as it is: nobody here serves it.
func (r *Request) parseTarget(target string) *Refusal {
	if len(target) > MaxTarget {
		return &Refusal{http.StatusRequestURITooLong, "the target is longer than 16 KiB"}
	}
	if refusal := checkBytes(target); refusal != nil {
		return refusal
	}
	r.Target = target
	switch {
	case r.Method == http.MethodConnect:
		r.Host, r.Target = target, "*"
	case target == "*" && r.Method == http.MethodOptions:
	case strings.HasPrefix(target, "/"):
	default:
		return r.parseAbsolute(target)
	}
	return nil
}

func checkBytes(target string) *Refusal {
	path := true
	for i := range len(target) {
		switch c := target[i]; {
		case c <= ' ' || c >= 0x7f || c == '#':
			return bad("the target has a character that belongs there only percent-encoded")
		case c == '?':
			path = false
		case c == '\\' && path:
			return bad("the path has a backslash")
		case c == '%' && path && !isEscape(target[i+1:]):
			return bad("the path has a percent sign that begins no character")
		}
	}
	return nil
}

// isEscape reports whether two hexadecimal digits follow, of another byte than NUL.
func isEscape(rest string) bool {
	return len(rest) >= 2 && HexDigit(rest[0]) >= 0 && HexDigit(rest[1]) >= 0 && rest[:2] != "00"
}

// CheckTarget refuses what another reader has let through and a Reader would not have: method, target in
// origin form, and host of a request.
func CheckTarget(method, target, host string) *Refusal {
	switch {
	case !isToken(method):
		return bad("the method has a character that cannot be in a method")
	case len(target) > MaxTarget:
		return &Refusal{http.StatusRequestURITooLong, "the target is longer than 16 KiB"}
	case !strings.HasPrefix(target, "/") && target != "*":
		return bad("the target is not a path")
	case !IsHost(host):
		return bad("the request does not name a host")
	}
	return checkBytes(target)
}

// parseAbsolute reads a target in absolute form: its host is the one that counts.
func (r *Request) parseAbsolute(target string) *Refusal {
	scheme, rest, ok := strings.Cut(target, "://")
	if !ok || !equalFold(scheme, "http") && !equalFold(scheme, "https") {
		return bad("the target is neither a path nor a URL")
	}
	i := strings.IndexAny(rest, "/?")
	if i < 0 {
		i = len(rest)
	}
	if r.Host, r.Target = rest[:i], rest[i:]; r.Host == "" {
		return bad("the target does not name a host")
	}
	if !strings.HasPrefix(r.Target, "/") {
		r.Target = "/" + r.Target
	}
	if r.Method == http.MethodOptions && r.Target == "/" && i == len(rest) {
		r.Target = "*"
	}
	return nil
}

// parseFields reads header lines up to the empty one at their end.
func parseFields(fields Fields, text string) (Fields, *Refusal) {
	for {
		line, rest, refusal := cutLine(text)
		if refusal != nil {
			return fields, refusal
		}
		if line == "" {
			return fields, nil
		}
		if len(fields) == MaxFields {
			return fields, &Refusal{http.StatusRequestHeaderFieldsTooLarge, "the header has more than 128 lines"}
		}
		f, refusal := parseField(line)
		if refusal != nil {
			return fields, refusal
		}
		fields, text = append(fields, f), rest
	}
}

func parseField(line string) (Field, *Refusal) {
	i := strings.IndexByte(line, ':')
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return Field{}, bad("a header line begins with white space")
	case i < 0:
		return Field{}, bad("a header line has no colon")
	case !isToken(line[:i]):
		return Field{}, bad("the name of a header field has a character that cannot be in a name")
	}
	f := Field{line[:i], trim(line[i+1:])}
	if !isValue(f.Value) {
		return Field{}, bad("the value of the header field %s has a control character", f.Name)
	}
	return f, nil
}

// parseFraming reads what the header says about the message and the connection. What two readers could take
// for two things is refused.
func (r *Request) parseFraming() *Refusal {
	hosts, lengths, codings := 0, 0, 0
	var coding, host string
	keepAlive := false
	for i := range r.Fields {
		f := &r.Fields[i]
		switch len(f.Name) {
		case 4:
			if equalFold(f.Name, "Host") {
				hosts, host = hosts+1, f.Value
			}
		case 6:
			if equalFold(f.Name, "Expect") {
				if !equalFold(f.Value, "100-continue") {
					return &Refusal{http.StatusExpectationFailed, "the only expectation that can be met is 100-continue"}
				}
				r.Expect = true
			}
		case 10:
			if equalFold(f.Name, "Connection") {
				keepAlive = r.parseConnection(f.Value) || keepAlive
			}
		case 14:
			if equalFold(f.Name, "Content-Length") {
				n, ok := ParseLength(f.Value)
				if lengths++; !ok || lengths > 1 {
					return bad("Content-Length is not one number")
				}
				r.Length = n
			}
		case 17:
			if equalFold(f.Name, "Transfer-Encoding") {
				codings, coding = codings+1, f.Value
			}
		}
	}
	r.Close = r.Close || r.Minor == 0 && !keepAlive
	r.Upgrade = r.Upgrade && r.Fields.Upgrades()
	switch {
	case codings == 0:
	case lengths > 0:
		return bad("Content-Length and Transfer-Encoding contradict each other")
	case r.Minor == 0:
		return bad("HTTP/1.0 has no Transfer-Encoding")
	case codings > 1:
		return bad("there are two Transfer-Encodings")
	case !equalFold(coding, "chunked"):
		return refuseCoding(coding)
	default:
		r.Length = InChunks
	}
	if r.Method == http.MethodTrace && r.Length != 0 {
		return bad("TRACE has no body")
	}
	return r.checkHost(hosts, host)
}

// refuseCoding: a body whose last coding is not chunked has no end; others could be, but nobody here can
// undo them.
func refuseCoding(coding string) *Refusal {
	last := coding[strings.LastIndexByte(coding, ',')+1:]
	if equalFold(trim(last), "chunked") && !strings.Contains(strings.ToLower(coding[:len(coding)-len(last)]), "chunked") {
		return &Refusal{http.StatusNotImplemented, "the only Transfer-Encoding that is understood is chunked"}
	}
	return bad("the Transfer-Encoding is not chunked")
}

// parseConnection reads a value of Connection, and reports whether the client asks for keep-alive.
func (r *Request) parseConnection(list string) (keepAlive bool) {
	for t := range Tokens(list) {
		switch {
		case equalFold(t, "close"):
			r.Close = true
		case equalFold(t, "keep-alive"):
			keepAlive = true
		case equalFold(t, "upgrade"):
			r.Upgrade = true
		case t != "":
			r.Named = true
		}
	}
	return keepAlive
}

// checkHost: a request has one host, and says nothing else somewhere else.
func (r *Request) checkHost(hosts int, host string) *Refusal {
	switch {
	case hosts > 1:
		return bad("there are two Host fields")
	case hosts == 0 && r.Minor == 1:
		return bad("there is no Host field")
	case hosts == 1 && !IsHost(host):
		return bad("the Host field is not the name or address of a host")
	case r.Host == "":
		r.Host = host
	case !IsHost(r.Host) && r.Method != http.MethodConnect:
		return bad("the target does not name a host")
	case hosts == 1 && !equalFold(r.Host, host) && r.Method != http.MethodConnect:
		return bad("the target and the Host field name two hosts")
	}
	return nil
}
