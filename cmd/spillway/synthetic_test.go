package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestToursOf_AreThoseOfARunningTrialOnly(t *testing.T) {
	st := rollout.Status{
		Phase: spillway.Progressing, Rollout: &rollout.Rollout{Acked: true},
		Route: spillway.Route{
			Trial: &spillway.Trial{ID: 3, Synthetic: map[string]spillway.Synthetic{"www": {Path: []string{"/", "/a?b=c"}, Rate: 500}}},
			Edges: []spillway.Edge{
				{Service: "api", Hosts: []string{"api.test"}},
				{Service: "www", Hosts: []string{"www.test", "two.test"}},
				{Service: "www", Hosts: []string{"canary.test"}, Only: "canary"},
				{Service: "www", From: spillway.Group{Service: "api", Release: 1}},
			},
		},
	}
	want := []tour{{app: "castle", trial: 3, host: "www.test", paths: "/\n/a?b=c", rate: 100}}
	if got := toursOf("castle", st); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, change := range map[string]func(*rollout.Status){
		"the watch":           func(st *rollout.Status) { st.Phase = spillway.Promoting },
		"on the way back":     func(st *rollout.Status) { st.Phase = spillway.RollingBack },
		"before it has users": func(st *rollout.Status) { st.Rollout = &rollout.Rollout{} },
		"without a trial":     func(st *rollout.Status) { st.Route.Trial = nil },
	} {
		other := st
		change(&other)
		if got := toursOf("castle", other); got != nil {
			t.Errorf("%s: %+v, want nothing", name, got)
		}
	}
}

func TestVisitor_MakesRequestsWhileTheyAreWanted(t *testing.T) {
	seen := make(chan *http.Request, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case seen <- r.Clone(context.WithoutCancel(r.Context())):
		default:
		}
	}))
	t.Cleanup(server.Close)
	trip := tour{app: "castle", trial: 3, host: "www.test", paths: "/one\n/two", rate: 100}
	var over atomic.Bool
	var asked, warned atomic.Int64
	v := &visitor{
		every: time.Millisecond, warn: func(text string, err error) {
			if warned.Add(1) > 1 || !strings.Contains(text, "www.test") {
				t.Errorf("%s: %v", text, err)
			}
		},
		way: func(_ context.Context, host string) (way, error) {
			switch asked.Add(1) {
			case 1: // the data plane does not answer
				return way{}, errors.New("not now")
			case 2: // it moves
				return way{"http://127.0.0.1:1", "secret", &http.Transport{}}, nil
			}
			return way{server.URL, "secret", &http.Transport{}}, nil
		},
		tours: func(context.Context) (map[tour]bool, error) {
			if over.Load() {
				return nil, nil
			}
			return map[tour]bool{trip: true}, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- v.run(ctx) }() // ended by cancel, waited for below
	paths := map[string]int{}
	for range 6 {
		r := <-seen
		if r.Host != "www.test" || r.Header.Get("X-Spillway-Synthetic") != "secret" || r.Method != http.MethodGet {
			t.Errorf("%s of %s with %v", r.Method, r.Host, r.Header)
		}
		paths[r.URL.Path]++
	}
	if paths["/one"] == 0 || paths["/two"] == 0 {
		t.Errorf("asked for %v, want both paths in turn", paths)
	}
	over.Store(true)
	for quiet := 0; quiet < 1; { // until none came for a while
		select {
		case <-seen:
		case <-time.After(100 * time.Millisecond):
			quiet++
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if warned.Load() != 1 {
		t.Error("that nobody could be asked was not told")
	}
}

// A data plane that cannot be found is looked for now and then, not at the rate of the requests; and it is told once that it is
// not known what is wanted.
func TestVisitor_IsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks, warned atomic.Int64
		v := &visitor{
			every: time.Second, warn: func(string, error) { warned.Add(1) },
			way: func(context.Context, string) (way, error) {
				looks.Add(1)
				return way{}, errors.New("there is no gateway")
			},
			tours: func(context.Context) (map[tour]bool, error) {
				return map[tour]bool{{app: "castle", host: "www.test", paths: "/", rate: 100}: true}, errors.New("lost cannot be read")
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := v.run(ctx); err != nil {
			t.Error(err)
		}
		if looks.Load() > 61 || looks.Load() < 50 || warned.Load() != 2 {
			t.Errorf("looked for a way %d times in a minute and warned %d times; want once a second, and twice", looks.Load(), warned.Load())
		}
	})
}

// halfRead are the records of apps of which one cannot be read.
type halfRead struct{ records }

func (halfRead) Load(_ context.Context, app spillway.Ref) (reconcile.Saved, error) {
	switch app {
	case "lost":
		return reconcile.Saved{}, spillway.ErrUnavailable
	case "destroyed":
		return reconcile.Saved{}, spillway.ErrNotFound
	}
	st := rollout.Status{Phase: spillway.Progressing, Rollout: &rollout.Rollout{Acked: true}, Route: synthetic("www")}
	return reconcile.Saved{Status: st}, nil
}

// synthetic is a route with a trial that wants requests to a service.
func synthetic(service string) spillway.Route {
	return spillway.Route{
		Trial: &spillway.Trial{ID: 3, Synthetic: map[string]spillway.Synthetic{service: {Path: []string{"/"}, Rate: 5}}},
		Edges: []spillway.Edge{{Service: service, Hosts: []string{service + ".test"}}},
	}
}

// One app that cannot be read does not keep the others from theirs, and what wants none is not even read.
func TestTours_AreOfThoseWhoseDecisionsWantSome(t *testing.T) {
	in := &installation{store: halfRead{}}
	for _, app := range []spillway.Ref{"castle", "lost", "over", "destroyed"} {
		in.trials.note(app, rollout.Desired{Route: synthetic("www")})
	}
	in.trials.note("over", rollout.Desired{})
	in.trials.note("never", rollout.Desired{Route: spillway.Route{Trial: &spillway.Trial{}}})
	got, err := in.tours(t.Context())
	if want := map[tour]bool{{app: "castle", trial: 3, host: "www.test", paths: "/", rate: 5}: true}; !reflect.DeepEqual(got, want) || !errors.Is(err, spillway.ErrUnavailable) {
		t.Errorf("got %+v, %v; want %+v and what is wrong with lost", got, err, want)
	}
	if left := in.trials.list(); !slices.Equal(left, []spillway.Ref{"castle", "lost"}) {
		t.Errorf("asked about again are %q", left)
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{"[::]:8080": "127.0.0.1:8080", "0.0.0.0:80": "127.0.0.1:80", ":81": "127.0.0.1:81", "192.0.2.1:82": "192.0.2.1:82", "": ""} {
		if got := reachable(listen); got != want {
			t.Errorf("%q is reached at %q, want %q", listen, got, want)
		}
	}
}
