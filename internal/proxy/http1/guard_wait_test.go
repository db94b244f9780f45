package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// watched is a guard of a connection that has sent one request, all of which was read, and the other end of it.
func watched(t *testing.T) (*Guard, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	go io.WriteString(far, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") // ends when it is read
	var in Reader
	in.Reset(near, nil)
	var first Request
	if err := in.ReadRequest(&first); err != nil {
		t.Fatal(err)
	}
	g := NewGuard(near, &in, &first)
	if _, err := io.ReadFull(g, make([]byte, len(first.raw))); err != nil {
		t.Fatal(err)
	}
	return g, far
}

// read is the read with which the server of net/http sees the end of a connection.
func read(g *Guard) <-chan error {
	done := make(chan error, 1)
	go func() { // ends with the read
		_, err := g.Read(make([]byte, 1))
		done <- err
	}()
	return done
}

func TestGuard_EndsTheWaitOfAReadThatOnlyWatches(t *testing.T) {
	tests := []struct {
		name string
		end  func(g *Guard, far net.Conn)
		want error
	}{
		{"its time is over", func(g *Guard, _ net.Conn) { g.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"both its times are over", func(g *Guard, _ net.Conn) { g.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		{"closed", func(g *Guard, _ net.Conn) { g.Close() }, net.ErrClosed},
		{"the client leaves, and somebody looks", func(g *Guard, far net.Conn) { far.Close(); g.Look() }, io.EOF},
		{"somebody looks, and the client leaves", func(g *Guard, far net.Conn) { g.Look(); synctest.Wait(); far.Close() }, io.EOF},
		{"somebody looks, and its time is over", func(g *Guard, far net.Conn) { g.Look(); synctest.Wait(); g.SetReadDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	}
	for _, tt := range tests {
		for _, early := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				g, far := watched(t)
				var done <-chan error
				if !early {
					done = read(g)
					synctest.Wait()
					select {
					case err := <-done:
						t.Fatalf("%s: the read ended at once: %v", tt.name, err)
					default:
					}
				}
				tt.end(g, far)
				if early {
					done = read(g)
				}
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("%s (before the read: %t): the read ends with %v, want %v", tt.name, early, err, tt.want)
				}
			})
		}
	}
}

// TestGuard_GoesOnAfterAWatch: what a client sends while the server only watches is the next request.
func TestGuard_GoesOnAfterAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, far := watched(t)
		for _, path := range []string{"/b", "/c", "/d"} {
			done := read(g)
			synctest.Wait()
			if path != "/c" { // else the watch is over before anything comes
				g.Look()
			}
			text := "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"
			sent := make(chan error, 1)
			go func() { // ends when it is read
				_, err := io.WriteString(far, text)
				sent <- err
			}()
			synctest.Wait()
			want := text
			if path == "/c" {
				g.SetReadDeadline(time.Unix(1, 0))
				if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatal(err)
				}
				g.SetReadDeadline(time.Time{})
			} else if err := <-done; err != nil {
				t.Fatal(err)
			} else {
				want = text[1:] // the watch has the first byte
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(g, got); err != nil || string(got) != want {
				t.Fatalf("read %q, %v, want %q", got, err, want)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestGuard_GivesALaterRequestItsSecondToo: a client that sends no more may still want its answer, whatever ended before.
func TestGuard_GivesALaterRequestItsSecondToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, far := watched(t)
		done := read(g)
		synctest.Wait()
		g.SetReadDeadline(time.Unix(1, 0)) // the first request is answered
		<-done
		g.SetReadDeadline(time.Time{})
		text := "GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
		go io.WriteString(far, text) // ends when it is read
		if _, err := io.ReadFull(g, make([]byte, len(text))); err != nil {
			t.Fatal(err)
		}
		done = read(g)
		far.Close()
		g.Look()
		began := time.Now()
		if err := <-done; err != io.EOF || time.Since(began) != HalfClosed {
			t.Errorf("the end shows after %v: %v, want %v", time.Since(began), err, HalfClosed)
		}
	})
}

// timesOf notes the times for reading that its connection gets.
type timesOf struct {
	net.Conn
	set []time.Time
}

func (c *timesOf) Read(p []byte) (int, error) { return 1, nil }

func (c *timesOf) SetReadDeadline(t time.Time) error {
	c.set = append(c.set, t)
	return nil
}

func TestGuard_SetsTheTimeForReadingWhenItReads(t *testing.T) {
	var in Reader
	in.Reset(&timesOf{}, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	var first Request
	if err := in.ReadRequest(&first); err != nil {
		t.Fatal(err)
	}
	var conn timesOf
	g := NewGuard(&conn, &in, &first)
	at := time.Now().Add(time.Minute)
	for _, s := range []struct {
		until time.Time
		want  int // times that were set so far
	}{
		{at, 1}, {at.Add(near / 2), 1}, {at.Add(near), 1}, {at.Add(near + 1), 2}, {at, 3}, {time.Time{}, 4}, {time.Time{}, 4}, {at, 5},
	} {
		g.SetReadDeadline(time.Unix(1, 0)) // nobody reads: it has no effect
		g.SetReadDeadline(s.until)
		if _, err := (*timedConn)(g).Read(nil); err != nil {
			t.Fatal(err)
		}
		if len(conn.set) != s.want {
			t.Errorf("until %v: the time was set %d times, want %d", s.until, len(conn.set), s.want)
		}
		if last := conn.set[len(conn.set)-1]; last.IsZero() != s.until.IsZero() || last.After(s.until) || s.until.Sub(last) > near {
			t.Errorf("until %v: the connection has %v", s.until, last)
		}
	}
}
