//go:build kube

package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/e2etest"
)

// season is a series of changes of the castle under load.
type season struct {
	*castle
	random *rand.Rand

	deploys, aborts, rollbacks int // done
}

// serves is the release that has all traffic, watched or not; 0 when it is divided.
func (s *season) serves() int { return e2etest.Serves(s.in.overview("castle")) }

// check fails the test when another release serves.
func (s *season) check(want int, after string) {
	s.Helper()
	if got := s.serves(); got != want {
		s.Fatalf("after %s, release %d serves, want %d; %s", after, got, want, describe(s.in.overview("castle")))
	}
}

// let lets out a release, which makes it.
func (s *season) let(strategy string) {
	s.Helper()
	began := time.Now()
	s.change().deploy("--strategy", strategy).want(s.T, 0)
	s.check(s.in.newest("castle"), "deploy by "+strategy)
	s.Logf("%s to release %d in %.1fs", strategy, s.serves(), time.Since(began).Seconds())
	s.deploys++
}

// abort lets out a release and takes it back at a random moment: while it starts, while it has some of the users, or
// while it is watched.
func (s *season) abort(strategy string) {
	s.Helper()
	serves := s.serves()
	s.change().deploy("--detach", "--strategy", strategy).want(s.T, 0)
	<-time.After(time.Duration(s.random.IntN(8000)) * time.Millisecond)
	newest := s.in.newest("castle")
	s.in.spillway("abort", "--app", "castle").want(s.T, 0)
	o := s.in.settled("castle", time.Minute)
	if o.Last.Release == newest && o.Last.Outcome == spillway.Aborted {
		s.check(serves, "abort of "+strategy)
		s.aborts++
		return
	}
	s.Logf("abort came too late: %s", describe(o))
}

// rollback goes back to the release before, or to any of the last five by its number.
func (s *season) rollback() {
	s.Helper()
	target := e2etest.Earlier(s.random, s.in.newest("castle"), s.serves())
	s.in.spillway("rollback", fmt.Sprint(target), "--app", "castle").want(s.T, 0)
	s.check(target, fmt.Sprintf("rollback to %d", target))
	s.rollbacks++
}

// Story 3: the castle, from the file that runs on one machine, is deployed, aborted and rolled back behind the gateway
// while users with old and with new connections read and write. No request fails, and nobody who meets www of one
// release meets the backend of another.
func TestStory3_CastleLosesNoRequest(t *testing.T) {
	t.Parallel()
	in := install(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("random moments from seed %d", seed)
	s := &season{castle: newCastle(in), random: rand.New(rand.NewPCG(seed, 0))}
	s.deploy().want(t, 0)
	s.in.healthy("castle", 1, time.Minute)
	await(t, 20*time.Second, "the first page", func() bool { status, _ := in.get(s.host, "/", nil); return status == 200 })
	users, visitors := s.send(80), s.visit()
	users.answered(100)
	strategies := []string{"canary", "rolling", "blue-green"}
	for i := range many("SPILLWAY_KUBE_MOVES", 6) {
		switch strategy := strategies[i/3%3]; i % 3 {
		case 0:
			s.let(strategy)
		case 1:
			s.abort(strategy)
		case 2:
			s.rollback()
		}
	}
	users.answered(100)
	visitors.together(t)
	seen := users.flawless(70)
	t.Logf("%d deploys, %d aborts, %d rollbacks: %v", s.deploys, s.aborts, s.rollbacks, seen)
}
