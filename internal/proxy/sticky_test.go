package proxy

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/proxy/http1"
)

// handler is a plane whose replicas answer without sockets, so that many users can be asked.
func handler(t *testing.T) *plane {
	t.Helper()
	p := &plane{dir: tempDir(t), blocks: newBlocks(), log: testLog(t), dirty: make(chan struct{}, 1), keys: keys{cookie: cookieKey("0123456789abcdef0123456789abcdef"), synthetic: "x"},
		apps: map[spillway.Ref]*app{}, endpoints: map[endpointKey]*endpoint{}, listeners: map[string]*listener{}, missing: map[string]string{}}
	p.reroute()
	return p
}

// serve has a table served by replicas that answer 200.
func (p *plane) serveTable(t *testing.T, table spillway.Table) {
	t.Helper()
	if err := p.push(table); err != nil {
		t.Fatal(err)
	}
	for _, e := range p.endpoints {
		e.sender = always200{}
	}
}

// always200 is a replica that answers without sockets.
type always200 struct{}

func (always200) send(*outgoing) (*reply, error) {
	return &reply{status: 200, reason: "OK", body: http.NoBody, close: func() {}}, nil
}
func (always200) closeIdle()      {}
func (always200) prune(time.Time) {}

// recorder is a client that notes the head of its answer.
type recorder struct{ head head }

func (r *recorder) interim(int, http1.Fields)                 {}
func (r *recorder) begin(h *head) error                       { r.head = *h; return nil }
func (r *recorder) write([]byte) error                        { return nil }
func (r *recorder) flush() error                              { return nil }
func (r *recorder) splice(*net.TCPConn, int64) (int64, error) { return 0, nil }
func (r *recorder) end(http1.Fields) error                    { return nil }
func (r *recorder) abort()                                    {}
func (r *recorder) gone() bool                                { return false }
func (r *recorder) watch(func()) (stop func())                { return func() {} }
func (r *recorder) hush()                                     {}
func (r *recorder) takeOver() (net.Conn, []byte, error)       { return nil, nil, errors.ErrUnsupported }

// asks is a request for / of shop.test with one header field.
func asks(name, value string) *call {
	c := &call{method: "GET", major: 1, minor: 1, peer: "127.0.0.1", ours: true, header: http1.Fields{{Name: name, Value: value}}}
	c.aim("shop.test", "/")
	return c
}

// releaseOf asks as one user, and gives the release that answered.
func (p *plane) releaseOf(t *testing.T, name, value string) string {
	t.Helper()
	w := &recorder{}
	x := &exchange{plane: p, call: asks(name, value), client: w, find: byHost}
	x.serve()
	if w.head.status != 200 || w.head.add.Has("Set-Cookie") {
		t.Fatalf("%s %s: %d %v", name, value, w.head.status, w.head.add)
	}
	return w.head.add.Get("X-Spillway-Release")
}

// TestSticky_KeepsTenThousandUsersOnTheirSide: at weight w, w of 10,000 users see the candidate, to within
// 3 standard deviations; a higher weight moves nobody back, 0 moves all back, and the users of a track,
// a tenth of all, stay where they are throughout.
func TestSticky_KeepsTenThousandUsersOnTheirSide(t *testing.T) {
	t.Parallel()
	const users = 10_000
	secret := cookieKey("0123456789abcdef0123456789abcdef")
	kinds := map[string]func(i int) (name, value string){
		"header": func(i int) (string, string) { return "X-User", fmt.Sprint("account-", i) },
		"cookie": func(i int) (string, string) { return "Cookie", fmt.Sprint("theme=dark; _ACCOUNT=", i) },
		"own": func(i int) (string, string) {
			return "Cookie", cookieName + "=" + secret.sign(shop, fmt.Sprintf("%016d", i))
		},
	}
	for kind, user := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := handler(t)
			var before []string
			for revision, w := range []spillway.Share{100, 2500, 9000, 0} {
				p.serveTable(t, stickyTable(int64(revision)+1, w))
				now := make([]string, users)
				n := map[string]int{}
				for i := range now {
					name, value := user(i)
					now[i] = p.releaseOf(t, name, value)
					n[now[i]]++
				}
				for release, share := range map[string]spillway.Share{"2": w, "5": 1000, "1": 9000 - w} {
					part := float64(share) / float64(spillway.Whole)
					if off := math.Abs(float64(n[release]) - users*part); off > 3*math.Sqrt(users*part*(1-part)) {
						t.Errorf("at %s release %s has %d of %d users", w, release, n[release], users)
					}
				}
				for i := range before {
					back := before[i] == "2" && now[i] != "2" && w > 0
					if back || (before[i] == "5") != (now[i] == "5") {
						t.Fatalf("at %s user %d went from release %s to %s", w, i, before[i], now[i])
					}
				}
				before = now
			}
		})
	}
}

// stickyTable divides users between a track (5), stable (1) and a candidate (2).
func stickyTable(revision int64, w spillway.Share) spillway.Table {
	table := divided(revision, w, "127.0.0.1:1", "127.0.0.1:2")
	table.Cohort.Key = append(table.Cohort.Key, spillway.KeySource{Kind: "cookie", Name: "_ACCOUNT"})
	table.Route.Edges[0].Backends[0].Weight -= 1000
	table.Route.Edges[0].Backends = slices.Insert(table.Route.Edges[0].Backends, 0, spillway.Backend{Group: www5, Release: 5, Weight: 1000, Track: "canary"})
	table.Route.Trial.Budget = 1 << 30 // admission is not what is tested here
	table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: "www.5-1", Group: www5, Address: "127.0.0.1:3"})
	return table
}
