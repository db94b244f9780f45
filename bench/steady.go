package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// steady makes requests at a fixed rate, whether those before are answered or not (an open loop), and
// measures each from the moment when it was due: a proxy that stalls is not let off the requests that a
// waiting client would not have made meanwhile. wrk and h2load cannot do that over HTTP/1.
//
// It is one thread with epoll and a timer of the kernel, because the timers of Go are rounded up to a
// millisecond when nothing else runs, which is as long as what is measured.
type steady struct {
	requests [][]byte // sent in turn
	every    time.Duration
	epoll    int
	timer    int
	conns    []*steadyConn
	idle     []*steadyConn
	due      []time.Time // of requests for which no connection is idle
	times    []float64   // microseconds
	errors   int64
	sent     int
}

// steadyConn is a kept connection with at most one open request.
type steadyConn struct {
	fd   int
	busy bool
	due  time.Time
	got  []byte
}

// newSteady connects. Close it.
func newSteady(address string, connections int, rate float64, requests [][]byte) (s *steady, err error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	s = &steady{requests: requests, every: time.Duration(float64(time.Second) / rate), epoll: -1, timer: -1}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if s.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return nil, err
	}
	if err := s.listen(s.timer); err != nil {
		return nil, err
	}
	for range connections {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		c := &steadyConn{fd: fd}
		s.conns = append(s.conns, c)
		err = errors.Join(unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), unix.SetNonblock(fd, true), s.listen(fd))
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", address, err)
		}
	}
	s.idle = slices.Clone(s.conns)
	return s, nil
}

func (s *steady) listen(fd int) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (s *steady) close() {
	for _, c := range s.conns {
		unix.Close(c.fd)
	}
	for _, fd := range []int{s.timer, s.epoll} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// run makes requests for so long, and waits a second for the last answers.
func (s *steady) run(ctx context.Context, d time.Duration) (load, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin := time.Now()
	next, end := begin, begin.Add(d)
	byFD := map[int32]*steadyConn{}
	for _, c := range s.conns {
		byFD[int32(c.fd)] = c
	}
	events := make([]unix.EpollEvent, len(s.conns)+1)
	for ctx.Err() == nil {
		now := time.Now()
		for ; next.Before(end) && !next.After(now); next = next.Add(s.every) {
			s.due = append(s.due, next)
		}
		s.sendDue()
		if over := !next.Before(end); over && (len(s.due) == 0 && len(s.idle) == len(s.conns) || now.After(end.Add(time.Second))) {
			break
		}
		wait := max(time.Until(next), time.Microsecond)
		if err := unix.TimerfdSettime(s.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}, nil); err != nil {
			return load{}, err
		}
		n, err := unix.EpollWait(s.epoll, events, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return load{}, err
		}
		for _, e := range events[:max(n, 0)] {
			c := byFD[e.Fd]
			if c == nil {
				var count [8]byte
				_, _ = unix.Read(s.timer, count[:]) // it only has to be read
				continue
			}
			if err := s.receive(c); err != nil {
				return load{}, err
			}
		}
	}
	s.errors += int64(len(s.due) + len(s.conns) - len(s.idle)) // never answered
	slices.Sort(s.times)
	return load{
		requests: int64(len(s.times)), errors: s.errors, seconds: d.Seconds(),
		p50: percentile(s.times, 50), p99: percentile(s.times, 99), p999: percentile(s.times, 99.9),
	}, ctx.Err()
}

// sendDue sends what is due on idle connections, the one that was used last first.
func (s *steady) sendDue() {
	for len(s.due) > 0 && len(s.idle) > 0 {
		c := s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		c.busy, c.due, c.got = true, s.due[0], c.got[:0]
		s.due = s.due[1:]
		request := s.requests[s.sent%len(s.requests)]
		s.sent++
		if n, err := unix.Write(c.fd, request); err != nil || n < len(request) {
			s.errors++ // it stays busy: its answer never comes
		}
	}
}

// receive takes what has come on a connection. A connection that ends is an error of the whole run.
func (s *steady) receive(c *steadyConn) error {
	var buf [4096]byte
	n, err := unix.Read(c.fd, buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		return fmt.Errorf("the server closed a kept connection after %d requests: %v", s.sent, err)
	}
	c.got = append(c.got, buf[:n]...)
	size, status, err := answerSize(c.got)
	if err != nil || size == 0 || len(c.got) < size {
		return err
	}
	if !c.busy || len(c.got) > size {
		return fmt.Errorf("an answer to no request: %.80q", c.got)
	}
	c.busy = false
	s.idle = append(s.idle, c)
	if status/100 != 2 {
		s.errors++
		return nil
	}
	s.times = append(s.times, float64(time.Since(c.due))/float64(time.Microsecond))
	return nil
}

// answerSize is how many bytes an answer has, head and body; 0 = its head is not complete yet.
func answerSize(got []byte) (size, status int, err error) {
	head, _, ok := bytes.Cut(got, []byte("\r\n\r\n"))
	if !ok {
		return 0, 0, nil
	}
	lines := bytes.Split(head, []byte("\r\n"))
	first := bytes.Fields(lines[0])
	if len(first) < 2 {
		return 0, 0, fmt.Errorf("no answer of HTTP/1: %.80q", got)
	}
	if status, err = strconv.Atoi(string(first[1])); err != nil {
		return 0, 0, fmt.Errorf("no answer of HTTP/1: %.80q", got)
	}
	for _, line := range lines[1:] {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return len(head) + 4 + n, status, err
		}
	}
	return 0, 0, fmt.Errorf("an answer without a length: %.200q", head)
}

// steadyRequests are those of a case, one per user.
func steadyRequests(c testCase) [][]byte {
	list := make([][]byte, users)
	for i := range list {
		var b bytes.Buffer
		fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s: %d\r\n", c.path, userHeader, i)
		for _, h := range c.headers() {
			fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
		}
		b.WriteString("\r\n")
		list[i] = b.Bytes()
	}
	return list
}

// runSteady asks an address at a rate, for so long.
func runSteady(ctx context.Context, c testCase, address string, rate float64, d time.Duration) (load, error) {
	s, err := newSteady(address, c.connections, rate, steadyRequests(c))
	if err != nil {
		return load{}, err
	}
	defer s.close()
	return s.run(ctx, d)
}
