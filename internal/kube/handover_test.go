package kube

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

func TestMayLead_UntilTheGatewayServesWhatWasAskedForLast(t *testing.T) {
	servers := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-legacy-servers"}}
	private := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-1-backend", Annotations: map[string]string{edgeAnnotation: "{}"}}}
	a := &app{known: true, served: spillway.Route{Generation: 6}}
	if !a.mayLead(servers, 7) || a.acts != 1 {
		t.Errorf("the servers go while the gateway leads there (acts %d)", a.acts)
	}
	if a.mayLead(private, 7) {
		t.Error("a private edge waits for the gateway: nothing would ever be acknowledged")
	}
	a.served.Generation = 7
	if a.mayLead(servers, 7) {
		t.Error("the servers stay for ever")
	}
}

func TestAdopt_AnAppThatWasMadeAgain(t *testing.T) {
	p := &Platform{pending: make(chan *app, 1)}
	a := &app{ref: "castle", uid: "old", known: true, asked: spillway.Route{Generation: 9}, served: spillway.Route{Generation: 9}}
	made := func(uid types.UID, generation int64) []part {
		o := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "App", UID: uid}}}}
		return []part{{object: o, generation: generation, edge: spillway.Edge{Service: "www"}}}
	}
	if p.adopt(a, made("old", 3)); a.asked.Generation != 9 {
		t.Errorf("an older route of the same app is adopted: %+v", a.asked)
	}
	a.contest = contest{generation: 9, rivals: map[string]string{"www.castle.test": "other/site"}}
	if !a.renew("new") || a.known || a.asked.Generation != 0 || a.contest.open() || a.contest.generation != 0 {
		t.Errorf("what is remembered is of an app that is gone: %+v", a)
	}
	if p.adopt(a, made("old", 9)); a.asked.Generation != 0 {
		t.Errorf("the route of the app that is gone is adopted: %+v", a.asked)
	}
	if p.adopt(a, made("new", 2)); a.asked.Generation != 2 || len(p.pending) != 1 {
		t.Errorf("the route of the new app is not looked at: %+v", a.asked)
	}
	if a.renew("new") || a.renew("") {
		t.Error("the same App, or none, is another one")
	}
}

// A server that does not lead remembers no app that another one destroyed: it would go on asking about it.
func TestHandler_ForgetsAnAppThatIsGone(t *testing.T) {
	p := &Platform{apps: map[spillway.Ref]*app{}}
	a, other := p.app("castle"), p.app("shop")
	a.uid, other.uid = "one", "two"
	gone := func(name string, uid types.UID) any {
		return &v1alpha1.App{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid}}
	}
	if p.handler().OnDelete(gone("castle", "before")); p.forgotten(a) {
		t.Error("an App that was made again is forgotten")
	}
	p.handler().OnDelete(gone("castle", "one"))
	p.handler().OnDelete(toolscache.DeletedFinalStateUnknown{Key: "shop/shop", Obj: gone("shop", "two")})
	if len(p.apps) != 0 || !p.forgotten(a) || !p.forgotten(other) {
		t.Errorf("it remembers %v", p.apps)
	}
}

// A server that does not lead asks for the route that it found until that is served, and not for ever when the one that
// leads has written the next meanwhile.
func TestOvertaken_EndsTheAskingOfAServerThatStandsBy(t *testing.T) {
	p := &Platform{pending: make(chan *app, 2)}
	found := func(generations ...int64) (parts []part) {
		for _, n := range generations {
			parts = append(parts, part{object: &gatewayv1.HTTPRoute{}, generation: n})
		}
		return parts
	}
	a := &app{ref: "castle"}
	p.adopt(a, found(3))
	if a.overtaken(found(3)) || a.overtaken(found(4, 3)) {
		t.Error("a route that is there, or just being replaced, is given up")
	}
	if !a.overtaken(found(4)) || a.asking {
		t.Error("it asks for ever for a route that is gone")
	}
	if p.adopt(a, found(4)); a.asked.Generation != 4 || len(p.pending) != 2 {
		t.Errorf("the next one is not looked at: %+v", a.asked)
	}
	if !a.overtaken(nil) {
		t.Error("it asks for ever for an app that is gone")
	}
	a = &app{asked: spillway.Route{Generation: 5}, own: true, asking: true}
	if a.overtaken(found(4)) {
		t.Error("the server that leads gives up before the cache has what it wrote")
	}
}

// What a gateway refuses after it took it is not served any more, and is asked for anew.
func TestWithdraw_WhatTheGatewayRefusesLater(t *testing.T) {
	const accepted, resolved = gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs
	for name, c := range map[string]struct {
		kind       gatewayv1.RouteConditionType
		status     metav1.ConditionStatus
		generation int64 // of the object that it is about; the present one is 7
		asked      int64 // the route that was asked for last; 3 was acknowledged
		refused    bool
	}{
		"takes it":              {accepted, metav1.ConditionTrue, 7, 3, false},
		"does not take it":      {accepted, metav1.ConditionFalse, 7, 3, true},
		"misses a Service":      {resolved, metav1.ConditionFalse, 7, 3, true},
		"does not know":         {accepted, metav1.ConditionUnknown, 7, 3, false},
		"speaks of an older":    {accepted, metav1.ConditionFalse, 6, 3, false},
		"is asked for the next": {accepted, metav1.ConditionFalse, 7, 4, false},
	} {
		h := routeOf("castle-www", "www.castle.test")
		h.Generation = 7
		conditions := []metav1.Condition{{Type: string(accepted), Status: metav1.ConditionTrue, ObservedGeneration: 7}, {Type: string(resolved), Status: metav1.ConditionTrue, ObservedGeneration: 7}}
		for i := range conditions {
			if conditions[i].Type == string(c.kind) {
				conditions[i].Status, conditions[i].ObservedGeneration, conditions[i].Reason = c.status, c.generation, "BecauseOfThis"
			}
		}
		h.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: gatewayv1.ParentReference{Name: "gw"}, Conditions: conditions}}
		parts := []part{{object: h, generation: 3}}
		p := &Platform{conf: Config{Gateway: Gateway{Name: "gw"}}, pending: make(chan *app, 1), log: slog.New(slog.DiscardHandler)}
		a := &app{ref: "castle", own: true, known: true, asked: spillway.Route{Generation: c.asked}, served: spillway.Route{Generation: 3}}
		p.withdraw(a, parts)
		if why := a.unseen(parts); c.refused != strings.Contains(why, "BecauseOfThis") || c.refused == a.known || c.refused != a.asking || c.refused != (len(p.pending) == 1) {
			t.Errorf("a gateway that %s: %q, known %v, asked anew %v", name, why, a.known, a.asking)
		}
		if p.withdraw(a, parts); len(p.pending) > 1 {
			t.Errorf("a gateway that %s is asked twice at once", name)
		}
		if p.ask(a, spillway.Route{Generation: 5}); a.unseen(parts) != "" {
			t.Errorf("a gateway that %s: what is asked for next is not known either", name)
		}
	}
}

func TestTrust_IsForGroupsThatHaveUsersByTheRouteOfAnother(t *testing.T) {
	r := shop([]string{"a.test"}, under("/v1", toAPI, "a.test"))
	api, www, two := spillway.Group{Service: "api", Release: 1}, spillway.Group{Service: "www", Release: 1}, spillway.Group{Service: "www", Release: 2}
	r.desired.Route.Edges[1].Backends = append(r.desired.Route.Edges[1].Backends, spillway.Backend{Group: two, Release: 2})
	var parts []part
	for _, route := range routesOf(t, r) {
		parts = append(parts, part{object: route})
	}
	groups := []rollout.Group{{Group: api}, {Group: www}, {Group: two}}
	a := &app{ref: r.ref, reached: map[spillway.Group]bool{}}
	a.trust(parts, groups)
	if !a.reached[api] || !a.reached[www] || a.reached[two] {
		t.Errorf("reached: %v", a.reached)
	}
	a = &app{ref: r.ref, reached: map[spillway.Group]bool{}, asked: spillway.Route{Generation: 1}}
	if a.trust(parts, groups); len(a.reached) != 0 {
		t.Errorf("later looks trust too: %v", a.reached)
	}

	// It led, or was asked, long ago; another one has released since, and now this one leads. If stable were not ready to it,
	// the next release would get all users in one step.
	for i := range parts {
		parts[i].generation = 2
	}
	if a.trust(parts, groups); !a.reached[api] || !a.reached[www] || a.reached[two] {
		t.Errorf("reached by a newer route: %v", a.reached)
	}
}

func TestOnlySettled_GoesByTheTimeOfThisProcess(t *testing.T) {
	group, now := spillway.Group{Service: "backend", Release: 2}, time.Now()
	pod := func(uid types.UID, readySince time.Time) corev1.Pod {
		condition := corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(readySince)}
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{UID: uid, Labels: map[string]string{ServiceLabel: group.Service, ReleaseLabel: "2"}},
			Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{condition}},
		}
	}
	p := &Platform{}
	readyOf := func(a *app, at time.Time, pods ...corev1.Pod) int {
		groups := []rollout.Group{{Group: group, Ready: len(pods)}}
		p.onlySettled(a, nil, pods, groups, at)
		return groups[0].Ready
	}
	old, ahead, behind := pod("old", now.Add(-time.Hour)), pod("ahead", now.Add(time.Hour)), pod("behind", now.Add(-time.Hour))
	a := &app{settles: true} // a look is due already
	if n := readyOf(a, now, old); n != 1 {
		t.Errorf("%d ready at the first look, want the old one", n)
	}
	if n := readyOf(a, now, old, ahead, behind); n != 1 {
		t.Errorf("%d ready when two became ready, by clocks that are an hour off, want 1", n)
	}
	if n := readyOf(a, now.Add(settling), old, ahead, behind); n != 3 {
		t.Errorf("%d ready after %v, want 3", n, settling)
	}
	readyOf(a, now.Add(3*settling), old, ahead) // behind is not ready for a moment, and its endpoint leaves
	if n := readyOf(a, now.Add(4*settling), old, ahead, behind); n != 2 {
		t.Errorf("%d ready when one came back, want 2", n)
	}
	if n := readyOf(&app{settles: true}, now, pod("new", now.Add(-time.Second)), ahead); n != 0 {
		t.Errorf("%d ready at the first look of a server that was started just after them, want 0", n)
	}
}

func TestLed_WhenTheNodesHadTheTimeToLearnWhereAServiceLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &app{leads: map[string]leading{}}
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-1-backend", UID: "one"}, Spec: corev1.ServiceSpec{Selector: map[string]string{ReleaseLabel: "1"}}}
		other := s.DeepCopy()
		other.Name = "castle-www-2-backend"
		learns := func(what string) {
			t.Helper()
			if a.led(s) {
				t.Errorf("%s, and every node knows at once", what)
			}
			<-time.After(settling - time.Millisecond)
			if a.led(s) {
				t.Errorf("%s, and every node knows too soon", what)
			}
			<-time.After(time.Millisecond)
			if !a.led(s) {
				t.Errorf("%s, and no node ever knows", what)
			}
		}
		learns("it is new")
		s.Labels = map[string]string{"touched": "yes"}
		if !a.led(s) {
			t.Error("a change that leads nobody elsewhere counts")
		}
		s.Spec.Selector = map[string]string{ReleaseLabel: "2"}
		learns("it leads elsewhere")
		s.UID = "two"
		learns("it was made anew")
		if a.led(other) {
			t.Error("another Service counts as this one")
		}
	})
}

// The nodes learn of several Services at the same time: a route with three private edges waits as long as one with one.
func TestServes_WaitsForAllPrivateEdgesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, a := &Platform{}, &app{leads: map[string]leading{}}
		var parts []part
		for _, need := range []string{"backend", "db", "redis"} {
			s := &corev1.Service{TypeMeta: metav1.TypeMeta{Kind: "Service"}, ObjectMeta: metav1.ObjectMeta{Name: "castle-www-2-" + need, UID: types.UID(need)}}
			parts = append(parts, part{object: s, edge: spillway.Edge{Service: need, From: spillway.Group{Service: "www", Release: 2}}, generation: 7})
		}
		route := spillway.Route{Generation: 7}
		if problem := p.serves(t.Context(), a, route, parts, 3, nil); !strings.Contains(problem, "castle-www-2-backend") {
			t.Errorf("at first: %q", problem)
		}
		<-time.After(settling)
		if problem := p.serves(t.Context(), a, route, parts, 3, nil); problem != "" {
			t.Errorf("when the nodes had their time: %q", problem)
		}
	})
}

func TestKnows_WhatTheCacheHasOrWhatWasMadeOfIt(t *testing.T) {
	made := applied{before: "7", after: "9"}
	for before, want := range map[string]string{"": "", "7": "9", "8": "8", "9": "9", "12": "12"} {
		if got := made.knows(before); got != want {
			t.Errorf("the cache has %q: it knows %q, want %q", before, got, want)
		}
	}
	if got := (applied{after: "3"}).knows(""); got != "" {
		t.Errorf("what was not there is made anew, and not as %q", got)
	}
}

// A request that is under way when the lease is lost is given up before another server leads.
func TestLimited_EndsBeforeAnotherLeads(t *testing.T) {
	if c := limited(&rest.Config{Host: "h"}); c.Timeout+renewTime+retryTime >= leaseTime || c.Host != "h" {
		t.Errorf("requests may take %s", c.Timeout)
	}
}

func TestStuck_SaysNothingOfAWriteThatCameTooLate(t *testing.T) {
	a := &app{failedAt: time.Now(), failed: explain("apply Deployment/castle-www-4", apierrors.NewConflict(schema.GroupResource{Resource: "deployments"}, "castle-www-4", errors.New("it has been modified")))}
	if why := a.stuck(time.Now()); why != "" || !errors.Is(a.failed, spillway.ErrStale) {
		t.Errorf("people are told %q of %v", why, a.failed)
	}
}

// TestLeadsAstray: a Service that was refused may be there, as somebody else's.
func TestLeadsAstray(t *testing.T) {
	weight := func(n int32) *int32 { return &n }
	route := func(one, two *int32) *gatewayv1.HTTPRoute {
		ref := func(name gatewayv1.ObjectName, w *int32) gatewayv1.HTTPBackendRef {
			return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Name: name}, Weight: w}}
		}
		rule := gatewayv1.HTTPRouteRule{BackendRefs: []gatewayv1.HTTPBackendRef{ref("castle-www-1", one), ref("castle-www-2", two)}}
		return &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "castle-www"}, Spec: gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{rule}}}
	}
	refused := map[string]error{"Service/castle-www-2": spillway.ErrConflict}
	none := map[string]client.Object{}
	if err := leadsAstray(route(weight(90), weight(10)), none, refused); !errors.Is(err, spillway.ErrConflict) {
		t.Errorf("users are led to a Service of somebody else: %v", err)
	}
	if err := leadsAstray(route(weight(100), nil), none, refused); err == nil {
		t.Error("a reference without a weight is one of 1")
	}
	if err := leadsAstray(route(weight(100), weight(0)), none, refused); err != nil {
		t.Errorf("users cannot be led away from it: %v", err)
	}
	if err := leadsAstray(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "castle-www-2"}}, none, refused); err != nil {
		t.Error(err)
	}

	// The Service of a track, say, was deleted, and cannot be made again: its users are where they were, whatever comes.
	there := map[string]client.Object{key(route(weight(0), nil)): route(weight(90), weight(10))}
	if err := leadsAstray(route(weight(900), weight(100)), there, refused); err != nil {
		t.Errorf("a route cannot be written that leads there as it did: %v", err)
	}
	if err := leadsAstray(route(weight(80), weight(20)), there, refused); err == nil {
		t.Error("more users are led to what is not there")
	}
}

func TestProbes_AreOfOneAppAlone(t *testing.T) {
	if probeHost("shop", "castle", 1) == probeHost("other", "castle", 1) || reachHost("shop", "castle") == reachHost("shop", "castle--staging") {
		t.Error("the gateway's answer for one app is taken for another's")
	}
}

func TestTogether_AConflictHidesNothing(t *testing.T) {
	failed := together(map[string]error{"Service/castle-www-2": spillway.ErrConflict, "HTTPRoute/castle-www": spillway.ErrStale})
	if errors.Is(failed, spillway.ErrStale) || !errors.Is(failed, spillway.ErrConflict) {
		t.Error(failed)
	}
	if failed = together(map[string]error{"Deployment/castle-www-2": spillway.ErrStale}); !errors.Is(failed, spillway.ErrStale) {
		t.Error(failed)
	}
}

// Of several refused objects each is told once, and that a route is as it was does not tell its Service's again.
func TestStuck_TellsEachRefusedObjectOnce(t *testing.T) {
	service := fmt.Errorf("there is a Service/castle-www-2 of somebody else: %w", spillway.ErrConflict)
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "castle-www"}, Spec: gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{{
		BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Name: "castle-www-2"}}}},
	}}}}
	refused := map[string]error{"Service/castle-www-2": service, "Service/again": service}
	refused["HTTPRoute/castle-www"] = leadsAstray(route, nil, refused)
	a := &app{failed: together(refused), failedAt: time.Now()}
	want := "HTTPRoute castle-www is as it was: it would lead users to Service castle-www-2, which is refused; there is a Service/castle-www-2 of somebody else"
	if got := a.stuck(time.Now()); got != want || !errors.Is(a.failed, spillway.ErrConflict) {
		t.Errorf("people are told %q of %v, want %q", got, a.failed, want)
	}
}

// Only what users come by holds up what has to go.
func TestLeadsUsers(t *testing.T) {
	r := canary()
	objects, err := r.objects()
	if err != nil {
		t.Fatal(err)
	}
	var leads []string
	for _, o := range objects {
		if leadsUsers(o) {
			leads = append(leads, key(o))
		}
	}
	if want := []string{"HTTPRoute/castle-www"}; !slices.Equal(leads, want) {
		t.Errorf("users come by %v, want %v", leads, want)
	}
}
