package proxy_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// streamFrame is a frame of HTTP/2 (RFC 9113, 4.1).
func streamFrame(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// askFrame is GET http://shop.test/ as header fields of HPACK, mostly by their numbers.
var askFrame = append([]byte{0x82, 0x84, 0x86, 0x41, 9}, "shop.test"...)

// TestBehaviour_SurvivesFloods: what one client sends in masses costs the others nothing.
func TestBehaviour_SurvivesFloods(t *testing.T) {
	const headers, reset, settings, continuation = 1, 3, 4, 9
	const endStream, endHeaders = 1, 4
	for _, flood := range []struct {
		name   string
		calmed bool // the client is told why its connection ends
		send   func(w io.Writer) error
	}{
		{"rapid reset", true, func(w io.Writer) error {
			for i := range uint32(20_000) {
				b := streamFrame(headers, endStream|endHeaders, 2*i+1, askFrame)
				if _, err := w.Write(append(b, streamFrame(reset, 0, 2*i+1, []byte{0, 0, 0, 8})...)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"continuation without an end", false, func(w io.Writer) error {
			if _, err := w.Write(streamFrame(headers, endStream, 1, askFrame)); err != nil {
				return err
			}
			field := append([]byte{0x00, 3, 'x', '-', 'a', 100}, make([]byte, 100)...)
			for i := range field[6:] {
				field[6+i] = 'a'
			}
			for range 100_000 {
				if _, err := w.Write(streamFrame(continuation, 0, 1, field)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"settings", true, func(w io.Writer) error {
			for range 100_000 {
				if _, err := w.Write(streamFrame(settings, 0, 0, nil)); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		t.Run(flood.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				io.WriteString(w, "ok")
			}))
			defer back.Close()
			f := serve(t, "", back.Listener.Addr().String())
			conn := f.dial()
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			var said atomic.Pointer[[]byte]
			read := make(chan struct{})
			go func() { // ends with conn
				defer close(read)
				b, _ := io.ReadAll(conn)
				said.Store(&b)
			}()
			io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			conn.Write(streamFrame(settings, 0, 0, nil))
			flooded := make(chan error, 1)
			go func() { flooded <- flood.send(conn) }() // ends with conn
			for range 20 {
				began := time.Now()
				if h := f.say(ask("/", "Connection: close"), 5*time.Second); h.String() != "200 closed" {
					t.Errorf("another client: %q", h)
				}
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("another client waited for %v", took)
				}
			}
			err := <-flooded
			t.Logf("the flood ended with %v; the back end was asked %d times", err, asked.Load())
			select {
			case <-read:
			case <-time.After(patient):
				t.Error("nobody has stopped it")
				conn.Close()
				<-read
			}
			calm := streamFrame(7, 0, 0, nil)[3:] // GOAWAY, whatever the latest stream is
			if b := *said.Load(); flood.calmed && (!bytes.Contains(b, calm) || !bytes.HasSuffix(b, []byte{0, 0, 0, 0xb})) {
				t.Errorf("it was not told to calm down: %x", b[max(0, len(b)-40):])
			}
			if n := asked.Load(); n > 1_000 { // of 20,000 that were taken back at once
				t.Errorf("the back end was asked %d times", n)
			}
		})
	}
}
