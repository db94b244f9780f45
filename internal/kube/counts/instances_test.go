package counts_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/counts"
)

// away makes an instance one that cannot be read.
func away(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }

// TestJudge_OneNameOfSeveralInstances: the address says which instance is meant, and the name goes with the request.
func TestJudge_OneNameOfSeveralInstances(t *testing.T) {
	w := newWorld(t, 2)
	var mu sync.Mutex
	var hosts []string
	fronts := map[string]bool{}
	for _, g := range w.gateways {
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			hosts = append(hosts, r.Host)
			mu.Unlock()
			g.ServeHTTP(w, r)
		}))
		defer front.Close()
		at, _ := url.Parse(front.URL)
		fronts[at.Host] = true
	}
	several := counts.New(counts.Config{Flavour: counts.Traefik, Now: func() time.Time { return w.now }, Instances: func() (all []counts.Instance, _ string) {
		for at := range fronts {
			all = append(all, counts.Instance{URL: "http://traefik.edge:9100/metrics", Address: at})
		}
		return all, ""
	}})
	w.Judge = several
	for _, g := range w.gateways {
		g.answer("1", "castle-www-4", 200, 1000)
	}
	w.follow(route(500))
	w.gateways[0].answer("1", "castle-www-4", 200, 30)
	w.gateways[1].answer("1", "castle-www-4", 200, 12)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 42)
	if strings.Join(hosts, " ") != strings.Repeat("traefik.edge:9100 ", 3)+"traefik.edge:9100" {
		t.Errorf("asked as %q", hosts)
	}
	_, memory, _ := w.Evidence("castle")
	for at := range fronts {
		if !strings.Contains(string(memory), at) {
			t.Errorf("the memory does not know %s: %s", at, memory)
		}
	}
}

// followed gives a world of n instances that were looked at when each had counted a thousand requests.
func followed(t *testing.T, n int) *world {
	w := newWorld(t, n)
	for _, g := range w.gateways {
		g.answer("1", "castle-www-4", 200, 1000)
	}
	w.follow(route(500))
	w.look()
	return w
}

// TestJudge_SomeInstancesCannotBeRead: the rest is judged as long as it is at least half, and said so. What the others
// counted meanwhile is counted when they are back.
func TestJudge_SomeInstancesCannotBeRead(t *testing.T) {
	w := followed(t, 4)
	w.gateways[0].instead(away)
	w.gateways[1].instead(away)
	for range 10 {
		w.look()
	}
	w.gateways[0].answer("1", "castle-www-4", 200, 11)
	w.gateways[3].answer("1", "castle-www-4", 200, 7)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 7)
	w.says("; 2 of 4 instances of the gateway cannot be read, and their requests are not in this: 127.0.0.1:")
	w.gateways[2].instead(away)
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 7) // for a moment that is nothing
	w.look()
	w.look()
	w.want(spillway.NoData, 0, 0, 7)
	w.says("the counters of 3 of 4 instances of the gateway cannot be read since")
	for _, g := range w.gateways {
		g.instead(nil)
	}
	w.look()
	w.want(spillway.NoTraffic, 0, 0, 18)
}

// TestJudge_FindsHarmWithTheFewThatAnswer: who is known to fail is not kept because others cannot be read.
func TestJudge_FindsHarmWithTheFewThatAnswer(t *testing.T) {
	w := followed(t, 3)
	w.gateways[0].instead(away)
	w.gateways[2].instead(away)
	for range 5 {
		w.look()
	}
	w.want(spillway.NoData, 0, 0, 0)
	w.gateways[1].both(95, 5)
	w.look()
	w.gateways[1].both(95, 5)
	w.look()
	if e, _, _ := w.Evidence("castle"); e.Verdict != spillway.Harmful {
		t.Errorf("%+v", e)
	}
}

// TestJudge_SaysWhyItKnowsNoInstance: a Service without replicas is no gateway that counts nothing.
func TestJudge_SaysWhyItKnowsNoInstance(t *testing.T) {
	w := newWorld(t, 0)
	w.problem = "Service edge/traefik has no replica that is ready"
	w.follow(route(500))
	w.want(spillway.NoData, 0, 0, 0)
	w.says("gateway: Service edge/traefik has no replica that is ready")
}

// TestJudge_SeveralProcessesAtOneAddress: nothing is made up of counters that jump from one process to another, and it
// is said what to do. A restart is none of that.
func TestJudge_SeveralProcessesAtOneAddress(t *testing.T) {
	for name, apart := range map[string]float64{"started together": 0.47, "started a day apart": 86_400} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2)
			began := float64(w.now.Unix()) - 100_000
			for i, g := range w.gateways {
				g.start = began + float64(i)*apart
				g.answer("1", "castle-www-4", 200, 1000*(i+1))
				g.answer("1", "castle-www-5", 500, 10*(i+1))
			}
			behind, random := w.gateways, rand.New(rand.NewPCG(1, 2))
			balancer := newGateway(t)
			balancer.instead(func(w http.ResponseWriter, r *http.Request) { behind[random.IntN(2)].ServeHTTP(w, r) })
			w.gateways = []*gateway{balancer}
			w.follow(route(500))
			for i := range 40 {
				for _, g := range behind {
					g.answer("1", "castle-www-4", 200, 50)
				}
				w.look()
				e, _, _ := w.Evidence("castle")
				if e.Verdict == spillway.Harmful {
					t.Fatalf("look %d: nothing failed, and the verdict is %+v", i, e)
				}
			}
			w.says("several processes answer there by turns")
			w.says("--gateway-metrics http://SERVICE.NAMESPACE:PORT/metrics")
			if e, _, _ := w.Evidence("castle"); e.Verdict != spillway.NoData {
				t.Errorf("verdict %s", e.Verdict)
			}
		})
	}
}

// TestJudge_RestartsAreNoTurns: one process after another at one address, each newer.
func TestJudge_RestartsAreNoTurns(t *testing.T) {
	w := newWorld(t, 1)
	w.gateways[0].answer("1", "castle-www-4", 200, 1000)
	w.follow(route(500))
	for i := range 6 {
		w.look()
		w.gateways[0].restart(w.now)
		w.gateways[0].answer("1", "castle-www-4", 200, 10)
		w.look()
		w.want(spillway.NoTraffic, 0, 0, int64(10*(i+1)))
	}
}

// TestJudge_ManyInstancesUnderLoad: instances come, go, restart and fall silent while requests are dealt by the weight,
// and no good candidate is taken for a harmful one, nor is anything counted twice.
func TestJudge_ManyInstancesUnderLoad(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, 3)
		for _, g := range w.gateways {
			g.start = float64(w.now.Unix()) - 1000
			g.answer("1", "castle-www-4", 200, random.IntN(5000))
			g.answer("1", "castle-www-4", 500, random.IntN(50))
		}
		w.follow(route(500))
		all, sent := w.gateways, 0
		for range 60 {
			for _, g := range w.gateways {
				good, few := 50+random.IntN(20), random.IntN(6)
				sent += good + few + 1
				g.answer("1", "castle-www-4", 200, good)
				g.answer("1", "castle-www-4", 500, random.IntN(2))
				g.answer("1", "castle-www-5", 200, few)
			}
			switch g := all[random.IntN(len(all))]; random.IntN(8) {
			case 0:
				g.restart(w.now.Add(time.Second))
			case 1:
				g.instead(away)
			case 2:
				g.instead(nil)
			case 3:
				w.gateways = all[:1+random.IntN(3)]
			case 4:
				w.gateways = all
			}
			w.look()
			e, _, _ := w.Evidence("castle")
			if e.Verdict == spillway.Harmful || e.Requests+e.Baseline > int64(sent) {
				t.Fatalf("seed %d: %s after %d requests", seed, fmt.Sprintf("%+v", e), sent)
			}
		}
	}
}
