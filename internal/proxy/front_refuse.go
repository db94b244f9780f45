package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"
)

// turnDown answers what cannot be taken for a request.
func (f *front) turnDown(why *refusal) {
	f.x = exchange{plane: f.plane, call: &f.call, client: f, fast: true}
	f.unread(&f.x)
	f.x.head.last, f.begun, f.last = true, false, true
	f.plane.active.Add(1)
	f.x.refuse(why)
	f.x.ended()
	f.plane.active.Add(-1)
	f.linger()
}

// unread makes the call of x one of which only the connection is known, and since when it is there.
func (f *front) unread(x *exchange) {
	*x.call = call{peer: f.peer, client: f.client, local: f.local, secure: f.tls != nil, ours: f.ours}
	if x.rec.began = f.in.Since; x.rec.began.IsZero() {
		x.rec.began = time.Now()
	}
}

// explainTLS tells a client that speaks HTTP where TLS is spoken, instead of closing its connection without a word.
func (f *front) explainTLS(tcp *net.TCPConn, err error) {
	var no tls.RecordHeaderError
	if !errors.As(err, &no) || no.Conn == nil || !beginsRequest(no.RecordHeader[:]) {
		return
	}
	f.conn, f.tcp, f.tls = tcp, tcp, nil
	f.turnDown(&refusal{status: http.StatusBadRequest, reason: "this port speaks HTTPS, and the request came by HTTP"})
}

// beginsRequest reports whether bytes that should have been of TLS, which begins with a control character, are those of
// a method.
func beginsRequest(b []byte) bool {
	for i, c := range b {
		if !('A' <= c && c <= 'Z' || i > 0 && (c == ' ' || c == '/' || c == '-')) {
			return false
		}
	}
	return true
}
