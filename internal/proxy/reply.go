package proxy

import (
	"io"
	"net"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// reply is the answer of a replica, of a server by URL, or of an heir. It has to be closed.
type reply struct {
	status  int
	reason  string
	header  http1.Fields // as it came, with fields about the connection
	named   bool         // Connection names more fields that go no further
	length  int64        // of the body; http1.InChunks or http1.ToTheEnd when it is not known
	body    io.Reader
	trailer func() http1.Fields // behind the body; nil = there is none
	// ready reports whether more of the body is here already. nil = nobody knows.
	ready func() bool
	// slow reports whether the server took long for what came last: then each piece is passed on as it comes.
	// nil = as ready.
	slow func() bool
	// plain is the connection that the rest of the body comes from without being changed; skip tells the
	// body how much somebody has taken from there. nil = there is no such thing.
	plain *net.TCPConn
	skip  func(n int64)
	// switched is the connection, after its protocol was switched: status 101.
	switched io.ReadWriteCloser
	close    func() // the connection is kept if the answer was read to its end
}

// head is how an answer to a client begins.
type head struct {
	status int
	reason string
	header http1.Fields // of the replica; those about its connection are left out
	named  bool
	add    http1.Fields // of the proxy
	length int64        // as in reply
	last   bool         // the connection is closed after it
}

// fields calls add for each field of the answer, but for those about the connection and its framing.
func (h *head) fields(add func(name, value string)) {
	for i := range h.header {
		f := &h.header[i]
		if h.header.Passes(f.Name, h.named) && !http1.Is(f.Name, "Content-Length") && !http1.Is(f.Name, releaseHeader) {
			add(f.Name, f.Value)
		}
	}
	for _, f := range h.add {
		add(f.Name, f.Value)
	}
}

// responder is the client of a call, as an engine has it. Any number of interim answers come first, then
// begin, then write and flush, and end. All but interim and watch are called by one goroutine.
type responder interface {
	// interim passes an interim answer on, such as 103, if the client understands it.
	interim(status int, header http1.Fields)
	begin(h *head) error
	write(p []byte) error // it may keep it
	flush() error         // of what has been written since begin
	// splice passes n bytes of a body on that come from a connection, if it can do that better than with
	// read and write. It reports how many it has passed on; 0 without an error means that it cannot.
	splice(from *net.TCPConn, n int64) (int64, error)
	end(trailer http1.Fields) error
	// abort ends the connection, or the stream, so that the client sees that the answer is not whole. It may
	// panic with http.ErrAbortHandler.
	abort()
	// gone reports whether the client went away, as far as somebody looked.
	gone() bool
	// watch looks from now on whether the client goes away, and calls f when it does. stop ends that.
	watch(f func()) (stop func())
	// hush ends a read of the client's body that is going on. The connection is not kept.
	hush()
	// takeOver gives the connection itself, and what was read of it beyond the request.
	takeOver() (conn net.Conn, first []byte, err error)
}
