package kube

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
)

// routeAt is an HTTPRoute of a host at the gateway edge/public.
func routeAt(namespace, name, host string, rules ...gatewayv1.HTTPRouteRule) *gatewayv1.HTTPRoute {
	edge := gatewayv1.Namespace("edge")
	return &gatewayv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Namespace: &edge, Name: "public"}}},
			Hostnames:       []gatewayv1.Hostname{gatewayv1.Hostname(host)}, Rules: rules,
		},
	}
}

func TestHostsFree_AmongTheRoutesOfOthers(t *testing.T) {
	all, docs := gatewayv1.HTTPRouteRule{}, gatewayv1.HTTPRouteRule{Matches: []gatewayv1.HTTPRouteMatch{{Path: prefix("/docs")}}}
	elsewhere := routeAt("other", "elsewhere", "www.castle.test", all)
	elsewhere.Spec.ParentRefs[0].Name = "private"
	own := routeAt("shop", "castle-www", "www.castle.test", all)
	own.Labels = map[string]string{ManagedBy: Manager, AppLabel: "castle"}
	for name, c := range map[string]struct {
		routes []client.Object
		narrow bool // the server may read its own namespace alone
		says   string
	}{
		"nobody":                 {nil, false, ""},
		"another namespace":      {[]client.Object{routeAt("other", "site", "WWW.castle.test", all)}, false, "host www.castle.test is led elsewhere by HTTPRoute other/site"},
		"this namespace":         {[]client.Object{routeAt("shop", "site", "www.castle.test", all)}, true, "HTTPRoute shop/site"},
		"may not be seen":        {[]client.Object{routeAt("other", "site", "www.castle.test", all)}, true, ""},
		"a path of it":           {[]client.Object{routeAt("other", "docs", "www.castle.test", docs)}, false, ""},
		"another gateway":        {[]client.Object{elsewhere}, false, ""},
		"another host":           {[]client.Object{routeAt("other", "site", "castle.test", all)}, false, ""},
		"the app has it already": {[]client.Object{own, routeAt("other", "site", "www.castle.test", all)}, false, ""},
	} {
		scheme, err := newScheme()
		if err != nil {
			t.Fatal(err)
		}
		lists := func(ctx context.Context, through client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if len(options) == 0 && c.narrow {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "httproutes"}, "", errors.New("not in all namespaces"))
			}
			return through.List(ctx, list, options...)
		}
		live := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(c.routes...).Build(), interceptor.Funcs{List: lists})
		p := &Platform{live: live, log: slog.New(slog.DiscardHandler), conf: Config{Namespace: "shop", Gateway: Gateway{Namespace: "edge", Name: "public"}}}
		release := castle(1, map[string]int{"www": 1, "backend": 1})
		release.Config.Services[0].Host = []string{"www.castle.test"}
		err = p.HostsFree(t.Context(), release)
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, spillway.ErrConflict) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}

		a := &app{served: spillway.Route{Generation: 1, Edges: []spillway.Edge{{Service: "www", Hosts: []string{"www.castle.test"}}}}}
		p.lookForRivals(t.Context(), a)
		wrong := a.contest.contested(nil)["www.castle.test"]
		if want := c.says != "" || name == "the app has it already"; want != strings.Contains(wrong, "at the same gateway too") {
			t.Errorf("%s: status says %q", name, wrong)
		}
		if check := p.checkHosts(t.Context()); (check.State == "warn") != (name == "the app has it already") {
			t.Errorf("%s: doctor says %+v", name, check)
		}
	}
}

// leadsTo is a gateway that answers every probe for an app of a namespace.
func leadsTo(namespace, app string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, probePrefix) {
			w.WriteHeader(http.StatusOK)
			return
		}
		http.Redirect(w, r, "http://"+probeHost(namespace, app, 2)+r.URL.Path, http.StatusFound)
	}
}

// TestRivals_ThatMayNotBeRead: a server that may read its own namespace alone sees by the gateway's answers that users of
// a host are another app's.
func TestRivals_ThatMayNotBeRead(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	lists := func(ctx context.Context, through client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
		if len(options) == 0 {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "httproutes"}, "", errors.New("not in all namespaces"))
		}
		return through.List(ctx, list, options...)
	}
	for name, c := range map[string]struct {
		gateway []http.HandlerFunc
		rival   bool
	}{
		"our own":                     {[]http.HandlerFunc{leadsTo("shop", "castle")}, false},
		"another namespace's":         {[]http.HandlerFunc{leadsTo("other", "castle")}, true},
		"by one instance":             {[]http.HandlerFunc{leadsTo("other", "castle"), leadsTo("shop", "castle")}, true},
		"a program without a gateway": {[]http.HandlerFunc{answers(http.StatusNotFound)}, false},
		"a redirect to HTTPS": {[]http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://www.castle.test"+r.URL.Path, http.StatusMovedPermanently)
		}}, false},
	} {
		p := behindDoors(t, c.gateway...)
		p.live = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{List: lists})
		p.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		p.log, p.conf.Namespace = slog.New(slog.DiscardHandler), "shop"
		const does = "find it with kubectl get httproutes -A, and delete one of them, or give one another host"

		a := &app{ref: "castle", served: spillway.Route{Generation: 1, Edges: []spillway.Edge{{Service: "www", Hosts: []string{"www.castle.test"}}}}}
		news := p.lookForRivals(t.Context(), a)
		wrong := a.contest.contested(nil)["www.castle.test"]
		if news != c.rival || c.rival != (strings.Contains(wrong, "for another app, of another namespace") && strings.HasSuffix(wrong, does)) {
			t.Errorf("%s: status says %q, news %v", name, wrong, news)
		}

		h := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "castle-www", Labels: map[string]string{AppLabel: "castle"}}}
		h.Spec.Hostnames = []gatewayv1.Hostname{"www.castle.test"}
		for what, problem := range map[string]string{
			"the route": p.probe(t.Context(), h, 2),
			"the way":   p.reaches(t.Context(), reachable{spillway.Group{Service: "www", Release: 1}, "www.castle.test", reachHost("shop", "castle")}, 0),
		} {
			if strings.Contains(problem, does) != c.rival {
				t.Errorf("%s: of %s it says %q", name, what, problem)
			}
		}
	}
}

// A gateway may obey a route that is made later, which the server may not read: it is asked now and then, about some apps at
// once, and those longest ago first.
func TestRivals_ThatMayNotBeReadAreLookedForNowAndThen(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	lists := 0
	forbids := func(ctx context.Context, through client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
		if lists++; len(options) == 0 {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "httproutes"}, "", errors.New("not in all namespaces"))
		}
		return through.List(ctx, list, options...)
	}
	owner := "shop"
	p := behindDoors(t, func(w http.ResponseWriter, r *http.Request) { leadsTo(owner, "castle")(w, r) })
	p.live = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{List: forbids})
	p.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	p.log, p.conf.Namespace = slog.New(slog.DiscardHandler), "shop"
	a := &app{ref: "castle", served: spillway.Route{Generation: 1, Edges: []spillway.Edge{{Service: "www", Hosts: []string{"www.castle.test"}}}}}
	p.apps = map[spillway.Ref]*app{"castle": a}
	owner = "other"
	a.contest = contest{generation: 1, narrow: true, looked: time.Now()}
	if p.lookForRivals(t.Context(), a) || len(p.disputes(time.Now())) > 0 {
		t.Error("asked again at once")
	}
	before := lists
	a.contest.looked = time.Now().Add(-ownerTime)
	if due := p.disputes(time.Now()); len(due) != 1 || !p.lookForRivals(t.Context(), due[0]) || !strings.Contains(a.contest.contested(nil)["www.castle.test"], "of another namespace") {
		t.Errorf("that the gateway obeys another is not seen: %+v", a.contest)
	}
	if lists != before {
		t.Error("the cluster was asked for routes, which a quiet one need not be")
	}
	owner = "shop"
	if !p.lookForRivals(t.Context(), a) || a.contest.open() || !a.contest.narrow {
		t.Errorf("that it is over is not seen: %+v", a.contest)
	}
	for i := range 2 * ownersAt {
		p.apps[spillway.Ref(strings.Repeat("x", i+1))] = &app{contest: contest{narrow: true, looked: time.Now().Add(-time.Minute - time.Duration(i)*time.Second)}}
	}
	due := p.disputes(time.Now())
	if len(due) != ownersAt || due[0] != p.apps[spillway.Ref(strings.Repeat("x", 2*ownersAt))] {
		t.Errorf("%d apps are due", len(due))
	}
}

// A look that fails is told once, takes away nothing that was seen, and is made again.
func TestRivals_AreLookedForAgainWhenTheLookFails(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	away := true
	lists := func(ctx context.Context, through client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
		if away {
			return apierrors.NewServiceUnavailable("soon")
		}
		return through.List(ctx, list, options...)
	}
	rival := routeAt("other", "site", "www.castle.test", gatewayv1.HTTPRouteRule{})
	live := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(rival).Build(), interceptor.Funcs{List: lists})
	var said strings.Builder
	p := &Platform{live: live, log: slog.New(slog.NewTextHandler(&said, nil)), conf: Config{Namespace: "shop", Gateway: Gateway{Namespace: "edge", Name: "public"}}}
	a := &app{ref: "castle", served: spillway.Route{Generation: 1, Edges: []spillway.Edge{{Service: "www", Hosts: []string{"www.castle.test"}}}}}
	for range 2 {
		if p.lookForRivals(t.Context(), a) || !a.contest.open() {
			t.Errorf("the look that failed counts: %+v", a.contest)
		}
	}
	if n := strings.Count(said.String(), "level=WARN"); n != 1 {
		t.Errorf("it is told %d times: %s", n, &said)
	}
	away = false
	if !p.lookForRivals(t.Context(), a) || a.contest.rivals["www.castle.test"] != "other/site" {
		t.Errorf("after it: %+v", a.contest)
	}
	away, p.others.last.at = true, time.Time{}
	if p.lookForRivals(t.Context(), a) || a.contest.rivals["www.castle.test"] == "" {
		t.Errorf("what was seen is forgotten: %+v", a.contest)
	}
}

// A look that takes long says nothing of the hosts of the route that is served when it ends: those were looked for meanwhile.
func TestRivals_OfAnOlderRouteAreNoNews(t *testing.T) {
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	a := &app{served: spillway.Route{Generation: 1, Edges: []spillway.Edge{{Service: "www", Hosts: []string{"www.castle.test"}}}}}
	newer := contest{generation: 2, rivals: map[string]string{"new.castle.test": "other/site"}}
	lists := func(ctx context.Context, through client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.served.Generation, a.contest = 2, newer
		return through.List(ctx, list, options...)
	}
	live := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{List: lists})
	p := &Platform{live: live, log: slog.New(slog.DiscardHandler), conf: Config{Namespace: "shop", Gateway: Gateway{Namespace: "edge", Name: "public"}}}
	if p.lookForRivals(t.Context(), a) || a.contest.generation != 2 || len(a.contest.rivals) != 1 {
		t.Errorf("what was seen of the newer route is lost: %+v", a.contest)
	}
}

func TestPublicHosts_AreThoseOfRulesToo(t *testing.T) {
	route := spillway.Route{
		Edges: []spillway.Edge{{Service: "www", Hosts: []string{"www.test"}}},
		Rules: []spillway.HTTPRule{{Hosts: []string{"www.test", "api.test"}}},
	}
	if got := publicHosts(route); !slices.Equal(got, []string{"api.test", "www.test"}) {
		t.Error(got)
	}
}
