package proxy_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// The frames of HTTP/2 that these back ends know (RFC 9113, 6).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway byte = 0, 1, 3, 4, 6, 7

	flagEnd, flagAck, flagWhole byte = 1, 1, 4 // END_STREAM, ACK, END_HEADERS
)

// frames is the back end's side of a connection of HTTP/2.
type frames struct {
	net.Conn
	in *bufio.Reader
}

func (f *frames) send(kind, flags byte, stream uint32, payload string) {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	f.Write(append(binary.BigEndian.AppendUint32(head, stream), payload...))
}

func (f *frames) receive() (kind, flags byte, stream uint32, payload []byte, err error) {
	head := make([]byte, 9)
	if _, err = io.ReadFull(f.in, head); err != nil {
		return
	}
	payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(f.in, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), payload, err
}

func number(n uint32) string { return string(binary.BigEndian.AppendUint32(nil, n)) }

// ok answers 200 with "ok". \x88 is ":status: 200" of the static table (RFC 7541, A).
func (f *frames) ok(stream uint32) {
	f.send(frameHeaders, flagWhole, stream, "\x88")
	f.send(frameData, flagEnd, stream, "ok")
}

// streamFault is what a back end does to the first request that it gets, when it has the whole of it.
type streamFault struct {
	name string
	act  func(f *frames, stream uint32) bool // whether the connection goes on
	want []string                            // as of fault
}

func streamFaults() []streamFault {
	const refusedStream, internalError, noError = 7, 2, 0
	again := []string{"200 2"} // the back end says that it has not begun
	repeated := []string{"200 2", "502 1", "502 1"}
	return []streamFault{
		{"none", func(f *frames, s uint32) bool { f.ok(s); return true }, []string{"200 1"}},
		{"refuses the stream", func(f *frames, s uint32) bool { f.send(frameReset, 0, s, number(refusedStream)); return true }, again},
		{"goes away without having begun", func(f *frames, s uint32) bool {
			f.send(frameGoAway, 0, 0, number(s-1)+number(noError))
			return true
		}, again},
		{"goes away without having begun, and closes", func(f *frames, s uint32) bool {
			f.send(frameGoAway, 0, 0, number(s-1)+number(noError))
			return false
		}, again},
		{"goes away behind this request", func(f *frames, s uint32) bool {
			f.send(frameGoAway, 0, 0, number(s)+number(noError))
			f.ok(s)
			return true
		}, []string{"200 1"}},
		{"announces that it goes away, in two steps", func(f *frames, s uint32) bool {
			f.send(frameGoAway, 0, 0, number(1<<31-1)+number(noError))
			f.ok(s)
			f.send(frameGoAway, 0, 0, number(s)+number(noError))
			return true
		}, []string{"200 1"}},
		{"resets the stream", func(f *frames, s uint32) bool { f.send(frameReset, 0, s, number(internalError)); return true }, repeated},
		{"closes the connection", func(*frames, uint32) bool { return false }, repeated},
		{"goes away behind this request, and does not answer it", func(f *frames, s uint32) bool {
			f.send(frameGoAway, 0, 0, number(s)+number(noError))
			return false
		}, repeated},
		{"resets the stream within the answer", func(f *frames, s uint32) bool {
			f.send(frameHeaders, flagWhole, s, "\x88")
			f.send(frameData, 0, s, "part")
			f.send(frameReset, 0, s, number(internalError))
			return true
		}, []string{"200 broken 1 or closed 1"}},
		{"closes the connection within the answer", func(f *frames, s uint32) bool {
			f.send(frameHeaders, flagWhole, s, "\x88")
			f.send(frameData, 0, s, "part")
			return false
		}, []string{"200 broken 1 or closed 1"}},
		{"answers without a head", func(f *frames, s uint32) bool { f.send(frameData, flagEnd, s, "ok"); return true }, []string{"502 1"}},
		{"answers without a status", func(f *frames, s uint32) bool {
			f.send(frameHeaders, flagWhole|flagEnd, s, "\x00\x01a\x01b")
			return true
		}, []string{"502 1"}},
		{"trailers", func(f *frames, s uint32) bool {
			f.send(frameHeaders, flagWhole, s, "\x88")
			f.send(frameData, 0, s, "ok")
			f.send(frameHeaders, flagWhole|flagEnd, s, "\x00\x05x-sum\x011")
			return true
		}, []string{"200 1"}},
	}
}

// streamBackend is two replicas that speak HTTP/2 without TLS and share a fault.
type streamBackend struct {
	streamFault
	armed atomic.Bool
	seen  atomic.Int64
}

func (b *streamBackend) replica(t *testing.T) string {
	return accept(t, func(conn net.Conn) {
		f := &frames{conn, bufio.NewReader(conn)}
		preface := make([]byte, 24)
		if _, err := io.ReadFull(f.in, preface); err != nil || !strings.HasPrefix(string(preface), "PRI * HTTP/2.0") {
			return
		}
		f.send(frameSettings, 0, 0, "")
		for {
			kind, flags, stream, payload, err := f.receive()
			if err != nil {
				return
			}
			switch {
			case kind == frameSettings && flags&flagAck == 0:
				f.send(frameSettings, flagAck, 0, "")
			case kind == framePing && flags&flagAck == 0:
				f.send(framePing, flagAck, 0, string(payload))
			case (kind == frameData || kind == frameHeaders) && flags&flagEnd != 0:
				b.seen.Add(1)
				if !b.armed.CompareAndSwap(true, false) {
					f.ok(stream)
				} else if !b.act(f, stream) {
					return
				}
			}
		}
	})
}

// speaking is a table whose replicas speak a protocol.
func speaking(t *testing.T, table spillway.Table, protocol string) spillway.Table {
	t.Helper()
	text, err := json.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.NewReplacer(`"service":"www","hosts"`, `"service":"www","protocol":"`+protocol+`","hosts"`, `"release":1,"weight"`, `"protocol":"`+protocol+`","release":1,"weight"`)
	changed := spillway.Table{}
	if err := json.Unmarshal([]byte(with.Replace(string(text))), &changed); err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(changed); !strings.Contains(string(text), protocol) {
		t.Fatalf("tables know no protocol %s: %s", protocol, text)
	}
	return changed
}

// TestBehaviour_SurvivesFaultsOfHTTP2BackEnds: REFUSED_STREAM and GOAWAY say what a back end has not begun
// with; that goes to another one, whatever the method (RFC 9113, 8.7).
func TestBehaviour_SurvivesFaultsOfHTTP2BackEnds(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		for _, row := range streamFaults() {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				b := &streamBackend{streamFault: row}
				f := serve(t, engine)
				f.push(speaking(t, shopAt(2, b.replica(t), b.replica(t)), "h2c"))
				for i, kind := range []string{"GET", "POST", "chunked"} {
					b.check(t, f, kind, row.want[min(i, len(row.want)-1)])
				}
			})
		}
	})
}

func (b *streamBackend) check(t *testing.T, f *front, kind, want string) {
	b.seen.Store(0)
	b.armed.Store(true)
	conn := f.dial()
	defer conn.Close()
	io.WriteString(conn, (&faultyBackend{}).request(kind))
	a, err := readReply(bufio.NewReader(conn), "GET")
	got := "closed"
	if err == nil {
		got = fmt.Sprint(a.status)
		if a.broken != nil {
			got += " broken"
		} else if a.status == 200 && a.body != "ok" {
			t.Errorf("%s: body %s", kind, shorten(a.body))
		}
	}
	if got += fmt.Sprint(" ", b.seen.Load()); !slices.Contains(strings.Split(want, " or "), got) {
		t.Errorf("%s: got %s, want %s", kind, got, want)
	}
	if b.name == "trailers" && a.trailer.Get("X-Sum") != "1" {
		t.Errorf("%s: trailers %v", kind, a.trailer)
	}
	if h := f.say(ask("/next", "Connection: close"), 2*time.Second); h.String() != "200 closed" || h.answers[0].body != "ok" {
		t.Errorf("%s: the next request: %q %s", kind, h, shorten(h.text))
	}
}
