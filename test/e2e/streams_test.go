package e2e

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/spillway-dev/spillway"
)

// streams are the open sockets and event streams of a site.
type streams struct {
	over chan struct{}  // closed when the site ends
	open sync.WaitGroup // sockets: the server does not know them any more
}

func (s *streams) end() { close(s.over) }

// serveSocket sends back each message, with the release in front. When the site ends, the socket is closed
// with a word, behind the last answer.
func (s *streams) serveSocket(w http.ResponseWriter, r *http.Request) {
	s.open.Add(1)
	defer s.open.Done()
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		log.Printf("socket: %v", err)
		return
	}
	defer c.CloseNow()
	if os.Getenv("SOCKETS") == "abandon" {
		go func() { <-s.over; os.Exit(0) }() // ends the program, and it is meant to
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	messages := make(chan []byte)
	go func() { // ends with ctx or the socket
		defer close(messages)
		for {
			_, text, err := c.Read(ctx)
			if err != nil {
				return
			}
			messages <- text
		}
	}()
	for {
		select {
		case <-s.over:
			// Close reads until the other side has closed too, so the reader gives up what it has got.
			go func() {
				for range messages {
				}
			}()
			c.Close(websocket.StatusGoingAway, "the site ends")
			return
		case text, ok := <-messages:
			if !ok || c.Write(ctx, websocket.MessageText, []byte(os.Getenv("SPILLWAY_RELEASE")+" "+string(text))) != nil {
				return
			}
		}
	}
}

// serveEvents counts up from behind Last-Event-ID, with the release as the data of each event. When the site
// ends, so does the stream, behind a whole event.
func (s *streams) serveEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	n, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	control := http.NewResponseController(w)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		n++
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", n, os.Getenv("SPILLWAY_RELEASE"))
		if control.Flush() != nil {
			return
		}
		select {
		case <-s.over:
			return
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// talker is a user with a socket, who says numbers and waits for each to come back. A number that had not
// come back when the socket was closed is said again on the next one.
type talker struct {
	in       *installation
	host     string
	releases []string               // that answered, without repeats in a row
	closes   []websocket.StatusCode // how sockets ended
}

// talk says n numbers, one every few milliseconds, and more until it has had an answer of the release.
func (k *talker) talk(ctx context.Context, n int, release string, said *atomic.Int64) error {
	more := func(next int) bool { return next < n || k.releases[len(k.releases)-1] != release }
	for next := 0; more(next); {
		c, err := k.connect(ctx)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		for ; more(next) && err == nil; next++ {
			err = k.say(ctx, c, next)
			if err == nil {
				said.Add(1)
				<-time.After(25 * time.Millisecond)
			}
		}
		if err == nil {
			return c.Close(websocket.StatusNormalClosure, "")
		}
		next--
		c.CloseNow()
		code := websocket.CloseStatus(err)
		k.closes = append(k.closes, code)
		if code != websocket.StatusGoingAway && code != websocket.StatusServiceRestart {
			return fmt.Errorf("number %d: the socket ended without a word, or with the wrong one: %w", next, err)
		}
	}
	return nil
}

func (k *talker) connect(ctx context.Context) (*websocket.Conn, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", k.in.http)
	}}}
	c, _, err := websocket.Dial(ctx, "ws://"+k.host+"/socket", &websocket.DialOptions{HTTPClient: client})
	return c, err
}

func (k *talker) say(ctx context.Context, c *websocket.Conn, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, fmt.Append(nil, n)); err != nil {
		// Why it was closed is told by what there is to read.
		if _, _, told := c.Read(ctx); told != nil {
			return told
		}
		return err
	}
	_, text, err := c.Read(ctx)
	if err != nil {
		return err
	}
	release, number, _ := strings.Cut(string(text), " ")
	if number != fmt.Sprint(n) {
		return fmt.Errorf("number %d came back as %q", n, text)
	}
	k.met(release)
	return nil
}

func (k *talker) met(release string) {
	if n := len(k.releases); n == 0 || k.releases[n-1] != release {
		k.releases = append(k.releases, release)
	}
}

// TestWebSocket_AcrossADeploy: 50 users exchange 10,000 messages while a release replaces another. Each
// socket is closed with a word at the end of the drain, by the app or, where the app says nothing, by the proxy.
func TestWebSocket_AcrossADeploy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, sockets string }{{"the app closes its sockets", ""}, {"the app says nothing", "abandon"}} {
		t.Run(c.name, func(t *testing.T) {
			in := install(t)
			a := newApp(t, "sockets")
			a.Lines = []string{"stop: {drain: 3s}"}
			a.Env["SOCKETS"] = c.sockets
			in.deploy(a).want(t, 0)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			var said atomic.Int64
			talkers := make([]*talker, 50)
			var all sync.WaitGroup
			for i := range talkers {
				talkers[i] = &talker{in: in, host: a.Host()}
				all.Go(func() { // ends when it has said everything, or with ctx
					if err := talkers[i].talk(ctx, 200, "2", &said); err != nil {
						t.Errorf("user %d: %v", i, err)
					}
				})
			}
			await(t, 30*time.Second, "everybody to talk", func() bool { return said.Load() > 500 })
			in.deploy(a.bump()).want(t, 0)
			all.Wait()
			closes := map[websocket.StatusCode]int{}
			for i, k := range talkers {
				if fmt.Sprint(k.releases) != "[1 2]" {
					t.Errorf("user %d met the releases %v, sockets closed with %v", i, k.releases, k.closes)
				}
				for _, code := range k.closes {
					closes[code]++
				}
			}
			if said.Load() < 10_000 {
				t.Errorf("%d messages came back, want 10,000 or more", said.Load())
			}
			t.Logf("%d messages; sockets closed with %v", said.Load(), closes)
		})
	}
}

// listener is a user with an event stream.
type listener struct {
	header   http.Header
	last     int // event
	releases []string
	began    int // streams
}

// listen follows the stream, and comes again when it has ended, until ctx ends. Every event has to come, and
// every stream to end as a whole one.
func (l *listener) listen(ctx context.Context, client *http.Client, url string, heard *atomic.Int64) error {
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		r.Header = l.header.Clone()
		r.Header.Set("Last-Event-ID", fmt.Sprint(l.last))
		response, err := client.Do(r)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		l.began++
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				if id != fmt.Sprint(l.last+1) {
					response.Body.Close()
					return fmt.Errorf("event %s behind %d", id, l.last)
				}
				l.last++
				heard.Add(1)
			}
			if release, ok := strings.CutPrefix(lines.Text(), "data: "); ok && (len(l.releases) == 0 || l.releases[len(l.releases)-1] != release) {
				l.releases = append(l.releases, release)
			}
		}
		response.Body.Close()
		if err := lines.Err(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("behind event %d: %w", l.last, err)
		}
	}
	return nil
}

// TestSSE_ThroughACanary: streams outlive the steps of a canary, and move to the new release when the old one
// has to go, without a gap.
func TestSSE_ThroughACanary(t *testing.T) {
	t.Parallel()
	in := install(t)
	a := newApp(t, "events")
	a.Strategy, a.Steps = "canary", "10% 500ms, 50% 500ms"
	a.Lines = []string{"stop: {drain: 2s}"}
	a.Top = []string{"cohort: {key: [header X-Account-Id]}"}
	in.deploy(a).want(t, 0)
	client := in.browser()
	client.Timeout = 0
	client.Transport.(*http.Transport).MaxConnsPerHost = 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var heard atomic.Int64
	listeners := make([]*listener, 60)
	var all sync.WaitGroup
	for i, p := range accounts("header X-Account-Id", len(listeners)) {
		listeners[i] = &listener{header: p.header}
		all.Go(func() { // ends with ctx
			if err := listeners[i].listen(ctx, client, "http://"+a.Host()+"/events", &heard); err != nil {
				t.Errorf("user %d: %v", i, err)
			}
		})
	}
	more := func(n int64) {
		t.Helper()
		want := heard.Load() + n
		await(t, 30*time.Second, "events", func() bool { return heard.Load() >= want })
	}
	more(500)
	users := in.send(a.Host(), keepAlive("GET", 50)) // whom the canary is judged by
	in.deploy(a.bump()).want(t, 0)
	in.status(a.Name, 60*time.Second, "release 2 at rest", func(o spillway.Overview) bool { return o.Rollout == nil && o.Stable == 2 })
	in.exactly("events", 2)
	more(500)
	cancel()
	all.Wait()
	users.flawless(40)
	for i, l := range listeners {
		if fmt.Sprint(l.releases) != "[1 2]" || l.began > 3 {
			t.Errorf("user %d heard the releases %v on %d streams, want 1, then 2, and a stream for each", i, l.releases, l.began)
		}
	}
	t.Logf("%d events", heard.Load())
}
