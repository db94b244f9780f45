package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spillway-dev/spillway"
)

const (
	// heirTime is how long an heir may take to load the snapshot and to accept connections.
	heirTime = 20 * time.Second
	// countEvery is how often the heir is told how many requests are left here.
	countEvery = 10 * time.Millisecond

	lockName   = "proxy.lock"
	publicName = "public " // before the address, in the name of the public listener
	ready      = "ready\n"
)

// message is one line from a proxy to its heir. The first ones carry a descriptor each (Descriptor, in
// the ancillary data), up to Complete; then come answers and counts in any order. InFlight always comes
// after the outcomes of the requests that it no longer counts.
type message struct {
	Descriptor string `json:"descriptor,omitempty"` // "proxy.lock", "public :8080" or a private address
	Complete   bool   `json:"complete,omitempty"`   // that was the last descriptor

	App     spillway.Ref `json:"app,omitempty"` // of Outcome
	Trial   int64        `json:"trial,omitempty"`
	Outcome *outcome     `json:"outcome,omitempty"`

	InFlight *[]openRequests `json:"in_flight,omitempty"` // all that is left
}

type openRequests struct {
	endpointKey
	Open int64 `json:"open"`
}

// heir is the process that takes over, as the old one sees it.
type heir struct {
	mu    sync.Mutex
	queue []message
	wake  chan struct{} // has room for one
}

// tell never waits.
func (h *heir) tell(m message) {
	h.mu.Lock()
	h.queue = append(h.queue, m)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default: // it is awake
	}
}

func (h *heir) take() []message {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queue
	h.queue = nil
	return q
}

// bequeath hands this proxy over to the process behind conn. With an error this one goes on as if
// nothing had been.
func (p *plane) bequeath(conn *net.UnixConn) error {
	defer conn.Close()
	h := &heir{wake: make(chan struct{}, 1)}
	if err := p.freeze(h); err != nil {
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n%s", err)
		return err
	}
	defer p.servers.Done()
	if err := p.introduce(conn); err != nil {
		p.thaw()
		return err
	}
	// The heir accepts on copies of our listeners. Ours are closed before requests are passed on, so
	// that none comes back here.
	p.stopAccepting()
	p.stage.Store(handed)
	close(p.heired)
	p.tellTheEnd(conn, h)
	return nil
}

// freeze writes the last snapshot of this process. What is judged from then on, h is told. Without an
// error the caller owes p.servers a Done.
func (p *plane) freeze(h *heir) error {
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	if p.frozen || p.closing() {
		p.mu.Unlock()
		return errors.New("this proxy is being replaced or stopped already")
	}
	p.frozen = true
	p.servers.Add(1) // Run waits for the last word to the heir
	text := p.snapshot(h)
	p.mu.Unlock()
	if err := writeFile(p.snapshotPath(), text); err != nil {
		p.servers.Done()
		p.thaw()
		return fmt.Errorf("save before the hand-over: %w", err)
	}
	return nil
}

// thaw takes tables and snapshot back from an heir that did not come to life.
func (p *plane) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = false
	for _, a := range p.apps {
		if a.trial != nil {
			a.trial.disown()
		}
	}
	p.soon()
}

// introduce sends the heir every descriptor and waits until it serves.
func (p *plane) introduce(conn *net.UnixConn) error {
	if err := conn.SetDeadline(time.Now().Add(heirTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spillway-handover\r\n\r\n"); err != nil {
		return err
	}
	p.mu.Lock()
	all := map[string]syscall.Conn{lockName: p.lock, publicName + p.public.address: p.public.tcp}
	for address, l := range p.listeners {
		all[address] = l.tcp
	}
	p.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := sendDescriptor(conn, name, all[name]); err != nil {
			return fmt.Errorf("send %s: %w", name, err)
		}
	}
	if err := json.NewEncoder(conn).Encode(message{Complete: true}); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(ready))); err != nil {
		return fmt.Errorf("the new proxy did not come to serve: %w", err)
	}
	return conn.SetDeadline(time.Time{})
}

func sendDescriptor(conn *net.UnixConn, name string, c syscall.Conn) error {
	line, err := json.Marshal(message{Descriptor: name})
	if err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	// Not File and Fd: they would make the listener, which is shared, block.
	err = raw.Control(func(fd uintptr) {
		_, _, err = conn.WriteMsgUnix(append(line, '\n'), syscall.UnixRights(int(fd)), nil)
	})
	return err
}

// tellTheEnd tells the heir what still happens here, until the drain is over. An heir that is gone is
// no reason to drop requests, so its errors are not looked at.
func (p *plane) tellTheEnd(conn *net.UnixConn, h *heir) {
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	lines := json.NewEncoder(conn)
	var told []openRequests
	for first, over := true, false; !over; first = false {
		// Counted before the outcomes are taken: see message.
		open := p.openRequests()
		for _, m := range h.take() {
			_ = lines.Encode(m)
		}
		if first || !slices.Equal(open, told) {
			_ = lines.Encode(message{InFlight: &open})
			told = open
		}
		select {
		case <-tick.C:
		case <-h.wake:
		case <-p.drained:
			over = true
		}
	}
	for _, m := range h.take() {
		_ = lines.Encode(m)
	}
}

// openRequests lists the endpoints that have requests of this process, and of the one before it.
func (p *plane) openRequests() []openRequests {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := []openRequests{}
	for key, e := range p.endpoints {
		if n := e.inFlight.Load() + p.elder[key]; n > 0 {
			open = append(open, openRequests{key, n})
		}
	}
	slices.SortFunc(open, func(a, b openRequests) int { return compareKeys(a.endpointKey, b.endpointKey) })
	return open
}

// relay passes a request that arrived after the hand-over on to the heir, at the address where it came in.
func (p *plane) relay(w http.ResponseWriter, r *http.Request, body *upload) {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || (body != nil && !body.repeatable()) {
		w.Header().Set("Connection", "close")
		refuse(w, &refusal{http.StatusBadGateway, "the proxy was replaced while the request was being sent"})
		return
	}
	if body == nil && r.ContentLength != 0 {
		body = &upload{from: r.Body}
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	resp, err := p.send(outgoing(r.Context(), r, forwarded(r), body, local.String()))
	if err != nil {
		w.Header().Set("Connection", "close")
		refuse(w, &refusal{http.StatusBadGateway, "the new proxy " + err.Error()})
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		join(p.base, w, resp)
		return
	}
	if pass(w, resp, true, func() {}) != nil {
		panic(http.ErrAbortHandler)
	}
}

// sockets are listeners of a replaced process by name.
type sockets map[string]*net.TCPListener

// take gives the inherited listener of a name, or binds the address in it.
func (s sockets) take(name string) (*net.TCPListener, error) {
	if l := s[name]; l != nil {
		delete(s, name)
		return l, nil
	}
	address := strings.TrimPrefix(name, publicName)
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l.(*net.TCPListener), nil
}

func (s sockets) close() {
	for _, l := range s {
		l.Close()
	}
}

// inheritance is what an heir gets.
type inheritance struct {
	conn    *net.UnixConn
	lock    *os.File
	sockets sockets
	rest    []byte // read of conn beyond the descriptors
}

// inherit asks the proxy that serves on the directory for everything. nil when none does.
func inherit(dir string) (*inheritance, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(dir, socketName), Net: "unix"})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	in := &inheritance{conn: conn, sockets: sockets{}}
	if err := in.receive(); err != nil {
		in.close()
		return nil, fmt.Errorf("take over from the proxy that serves on %s: %w", dir, err)
	}
	return in, nil
}

func (in *inheritance) close() {
	in.sockets.close()
	if in.lock != nil {
		in.lock.Close()
	}
	in.conn.Close()
}

// receive reads the head of the answer and the descriptors.
func (in *inheritance) receive() error {
	if err := in.conn.SetDeadline(time.Now().Add(heirTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(in.conn, "POST /handover HTTP/1.1\r\nHost: proxy\r\nContent-Length: 0\r\n\r\n"); err != nil {
		return err
	}
	var text []byte
	var descriptors []int
	defer func() {
		for _, fd := range descriptors { // left over after an error
			syscall.Close(fd)
		}
	}()
	head, buf, oob := true, make([]byte, 32<<10), make([]byte, syscall.CmsgSpace(4*64))
	for {
		n, oobn, _, _, err := in.conn.ReadMsgUnix(buf, oob)
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("it broke off: %w", err)
		}
		text = append(text, buf[:n]...)
		fds, err := rights(oob[:oobn])
		if err != nil {
			return err
		}
		descriptors = append(descriptors, fds...)
		if head {
			_, rest, whole := bytes.Cut(text, []byte("\r\n\r\n"))
			if !whole {
				continue
			}
			if !bytes.HasPrefix(text, []byte("HTTP/1.1 101 ")) {
				return fmt.Errorf("it refuses: %s", rest)
			}
			head, text = false, rest
		}
		for !in.complete() {
			line, rest, whole := bytes.Cut(text, []byte("\n"))
			if !whole {
				break
			}
			text = rest
			if descriptors, err = in.adopt(line, descriptors); err != nil {
				return err
			}
		}
		if in.complete() {
			in.rest = text
			return in.conn.SetDeadline(time.Time{})
		}
	}
}

func rights(oob []byte) (fds []int, err error) {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		more, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		fds = append(fds, more...)
	}
	return fds, nil
}

// complete reports whether Complete was read.
func (in *inheritance) complete() bool { return in.rest != nil }

// adopt takes the first descriptor for the name in a line.
func (in *inheritance) adopt(line []byte, fds []int) ([]int, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return fds, err
	}
	if m.Complete {
		in.rest = []byte{}
		return fds, nil
	}
	if len(fds) == 0 {
		return fds, fmt.Errorf("%s came without its descriptor", m.Descriptor)
	}
	f := os.NewFile(uintptr(fds[0]), m.Descriptor)
	if m.Descriptor == lockName {
		in.lock = f
		return fds[1:], nil
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return fds[1:], fmt.Errorf("%s: %w", m.Descriptor, err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return fds[1:], fmt.Errorf("%s is no TCP listener", m.Descriptor)
	}
	in.sockets[m.Descriptor] = tcp
	return fds[1:], nil
}

// follow counts what the replaced process still tells, until it is gone. counted is called once, when
// it is known how many requests that one still has.
func (p *plane) follow(in *inheritance, counted func()) {
	defer counted()
	defer func() {
		p.mu.Lock()
		known := p.elder != nil
		p.mu.Unlock()
		if known {
			p.setElder(nil)
		}
	}()
	lines := json.NewDecoder(bufio.NewReader(io.MultiReader(bytes.NewReader(in.rest), in.conn)))
	for {
		var m message
		if lines.Decode(&m) != nil {
			return
		}
		if m.InFlight != nil {
			p.setElder(*m.InFlight)
			counted()
		}
		if m.Outcome == nil {
			continue
		}
		p.mu.Lock()
		a := p.apps[m.App]
		var t *trial
		if a != nil && a.trial != nil && a.trial.terms.ID == m.Trial {
			t = a.trial
		}
		p.mu.Unlock()
		if t != nil {
			p.react(a, t.observe(a.ref, *m.Outcome, false))
		}
	}
}

// setElder replaces the counts of the replaced process. The end of an endpoint's last request is news.
func (p *plane) setElder(open []openRequests) {
	now := map[endpointKey]int64{}
	for _, o := range open {
		now[o.endpointKey] = o.Open
	}
	p.mu.Lock()
	before := p.elder
	p.elder = now
	p.mu.Unlock()
	for key := range before {
		if now[key] == 0 {
			p.watch.tell(key.App)
		}
	}
}
