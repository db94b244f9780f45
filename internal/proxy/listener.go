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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

const (
	headerTimeout = 10 * time.Second
	clientIdle    = 75 * time.Second
	// drainTime is the longest wait for open requests of a listener that goes away.
	drainTime = 30 * time.Second
)

// listener is an address at which requests arrive.
type listener struct {
	plane   *plane
	address string // as it was asked for: ":8080"
	tcp     *net.TCPListener
	tls     *tls.Config // nil = without TLS
	find    func(*routing, *call) *way
	server  *http.Server // the general engine
	handoff *handoff     // where that gets its connections
	conns   atomic.Int64 // open client connections
	sealed  atomic.Bool  // no connection is kept any more
	slow    bool         // everything goes to the general engine
	private bool         // only replicas of ours come here

	complained time.Time // that it is full; of accept

	mu     sync.Mutex
	fronts map[*front]struct{} // of the fast engine
}

// open serves the requests that arrive at a bound listener, by the way that find gives: over TLS and
// with HTTP/2 if there is a configuration of TLS.
func (p *plane) open(address string, tcp *net.TCPListener, secure *tls.Config, find func(*routing, *call) *way) *listener {
	l := &listener{plane: p, address: address, tcp: tcp, find: find, handoff: newHandoff(tcp.Addr()), slow: p.general, fronts: map[*front]struct{}{}}
	l.private = tcp != p.public.tcp && (p.secure == nil || tcp != p.secure.tcp)
	if secure != nil {
		l.tls = secure.Clone()
		l.tls.NextProtos = append(l.tls.NextProtos, "h2", "http/1.1")
	}
	l.server = &http.Server{
		Handler:           http.HandlerFunc(l.general),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       clientIdle,
		MaxHeaderBytes:    http1.MaxHead,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},

		DisableGeneralOptionsHandler: true,
		Protocols:                    new(http.Protocols),
		BaseContext:                  func(net.Listener) context.Context { return p.base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, frontKey{}, c.(*given).front)
		},
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateHijacked || s == http.StateClosed {
				l.conns.Add(-1)
			}
		},
	}
	l.server.Protocols.SetHTTP1(true)
	l.server.Protocols.SetHTTP2(true)
	l.server.Protocols.SetUnencryptedHTTP2(true)
	p.servers.Add(2)
	// Both owned by the plane; they end when the listener is closed, and is shut; Run waits for them.
	go func() {
		defer p.servers.Done()
		if err := l.accept(); err != nil {
			p.broken <- fmt.Errorf("accept on %s: %w", address, err)
		}
	}()
	go func() {
		defer p.servers.Done()
		_ = l.server.Serve(l.handoff) // it ends when the handoff does
	}()
	return l
}

// accept takes connections until the listener is closed.
func (l *listener) accept() error {
	for pause := time.Duration(0); ; {
		conn, err := l.tcp.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.plane.log.Error("cannot accept connections for the moment", "address", l.address, "error", err)
			timer := time.NewTimer(pause)
			<-timer.C
			continue
		case err != nil:
			return err
		}
		if pause = 0; l.full() {
			conn.Close()
			continue
		}
		f := l.front(conn)
		l.conns.Add(1)
		l.mu.Lock()
		l.fronts[f] = struct{}{}
		l.mu.Unlock()
		l.plane.servers.Add(1)
		// Owned by the plane; ends with the connection, or when the general engine has it; Run waits for it.
		go func() {
			defer l.plane.servers.Done()
			f.run()
		}()
	}
}

// forget leaves a connection to the general engine, or to nobody.
func (l *listener) forget(f *front) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.fronts, f)
}

// seal keeps no connection any more, and closes those that are idle.
func (l *listener) seal() {
	l.sealed.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.fronts {
		if f.state.CompareAndSwap(idle, closed) {
			f.conn.Close()
		}
	}
}

// shut ends the listener, which accepts nothing any more, when its requests have ended or ctx does.
func (l *listener) shut(ctx context.Context) {
	l.seal()
	until, _ := ctx.Deadline()
	poll(until, func() bool { // first, because a request of the fast engine may still go to the general one
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.fronts) == 0 || ctx.Err() != nil
	})
	_ = l.server.Shutdown(ctx) // what is left is closed by close
}

// close ends all connections.
func (l *listener) close() {
	l.sealed.Store(true)
	l.server.Close()
	l.handoff.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for f := range l.fronts {
		f.state.Store(closed)
		f.wire.Close() // f.conn may be changing
	}
}

func byHost(t *routing, c *call) *way {
	w, _ := t.ways.find(c)
	return w
}

func byAddress(address string) func(*routing, *call) *way {
	return func(t *routing, _ *call) *way { return t.private[address] }
}

// accept serves bound addresses, by what is spoken there: requests or connections of TCP. p.mu is held.
func (p *plane) accept(bound map[string]*net.TCPListener) {
	for address, tcp := range bound {
		if p.routing.Load().streams[address] != nil {
			p.openIntake(address, tcp)
			continue
		}
		p.listeners[address] = p.open(address, tcp, nil, byAddress(address))
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
		l.shut(ctx)
		l.close()
	}()
}
