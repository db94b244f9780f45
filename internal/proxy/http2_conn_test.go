package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// tape is a connection that keeps what was written, a string for each write.
type tape struct {
	net.Conn
	writes []string
	fails  error
}

func (c *tape) SetWriteDeadline(time.Time) error { return nil }

func (c *tape) Write(p []byte) (int, error) {
	if c.fails != nil {
		return 0, c.fails
	}
	c.writes = append(c.writes, string(p))
	return len(p), nil
}

// written is what was written so far, also by the timer.
func written(c *http2Conn, to *tape) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return to.writes
}

// frameOf is a frame of HTTP/2 whose type and flags are given as letters: H is HEADERS, D DATA; a dot ends the stream.
func frameOf(kind string, payload int) string {
	header := []byte{byte(payload >> 16), byte(payload >> 8), byte(payload), 0, 4, 0, 0, 0, 1}
	if kind[0] == 'H' {
		header[3] = 1
	}
	if strings.HasSuffix(kind, ".") {
		header[4] |= 1
	}
	return string(header) + strings.Repeat(kind[:1], payload)
}

func TestHTTP2Conn_PutsAHeadTogetherWithWhatFollows(t *testing.T) {
	head, body, empty, trailer, large := frameOf("H", 60), frameOf("D.", 200), frameOf("H.", 60), frameOf("H.", 20), frameOf("D", maxGathered)
	tests := []struct {
		name         string
		writes, want []string
	}{
		{"head and body", []string{head, body}, []string{head + body}},
		{"both at once", []string{head + body}, []string{head + body}},
		{"no body", []string{empty, empty}, []string{empty, empty}},
		{"of two streams", []string{head, head, body, body}, []string{head + head + body, body}},
		{"a head behind a body", []string{body + head, body}, []string{body + head + body}},
		{"trailers", []string{head, body, trailer}, []string{head + body, trailer}},
		{"much", []string{head, large, large}, []string{head, large, large}},
		{"cut in a frame's header", []string{head[:5], head[5:], body}, []string{head[:5], head[5:] + body}},
		{"cut in a frame", []string{head[:30], head[30:], body[:100], body[100:]}, []string{head[:30], head[30:] + body[:100], body[100:]}},
		{"nothing in it", []string{frameOf("H", 0), frameOf("D.", 0)}, []string{frameOf("H", 0) + frameOf("D.", 0)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var to tape
			c := &http2Conn{Conn: &to, allowance: newAllowance()}
			for _, w := range tt.writes {
				if n, err := c.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatalf("Write of %d bytes = %d, %v", len(w), n, err)
				}
			}
			if got, want := strings.Join(to.writes, "|"), strings.Join(tt.want, "|"); got != want {
				t.Errorf("written:\n%q, want\n%q", got, want)
			}
		})
	}
}

func TestHTTP2Conn_WritesAHeadInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to tape
		c := &http2Conn{Conn: &to, allowance: newAllowance()}
		head := frameOf("H", 60)
		for range 3 { // the timer is set anew each time
			to.writes = nil
			if _, err := c.Write([]byte(head)); err != nil {
				t.Fatal(err)
			}
			if got := written(c, &to); len(got) != 0 {
				t.Fatal("a head was written at once")
			}
			<-time.After(bodyWait)
			synctest.Wait()
			if got := written(c, &to); len(got) != 1 || got[0] != head {
				t.Fatalf("after %s was written %q, want the head", bodyWait, got)
			}
			<-time.After(10 * bodyWait)
		}
	})
}

func TestHTTP2Conn_TellsThatALateWriteFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := tape{fails: errors.New("broken")}
		c := &http2Conn{Conn: &to, allowance: newAllowance()}
		if _, err := c.Write([]byte(frameOf("H", 60))); err != nil {
			t.Fatalf("keeping a head failed: %v", err)
		}
		<-time.After(bodyWait)
		synctest.Wait()
		if _, err := c.Write([]byte(frameOf("D.", 1))); err != to.fails {
			t.Errorf("the write after it = %v, want %v", err, to.fails)
		}
	})
}

func TestHTTP2Conn_EndsAFrameBeforeItSaysGoAway(t *testing.T) {
	goAway := "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b"
	answer := frameOf("D.", 200)
	for _, test := range []struct {
		name         string
		writes, want []string
	}{
		{"between two frames", nil, []string{answer, goAway}},
		{"in a header", []string{answer[:5], answer[5:]}, []string{answer, answer[:5], answer[5:], goAway}},
		{"in a payload", []string{answer[:50], answer[50:]}, []string{answer, answer[:50], answer[50:], goAway}},
		{"at the end that is the middle of another", []string{answer[:50], answer[50:] + answer[:5], answer[5:]},
			[]string{answer, answer[:50], answer[50:] + answer[:5], answer[5:], goAway}},
		{"the end never comes", []string{answer[:50]}, []string{answer, answer[:50]}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var to tape
				c := &http2Conn{Conn: &to, allowance: newAllowance()}
				c.Write([]byte(answer))
				writes := test.writes
				if len(writes) > 0 {
					c.Write([]byte(writes[0]))
					writes = writes[1:]
				}
				began, said := time.Now(), make(chan struct{})
				go func() {
					defer close(said)
					c.goAway()
				}()
				for _, w := range writes {
					synctest.Wait()
					c.Write([]byte(w))
				}
				<-said
				if got := written(c, &to); !slices.Equal(got, test.want) {
					t.Errorf("written %q, want %q", got, test.want)
				}
				if n, err := c.Write([]byte(answer)); n != len(answer) || err != nil {
					t.Errorf("a write after it = %d, %v: net/http would reset the connection", n, err)
				} else if got := written(c, &to); test.want[len(test.want)-1] == goAway && len(got) != len(test.want) {
					t.Errorf("then written %q", got[len(test.want):])
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v, want a second at most", took)
				}
			})
		})
	}
}

func TestHTTP2Conn_ReadsAhead(t *testing.T) {
	sent := strings.Repeat("0123456789", 1000)
	reads := 0
	from := readerFunc(func(p []byte) (int, error) {
		reads++
		return strings.NewReader(sent[:min(len(sent), len(p))]).Read(p)
	})
	var in http1.Reader
	in.Reset(from, []byte("first "))
	c := &http2Conn{in: &in, allowance: newAllowance()}
	var got bytes.Buffer
	for got.Len() < 6+4096 {
		if _, err := io.CopyN(&got, c, 6); err != nil {
			t.Fatal(err)
		}
	}
	if want := "first " + sent[:4096]; got.String()[:len(want)] != want {
		t.Errorf("read %q", got.String())
	}
	if reads > 2 {
		t.Errorf("%d reads for %d bytes, want 2 at most", reads, got.Len())
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
