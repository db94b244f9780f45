package http1

import (
	"bufio"
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestAppend_IsReadBackTheSame: by net/http, and by the reader.
func TestAppend_IsReadBackTheSame(t *testing.T) {
	for _, row := range []struct {
		chunks  []string
		length  int64
		trailer Fields
	}{
		{nil, 0, nil},
		{[]string{"hello"}, 5, nil},
		{nil, InChunks, nil},
		{[]string{"hello"}, InChunks, nil},
		{[]string{"", "h", "", strings.Repeat("e", 15), strings.Repeat("l", 16), strings.Repeat("o", 70000), ""}, InChunks, nil},
		{[]string{"0\r\n\r\n"}, InChunks, Fields{{"X-A", "1"}, {"X-A", ""}, {"X-B", "2, 3"}}},
	} {
		b := AppendField([]byte("PUT /a HTTP/1.1\r\n"), "Host", "a.test")
		b = AppendField(b, "X-Empty", "")
		b = AppendFraming(b, row.length)
		b = append(b, "\r\n"...)
		for _, data := range row.chunks {
			if row.length == InChunks {
				b = AppendChunk(b, []byte(data))
			} else {
				b = append(b, data...)
			}
		}
		if row.length == InChunks {
			b = AppendEnd(b, row.trailer)
		}
		want := strings.Join(row.chunks, "")
		theirs := bufio.NewReader(bytes.NewReader(b))
		r, err := http.ReadRequest(theirs)
		if err != nil {
			t.Errorf("%.80q: %v", b, err)
			continue
		}
		body, err := io.ReadAll(r.Body)
		header := http.Header{"X-Empty": {""}}
		if row.length >= 0 {
			header["Content-Length"] = r.Header["Content-Length"]
		}
		if err != nil || string(body) != want || r.ContentLength != row.length || r.Host != "a.test" || !maps.EqualFunc(r.Header, header, slices.Equal) {
			t.Errorf("%.80q: by net/http %.40q %v %+v", b, body, err, r)
		}
		sameFields(t, row.trailer, r.Trailer)
		if theirs.Buffered() > 0 {
			t.Errorf("%.80q: by net/http %d bytes are left", b, theirs.Buffered())
		}
		var in Reader
		var req Request
		in.Reset(bytes.NewReader(b), nil)
		if err := in.ReadRequest(&req); err != nil || req.Length != row.length {
			t.Errorf("%.80q: %+v %v", b, req, err)
		}
		ours, trailer, err := readBody(&in, req.Length)
		if err != nil || string(ours) != want || !slices.Equal(trailer, row.trailer) || len(in.Buffered()) > 0 {
			t.Errorf("%.80q: %.40q %v %v", b, ours, trailer, err)
		}
	}
}

func TestAppend_WritesTheseBytes(t *testing.T) {
	for want, got := range map[string][]byte{
		"X-A: b\r\n":                        AppendField(nil, "X-A", "b"),
		"Content-Length: 0\r\n":             AppendFraming(nil, 0),
		"Content-Length: 1099511627776\r\n": AppendFraming(nil, 1<<40),
		"Transfer-Encoding: chunked\r\n":    AppendFraming(nil, InChunks),
		"before":                            AppendChunk([]byte("before"), nil),
		"a\r\n0123456789\r\n":               AppendChunk(nil, []byte("0123456789")),
		"ffff\r\n":                          AppendChunkSize(nil, 0xffff),
		"0\r\n\r\n":                         AppendEnd(nil, nil),
		"0\r\nX-A: b\r\n\r\n":               AppendEnd(nil, Fields{{"X-A", "b"}}),
	} {
		if string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestFields_PassUnlessTheyAreAboutTheConnection(t *testing.T) {
	fields := Fields{{"connection", "close, X-A"}, {"X-A", "1"}, {"X-B", "2"}, {"Connection", "\tx-c ,"}}
	for name, passes := range map[string]bool{
		"X-B": true, "X-": true, "Host": true, "Te-": true, "Content-Length": true, "Trailers": true,
		"x-a": false, "X-C": false, "close": false,
		"te": false, "Upgrade": false, "trailer": false, "CONNECTION": false, "Keep-Alive": false, "Proxy-Connection": false,
		"Transfer-Encoding": false, "Proxy-Authenticate": false, "Proxy-Authorization": false,
	} {
		if got := fields.Passes(name, true); got != passes {
			t.Errorf("%s: %t, want %t", name, got, passes)
		}
		if IsHop(name) && fields.Passes(name, false) {
			t.Errorf("%s passes where Connection names nothing", name)
		}
	}
	if !fields.Passes("X-A", false) {
		t.Error("Connection is looked at where it names nothing")
	}
}

func TestFields_FindWhateverTheCase(t *testing.T) {
	fields := Fields{{"x-a", "1"}, {"X-B", ""}, {"X-A", "2, Three"}, {"Cookie", `a=1; b="2"; c; a="`}, {"cookie", "a=;b=3"}}
	if fields.Get("X-A") != "1" || fields.Get("x-c") != "" || !fields.Has("x-b") || fields.Has("X-") {
		t.Errorf("X-A is %q, X-C %q, X-B %t", fields.Get("X-A"), fields.Get("x-c"), fields.Has("x-b"))
	}
	if got := slices.Collect(fields.All("X-a")); !slices.Equal(got, []string{"1", "2, Three"}) {
		t.Errorf("all of X-A: %q", got)
	}
	if !fields.Token("X-A", "three") || fields.Token("X-A", "thre") || fields.Token("X-A", "") {
		t.Error("the list of X-A is not looked through element by element")
	}
	for name, want := range map[string][]string{"a": {"1", `"`, ""}, "b": {"2", "3"}, "A": nil, "c": nil} {
		if got := slices.Collect(fields.Cookies(name)); !slices.Equal(got, want) {
			t.Errorf("cookie %s: %q, want %q", name, got, want)
		}
	}
	if got := slices.Collect(Tokens(" a,,\tb ")); !slices.Equal(got, []string{"a", "", "b"}) {
		t.Errorf("elements are %q", got)
	}
}
