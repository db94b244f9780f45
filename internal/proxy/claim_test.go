package proxy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
)

// claimant is one request on its way to a replica, step by step. Between any two steps anything may happen.
type claimant struct {
	edge   *edge
	picked *endpoint
	stays  int // steps until it is answered; 0 = it holds nothing
}

// claimModel plays requests against changes of the table, in one goroutine, so that a seed says in which order.
type claimModel struct {
	t        *testing.T
	plane    *plane
	random   *rand.Rand
	revision int64
	in       [4]bool // which replicas the table has as ready
	draining [4]bool // which it has as draining
	dead     [4]bool // which the platform has killed: nothing was in flight once they had left
	requests [12]claimant
	claims   int
	refused  int
}

func replicaName(i int) string { return fmt.Sprintf("www.1-%d", i+1) }

// push changes one replica of the table: it comes, drains or goes.
func (m *claimModel) push() {
	i := m.random.IntN(len(m.in))
	switch {
	case !m.in[i]: // it is started before the table has it
		m.in[i], m.draining[i], m.dead[i] = true, false, false
	case m.random.IntN(2) == 0:
		m.in[i], m.draining[i] = false, true
	default:
		m.in[i], m.draining[i] = false, false
	}
	m.revision++
	table := alone(m.revision)
	for i := range m.in {
		if m.in[i] || m.draining[i] {
			table.Endpoints = append(table.Endpoints, spillway.Endpoint{Replica: replicaName(i), Group: www1, Address: fmt.Sprintf("127.0.0.9:%d", i+1), Draining: !m.in[i]})
		}
	}
	m.plane.serveTable(m.t, table)
}

// look kills what the proxy says is drained.
func (m *claimModel) look() {
	report, err := m.plane.report(shop)
	if err != nil {
		m.t.Fatal(err)
	}
	for i := range m.in {
		if !m.in[i] && report.InFlight[replicaName(i)] == 0 {
			m.dead[i] = true
		}
	}
}

// step takes one request one step on.
func (m *claimModel) step(c *claimant) {
	switch {
	case c.edge == nil:
		c.edge = m.plane.routing.Load().ways.hosts["shop.test"].rest.first()
	case c.picked == nil:
		if c.picked = pick(c.edge.arms[0].endpoints, nil, time.Now()); c.picked == nil {
			c.edge = nil // it waits for another table
		}
	case c.stays == 0:
		if !m.plane.claim(c.picked) {
			m.refused++
			*c = claimant{}
			return
		}
		m.claims++
		c.stays = 1 + m.random.IntN(5)
	default:
		if c.stays--; c.stays == 0 {
			m.plane.release(c.picked)
			*c = claimant{}
		}
	}
	if c.stays > 0 {
		for i := range m.dead {
			if m.dead[i] && c.picked.Replica == replicaName(i) {
				m.t.Fatalf("a request is at %s, which was killed: the proxy had said that nothing was in flight there", c.picked.Replica)
			}
		}
	}
}

// TestClaim_NeverMeetsWhatWasDrained: in any order of looking up, picking, claiming, pushing and reporting, no
// request is at a replica that was reported as drained.
func TestClaim_NeverMeetsWhatWasDrained(t *testing.T) {
	t.Parallel()
	claims, refused := 0, 0
	for range 8 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := &claimModel{t: t, plane: handler(t), random: rand.New(rand.NewPCG(seed, 0))}
			for range len(m.in) {
				m.push()
			}
			for range 4000 {
				switch n := m.random.IntN(100); {
				case n < 2:
					m.push()
				case n < 6:
					m.look()
				default:
					m.step(&m.requests[m.random.IntN(len(m.requests))])
				}
			}
			claims, refused = claims+m.claims, refused+m.refused
		})
	}
	if refused < 10 || claims < refused {
		t.Errorf("%d claims, %d refused: the schedules meet too little", claims, refused)
	}
	t.Logf("%d claims, %d refused", claims, refused)
}
