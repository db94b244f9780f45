package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	clientIdle    = 75 * time.Second
	maxHeader     = 32 << 10
	// drainTime is the longest wait for open requests of a listener that goes away.
	drainTime = 30 * time.Second
)

// listener is an address at which requests arrive.
type listener struct {
	address string // as it was asked for: ":8080"
	tcp     *net.TCPListener
	server  *http.Server
	conns   atomic.Int64 // open client connections
}

// open serves the requests that arrive at a bound listener, as arrive accepts them, by the edge that find gives: over TLS and
// with HTTP/2 if there is a configuration of TLS.
func (p *plane) open(address string, tcp *net.TCPListener, arrive net.Listener, secure *tls.Config, find func(*routing, *http.Request) *edge) *listener {
	l := &listener{address: address, tcp: tcp}
	l.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.active.Add(1)
			defer p.active.Add(-1)
			p.serve(w, r, func(t *routing) *edge { return find(t, r) })
		}),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       clientIdle,
		MaxHeaderBytes:    maxHeader,
		Protocols:         onlyHTTP1(),
		TLSConfig:         secure,
		BaseContext:       func(net.Listener) context.Context { return p.base },
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				l.conns.Add(1)
			case http.StateHijacked, http.StateClosed:
				l.conns.Add(-1)
			}
		},
	}
	serve := l.server.Serve
	if secure != nil {
		l.server.Protocols.SetHTTP2(true)
		serve = func(tcp net.Listener) error { return l.server.ServeTLS(tcp, "", "") }
	}
	p.servers.Add(1)
	// Owned by the plane; ends when the listener is closed; Run waits for it.
	go func() {
		defer p.servers.Done()
		err := serve(arrive)
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			p.broken <- fmt.Errorf("accept on %s: %w", address, err)
		}
	}()
	return l
}

func byHost(t *routing, r *http.Request) *edge { return t.hosts[normalHost(r.Host)] }

func byAddress(address string) func(*routing, *http.Request) *edge {
	return func(t *routing, _ *http.Request) *edge { return t.private[address] }
}

// accept serves bound addresses, by what is spoken there: requests or connections of TCP. p.mu is held.
func (p *plane) accept(bound map[string]*net.TCPListener) {
	for address, tcp := range bound {
		if p.routing.Load().streams[address] != nil {
			p.openIntake(address, tcp)
			continue
		}
		p.listeners[address] = p.open(address, tcp, tcp, nil, byAddress(address))
	}
}

// unbind gives up the addresses that are in no table any more, once their requests have ended. p.mu is held.
func (p *plane) unbind() {
	used := map[string]bool{}
	for _, a := range p.apps {
		for name := range socketsOf(a.table) {
			used[name] = true
		}
	}
	maps.DeleteFunc(p.missing, func(name, _ string) bool { return !used[name] })
	for _, name := range slices.Concat(slices.Collect(maps.Keys(p.listeners)), slices.Collect(maps.Keys(p.intakes))) {
		if !used[name] {
			p.giveUp(name)
		}
	}
}

// retire closes a listener and lets its requests end.
func (p *plane) retire(l *listener) {
	l.tcp.Close() // at once, so that the address can be bound again
	p.servers.Add(1)
	// Owned by the plane; ends when the requests have ended, or after drainTime; Run waits for it.
	go func() {
		defer p.servers.Done()
		ctx, cancel := context.WithTimeout(p.base, drainTime)
		defer cancel()
		if l.server.Shutdown(ctx) != nil {
			l.server.Close()
		}
	}()
}
