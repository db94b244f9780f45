package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzReadResponse holds the reader of answers to net/http: what it takes, it understands in the same way.
func FuzzReadResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\nX: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
		"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\nX-A: 1\r\nx-a: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if tooLong(text) {
			return
		}
		var in Reader
		source := bytes.NewReader(text)
		in.Reset(source, nil)
		var resp Response
		if in.ReadResponse(&resp, http.MethodGet) != nil {
			return
		}
		buffered := bufio.NewReaderSize(bytes.NewReader(text), len(text)+16)
		theirs, err := http.ReadResponse(buffered, nil)
		bodiless := resp.Status < 200 || resp.Status == http.StatusNoContent || resp.Status == http.StatusNotModified
		if err != nil {
			if !bodiless && stricter(err) == "" { // without a body, what is said about one does not matter here
				t.Fatalf("net/http refuses with %v what is read as %+v", err, resp)
			}
			return
		}
		if said := strings.TrimPrefix(theirs.Status[3:], " "); theirs.StatusCode != resp.Status || said != resp.Reason {
			t.Fatalf("status %d %q, by net/http %q", resp.Status, resp.Reason, theirs.Status)
		}
		sameFields(t, responseFields(&resp, bodiless), responseHeader(theirs, bodiless))
		if bodiless {
			return
		}
		if length := max(resp.Length, -1); theirs.ContentLength != length {
			t.Fatalf("length %d, by net/http %d", resp.Length, theirs.ContentLength)
		}
		var b Body
		b.StartLoose(&in, resp.Length)
		ours, err := io.ReadAll(&b)
		if err != nil {
			return // stricter about chunks, or cut off
		}
		body, theirErr := io.ReadAll(theirs.Body)
		if theirErr != nil || !bytes.Equal(ours, body) {
			t.Fatalf("body %q, by net/http %q %v", ours, body, theirErr)
		}
		sameFields(t, b.Trailer, endToEnd(theirs.Trailer))
		if left := len(in.Buffered()) + source.Len(); left != buffered.Buffered() {
			t.Fatalf("%d bytes are left, by net/http %d", left, buffered.Buffered())
		}
	})
}

// responseFields are those of an answer that net/http leaves in its header, one of several equal lengths among them.
func responseFields(resp *Response, bodiless bool) (fields Fields) {
	for _, field := range resp.Fields {
		switch {
		case Is(field.Name, "Transfer-Encoding"):
		case Is(field.Name, "Trailer") && resp.Length == InChunks:
		case Is(field.Name, "Content-Length") && (bodiless || fields.Has("Content-Length")):
		default:
			fields = append(fields, field)
		}
	}
	return fields
}

// responseHeader is the header by net/http. What it makes of Content-Length and Trailer without a body does not matter.
func responseHeader(theirs *http.Response, bodiless bool) http.Header {
	if bodiless {
		theirs.Header.Del("Content-Length")
		for name := range theirs.Trailer {
			theirs.Header.Add("Trailer", name)
		}
	}
	return theirs.Header
}
