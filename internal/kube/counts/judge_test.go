package counts_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// serveFile shows a stored exposition.
func serveFile(t *testing.T, name string) http.HandlerFunc {
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }
}

// TestJudge_ReadsTraefik reads what a Traefik showed before an HTTPRoute had requests, after 203 by weight and 3 by
// header to a candidate that fails all, and after the route had led to a Service without endpoints instead.
func TestJudge_ReadsTraefik(t *testing.T) {
	w := newWorld(t, 1)
	w.gateways[0].start = 1795860852.26
	w.follow(route(500))
	w.want(spillway.NoData, 0, 0, 0)
	w.look()
	w.gateways[0].instead(serveFile(t, "traefik-3.7.9-dead.txt"))
	w.look()
	e := w.want(spillway.Harmful, 13, 13, 193)
	if e.Cause != "errors" {
		t.Errorf("cause is %q: %s", e.Cause, e.Reason)
	}

	r := route(500)
	r.Route.Trial.ID, r.Route.Trial.Release = 4, 6
	r.Route.Trial.Candidate[0].Release = 6
	r.Route.Edges[0].Backends[1].Group.Release, r.Route.Edges[0].Backends[1].Release = 6, 6
	r.Services["www.6"] = counts.Service{Namespace: "shop", Name: "castle-www-6", Port: 80}
	w.follow(r)
	w.look()
	w.gateways[0].instead(serveFile(t, "traefik-3.7.9-gone.txt"))
	w.look()
	w.gateways[0].instead(nil)
	w.gateways[0].instead(serveFile(t, "traefik-3.7.9-gone.txt"))
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 95) // nobody answers any more, so nobody knows whose the five are
}

func TestJudge_DeadCandidateHasNoSeriesOfSuccesses(t *testing.T) {
	w := newWorld(t, 1)
	w.gateways[0].answer("1", "castle-www-4", 200, 10_000)
	w.follow(route(500))
	w.want(spillway.NoTraffic, 0, 0, 0)
	w.look()
	w.gateways[0].answer("1", "castle-www-4", 200, 158)
	w.gateways[0].answer("1", "castle-www-5", 502, 8)
	w.look()
	if e := w.want(spillway.Harmful, 8, 8, 158); e.Cause != "errors" || !e.At.Equal(w.now) {
		t.Errorf("%+v", e)
	}
	w.gateways[0].Close()
	for range 5 {
		w.look()
	}
	e, _, noData := w.Evidence("castle")
	if e.Verdict != spillway.Harmful || noData == "" {
		t.Errorf("without data it is %s, no data: %q", e.Verdict, noData)
	}
}

func TestJudge_GoodCandidateIsCertified(t *testing.T) {
	w := newWorld(t, 1)
	w.follow(route(spillway.Percent(10)))
	w.gateways[0].answer("1", "castle-www-4", 200, 1)
	w.look()
	for range 40 {
		w.gateways[0].answer("1", "castle-www-4", 200, 150)
		w.gateways[0].answer("1", "castle-www-5", 200, 16)
		w.look()
	}
	w.want(spillway.Certified, 640, 0, 6001)
}

// TestJudge_CandidateWithoutEndpoints: Traefik answers 503 for it and counts that by rule only.
func TestJudge_CandidateWithoutEndpoints(t *testing.T) {
	w, router := newWorld(t, 1), `traefik_router_requests_total{code="503",method="GET",protocol="http",router="`+prefix+`-1@kubernetesgateway",service="x"}`
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 100)
	g.series[router] = 7
	w.follow(route(500))
	w.look()
	for range 3 {
		g.answer("1", "castle-www-4", 200, 158)
		g.answer("1", "castle-www-4", 500, 1)
		g.series[router] += 8 + 1
		w.look()
	}
	w.want(spillway.Harmful, 16, 16, 3*159) // the last eight are believed at the next reading
}

// TestJudge_StableWithoutEndpoints is no fault of the candidate.
func TestJudge_StableWithoutEndpoints(t *testing.T) {
	w, router := newWorld(t, 1), `traefik_router_requests_total{code="503",method="GET",protocol="http",router="`+prefix+`-1@kubernetesgateway",service="x"}`
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 100)
	g.answer("1", "castle-www-5", 200, 5)
	g.series[router] = 7
	w.follow(route(500))
	w.look()
	for range 10 {
		g.answer("1", "castle-www-5", 200, 8)
		g.series[router] += 158
		w.look()
	}
	w.want(spillway.Undecided, 80, 0, 9*158)
}

func TestJudge_ThreeSilences(t *testing.T) {
	w := newWorld(t, 1)
	w.follow(route(500))
	w.want(spillway.NoData, 0, 0, 0)
	w.says("has no traefik_service_requests_total: either nobody has asked it anything, or its metrics are without addServicesLabels")
	w.gateways[0].answer("0", "other-www-1", 200, 5)
	w.look()
	w.want(spillway.NoData, 0, 0, 0)
	w.says("counts nothing for shop/castle-www-4:80 and shop/castle-www-5:80: either nobody has asked for them")
	w.gateways[0].answer("1", "castle-www-4", 200, 5)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 5)
	w.says("release 5 has not answered any request yet, release 4 5")

	before := w.now
	w.gateways[0].instead(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	w.look()
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 5) // once or twice is no news
	w.look()
	w.want(spillway.NoData, 0, 0, 5)
	w.says("cannot be read since " + before.Format("15:04:05 UTC") + ": 127.0.0.1:")
	w.says("it answers 401 Unauthorized")
	w.gateways[0].instead(nil)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 5)
}

func TestJudge_WakesOnlyForNews(t *testing.T) {
	w := newWorld(t, 1)
	w.gateways[0].answer("1", "castle-www-4", 200, 5)
	w.follow(route(500))
	w.look()
	w.changed = 0
	for range 20 {
		w.look()
	}
	if w.changed != 0 {
		t.Errorf("a quiet app is told of %d times", w.changed)
	}
	w.gateways[0].answer("1", "castle-www-4", 200, 5)
	w.look()
	if w.changed != 1 {
		t.Errorf("new answers are told of %d times", w.changed)
	}
	w.gateways[0].Close()
	for range 20 {
		w.look()
	}
	if w.changed != 2 {
		t.Errorf("lost data are told of %d times", w.changed-1)
	}
}

func TestJudge_GatewayRestartsInTheTrial(t *testing.T) {
	w := newWorld(t, 2)
	for _, g := range w.gateways {
		g.answer("1", "castle-www-4", 200, 1000)
		g.answer("1", "castle-www-5", 200, 50)
	}
	w.follow(route(500))
	w.look()
	w.gateways[0].restart(w.now.Add(time.Second))
	w.gateways[0].answer("1", "castle-www-4", 200, 30)
	w.gateways[0].answer("1", "castle-www-5", 200, 60) // more than before: only the start says that it is new
	w.gateways[1].answer("1", "castle-www-4", 200, 100)
	w.look()
	w.want(spillway.Undecided, 60, 0, 130)
	w.gateways[1].restart(w.now.Add(-time.Hour)) // another one at the same address: what it counted before is not ours
	w.gateways[1].answer("1", "castle-www-5", 500, 5000)
	w.look()
	w.want(spillway.Undecided, 60, 0, 130)
}

func TestJudge_InstancesComeAndGo(t *testing.T) {
	w := newWorld(t, 2)
	all := w.gateways
	for _, g := range all {
		g.answer("1", "castle-www-4", 200, 1000)
	}
	w.gateways = all[:1]
	w.follow(route(500))
	w.look()
	w.gateways = all // what it had counted before is not known to be of this trial
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 0)
	all[1].answer("1", "castle-www-4", 200, 10)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 10)
	w.gateways = all[:1]
	all[1].answer("1", "castle-www-4", 200, 7)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 10)
	w.gateways = all
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 17)
	all[1].Close()
	all[0].answer("1", "castle-www-4", 200, 3)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 20)
	w.says("; 1 of 2 instances of the gateway cannot be read")
}

// TestJudge_ComparesNothingWhileTheWeightMoves: a route that is not acknowledged, and the look in which it became so.
func TestJudge_ComparesNothingWhileTheWeightMoves(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 10)
	g.answer("1", "castle-www-5", 200, 10)
	w.follow(route(500))
	w.look()
	compared := func() int64 {
		_, memory, _ := w.Evidence("castle")
		var m struct {
			State struct{ Comparison struct{ Errors int64 } }
		}
		if err := json.Unmarshal(memory, &m); err != nil {
			t.Fatal(err)
		}
		return m.State.Comparison.Errors
	}
	step := func() { g.answer("1", "castle-www-4", 500, 1); w.look() }
	step()
	if compared() != 1 {
		t.Fatalf("%d errors are compared, want 1", compared())
	}
	r := route(spillway.Percent(50))
	if err := w.Follow("castle", r); err != nil {
		t.Fatal(err)
	}
	step()
	step()
	r.Acknowledged = w.now
	if err := w.Follow("castle", r); err != nil {
		t.Fatal(err)
	}
	step() // from before it was acknowledged to after
	if compared() != 1 {
		t.Fatalf("%d errors are compared while the weight moves, want 1", compared())
	}
	step()
	if compared() != 2 {
		t.Fatalf("%d errors are compared, want 2", compared())
	}
	w.want(spillway.NoTraffic, 0, 0, 5)
}

// TestJudge_ChosenRequestsAreNotCompared: a rule by header leads to the candidate alone.
func TestJudge_ChosenRequestsAreNotCompared(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 100)
	g.answer("1", "castle-www-5", 200, 5)
	w.follow(route(500))
	w.look()
	for range 10 {
		g.answer("0", "castle-www-5", 500, 1) // testers
		g.answer("0", "castle-www-5", 200, 9)
		g.answer("1", "castle-www-4", 200, 95)
		g.answer("1", "castle-www-5", 200, 5)
		w.look()
	}
	w.want(spillway.Undecided, 150, 10, 950)
}

// TestJudge_TooManyAtTheCandidate: a gateway that does not tell rules apart gives the candidate far more than its
// weight, with the same error rate as stable.
func TestJudge_TooManyAtTheCandidate(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 1)
	g.answer("1", "castle-www-5", 200, 1)
	w.follow(route(500))
	w.look()
	for range 20 {
		g.answer("1", "castle-www-4", 200, 90)
		g.answer("1", "castle-www-4", 500, 10)
		g.answer("1", "castle-www-5", 200, 90)
		g.answer("1", "castle-www-5", 500, 10)
		w.look()
	}
	w.want(spillway.Undecided, 2000, 200, 2000)
}

func TestJudge_GoesOnFromMemory(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 1000)
	w.follow(route(500))
	w.look()
	g.answer("1", "castle-www-4", 200, 100)
	g.answer("1", "castle-www-5", 200, 5)
	w.look()
	w.want(spillway.Undecided, 5, 0, 100)
	_, memory, _ := w.Evidence("castle")

	g.answer("1", "castle-www-4", 200, 40) // while no server was there
	next := newWorld(t, 0)
	next.gateways, next.now = w.gateways, w.now.Add(time.Minute)
	if e, _, _ := next.Evidence("castle"); e != nil {
		t.Fatalf("evidence of an app that is not followed: %+v", e)
	}
	r := route(500)
	r.Route.Trial.Memory = memory
	next.follow(r)
	next.want(spillway.Undecided, 5, 0, 140)
	next.look()
	next.want(spillway.Undecided, 5, 0, 140)

	r.Route.Trial.Memory = json.RawMessage(`{"version":2,"trial":3}`)
	other := newWorld(t, 0)
	if err := other.Follow("castle", r); !errors.Is(err, spillway.ErrInvalid) {
		t.Errorf("memory of a newer version: %v", err)
	}
	if e, _, _ := other.Evidence("castle"); e == nil || e.Requests != 0 {
		t.Errorf("evidence %+v", e)
	}
}

func TestJudge_EndsWithTheTrial(t *testing.T) {
	w := newWorld(t, 1)
	w.follow(route(500))
	r := route(500)
	r.Route.Trial = nil
	if err := w.Follow("castle", r); err != nil {
		t.Fatal(err)
	}
	if e, memory, noData := w.Evidence("castle"); e != nil || memory != nil || noData != "" {
		t.Errorf("%+v %s %s", e, memory, noData)
	}
	w.gateways[0].instead(func(http.ResponseWriter, *http.Request) { t.Error("the gateway is asked for nobody") })
	w.look()
	missing := route(500)
	delete(missing.Services, "www.5")
	if err := w.Follow("castle", missing); !errors.Is(err, spillway.ErrInvalid) || !strings.Contains(err.Error(), "www.5") {
		t.Errorf("a backend without a Service: %v", err)
	}
}

func TestJudge_NothingPublicIsTried(t *testing.T) {
	w := newWorld(t, 1)
	r := route(500)
	r.Route.Edges[0].Protocol = spillway.TCP
	w.follow(r)
	w.want(spillway.NoTraffic, 0, 0, 0)
	w.says("release 5 changes no public HTTP service")
}

// TestJudge_BeforeTheRouteLeadsToTheCandidate has a candidate that starts: it does change a public service.
func TestJudge_BeforeTheRouteLeadsToTheCandidate(t *testing.T) {
	w := newWorld(t, 1)
	r := route(500)
	r.Route.Edges[0].Backends = r.Route.Edges[0].Backends[:1]
	w.follow(r)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 0)
	w.says("the gateway does not lead anybody to release 5")
	w.gateways[0].answer("1", "castle-www-5", 200, 1)
	w.follow(route(500))
	w.look()
	w.gateways[0].answer("1", "castle-www-5", 200, 9)
	w.look()
	w.want(spillway.Undecided, 9, 0, 0)
}

// TestJudge_AllOfTheUsers: nothing to compare with, so the limit counts.
func TestJudge_AllOfTheUsers(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.answer("1", "castle-www-5", 200, 1000)
	w.follow(route(spillway.Whole))
	w.look()
	g.answer("1", "castle-www-5", 500, 15)
	w.look()
	if e := w.want(spillway.Harmful, 15, 15, 0); e.Cause != "limit" {
		t.Errorf("cause %s: %s", e.Cause, e.Reason)
	}
}

// TestJudge_TwoServices: each is compared with its own stable, and both count.
func TestJudge_TwoServices(t *testing.T) {
	w := newWorld(t, 1)
	r := route(500)
	shop := r.Route.Edges[0]
	shop.Service, shop.Backends = "shop", []spillway.Backend{
		{Group: spillway.Group{Service: "shop", Release: 3}, Release: 4, Weight: spillway.Whole - 500},
		{Group: spillway.Group{Service: "shop", Release: 5}, Release: 5, Weight: 500},
	}
	r.Route.Edges = append(r.Route.Edges, shop)
	r.Route.Trial.Candidate = append(r.Route.Trial.Candidate, shop.Backends[1].Group)
	r.Services["shop.3"] = counts.Service{Namespace: "shop", Name: "castle-shop-3", Port: 80}
	r.Services["shop.5"] = counts.Service{Namespace: "shop", Name: "castle-shop-5", Port: 80}
	g := w.gateways[0]
	for _, s := range []string{"castle-www-4", "castle-www-5"} {
		g.answer("1", s, 200, 10)
	}
	w.follow(r)
	w.look()
	g.answer("1", "castle-www-4", 200, 95)
	g.answer("1", "castle-www-5", 200, 5)
	g.answer("2", "castle-shop-3", 200, 95)
	g.answer("2", "castle-shop-5", 500, 5)
	w.look()
	w.want(spillway.Harmful, 10, 5, 190)
}

// TestJudge_RemembersLittleOfALargeGateway: an App would be too large to be saved with what each instance has counted, and
// nothing of it could go on, not even back.
func TestJudge_RemembersLittleOfALargeGateway(t *testing.T) {
	w := newWorld(t, 1)
	long := strings.Repeat("x", 1000)
	for n := range 150 { // rules with long names are as large as many instances, and cost less here
		w.gateways[0].answer(long+strconv.Itoa(n), "castle-www-4", 200, 1)
	}
	w.follow(route(500))
	w.look()
	w.gateways[0].answer(long+"1", "castle-www-4", 200, 20)
	w.gateways[0].answer(long+"1", "castle-www-5", 200, 1)
	w.look()
	_, memory, _ := w.Evidence("castle")
	if len(memory) > 128<<10 {
		t.Errorf("it remembers %d bytes", len(memory))
	}
	next := newWorld(t, 0)
	next.now, next.gateways = w.now, w.gateways
	r := route(500)
	r.Route.Trial.Memory = memory
	next.follow(r)
	next.want(spillway.Undecided, 1, 0, 20)
	w.gateways[0].answer(long+"1", "castle-www-4", 200, 20)
	next.look()
	next.want(spillway.Undecided, 1, 0, 40)
}

// TestJudge_OtherAppsAreOfNoAccount: many apps are judged by one reading. What is remembered of one does not grow with the
// others, and that the gateway counts nothing for it does not hide behind them.
func TestJudge_OtherAppsAreOfNoAccount(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.answer("1", "castle-www-4", 200, 10)
	g.answer("1", "castle-www-5", 200, 1)
	w.follow(route(500))
	w.want(spillway.NoTraffic, 0, 0, 0)
	_, alone, _ := w.Evidence("castle")
	tower := route(500)
	tower.Acknowledged = w.now
	tower.Services = map[string]counts.Service{
		"www.4": {Namespace: "shop", Name: "tower-www-4", Port: 80}, "www.5": {Namespace: "shop", Name: "tower-www-5", Port: 80},
	}
	if err := w.Follow("tower", tower); err != nil {
		t.Fatal(err)
	}
	w.look()
	w.look()
	if e, _, noData := w.Evidence("tower"); e.Verdict != spillway.NoData || !strings.Contains(noData, "counts nothing for shop/tower-www-4") {
		t.Errorf("nothing is counted for it, and it is %s: %q", e.Verdict, noData)
	}
	g.answer("2", "tower-www-4", 200, 10)
	w.look()
	_, memory, _ := w.Evidence("castle")
	if len(memory) > len(alone)+10 || strings.Contains(string(memory), "tower") {
		t.Errorf("castle remembers of tower: %s", memory)
	}
	if e, _, noData := w.Evidence("tower"); e.Verdict != spillway.NoTraffic {
		t.Errorf("it is counted, and is %s: %q", e.Verdict, noData)
	}
}
