package counts_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody has used it
	return l.Addr().String()
}

// TestJudge_Run follows an app, changes its route all the time, and ends.
func TestJudge_Run(t *testing.T) {
	g, told := newGateway(t), make(chan spillway.Ref, 100)
	g.answer("1", "castle-www-4", 200, 1)
	j := counts.New(counts.Config{
		Flavour: counts.Traefik, Every: 10 * time.Millisecond, Instances: func() ([]counts.Instance, string) { return []counts.Instance{{URL: g.URL}}, "" },
		Changed: func(app spillway.Ref) {
			select {
			case told <- app:
			default:
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var crew sync.WaitGroup
	crew.Go(func() {
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	r := route(500)
	r.Acknowledged = time.Now()
	deadline := time.After(20 * time.Second)
	for {
		if err := j.Follow("castle", r); err != nil {
			t.Fatal(err)
		}
		g.both(20, 1)
		select {
		case <-told:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("no verdict")
		}
		if e, _, _ := j.Evidence("castle"); e.Verdict == spillway.Harmful {
			break
		}
	}
	cancel()
	crew.Wait()
}

// TestJudge_FollowingAgainIsNoNews: who follows the same route after each look is not told of it for ever.
func TestJudge_FollowingAgainIsNoNews(t *testing.T) {
	w := newWorld(t, 1)
	w.gateways[0].answer("1", "castle-www-4", 200, 1)
	w.follow(route(500))
	w.look()
	r := route(500)
	r.Acknowledged = w.now.Add(time.Minute) // a later generation that deals as before
	before := w.changed
	for range 5 {
		if err := w.Follow("castle", r); err != nil {
			t.Fatal(err)
		}
		w.look()
	}
	if w.changed != before {
		t.Errorf("told %d times", w.changed-before)
	}
}
