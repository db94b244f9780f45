package http1

import (
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// TestReadRequest_ReadsAllThatAHeadSays compares every field of a request.
func TestReadRequest_ReadsAllThatAHeadSays(t *testing.T) {
	host := Field{"Host", "a"}
	for head, want := range map[string]Request{
		"GET /a%20b?c=%zz\\ HTTP/1.1\r\nHost: a\r\n\r\n": {Method: "GET", Host: "a", Target: "/a%20b?c=%zz\\", Minor: 1, Fields: Fields{host}},
		"\r\nM-SEARCH // HTTP/1.1\r\nhOST:\t[::1]:80 \r\n\r\n": {
			Method: "M-SEARCH", Host: "[::1]:80", Target: "//", Minor: 1, Fields: Fields{{"hOST", "[::1]:80"}},
		},
		"GET / HTTP/1.0\r\n\r\n":             {Method: "GET", Target: "/", Close: true},
		"GET / HTTP/1.0\r\nHost: a\r\n\r\n":  {Method: "GET", Host: "a", Target: "/", Close: true, Fields: Fields{host}},
		"GET / HTTP/1.1\r\nHost: a:\r\n\r\n": {Method: "GET", Host: "a:", Target: "/", Minor: 1, Fields: Fields{{"Host", "a:"}}},
		"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n": {
			Method: "GET", Target: "/", Fields: Fields{{"Connection", "Keep-Alive"}},
		},
		"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n": {
			Method: "GET", Target: "/", Close: true, Fields: Fields{{"Connection", "keep-alive, close"}},
		},
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: , CLOSE\t,\r\n\r\n": {
			Method: "GET", Host: "a", Target: "/", Minor: 1, Close: true, Fields: Fields{host, {"Connection", ", CLOSE\t,"}},
		},
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A:\r\nx-a: \xff b\t\r\n\r\n": {
			Method: "GET", Host: "a", Target: "/", Minor: 1, Named: true, Fields: Fields{host, {"Connection", "x-a"}, {"X-A", ""}, {"x-a", "\xff b"}},
		},
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n": {
			Method: "GET", Host: "a", Target: "/", Minor: 1, Upgrade: true, Fields: Fields{host, {"Connection", "Upgrade"}, {"Upgrade", "websocket"}},
		},
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: H2C\r\n\r\n": {
			Method: "GET", Host: "a", Target: "/", Minor: 1, Fields: Fields{host, {"Connection", "Upgrade"}, {"Upgrade", "H2C"}},
		},
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n": {
			Method: "GET", Host: "a", Target: "/", Minor: 1, Fields: Fields{host, {"Upgrade", "websocket"}},
		},
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\nExpect: 100-Continue\r\n\r\n": {
			Method: "PUT", Host: "a", Target: "/", Minor: 1, Length: 7, Expect: true, Fields: Fields{host, {"Content-Length", "007"}, {"Expect", "100-Continue"}},
		},
		"PUT / HTTP/1.1\r\nHost: a\r\ncontent-length: 999999999999999999\r\n\r\n": {
			Method: "PUT", Host: "a", Target: "/", Minor: 1, Length: 999999999999999999, Fields: Fields{host, {"content-length", "999999999999999999"}},
		},
		"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n": {
			Method: "PUT", Host: "a", Target: "/", Minor: 1, Length: InChunks, Fields: Fields{host, {"Transfer-Encoding", "Chunked"}},
		},
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n":           {Method: "OPTIONS", Host: "a", Target: "*", Minor: 1, Fields: Fields{host}},
		"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n":    {Method: "OPTIONS", Host: "a", Target: "*", Minor: 1, Fields: Fields{host}},
		"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n":   {Method: "OPTIONS", Host: "a", Target: "/", Minor: 1, Fields: Fields{host}},
		"GET HTTP://A HTTP/1.1\r\nHost: a\r\n\r\n":        {Method: "GET", Host: "A", Target: "/", Minor: 1, Fields: Fields{host}},
		"GET https://a?b=/ HTTP/1.1\r\nHost: a\r\n\r\n":   {Method: "GET", Host: "a", Target: "/?b=/", Minor: 1, Fields: Fields{host}},
		"GET http://a:80/b?c HTTP/1.0\r\n\r\n":            {Method: "GET", Host: "a:80", Target: "/b?c", Close: true},
		"CONNECT a:443 HTTP/1.1\r\nHost: b\r\n\r\n":       {Method: "CONNECT", Host: "a:443", Target: "*", Minor: 1, Fields: Fields{{"Host", "b"}}},
		"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n":             {Method: "TRACE", Host: "a", Target: "/", Minor: 1, Fields: Fields{host}},
		"GET / HTTP/1.1\r\nHost: a.b-c_d~%41:\r\n\r\n":    {Method: "GET", Host: "a.b-c_d~%41:", Target: "/", Minor: 1, Fields: Fields{{"Host", "a.b-c_d~%41:"}}},
		"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n":   {Method: "GET", Host: "[2001:db8::1]", Target: "/", Minor: 1, Fields: Fields{{"Host", "[2001:db8::1]"}}},
		"GET / HTTP/1.1\r\nHost: 192.0.2.1:65535\r\n\r\n": {Method: "GET", Host: "192.0.2.1:65535", Target: "/", Minor: 1, Fields: Fields{{"Host", "192.0.2.1:65535"}}},
	} {
		var in Reader
		in.Reset(strings.NewReader(head+"next"), nil)
		var got Request
		if err := in.ReadRequest(&got); err != nil {
			t.Errorf("%q: %v", head, err)
			continue
		}
		if got.raw != strings.TrimPrefix(head, "\r\n") || string(in.Buffered()) != "next" {
			t.Errorf("%q: read is %q, left is %q", head, got.raw, in.Buffered())
		}
		if got.raw = ""; !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n%+v, want\n%+v", head, got, want)
		}
	}
}

// refusals are heads that are refused, and why. A head without an end has one, and a Host field, put behind it.
var refusals = []struct {
	head   string
	status int
	reason string
}{
	{"GET /", 400, "the request line is not METHOD TARGET HTTP/1.1"},
	{"GET", 400, "the request line is not METHOD TARGET HTTP/1.1"},
	{" GET / HTTP/1.1", 400, "the request line is not METHOD TARGET HTTP/1.1"},
	{"G@T / HTTP/1.1", 400, "the request line is not METHOD TARGET HTTP/1.1"},
	{"GET  / HTTP/1.1", 400, "the request line does not end with a version like HTTP/1.1"},
	{"GET / HTTP/1.1 ", 400, "the request line does not end with a version like HTTP/1.1"},
	{"GET / http/1.1", 400, "the request line does not end with a version like HTTP/1.1"},
	{"GET / HTTP/1.10", 400, "the request line does not end with a version like HTTP/1.1"},
	{"GET /a b HTTP/1.1", 400, "the request line does not end with a version like HTTP/1.1"},
	{"GET / HTTP/2.0", 505, "the version HTTP/2.0 is not spoken here"},
	{"GET / HTTP/1.2", 505, "the version HTTP/1.2 is not spoken here"},
	{"GET / HTTP/0.9", 505, "the version HTTP/0.9 is not spoken here"},
	{strings.Repeat("G", 65) + " / HTTP/1.1", 501, "the method is longer than 64 characters"},
	{"GET /" + strings.Repeat("a", MaxTarget) + " HTTP/1.1", 414, "the target is longer than 16 KiB"},
	{"GET /#a HTTP/1.1", 400, "the target has a character that belongs there only percent-encoded"},
	{"GET /\t HTTP/1.1", 400, "the target has a character that belongs there only percent-encoded"},
	{"GET /?\x7f HTTP/1.1", 400, "the target has a character that belongs there only percent-encoded"},
	{"GET /\xc3\xa4 HTTP/1.1", 400, "the target has a character that belongs there only percent-encoded"},
	{"GET /\\ HTTP/1.1", 400, "the path has a backslash"},
	{"GET /%0 HTTP/1.1", 400, "the path has a percent sign that begins no character"},
	{"GET /%g0 HTTP/1.1", 400, "the path has a percent sign that begins no character"},
	{"GET /%00 HTTP/1.1", 400, "the path has a percent sign that begins no character"},
	{"GET * HTTP/1.1", 400, "the target is neither a path nor a URL"},
	{"GET  HTTP/1.1", 400, "the target is neither a path nor a URL"},
	{"GET a HTTP/1.1", 400, "the target is neither a path nor a URL"},
	{"GET ftp://a/ HTTP/1.1", 400, "the target is neither a path nor a URL"},
	{"GET http:///a HTTP/1.1", 400, "the target does not name a host"},
	{"GET http://u@a/ HTTP/1.1", 400, "the target does not name a host"},
	{"GET http://b/ HTTP/1.1", 400, "the target and the Host field name two hosts"},
	{"GET / HTTP/1.1\r\nHost: a", 400, "there are two Host fields"},
	{"GET / HTTP/1.1\r\n\r\n", 400, "there is no Host field"},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nHost: a:+1\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nHost: [127.0.0.1]\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "the Host field is not the name or address of a host"},
	{"GET / HTTP/1.1\r\nX-A", 400, "a header line has no colon"},
	{"GET / HTTP/1.1\r\n X-A: b", 400, "a header line begins with white space"},
	{"GET / HTTP/1.1\r\nX-A: b\r\n\tc: d", 400, "a header line begins with white space"},
	{"GET / HTTP/1.1\r\nX-A : b", 400, "the name of a header field has a character that cannot be in a name"},
	{"GET / HTTP/1.1\r\n: b", 400, "the name of a header field has a character that cannot be in a name"},
	{"GET / HTTP/1.1\r\nX-\xc3\xa4: b", 400, "the name of a header field has a character that cannot be in a name"},
	{"GET / HTTP/1.1\r\nX-A: b\x00", 400, "the value of the header field X-A has a control character"},
	{"GET / HTTP/1.1\r\nX-A: b\rc", 400, "the value of the header field X-A has a control character"},
	{"GET / HTTP/1.1\nX-A: b", 400, "a line of the head ends without CR LF"},
	{"GET / HTTP/1.1\r\nX-A: b\n\n", 400, "a line of the head ends without CR LF"},
	{"\r\n\r\nGET / HTTP/1.1", 400, "the request line is not METHOD TARGET HTTP/1.1"},
	{"GET / HTTP/1.1" + strings.Repeat("\r\nA: b", MaxFields), 431, "the header has more than 128 lines"},
	{"GET / HTTP/1.1\r\nA: " + strings.Repeat("b", MaxHead), 431, "the head is larger than 32 KiB"},
	{strings.Repeat("G", MaxHead), 414, "the request line is longer than 16 KiB"},
	{"GET / HTTP/1.1\r\nExpect: 200-ok", 417, "the only expectation that can be met is 100-continue"},
	{"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1", 400, "Content-Length is not one number"},
	{"PUT / HTTP/1.1\r\nContent-Length: 1, 1", 400, "Content-Length is not one number"},
	{"PUT / HTTP/1.1\r\nContent-Length: +1", 400, "Content-Length is not one number"},
	{"PUT / HTTP/1.1\r\nContent-Length:", 400, "Content-Length is not one number"},
	{"PUT / HTTP/1.1\r\nContent-Length: 1000000000000000000", 400, "Content-Length is not one number"},
	{"PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400, "Content-Length and Transfer-Encoding contradict each other"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0", 400, "Content-Length and Transfer-Encoding contradict each other"},
	{"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked", 400, "HTTP/1.0 has no Transfer-Encoding"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "there are two Transfer-Encodings"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding: identity", 400, "the Transfer-Encoding is not chunked"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip", 400, "the Transfer-Encoding is not chunked"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked", 400, "the Transfer-Encoding is not chunked"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding:", 400, "the Transfer-Encoding is not chunked"},
	{"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", 501, "the only Transfer-Encoding that is understood is chunked"},
	{"TRACE / HTTP/1.1\r\nContent-Length: 1", 400, "TRACE has no body"},
	{"TRACE / HTTP/1.1\r\nTransfer-Encoding: chunked", 400, "TRACE has no body"},
}

func TestReadRequest_SaysWhyItRefuses(t *testing.T) {
	for _, row := range refusals {
		head := row.head
		if !strings.HasSuffix(head, "\n") {
			head += "\r\nHost: a\r\n\r\n"
		}
		var in Reader
		in.Reset(strings.NewReader(head), nil)
		err := in.ReadRequest(new(Request))
		var no *Refusal
		if !errors.As(err, &no) || no.Status != row.status || no.Reason != row.reason || err.Error() != row.reason {
			t.Errorf("%.80q: %v, want %d %s", head, err, row.status, row.reason)
		}
	}
}

// TestReadRequest_TakesWhatIsJustWithinItsLimits: one more of each is among the refusals.
func TestReadRequest_TakesWhatIsJustWithinItsLimits(t *testing.T) {
	const begin = "GET / HTTP/1.1\r\nHost: a\r\nX-A: "
	for name, head := range map[string]string{
		"method": strings.Repeat("G", 64) + " / HTTP/1.1\r\nHost: a\r\n\r\n",
		"target": "GET /" + strings.Repeat("a", MaxTarget-1) + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"fields": "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", MaxFields-1) + "\r\n",
		"head":   begin + strings.Repeat("b", MaxHead-len(begin)-4) + "\r\n\r\n",
	} {
		var in Reader
		in.Reset(strings.NewReader(head), nil)
		if err := in.ReadRequest(new(Request)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReadRequest_TellsAnEndFromACut: a connection may end between requests, and nowhere else.
func TestReadRequest_TellsAnEndFromACut(t *testing.T) {
	const head = "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for n := range len(head) {
		want := io.ErrUnexpectedEOF
		if n == 0 || n == 2 { // an empty line is nothing yet
			want = io.EOF
		}
		var in Reader
		in.Reset(strings.NewReader(head[:n]), nil)
		if err := in.ReadRequest(new(Request)); err != want {
			t.Errorf("%q: %v, want %v", head[:n], err, want)
		}
	}
}

// TestReadRequest_TellsThatAHeadHasBegun: once, and only when the rest has to be waited for.
func TestReadRequest_TellsThatAHeadHasBegun(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, row := range []struct {
		pieces parts
		want   int
	}{
		{parts{head}, 0},
		{parts{head[:1], head[1:]}, 1},
		{parts{head[:1], head[1:9], head[9:]}, 1},
		{parts{"\r\n", head}, 0},
	} {
		begun := 0
		in := Reader{Begun: func() { begun++ }}
		pieces := len(row.pieces)
		in.Reset(&row.pieces, nil)
		if err := in.ReadRequest(new(Request)); err != nil || begun != row.want {
			t.Errorf("%d pieces: %v, begun %d times, want %d", pieces, err, begun, row.want)
		}
	}
}

func TestCheckTarget_RefusesWhatTheReaderRefuses(t *testing.T) {
	for _, row := range []struct {
		method, target, host string
		want                 int
	}{
		{"GET", "/a?b\\", "a", 0},
		{"OPTIONS", "*", "a", 0},
		{"G T", "/", "a", 400},
		{"GET", "a", "a", 400},
		{"GET", "/a b", "a", 400},
		{"GET", "/\\", "a", 400},
		{"GET", "/%00", "a", 400},
		{"GET", "/", "", 400},
		{"GET", "/", "a/b", 400},
		{"GET", "/" + strings.Repeat("a", MaxTarget), "a", http.StatusRequestURITooLong},
	} {
		status := 0
		if no := CheckTarget(row.method, row.target, row.host); no != nil {
			status = no.Status
		}
		if status != row.want {
			t.Errorf("%s %.40s %s: %d, want %d", row.method, row.target, row.host, status, row.want)
		}
	}
}
