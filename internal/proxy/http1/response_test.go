package http1

import (
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// TestReadResponse_ReadsAllThatAHeadSays compares every field of an answer, that of a GET unless the row begins with
// another method.
func TestReadResponse_ReadsAllThatAHeadSays(t *testing.T) {
	two, chunked := Field{"Content-Length", "2"}, Field{"Transfer-Encoding", "Chunked"}
	for _, row := range []struct {
		method, head string
		want         Response
	}{
		{"GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", Response{Status: 200, Reason: "OK", Length: 2, Fields: Fields{{"content-length", "2"}}}},
		{"GET", "HTTP/1.1 200\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\n", Response{Status: 200, Length: 2, Fields: Fields{two, {"Content-Length", "02"}}}},
		{"GET", "HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n", Response{Status: 200, Length: InChunks, Fields: Fields{chunked}}},
		{"GET", "HTTP/1.1 999 Not Known\xff\n\n", Response{Status: 999, Reason: "Not Known\xff", Length: ToTheEnd, Close: true}},
		{"GET", "HTTP/1.1 200 OK\nX-A:  b\t\nContent-Length: 2\r\n\n", Response{Status: 200, Reason: "OK", Length: 2, Fields: Fields{{"X-A", "b"}, two}}},
		{"GET", "HTTP/1.0 200 OK\r\n\r\n", Response{Status: 200, Reason: "OK", Length: ToTheEnd, Close: true}},
		{"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", Response{Status: 200, Reason: "OK", Length: 2, Close: true, Fields: Fields{two}}},
		{"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n", Response{Status: 200, Reason: "OK", Length: 2, Fields: Fields{two, {"Connection", "keep-alive"}}}},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-a, Close\r\n\r\n", Response{Status: 200, Reason: "OK", Length: 2, Close: true, Named: true, Fields: Fields{two, {"Connection", "x-a, Close"}}}},
		{"GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Response{Status: 101, Reason: "Switching Protocols", Fields: Fields{{"Connection", "upgrade"}, {"Upgrade", "x"}}}},
		{"GET", "HTTP/1.1 100 Continue\r\n\r\n", Response{Status: 100, Reason: "Continue"}},
		{"GET", "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n", Response{Status: 103, Reason: "Early Hints", Fields: Fields{two}}},
		{"GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: Chunked\r\n\r\n", Response{Status: 204, Reason: "No Content", Fields: Fields{chunked}}},
		{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", Response{Status: 304, Reason: "Not Modified", Fields: Fields{two}}},
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Response{Status: 200, Reason: "OK", Fields: Fields{two}}},
		{"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Response{Status: 200, Reason: "OK", Fields: Fields{chunked}}},
		{"HEAD", "HTTP/1.1 200 OK\r\n\r\n", Response{Status: 200, Reason: "OK"}},
	} {
		for name, from := range map[string]io.Reader{
			"whole": strings.NewReader(row.head + "next"), "byte by byte": iotest.OneByteReader(strings.NewReader(row.head + "next")),
		} {
			var in Reader
			in.Reset(from, nil)
			var got Response
			if err := in.ReadResponse(&got, row.method); err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("%s %q, %s:\n%+v, %v, want\n%+v", row.method, row.head, name, got, err, row.want)
			}
			if rest, err := io.ReadAll(&in); string(rest) != "next" || err != nil {
				t.Errorf("%s %q, %s: left is %q, %v", row.method, row.head, name, rest, err)
			}
		}
	}
}

func TestReadResponse_SaysWhatIsWrong(t *testing.T) {
	const begin = "the answer does not begin like HTTP/1.1 200 OK but with "
	for head, want := range map[string]string{
		"HTTP/1.1\r\n\r\n":                                                  begin + `"HTTP/1.1"`,
		"HTTP/2.0 200 OK\r\n\r\n":                                           begin + `"HTTP/2.0 200 OK"`,
		"HTTP/1.1 20 OK\r\n\r\n":                                            begin + `"HTTP/1.1 20 OK"`,
		"HTTP/1.1 2000 OK\r\n\r\n":                                          begin + `"HTTP/1.1 2000 OK"`,
		"HTTP/1.1 099 OK\r\n\r\n":                                           begin + `"HTTP/1.1 099 OK"`,
		"HTTP/1.1 2x0 OK\r\n\r\n":                                           begin + `"HTTP/1.1 2x0 OK"`,
		"HTTP/1.1 20x OK\r\n\r\n":                                           begin + `"HTTP/1.1 20x OK"`,
		"HTTP/1.1  200 OK\r\n\r\n":                                          begin + `"HTTP/1.1  200 OK"`,
		"\r\nHTTP/1.1 200 OK\r\n\r\n":                                       begin + `""`,
		"SSH-2.0-x\r\n\r\n":                                                 begin + `"SSH-2.0-x"`,
		"HTTP/1.1 200 O\rK\r\n\r\n":                                         "the status line has a control character",
		"HTTP/1.1 200 OK\r\nX-A\r\n\r\n":                                    "a header line has no colon",
		"HTTP/1.1 200 OK\r\n X-A: b\r\n\n":                                  "a header line begins with white space",
		"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n":                                 "the name of a header field has a character that cannot be in a name",
		"HTTP/1.1 200 OK\r\nX-A: \x00\n\n":                                  "the value of the header field X-A has a control character",
		"HTTP/1.1 200 OK\r\nX-A: b\r\r\n\n":                                 "the value of the header field X-A has a control character",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": "Content-Length is not one number",
		"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n":                   "Content-Length is not one number",
		"HTTP/1.1 304 OK\r\nContent-Length: -1\r\n\r\n":                     "Content-Length is not one number",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n":    "Content-Length and Transfer-Encoding contradict each other",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\n":       "Content-Length and Transfer-Encoding contradict each other",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n": "there are two Transfer-Encodings",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n":                   "the Transfer-Encoding is not chunked",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":                         "HTTP/1.0 has no Transfer-Encoding",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 2*MaxFields+1) + "\r\n":      "the header has more than 256 lines",
		"HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("b", MaxHead):                       ErrFull.Error(),
	} {
		var in Reader
		in.Reset(strings.NewReader(head), nil)
		if err := in.ReadResponse(new(Response), "GET"); err == nil || err.Error() != want || !IsMalformed(err) {
			t.Errorf("%.80q: %v, want %s", head, err, want)
		}
	}
}

func TestReadResponse_TellsAnEndFromACut(t *testing.T) {
	const head = "HTTP/1.1 204 No Content\r\n\r\n"
	for n := range len(head) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		var in Reader
		in.Reset(strings.NewReader(head[:n]), nil)
		if err := in.ReadResponse(new(Response), "GET"); err != want || IsMalformed(err) {
			t.Errorf("%q: %v, want %v", head[:n], err, want)
		}
	}
}
