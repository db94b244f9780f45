package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestOrigin_KeepsAConnectionBehindAnUpload: the time that an upload has for each piece does not end what follows on
// its connection.
func TestOrigin_KeepsAConnectionBehindAnUpload(t *testing.T) {
	t.Parallel()
	var conns atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "ok")
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	base, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := newOrigin(base, newBlocks())
	defer o.closeIdle()
	send := func(c *call, body *upload) {
		t.Helper()
		r, err := o.send(&outgoing{call: c, host: c.host, client: &recorder{}, base: base, body: body, limit: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r.body); err != nil || string(text) != "ok" {
			t.Fatalf("%q %v", text, err)
		}
		r.close()
	}
	long := asks("X-A", "b")
	long.method, long.length = "PUT", 2*smallBody
	send(long, &upload{from: strings.NewReader(strings.Repeat("x", 2*smallBody))})
	<-time.After(150 * time.Millisecond)
	send(asks("X-A", "b"), nil)
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections, want one that is used again", n)
	}
}
