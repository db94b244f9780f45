package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// frame is a frame of a server: opcode and payload.
func frame(opcode byte, payload string) []byte {
	b := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

func TestFrames_KnowsWhereOneEnds(t *testing.T) {
	stream := bytes.Join([][]byte{frame(1, "hello"), frame(2, strings.Repeat("x", 300)), frame(9, ""), frame(2, strings.Repeat("y", 70_000)), frame(1, strings.Repeat("z", 125))}, nil)
	ends := map[int]bool{0: true}
	for at := 0; at < len(stream); {
		for _, f := range [][]byte{frame(1, "hello"), frame(2, strings.Repeat("x", 300)), frame(9, ""), frame(2, strings.Repeat("y", 70_000)), frame(1, strings.Repeat("z", 125))} {
			at += len(f)
			ends[at] = true
		}
	}
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var f frames
		for at := 0; at < len(stream); {
			n := min(1+random.IntN(1+random.IntN(4000)), len(stream)-at)
			f.pass(stream[at : at+n])
			if at += n; f.whole() != ends[at] {
				t.Fatalf("after %d bytes: whole %v", at, f.whole())
			}
		}
	}
	var f frames
	if f.pass(frame(8, "\x03\xe8")); f.whole() {
		t.Error("a close frame has passed, and another may follow")
	}
}

// websocket answers as a server of WebSockets that says one word, and ends as it is told to.
func websocket(t *testing.T, end func(net.Conn)) string {
	return replica(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		conn.Write(frame(1, "welcome"))
		end(conn)
	})
}

// dialSocket opens a WebSocket and reads the word.
func dialSocket(t *testing.T, r *running) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%+v %v", resp, err)
	}
	word := make([]byte, len(frame(1, "welcome")))
	if _, err := io.ReadFull(in, word); err != nil || !bytes.Equal(word, frame(1, "welcome")) {
		t.Fatalf("%q %v", word, err)
	}
	return conn, in
}

// TestSocket_IsToldWhyItEnds: a replica that ends a WebSocket says why, or the proxy does for it, if it can.
func TestSocket_IsToldWhyItEnds(t *testing.T) {
	t.Parallel()
	r := start(t, tempDir(t), false)
	for i, row := range []struct {
		name string
		end  func(net.Conn)
		want []byte
	}{
		{"without a word", func(net.Conn) {}, closeFrame(serviceRestart, "the replica was stopped")},
		{"with a close frame", func(c net.Conn) { c.Write(frame(8, "\x03\xe8")) }, frame(8, "\x03\xe8")},
		{"in the middle of a frame", func(c net.Conn) { c.Write(frame(1, "hello")[:4]) }, frame(1, "hello")[:4]},
	} {
		r.push(alone(int64(i+1), websocket(t, row.end)))
		_, in := dialSocket(t, r)
		if rest, err := io.ReadAll(in); err != nil || !bytes.Equal(rest, row.want) {
			t.Errorf("%s: %q %v, want %q", row.name, rest, err, row.want)
		}
	}
}

// TestSocket_IsToldThatTheProxyStops: at the end of the drain.
func TestSocket_IsToldThatTheProxyStops(t *testing.T) {
	p := handler(t)
	ctx, stop := context.WithCancel(t.Context())
	p.base = ctx
	near, far := net.Pipe()
	replica, server := net.Pipe()
	defer server.Close()
	x := &exchange{plane: p, call: asks("Upgrade", "websocket"), client: &takenOver{recorder{}, near}}
	joined := make(chan struct{})
	go func() { // owned by the test, which waits for joined
		defer close(joined)
		x.join(&reply{status: 101, header: x.call.header, switched: replica})
	}()
	in := bufio.NewReader(far)
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	go server.Write(frame(1, "hello")) // ends with server
	word := make([]byte, len(frame(1, "hello")))
	if _, err := io.ReadFull(in, word); err != nil {
		t.Fatal(err)
	}
	stop()
	if rest, err := io.ReadAll(in); err != nil || !bytes.Equal(rest, closeFrame(goingAway, "the proxy stops")) {
		t.Errorf("%q %v", rest, err)
	}
	<-joined
}

// takenOver is a client whose connection is taken over.
type takenOver struct {
	recorder
	conn net.Conn
}

func (c *takenOver) takeOver() (net.Conn, []byte, error) { return c.conn, nil, nil }
