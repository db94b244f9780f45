package proxy

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestRun_TakesOnlySoManyConnections: one too many is closed at once, and taken again when another has gone.
func TestRun_TakesOnlySoManyConnections(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	dir, ready, ended := tempDir(t), make(chan struct{}), make(chan error, 1)
	go func() { // owned by the test, which waits for ended
		ended <- Run(ctx, Config{Dir: dir, HTTP: "127.0.0.1:0", Connections: 2, Ready: func() { close(ready) }})
	}()
	<-ready
	info, err := Dial(dir).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	open := func() net.Conn {
		conn, err := net.Dial("tcp", info.HTTP)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		return conn
	}
	served := func(conn net.Conn) bool {
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
		head := make([]byte, 64)
		n, _ := conn.Read(head)
		return strings.HasPrefix(string(head[:n]), "HTTP/1.1 404 ")
	}
	one, two := open(), open()
	if !served(one) || !served(two) {
		t.Error("the first two are not served")
	}
	three := open()
	if served(three) {
		t.Error("the third is served")
	}
	one.Close()
	eventually(t, "another one is served", func() bool {
		conn := open()
		defer conn.Close()
		return served(conn)
	})
	two.Close()
	three.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
