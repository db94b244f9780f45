package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// sockets are listeners of a replaced process by name.
type sockets map[string]*net.TCPListener

// take gives the inherited listener of a name, or binds the address in it.
func (s sockets) take(name string) (*net.TCPListener, error) {
	if l := s[name]; l != nil {
		delete(s, name)
		return l, nil
	}
	address := name[strings.LastIndexByte(name, ' ')+1:] // without publicName and the like
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

// errGone: the proxy behind the socket has nothing left to hand over, and its heir died.
var errGone = errors.New("gone")

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
		if errors.Is(err, errGone) {
			return nil, nil
		}
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
			if bytes.HasPrefix(text, []byte(gone)) {
				return errGone
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
