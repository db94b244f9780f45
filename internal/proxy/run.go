package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

// Config says how a proxy runs.
type Config struct {
	// Dir holds the snapshot, the control socket proxy.sock, the lock, the key of the cookies and that of
	// synthetic requests. It is made if need be. One proxy serves on it at a time.
	Dir  string
	HTTP string // address of the public listener: ":8080"
	// HTTPS is the address where hosts with a certificate (Edge.TLS) are served over TLS: ":8443". "" = nowhere.
	HTTPS string
	// Trust are the networks whose word counts, besides this machine's: about whom they forward requests for
	// (X-Forwarded-For and its kin), and with ProxyProtocol about who is behind a connection.
	Trust []netip.Prefix
	// ProxyProtocol: connections from networks of Trust to the public addresses begin with a header of the PROXY
	// protocol, version 1 or 2. One without, or with a malformed one, is closed.
	ProxyProtocol bool
	// Connections is how many connections of clients each public address takes; more are closed at once. 0 = as many
	// as there are file descriptors for.
	Connections int
	// Engine is what reads HTTP/1: "" for the fast one, which leaves to the general one what it does not
	// know; EngineGeneral to have that read everything.
	Engine string
	Log    *slog.Logger
	// Seen says what is to be seen of requests.
	Seen Seen
	// Version is told in Info; "" is fine.
	Version string
	// Takeover takes the listeners from the proxy that serves on Dir, which then drains and ends.
	// When none does, it starts as usual.
	Takeover bool
	// Ready is called once, when every listener is served and the control socket answers. nil is fine.
	Ready func()
}

// EngineGeneral is the server of net/http.
const EngineGeneral = "general"

const (
	// Kept connections are not closed under the hands of a client that is just sending: for so long
	// each gets its next answer with Connection: close first.
	lingerStop   = 500 * time.Millisecond // when stopped
	lingerHeired = 3 * time.Second        // when replaced: nobody waits for this process
	pollEvery    = 5 * time.Millisecond
)

// Run serves until ctx ends or another process has taken over; then it accepts no more connections,
// finishes its open requests (for at most 30 s) and returns nil. It returns an error when it could not
// start or cannot accept connections any more.
func Run(ctx context.Context, c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	in := &inheritance{}
	if c.Takeover {
		heritage, err := inherit(c.Dir)
		if err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		if heritage != nil {
			in = heritage
			defer in.close()
		}
	}
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	p, err := prepare(base, c, in)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	defer p.lock.Close()
	err = p.run(ctx, c, in, stop)
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	return nil
}

// prepare loads the state and binds the public listener. Nothing is accepted on it yet.
func prepare(base context.Context, c Config, in *inheritance) (*plane, error) {
	lock := in.lock
	if lock == nil {
		var err error
		if lock, err = lockDir(c.Dir); err != nil {
			return nil, err
		}
	}
	p := &plane{
		dir: c.Dir, general: c.Engine == EngineGeneral, blocks: newBlocks(), version: c.Version, log: c.Log, lock: lock, base: base, inherited: in.sockets,
		broken: make(chan error, 1), dirty: make(chan struct{}, 1),
		left: make(chan struct{}), heired: make(chan struct{}), drained: make(chan struct{}),
		headers: c.ProxyProtocol, intakes: map[string]*intake{},
		apps: map[spillway.Ref]*app{}, endpoints: map[endpointKey]*endpoint{}, listeners: map[string]*listener{}, missing: map[string]string{},
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.trust.extend(c.Trust)
	p.served.New = func() any { return &served{} }
	p.crew, p.most = newCrew(p.drained), cmp.Or(int64(c.Connections), mostConnections())
	p.keeper.dir, p.keeper.log, p.keeper.outside = filepath.Join(c.Dir, acmeDir), p.log, &p.outside
	p.reroute()
	var err error
	if err = p.seen.open(c, p.log); err != nil {
		lock.Close()
		return nil, err
	}
	if p.keys.cookie, err = loadCookieKey(c.Dir); err == nil {
		p.keys.synthetic, err = loadSyntheticKey(c.Dir)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	if err := p.bindPublic(c); err != nil {
		lock.Close()
		return nil, err
	}
	return p, nil
}

// bindPublic binds the public listeners: all of them or, with an error, none.
func (p *plane) bindPublic(c Config) error {
	tcp, err := p.inherited.take(publicName + c.HTTP)
	if err != nil {
		return err
	}
	p.public = &listener{address: c.HTTP, tcp: tcp}
	if c.Seen.Metrics != "" {
		if p.seen.metrics, err = p.inherited.take(metricsName + c.Seen.Metrics); err != nil {
			p.unbindPublic()
			return err
		}
	}
	p.outside = outside{address: c.HTTP, http: boundPort(tcp)}
	if c.HTTPS == "" {
		return nil
	}
	if tcp, err = p.inherited.take(secureName + c.HTTPS); err != nil {
		p.unbindPublic()
		return err
	}
	p.secure = &listener{address: c.HTTPS, tcp: tcp}
	p.outside.https = boundPort(tcp)
	return nil
}

// unbindPublic gives up public listeners on which nothing is accepted yet.
func (p *plane) unbindPublic() {
	p.public.tcp.Close()
	if p.secure != nil {
		p.secure.tcp.Close()
	}
	p.seen.unbind()
}

// run serves from the first connection to the last answer. stop ends the base context of connections.
func (p *plane) run(ctx context.Context, c Config, in *inheritance, stop func()) error {
	control, publish, err := listenControl(p.dir)
	if err != nil {
		p.unbindPublic()
		return err
	}
	defer control.Close()
	if err := p.load(); err != nil {
		p.unbindPublic()
		return err
	}
	p.mu.Lock()
	p.public = p.open(c.HTTP, p.public.tcp, nil, byHost)
	if p.secure != nil {
		p.secure = p.open(c.HTTPS, p.secure.tcp, p.tlsConfig(), byHost)
	}
	p.inherited.close() // of apps that are gone
	p.inherited = nil
	p.mu.Unlock()

	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.startSeen(ctx, &background)
	server := p.controlServer()
	defer server.Close()
	err = p.succeed(in, &background)
	if err == nil {
		err = publish()
	}
	if err != nil {
		p.drain(0, stop)
		return err
	}
	// Owned by run, which closes control and waits.
	background.Go(func() {
		if err := server.Serve(control); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			p.log.Error("control socket", "error", err)
		}
	})
	background.Go(func() { p.keepSaved(ctx) })        // owned by run; ends with ctx
	background.Go(func() { p.lookAround(ctx) })       // as above
	background.Go(func() { p.keepCertificates(ctx) }) // as above
	p.log.Info("proxy serves", "http", p.info().HTTP, "https", p.info().HTTPS, "dir", p.dir)
	if c.Ready != nil {
		c.Ready()
	}
	return p.await(ctx, stop)
}

// await blocks until this proxy has to leave, and leaves.
func (p *plane) await(ctx context.Context, stop func()) error {
	var err error
	linger := lingerStop
	select {
	case <-ctx.Done():
	case <-p.heired:
		linger = lingerHeired
	case err = <-p.broken:
	}
	p.log.Info("proxy drains", "replaced", p.handedOver())
	p.drain(linger, stop)
	if p.handedOver() {
		p.keeper.settle(drainTime)
		return err
	}
	return errors.Join(err, p.save(), os.Remove(filepath.Join(p.dir, socketName)))
}

// succeed lets the replaced process go, and returns when its open requests are known.
func (p *plane) succeed(in *inheritance, background *sync.WaitGroup) error {
	if in.conn == nil {
		return nil
	}
	counted := make(chan struct{})
	// Owned by run; ends when the replaced process has ended its last request and hangs up.
	background.Go(func() { p.follow(in, sync.OnceFunc(func() { close(counted) })) })
	_, err := in.conn.Write([]byte(ready))
	if err == nil {
		select {
		case <-counted:
			p.mu.Lock()
			known := p.elder != nil
			p.mu.Unlock()
			if known {
				return nil
			}
			err = errors.New("it hung up")
		case <-time.After(heirTime):
			err = errors.New("it does not say what it still does")
		}
	}
	if old, _ := net.Dial("unix", filepath.Join(p.dir, socketName)); old != nil {
		old.Close()
		return fmt.Errorf("the proxy that was to be replaced goes on: %w", err)
	}
	p.log.Warn("the replaced proxy died", "error", err)
	return nil
}

// stopAccepting closes the listening sockets. Connections stay.
func (p *plane) stopAccepting() []*listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := []*listener{p.public}
	if p.secure != nil {
		all = append(all, p.secure)
	}
	for _, l := range p.listeners {
		all = append(all, l)
	}
	for _, l := range all {
		l.tcp.Close()
	}
	for _, in := range p.intakes {
		in.tcp.Close()
	}
	p.seen.unbind()
	return all
}

// drain stops accepting, gives each kept connection up to linger for a last request, waits for open
// requests, and ends what is still there after drainTime.
func (p *plane) drain(linger time.Duration, stop func()) {
	p.mu.Lock()
	p.stage.CompareAndSwap(serving, leaving)
	p.mu.Unlock()
	close(p.left)
	all := p.stopAccepting()
	begin := time.Now()
	poll(begin.Add(linger), func() bool {
		open := int64(0)
		for _, l := range all {
			open += l.conns.Load()
		}
		return open == 0 && p.active.Load() == 0
	})
	ctx, cancel := context.WithDeadline(p.base, begin.Add(drainTime))
	defer cancel()
	var shutting sync.WaitGroup
	for _, l := range all {
		shutting.Go(func() { l.shut(ctx) }) // owned by this call, which waits
	}
	shutting.Wait()
	poll(begin.Add(drainTime), func() bool { return p.active.Load() == 0 }) // upgraded connections too
	stop()
	for _, l := range all {
		l.close()
	}
	p.hangUp()
	close(p.drained)
	p.servers.Wait()
}

// hangUp closes the idle connections to replicas.
func (p *plane) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.endpoints {
		e.closeIdle()
	}
}

// poll waits until done, or until the time is over.
func poll(until time.Time, done func() bool) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() && time.Now().Before(until) {
		<-tick.C
	}
}

// lockDir makes this process the only one that serves on the directory.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another proxy serves on %s; stop it, or start this one to take over from it: %w", dir, err)
	}
	return f, nil
}
