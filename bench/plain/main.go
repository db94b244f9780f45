// Command plain is httputil.ReverseProxy with a tuned Transport and a pool of buffers: what a Go program
// has for a reverse proxy without writing one, and the yardstick of make bench-gate.
package main

import (
	"crypto/tls"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

func main() {
	plainAddress := flag.String("http", "", "`ADDR` to serve HTTP at")
	secureAddress := flag.String("https", "", "`ADDR` to serve HTTPS at")
	cert := flag.String("cert", "", "PEM `FILE` with the certificate")
	key := flag.String("key", "", "PEM `FILE` with its key")
	backend := flag.String("backend", "", "`ADDR` of the backend")
	flag.Parse()

	handler := newProxy(*backend)
	failed := make(chan error, 2)
	// Both are owned by main and end with the process.
	go func() { failed <- newServer(*plainAddress, handler).ListenAndServe() }()
	go func() { failed <- newServer(*secureAddress, handler).ListenAndServeTLS(*cert, *key) }()
	log.Fatal(<-failed)
}

func newServer(address string, h http.Handler) *http.Server {
	return &http.Server{
		Addr: address, Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ErrorLog: log.New(io.Discard, "", 0),
	}
}

func newProxy(backend string) http.Handler {
	target := &url.URL{Scheme: "http", Host: backend}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableCompression: true,
			MaxIdleConns: 1024, MaxIdleConnsPerHost: 512, IdleConnTimeout: 90 * time.Second,
		},
		BufferPool: &buffers{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
		ErrorLog:   log.New(io.Discard, "", 0),
	}
}

// buffers are what bodies are copied through.
type buffers struct{ pool sync.Pool }

// Get gives a buffer that nobody else has.
func (b *buffers) Get() []byte { return b.pool.Get().(*[32 << 10]byte)[:] }

// Put takes it back.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[32 << 10]byte)(buf)) }
