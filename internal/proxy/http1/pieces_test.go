package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// readAll tells in one text all that the reader has to say about a connection: requests with their bodies and
// trailers, up to the error that ends it.
func readAll(from io.Reader) string {
	var in Reader
	in.Reset(from, nil)
	var told strings.Builder
	for {
		var req Request
		if err := in.ReadRequest(&req); err != nil {
			var no *Refusal
			if errors.As(err, &no) {
				fmt.Fprintf(&told, "%d ", no.Status)
			}
			fmt.Fprintf(&told, "%v", err)
			return told.String()
		}
		req.raw = "" // it is all told already
		body, trailer, err := readBody(&in, req.Length)
		fmt.Fprintf(&told, "%+v %q %q %v\n", req, body, trailer, err)
		if err != nil {
			return told.String()
		}
	}
}

// parts reads the given pieces one after the other, one for a Read.
type parts []string

func (p *parts) Read(to []byte) (int, error) {
	for len(*p) > 0 && (*p)[0] == "" {
		*p = (*p)[1:]
	}
	if len(*p) == 0 {
		return 0, io.EOF
	}
	n := copy(to, (*p)[0])
	(*p)[0] = (*p)[0][n:]
	return n, nil
}

// TestReader_TakesAnyPieces: two pieces, cut at each byte, are the same connection as one.
func TestReader_TakesAnyPieces(t *testing.T) {
	for _, text := range heads {
		text += heads[2] + "GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
		want := readAll(strings.NewReader(text))
		for cut := range len(text) {
			if got := readAll(&parts{text[:cut], text[cut:]}); got != want {
				t.Errorf("cut after %q:\n%s\nwhole:\n%s", text[:cut], got, want)
			}
		}
	}
}
