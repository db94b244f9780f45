package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pairOf is a connection of TCP and its other end.
func pairOf(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestAsking_GetsWhatIsAnswered(t *testing.T) {
	t.Parallel()
	near, far := pairOf(t)
	go io.Copy(far, far) // ends with the connection
	a := newAsking(near)
	in := make([]byte, 100)
	for _, text := range []string{"one", "two", "three"} {
		if sent, n, err := a.ask([]byte(text), in); sent != len(text) || string(in[:n]) != text || err != nil {
			t.Errorf("ask(%q) = %d, %q, %v", text, sent, in[:n], err)
		}
	}
}

func TestAsking_TellsHowItEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		far  func(far *net.TCPConn)
		err  error // nil: the end
	}{
		{"closed after the request", func(far *net.TCPConn) { far.Read(make([]byte, 3)); far.Close() }, nil},
		{"reset", func(far *net.TCPConn) { far.Read(make([]byte, 3)); far.SetLinger(0); far.Close() }, syscall.ECONNRESET},
		{"silent", func(*net.TCPConn) {}, os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			near, far := pairOf(t)
			near.SetReadDeadline(time.Now().Add(5 * time.Second))
			if tt.err == os.ErrDeadlineExceeded {
				near.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			}
			go tt.far(far) // ends with the connection
			if sent, n, err := newAsking(near).ask([]byte("one"), make([]byte, 100)); sent != 3 || n != 0 || !errors.Is(err, tt.err) {
				t.Errorf("ask = %d, %d, %v, want 3, 0, %v", sent, n, err, tt.err)
			}
		})
	}
}

// TestAsking_NeverSendsTwice: what could not be sent at once is left to the caller, who knows how much that is.
func TestAsking_NeverSendsTwice(t *testing.T) {
	t.Parallel()
	near, far := pairOf(t)
	text := bytes.Repeat([]byte("0123456789"), 1<<20)
	sent, n, err := newAsking(near).ask(text, make([]byte, 100))
	if sent == 0 || sent >= len(text) || n != 0 || err != nil {
		t.Fatalf("ask of %d bytes = %d, %d, %v, want a part of them", len(text), sent, n, err)
	}
	got := make([]byte, sent)
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, text[:sent]) {
		t.Errorf("the other end has not got the first %d bytes: %v", sent, err)
	}
	near.SetWriteDeadline(time.Now().Add(5 * time.Second))
	go near.Write(text[sent:]) // ends with the connection, or when all is read
	rest := make([]byte, len(text)-sent)
	if _, err := io.ReadFull(far, rest); err != nil || !bytes.Equal(rest, text[sent:]) {
		t.Errorf("the rest is not the rest: %v", err)
	}
}

// TestAsking_FindsAHalfClosedServer: its end came before the request, and nothing comes after it.
func TestAsking_FindsAHalfClosedServer(t *testing.T) {
	t.Parallel()
	near, far := pairOf(t)
	c := &originConn{Conn: near, asking: newAsking(near), client: &recorder{}}
	far.CloseWrite()
	for { // until it is here
		near.SetReadDeadline(time.Now().Add(time.Millisecond))
		if c.shut() {
			break
		}
	}
	c.due = []byte("one")
	near.SetReadDeadline(time.Now().Add(soon))
	began := time.Now()
	n, err := c.Read(make([]byte, 100))
	c.unwatch()
	if took := time.Since(began); n != 0 || err != io.EOF || took > 10*soon {
		t.Errorf("Read = %d, %v after %v, want the end within %v", n, err, took, soon)
	}
}
