package proxy

import (
	"io"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// transfer is a body that is being sent while the answer is waited for.
type transfer struct {
	conn    *originConn
	body    *sending
	chunked bool
	trailer func() http1.Fields
	out     outgoing // a copy: after a failed attempt, the next one has the original
	done    chan struct{}
	err     error // after done
}

// transfer begins to send the body.
func (c *originConn) transfer(out *outgoing) {
	t := &transfer{conn: c, body: out.body.start(), chunked: out.call.length < 0, trailer: out.call.trailed, out: *out, done: make(chan struct{})}
	c.pending, c.owes = t, false
	c.mu.Lock()
	c.expires(out.until)
	c.mu.Unlock()
	// Owned by the request, which waits for it in finish; ends with the body or when a side is closed.
	go t.run()
}

func (t *transfer) run() {
	defer close(t.done)
	c := t.conn
	block := c.origin.blocks.take()
	defer c.origin.blocks.give(block)
	t.err = t.copy(*block)
	_ = c.SetWriteDeadline(time.Time{}) // it was for the pieces; a broken connection shows at once
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered {
		c.expires(t.out.due(time.Now()))
	}
	if t.err != nil && t.body.upload.broken() != nil {
		c.Conn.Close() // the server must not take what it has for the whole
	}
}

func (t *transfer) copy(block []byte) error {
	const frame = 16 // bytes around a chunk
	for {
		n, err := t.body.Read(block[frame : len(block)-2])
		if n > 0 {
			data := block[frame : frame+n]
			if t.chunked {
				data = framed(block, n)
			}
			_ = t.conn.SetWriteDeadline(time.Now().Add(t.out.limit)) // a broken connection shows at once
			if _, err := t.conn.Write(data); err != nil {
				return err
			}
		}
		if err == io.EOF && t.chunked {
			_, err = t.conn.Write(http1.AppendEnd(block[:0], t.trailer()))
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// framed makes a chunk of the n bytes behind the first 16 of the block, in place.
func framed(block []byte, n int) []byte {
	var size [16]byte
	line := http1.AppendChunkSize(size[:0], n)
	from := 16 - len(line)
	copy(block[from:], line)
	return append(block[from:16+n], "\r\n"...)
}

// ended waits a moment for an upload whose answer is complete, and reports whether all of it was sent.
func (t *transfer) ended() bool {
	select {
	case <-t.done:
		return t.err == nil
	default:
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-t.done:
		return t.err == nil
	case <-timer.C:
	}
	t.body.upload.stop()
	t.conn.client.hush()
	t.conn.Conn.Close()
	<-t.done
	return false
}
