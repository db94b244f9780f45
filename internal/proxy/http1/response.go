package http1

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Response is the head of an answer. Its strings share one piece of memory, which is its own.
type Response struct {
	Status int
	Reason string // "Not Found"
	Fields Fields
	Length int64 // of the body; -1 = in chunks, -2 = up to the end of the connection
	Close  bool  // the server closes the connection after it
	Named  bool  // Connection names fields that go no further, beside the usual ones
}

// The ways in which a body can end, where its length is not known.
const (
	InChunks = -1
	ToTheEnd = -2
)

// ReadResponse reads the head of the answer to a request with the method given. Line feeds alone may end
// lines here, as some programs send them; what has two meanings is an error all the same.
func (r *Reader) ReadResponse(resp *Response, method string) error {
	for {
		if n := r.head(); n > 0 && n <= MaxHead {
			text := string(r.buf[r.r : r.r+n])
			r.Discard(n)
			if err := resp.parse(text, method); err != nil {
				return malformed(err.Error())
			}
			return nil
		}
		if err := r.Fill(); err != nil {
			if err == ErrFull {
				return malformed(err.Error())
			}
			if len(r.Buffered()) > 0 {
				err = noEOF(err)
			}
			return err
		}
	}
}

func (r *Response) parse(head, method string) error {
	*r = Response{Fields: r.Fields[:0]}
	line, rest := cutLoose(head)
	version, status, ok := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(status, " ")
	if !ok || len(code) != 3 || !isDigit(code[0]) || code[0] == '0' || !isDigit(code[1]) || !isDigit(code[2]) || version != "HTTP/1.1" && version != "HTTP/1.0" {
		return fmt.Errorf("the answer does not begin like HTTP/1.1 200 OK but with %.40q", line)
	}
	r.Status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	if r.Reason = reason; !isValue(reason) {
		return errors.New("the status line has a control character")
	}
	for {
		if line, rest = cutLoose(rest); line == "" {
			break
		}
		if len(r.Fields) == 2*MaxFields {
			return errors.New("the header has more than 256 lines")
		}
		f, refusal := parseField(line)
		if refusal != nil {
			return refusal
		}
		r.Fields = append(r.Fields, f)
	}
	return r.parseFraming(method, version == "HTTP/1.0")
}

// cutLoose cuts off a line that ends with LF or CR LF.
func cutLoose(text string) (line, rest string) {
	line, rest, _ = strings.Cut(text, "\n")
	return strings.TrimSuffix(line, "\r"), rest
}

// parseFraming finds out how long the body is (RFC 9112, 6.3).
func (r *Response) parseFraming(method string, old bool) error {
	length, chunked, coded, keepAlive := int64(-1), false, false, false
	for i := range r.Fields {
		f := &r.Fields[i]
		switch len(f.Name) {
		case 10:
			if equalFold(f.Name, "Connection") {
				for t := range Tokens(f.Value) {
					switch {
					case equalFold(t, "close"):
						r.Close = true
					case equalFold(t, "keep-alive"):
						keepAlive = true
					case t != "" && !equalFold(t, "upgrade"):
						r.Named = true
					}
				}
			}
		case 14:
			if equalFold(f.Name, "Content-Length") {
				n, ok := ParseLength(f.Value)
				if !ok || length >= 0 && n != length {
					return errors.New("Content-Length is not one number")
				}
				length = n
			}
		case 17:
			if equalFold(f.Name, "Transfer-Encoding") {
				if coded {
					return errors.New("there are two Transfer-Encodings")
				}
				coded, chunked = true, equalFold(f.Value, "chunked")
			}
		}
	}
	r.Close = r.Close || old && !keepAlive
	switch {
	case r.Status < 200 || r.Status == http.StatusNoContent || r.Status == http.StatusNotModified || method == http.MethodHead:
		r.Length = 0
	case coded && old:
		return errors.New("HTTP/1.0 has no Transfer-Encoding")
	case coded && length >= 0:
		return errors.New("Content-Length and Transfer-Encoding contradict each other")
	case chunked:
		r.Length = InChunks
	case coded:
		return errors.New("the Transfer-Encoding is not chunked")
	case length >= 0:
		r.Length = length
	default:
		r.Length, r.Close = ToTheEnd, true
	}
	return nil
}
