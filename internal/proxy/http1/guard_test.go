package http1

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stopped is what a server sees in the place of a request that is refused.
const stopped = "X-REFUSED / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n"

// passed are connections, and what a guard lets pass of them.
var passed = []struct {
	name, client, server string
	refused              string // with which answer; "" = it is not
	end                  error  // nil = io.EOF
}{
	{name: "one request", client: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", server: "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{
		name: "several", client: "GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nPUT / HTTP/1.1\r\nhost:a\r\nContent-Length: 3\r\n\r\n\r\n\rGET /b HTTP/1.0\r\n\r\n",
		server: "GET / HTTP/1.1\r\nHost: a\r\n\r\nPUT / HTTP/1.1\r\nhost:a\r\nContent-Length: 3\r\n\r\n\r\n\rGET /b HTTP/1.0\r\n\r\n",
	},
	{
		name:   "chunks, framed anew",
		client: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0005;a=b\r\nhello\r\n00;c\r\nX:1\r\nHost: b\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		server: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	},
	{
		name:   "anything behind a request for another protocol",
		client: "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x00any\nthing",
		server: "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x00any\nthing",
	},
	{name: "anything behind CONNECT", client: "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n\x00any\nthing", server: "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n\x00any\nthing"},
	{
		name: "nothing behind what is refused", client: "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost : a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
		server: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + stopped, refused: "400 the name of a header field has a character that cannot be in a name",
	},
	{
		name: "a coding that is not known", client: "GET / HTTP/1.1\r\nHost: a\r\n\r\nPUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		server: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + stopped, refused: "501 the only Transfer-Encoding that is understood is chunked",
	},
	{
		name: "two lengths", client: "GET / HTTP/1.1\r\nHost: a\r\n\r\nPUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		server: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" + stopped, refused: "400 Content-Length and Transfer-Encoding contradict each other",
	},
	{
		name: "a chunk that is none", client: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\nx\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		server:  "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\nmalformed\r\n",
		refused: "400 the size of a chunk is not a hexadecimal number",
	},
	{
		name: "a chunk that is too long", client: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhe\r\n0\r\n\r\n",
		server:  "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\nmalformed\r\n",
		refused: "400 a chunk is longer than it says",
	},
	{
		name: "a head that is cut off", client: "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n",
		server: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", end: io.ErrUnexpectedEOF,
	},
	{
		name: "a body that is cut off", client: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhe",
		server: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhe", end: io.ErrUnexpectedEOF,
	},
	{
		name: "a chunk that is cut off", client: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhe",
		server: "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", end: io.ErrUnexpectedEOF,
	},
}

// guard reads the first request of a connection, and makes a guard of the rest.
func guard(t *testing.T, conn net.Conn, from io.Reader) *Guard {
	t.Helper()
	in, first := new(Reader), new(Request)
	in.Reset(from, nil)
	if err := in.ReadRequest(first); err != nil {
		t.Fatal(err)
	}
	return NewGuard(conn, in, first)
}

func TestGuard_PassesWhatHasOneMeaning(t *testing.T) {
	for _, row := range passed {
		g := guard(t, nil, strings.NewReader(row.client))
		close(g.hurry)                                   // nobody waits
		got, err := io.ReadAll(io.LimitReader(g, 1<<16)) // one that never ends would not fail else
		refused := ""
		if no := g.Refused(); no != nil {
			refused = fmt.Sprint(no.Status, " ", no.Reason)
		}
		if string(got) != row.server || err != row.end || refused != row.refused {
			t.Errorf("%s: %q %v, refused %q, want\n%q %v, %q", row.name, got, err, refused, row.server, row.end, row.refused)
		}
		if n, err := g.Read(nil); n != 0 || err != nil {
			t.Errorf("%s: a read of nothing gives %d %v", row.name, n, err)
		}
	}
}

// TestGuard_TakesAnyPieces: cut at each byte, a connection is passed on in the same way. Chunks may be other ones.
func TestGuard_TakesAnyPieces(t *testing.T) {
	for _, row := range passed {
		if strings.Contains(row.client, "chunked") && row.refused == "" {
			continue
		}
		for cut := range len(row.client) {
			g := guard(t, nil, &parts{row.client[:cut], row.client[cut:]})
			close(g.hurry) // nobody waits
			if got, err := io.ReadAll(g); string(got) != row.server || err != row.end || (g.Refused() != nil) != (row.refused != "") {
				t.Errorf("%s, cut at %d: %q %v", row.name, cut, got, err)
			}
		}
	}
}

// TestGuard_WaitsForAClientThatSendsNoMore: for its answer it may still be there, unless the server wants to go on.
func TestGuard_WaitsForAClientThatSendsNoMore(t *testing.T) {
	const one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, want := range map[string]time.Duration{"left alone": HalfClosed, "hurried": HalfClosed / 4} {
		synctest.Test(t, func(t *testing.T) {
			client, conn := net.Pipe()
			defer client.Close()
			g := guard(t, conn, strings.NewReader(one))
			defer g.Close()
			if name == "hurried" {
				stop := time.AfterFunc(want, func() { g.SetReadDeadline(time.Unix(1, 0)) })
				defer stop.Stop()
			}
			began := time.Now()
			if got, err := io.ReadAll(g); string(got) != one || err != nil || time.Since(began) != want {
				t.Errorf("%s: %q %v after %s, want %s", name, got, err, time.Since(began), want)
			}
		})
	}
}

// TestGuard_CloseWriteIsThatOfTheConnection, or closes one that has none.
func TestGuard_CloseWriteIsThatOfTheConnection(t *testing.T) {
	const one = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	client, conn := net.Pipe()
	if err := guard(t, conn, strings.NewReader(one)).CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v, want the end", err)
	}
	half := &halfConn{}
	if err := guard(t, half, strings.NewReader(one)).CloseWrite(); err != nil || !half.half {
		t.Errorf("closed for writing: %t, %v", half.half, err)
	}
}

type halfConn struct {
	net.Conn
	half bool
}

func (h *halfConn) CloseWrite() error { h.half = true; return nil }
