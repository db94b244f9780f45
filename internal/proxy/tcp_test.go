package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// server runs a program that speaks TCP, and gives its address.
func server(t *testing.T, each func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Add(1)
	go func() { // owned by the test; ends when the listener is closed; the cleanup waits
		defer wait.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Add(1)
			go func() { // as above; ends with its connection
				defer wait.Done()
				defer c.Close()
				each(c.(*net.TCPConn))
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return l.Addr().String()
}

// saying answers each line with its own name and that line.
func saying(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		for lines := bufio.NewScanner(c); lines.Scan(); {
			fmt.Fprintf(c, "%s %s\n", name, lines.Text())
		}
	}
}

// passing is a table in which one release is reached by TCP at an address.
func passing(revision int64, address string, replicas ...string) spillway.Table {
	t := alone(revision, replicas...)
	e := &t.Route.Edges[0]
	e.Hosts, e.Protocol, e.Listen = nil, spillway.TCP, []string{address}
	return t
}

// trying is passing with a candidate of a weight.
func trying(revision int64, address string, weight spillway.Share, stable, candidate string) spillway.Table {
	t := divided(revision, weight, stable, candidate)
	e := &t.Route.Edges[0]
	e.Hosts, e.Protocol, e.Listen, t.Cohort = nil, spillway.TCP, []string{address}, spillway.Cohort{}
	return t
}

// caller connects from an address of this machine, "" is any.
func caller(t *testing.T, from, to string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// ask sends a line and gives the line that comes back.
func ask(c net.Conn, line string) (string, error) {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func wantAnswer(t *testing.T, c net.Conn, line, want string) {
	t.Helper()
	if got, err := ask(c, line); err != nil || got != want {
		t.Fatalf("answer %q, error %v; want %q", got, err, want)
	}
}

func TestTCP_PassesConnectionsThrough(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(passing(1, address, server(t, saying("a"))))
	c := caller(t, "", address)
	for i := range 100 {
		wantAnswer(t, c, fmt.Sprint("line ", i), fmt.Sprint("a line ", i))
	}
	if got := p.report(); got.InFlight["www.1-1"] != 1 || got.Counts["www.1"].Requests != 1 {
		t.Errorf("with one connection: %v, %v", got.InFlight, got.Counts)
	}
	c.Close()
	eventually(t, "the connection is counted out", func() bool { return p.report().InFlight["www.1-1"] == 0 })
	info, err := p.Info(t.Context())
	if err != nil || !slices.Equal(info.TCP, []string{address}) {
		t.Errorf("told to listen at %v, error %v", info.TCP, err)
	}
}

// Each side may end its own direction and go on with the other, and 8 MB arrive as they were.
func TestTCP_PassesTheEndOfEachDirectionOn(t *testing.T) {
	const size = 8 << 20
	p, address := start(t, tempDir(t), false), unused(t)
	got := make(chan int64, 1)
	p.push(passing(1, address, server(t, func(c *net.TCPConn) {
		first := make([]byte, 1)
		_, _ = io.ReadFull(c, first)
		switch first[0] {
		case 'c': // the client ends first
			n, _ := io.Copy(io.Discard, c)
			fmt.Fprintf(c, "%d", n)
		case 's': // the server does
			_, _ = io.WriteString(c, "go")
			_ = c.CloseWrite()
			n, _ := io.Copy(io.Discard, c)
			got <- n
		}
	})))
	c := caller(t, "", address)
	_, _ = c.Write([]byte{'c'})
	_, _ = c.Write(make([]byte, size))
	_ = c.CloseWrite()
	if text, err := io.ReadAll(c); err != nil || string(text) != fmt.Sprint(size) {
		t.Errorf("the replica got %q bytes, error %v", text, err)
	}
	c = caller(t, "", address)
	_, _ = c.Write([]byte{'s'})
	if text, err := io.ReadAll(c); err != nil || string(text) != "go" {
		t.Errorf("said %q, error %v", text, err)
	}
	_, _ = c.Write(make([]byte, size))
	_ = c.CloseWrite()
	if n := <-got; n != size {
		t.Errorf("the replica got %d bytes behind its own end, want %d", n, size)
	}
}

// A client that does not notice that its replica is gone keeps that busy for a moment only.
func TestTCP_CountsOutWhoDoesNotNoticeTheEnd(t *testing.T) {
	t.Parallel()
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(passing(1, address, server(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "bye") })))
	c := caller(t, "", address)
	if text, err := io.ReadAll(c); err != nil || string(text) != "bye" {
		t.Errorf("said %q, error %v", text, err)
	}
	eventually(t, "it is counted out", func() bool { return p.report().InFlight["www.1-1"] == 0 })
}

func TestTCP_TriesAnotherReplica(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(passing(1, address, refused(t), server(t, saying("good")), refused(t)))
	for range 20 {
		wantAnswer(t, caller(t, "", address), "x", "good x")
	}
}

func TestTCP_HoldsUntilAReplicaIsReady(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	closed := passing(1, address)
	closed.Route.Edges[0].Backends, closed.Route.Edges[0].Closed = nil, "recreate: www is being replaced"
	p.push(closed)
	c := caller(t, "", address)
	wait := make(chan string, 1)
	go func() { // owned by the test; ends with the answer
		got, err := ask(c, "x")
		wait <- fmt.Sprint(got, err)
	}()
	p.push(passing(2, address)) // open, and nobody there
	p.push(passing(3, address, server(t, saying("late"))))
	if got := <-wait; got != "late x<nil>" {
		t.Errorf("answer %s", got)
	}
	c.Close()
}

func TestTCP_ResetsWhomNobodyCanHave(t *testing.T) {
	t.Parallel()
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(passing(1, address, refused(t)))
	begin := time.Now()
	_, err := ask(caller(t, "", address), "x")
	if took := time.Since(begin); err == nil || took < holdTime || took > holdTime+3*time.Second {
		t.Errorf("error %v after %s, want one after %s", err, took, holdTime)
	}
}

// The address of a client is its bucket, so it stays on its side, and raising the weight moves nobody back.
func TestTCP_DealsByTheAddressOfTheClient(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	stable, candidate := server(t, saying("stable")), server(t, saying("candidate"))
	seen := map[string]int64{}
	for i, weight := range []int{30, 60} {
		p.push(trying(int64(i+1), address, spillway.Percent(weight), stable, candidate))
		for i := range 100 {
			from := fmt.Sprintf("127.0.1.%d", i+1)
			want := "stable"
			if Bucket(shop, from) < spillway.Percent(weight) {
				want = "candidate"
			}
			seen[want]++
			wantAnswer(t, caller(t, from, address), "x", want+" x")
		}
	}
	if seen["stable"] == 0 || seen["candidate"] == 0 {
		t.Errorf("dealt %v", seen)
	}
	if e := p.report().Evidence; e.Requests != seen["candidate"] || e.Failures+e.BaseFails != 0 || e.Baseline != seen["stable"] {
		t.Errorf("evidence %+v, dealt %v", e, seen)
	}
}

// A candidate that nobody can connect to costs its budget at most, and users nothing.
func TestTCP_TripsACandidateThatCannotBeConnectedTo(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(trying(1, address, spillway.Percent(50), server(t, saying("stable")), refused(t)))
	for i := range 200 {
		wantAnswer(t, caller(t, fmt.Sprintf("127.0.2.%d", i+1), address), "x", "stable x")
	}
	if e := p.report().Evidence; !e.Tripped || e.Failures == 0 || e.Failures > 20 {
		t.Errorf("evidence %+v", e)
	}
}

// What a candidate does to a connection that it had is a failure only when it resets it without a word.
func TestTCP_JudgesByTheFirstByte(t *testing.T) {
	for name, c := range map[string]struct {
		replica            func(*net.TCPConn)
		leaves             bool // the client hangs up first
		requests, failures int64
	}{
		"reset without a word": {replica: func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)); _ = c.SetLinger(0) }, requests: 1, failures: 1},
		"reset after a word": {replica: func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = io.WriteString(c, "x\n")
			_, _ = c.Read(make([]byte, 10))
			_ = c.SetLinger(0)
		}, requests: 1},
		"end without a word": {replica: func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 10)) }, requests: 1},
		"client leaves":      {replica: func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }, leaves: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, address := start(t, tempDir(t), false), unused(t)
			table := trying(1, address, spillway.Percent(100), server(t, saying("stable")), server(t, c.replica))
			p.push(table)
			conn := caller(t, "", address)
			if c.leaves {
				_, _ = io.WriteString(conn, "x\n")
				conn.Close()
			} else {
				_, _ = ask(conn, "x")
				_, _ = io.WriteString(conn, "y\n")
				_, _ = io.ReadAll(conn)
				conn.Close()
			}
			eventually(t, "it is counted out", func() bool { return p.report().InFlight["www.2-1"] == 0 && p.report().Counts["www.2"].Requests == 1 })
			if e := p.report().Evidence; e.Requests != c.requests || e.Failures != c.failures || p.report().Counts["www.2"].Failures != c.failures {
				t.Errorf("evidence %+v, counts %+v", e, p.report().Counts)
			}
		})
	}
}

// A private address is reached by TCP as soon as the table says so, without a refused connection, and by HTTP again.
func TestTCP_ChangesWhatIsSpokenAtAPrivateAddress(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	from := spillway.Group{Service: "web", Release: 1}
	raw, page := server(t, saying("raw")), replica(t, text("page"))
	table := func(revision int64, protocol spillway.Protocol) spillway.Table {
		t := alone(revision, raw)
		if protocol != spillway.TCP {
			t.Endpoints[0].Address = page
		}
		t.Route.Edges[0].Hosts, t.Route.Edges[0].From, t.Route.Edges[0].Protocol = nil, from, protocol
		t.Listeners = []spillway.EdgeListener{{Service: "www", From: from, Address: address}}
		return t
	}
	early := table(1, spillway.TCP)
	early.Route.Edges = nil // the address is given before the edge is there
	p.push(early)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { // owned by the test; ends with stop
		for dials := 1; ; dials++ {
			select {
			case <-stop:
				return
			default:
			}
			// A reset is no refusal: who came to the one that spoke the other protocol is reset, and may see that early.
			if c, err := net.Dial("tcp", address); errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connection %d: %v", dials, err)
			} else if err == nil {
				c.Close()
			}
		}
	})
	for i := int64(2); i < 12; i += 2 {
		p.push(table(i, spillway.TCP))
		wantAnswer(t, caller(t, "", address), "x", "raw x")
		p.push(table(i+1, ""))
		if a, err := do(newClient(), "http://"+address, "GET", "/", nil); err != nil || a.body != "page" {
			t.Errorf("%+v, error %v", a, err)
		}
	}
	close(stop)
	wait.Wait()
}

func TestTCP_RefusesAnAddressOfAnotherApp(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(passing(1, address, server(t, saying("a"))))
	other := passing(1, address[strings.LastIndex(address, ":"):], server(t, saying("b")))
	other.App = "other"
	wantError(t, p.Push(t.Context(), other), spillway.ErrConflict, "belongs to shop")
	bad := passing(2, address)
	bad.Route.Edges[0].Hosts = []string{"shop.test"}
	wantError(t, p.Push(t.Context(), bad), spillway.ErrInvalid, "no hosts")
}

// listenBelow listens at a port that is free on all addresses, and below those that the system gives by itself: a
// connection of another test may come by one of these at any time.
func listenBelow(t *testing.T, ip string) net.Listener {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(10000))
		all, err := net.Listen("tcp", ":"+port)
		if err != nil {
			continue
		}
		all.Close()
		if l, err := net.Listen("tcp", net.JoinHostPort(ip, port)); err == nil {
			return l
		}
	}
	t.Fatal("no port of a hundred is free")
	return nil
}

// An address that another program has is told, and taken when it is free.
func TestTCP_TakesAnAddressWhenItIsFree(t *testing.T) {
	t.Parallel()
	p := start(t, tempDir(t), false)
	l := listenBelow(t, "127.0.0.3")
	address := l.Addr().String()
	p.push(passing(1, address, server(t, saying("a"))))
	if why := p.report().Dead[address]; !strings.Contains(why, "in use") {
		t.Errorf("dead: %v", p.report().Dead)
	}
	l.Close()
	eventually(t, "it is served", func() bool { return len(p.report().Dead) == 0 })
	wantAnswer(t, caller(t, "", address), "x", "a x")

	narrow := passing(2, strings.Replace(address, "127.0.0.3", "", 1), server(t, saying("b"))) // the old one is in its way
	p.push(narrow)
	eventually(t, "it is served everywhere", func() bool { return len(p.report().Dead) == 0 }) // another test may have the port elsewhere
	wantAnswer(t, caller(t, "", address), "x", "b x")
}

// While the proxy is replaced again and again, connections go on and none is refused; the heir counts those of its
// forerunner.
func TestTCP_HandsOver(t *testing.T) {
	dir, address := tempDir(t), unused(t)
	old := start(t, dir, false)
	old.push(passing(1, address, server(t, saying("a"))))
	kept := caller(t, "", address)
	wantAnswer(t, kept, "before", "a before")
	stop, done := make(chan struct{}), atomic.Int64{}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { // owned by the test; ends with stop
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := ask(c, "x"); err != nil || got != "a x" {
					t.Errorf("answer %q, error %v", got, err)
				}
				c.Close()
				done.Add(1)
			}
		})
	}
	for range 3 {
		heir := start(t, dir, true)
		before := done.Load()
		eventually(t, "connections come", func() bool { return done.Load() > before+20 })
		eventually(t, "the old one's connection is counted", func() bool { return heir.report().InFlight["www.1-1"] >= 1 })
		wantAnswer(t, kept, "during", "a during")
	}
	close(stop)
	wait.Wait()
	kept.Close()
	if done.Load() < 60 {
		t.Errorf("%d connections only", done.Load())
	}
}

// After a restart the snapshot is served, addresses of TCP included.
func TestTCP_ServesItsSnapshot(t *testing.T) {
	dir, address := tempDir(t), unused(t)
	p := start(t, dir, false)
	p.push(passing(1, address, server(t, saying("a"))))
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	start(t, dir, false)
	wantAnswer(t, caller(t, "", address), "x", "a x")
}

// A thousand connections are spliced by the kernel: the proxy makes as few goroutines and descriptors as it must, and gives
// all of them back.
func TestTCP_GivesEverythingBack(t *testing.T) {
	p, address := start(t, tempDir(t), false), unused(t)
	p.push(passing(1, address, server(t, saying("a"))))
	before := descriptors(t)
	for range 5 {
		var conns []*net.TCPConn
		for range 40 {
			c := caller(t, "", address)
			wantAnswer(t, c, "x", "a x")
			conns = append(conns, c)
		}
		for i, c := range conns {
			if i%2 == 0 {
				_ = c.SetLinger(0)
			}
			c.Close()
		}
	}
	eventually(t, "descriptors are closed", func() bool { return p.report().InFlight["www.1-1"] == 0 && descriptors(t) <= before+8 })
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
