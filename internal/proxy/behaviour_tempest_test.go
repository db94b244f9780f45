//go:build storm

package proxy_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// tempest is how long the whole of TestStorm_Everything takes.
const tempest = 5 * time.Minute

// mortal is a back end that is killed and started again at the same address, at random.
type mortal struct {
	addr   string
	server atomic.Pointer[http.Server]
}

func (m *mortal) start() error {
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		return err
	}
	m.addr = l.Addr().String()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if len(text) == 0 {
			text = []byte(r.URL.Path)
		}
		w.Write(text)
	})}
	m.server.Store(s)
	go s.Serve(l) // ends with kill, at the latest at the end of the test
	return nil
}

// kill cuts all connections without a word.
func (m *mortal) kill() { m.server.Load().Close() }

// asker sends requests that may be repeated, without an end, and repeats none itself.
func asker(ctx context.Context, t *testing.T, c *http.Client, url string, k int, sent, protocols *atomic.Int64) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("/%d-%d", k, i)
		// Without GetBody, so that net/http does not send it again.
		r, err := http.NewRequest(http.MethodPost, url+id, struct{ io.Reader }{strings.NewReader(id)})
		if err != nil {
			t.Error(err)
			return
		}
		r.Host = "shop.test"
		r.Header.Set("Idempotency-Key", id)
		resp, err := c.Do(r)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(text) != id {
			t.Errorf("%s: %d %s %v", id, resp.StatusCode, shorten(string(text)), err)
		}
		sent.Add(1)
		if resp.ProtoMajor == 2 {
			protocols.Add(1)
		}
	}
}

// TestStorm_Everything: no request is lost while routes change, the proxy is replaced every 2 s, and back ends are
// killed and started at random, under full load by HTTP/1 and HTTP/2. A request that a back end may have begun
// with is repeated only if it may be, so all of these may.
func TestStorm_Everything(t *testing.T) {
	engine := ""
	long := time.Duration(storms(t, int(tempest/time.Second))) * time.Second
	f := serve(t, engine)
	backs := make([]*mortal, 6)
	table := shopAt(2)
	table.Endpoints = nil
	for i := range backs {
		backs[i] = &mortal{addr: "127.0.0.1:0"}
		if err := backs[i].start(); err != nil {
			t.Fatal(err)
		}
		defer func() { backs[i].kill() }()
		table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: fmt.Sprintf("www.1-%d", i), Group: spillway.Group{Service: "www", Release: 1}, Address: backs[i].addr})
	}
	f.push(table)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var sent, streams, pushes, kills, heirs atomic.Int64
	for k := range 32 {
		transport := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
		transport.Protocols.SetHTTP1(k%4 != 0)
		transport.Protocols.SetUnencryptedHTTP2(k%4 == 0)
		defer transport.CloseIdleConnections()
		all.Go(func() { // ends with ctx; the test waits
			asker(ctx, t, &http.Client{Transport: transport, Timeout: 30 * time.Second}, "http://"+f.addr, k, &sent, &streams)
		})
	}
	var current atomic.Pointer[front]
	current.Store(f)
	all.Go(func() { // as above
		random := rand.New(rand.NewPCG(1, 2))
		for revision := int64(3); ctx.Err() == nil; revision++ {
			next := table
			next.Revision, next.Route.Generation = revision, revision
			if random.IntN(2) == 0 { // one is out of the route for a while
				i := random.IntN(len(table.Endpoints))
				next.Endpoints = append(append([]spillway.Endpoint(nil), table.Endpoints[:i]...), table.Endpoints[i+1:]...)
			}
			current.Load().push(next)
			pushes.Add(1)
			<-time.After(long / 1000)
		}
	})
	all.Go(func() { // as above
		random := rand.New(rand.NewPCG(3, 4))
		for ctx.Err() == nil {
			m := backs[random.IntN(len(backs))]
			m.kill()
			kills.Add(1)
			<-time.After(time.Duration(random.IntN(300)) * time.Millisecond)
			if err := m.start(); err != nil {
				t.Error(err)
			}
			<-time.After(time.Duration(50+random.IntN(300)) * time.Millisecond)
		}
	})
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for end := time.Now().Add(long); time.Now().Before(end); <-tick.C {
		current.Store(succeed(t, engine, f.dir))
		heirs.Add(1)
	}
	cancel()
	all.Wait()
	t.Logf("%s: %d requests, %d of them by HTTP/2; %d tables, %d proxies, %d back ends killed", long, sent.Load(), streams.Load(), pushes.Load(), heirs.Load(), kills.Load())
}
