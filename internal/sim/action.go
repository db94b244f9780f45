package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

// Action is one line of a scenario: a verb and its words, "deploy www errors=1 strategy=canary".
type Action string

// draw picks the next action of a seed. Users are rarer than rounds, faults rarer than users' patience.
func draw(rng *rand.Rand, faults bool, releases int) Action {
	pick := rng.IntN(1000)
	release := 1 + rng.IntN(max(1, releases))
	switch {
	case pick < 420:
		return Action("tick " + []string{"100ms", "1s", "1s", "3s", "10s", "30s"}[rng.IntN(6)])
	case pick < 840 || !faults && pick < 920:
		return "once"
	case pick < 850:
		return Action("traffic " + strconv.Itoa([]int{0, 1, 5, 20, 60}[rng.IntN(5)]))
	case pick < 920:
		return drawFault(rng)
	case pick < 945:
		return drawDeploy(rng)
	case pick < 952:
		return Action(fmt.Sprintf("deploy %d", release))
	case pick < 958:
		return Action(fmt.Sprintf("scale %s %d", drawService(rng), 1+rng.IntN(6)))
	case pick < 961:
		return Action("scale " + drawService(rng) + " auto")
	case pick < 966:
		return Action("restart " + drawService(rng))
	case pick < 971:
		return Action(fmt.Sprintf("rollback %d", release*rng.IntN(2)))
	case pick < 977:
		return "abort"
	case pick < 985:
		return "pause"
	case pick < 992:
		return "resume"
	case pick < 997:
		return "promote"
	case pick < 999:
		return "cancel"
	}
	return "destroy"
}

func drawService(rng *rand.Rand) string { return []string{"www", "backend"}[rng.IntN(2)] }

func drawFault(rng *rand.Rand) Action {
	return Action([]string{
		"crash before-save", "crash after-save", "apply fails", "apply half", "apply twice",
		"stale 1", "stale 3", "proxy down 3", "kill www", "kill backend", "clock +1h", "clock -1h", "load",
	}[rng.IntN(13)])
}

func drawDeploy(rng *rand.Rand) Action {
	words := []string{"deploy", []string{"www", "backend", "both", "none"}[rng.IntN(4)]}
	words = append(words, "strategy="+string(spillway.Strategies[rng.IntN(4)]), "tier="+string(spillway.Strategies[rng.IntN(4)]))
	words = append(words, "scale="+strconv.Itoa(1+rng.IntN(5)), "watch="+[]string{"0s", "20s", "2m"}[rng.IntN(3)])
	switch rng.IntN(8) {
	case 0:
		words = append(words, "errors=1")
	case 1:
		words = append(words, "errors=0.3")
	case 2:
		words = append(words, "never")
	case 3:
		words = append(words, "crash")
	case 4:
		words = append(words, "fatal")
	default:
		words = append(words, "errors=0.01")
	}
	if rng.IntN(4) == 0 {
		words = append(words, "start="+strconv.Itoa(1+rng.IntN(20)))
	}
	if rng.IntN(4) == 0 {
		words = append(words, "pause")
	}
	if rng.IntN(3) == 0 {
		words = append(words, "thin=promote")
	}
	if i := rng.IntN(9); i < 3 { // services come and go
		words = append(words, []string{"front=web", "alone", "cache"}[i])
	}
	return Action(strings.Join(words, " "))
}

// do carries an action out.
func (r *Run) do(a Action) error {
	words := strings.Fields(string(a))
	verb, arg := words[0], ""
	if len(words) > 1 {
		arg = words[1]
	}
	switch verb {
	case "settle":
		return r.Settle()
	case "once":
		return r.once()
	case "tick":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		r.World.Tick(d)
	case "traffic":
		n, err := strconv.Atoi(arg)
		r.World.traffic = n
		return err
	case "outage":
		share, err := strconv.ParseFloat(arg, 64)
		r.World.outage = share
		return err
	case "users":
		n, err := strconv.Atoi(arg)
		r.World.users = n
		return err
	case "crash", "apply", "stale", "proxy", "kill", "clock", "load":
		return r.World.fault(r.Store, verb, words[1:])
	case "deploy":
		if n, err := strconv.Atoi(arg); err == nil {
			return r.ask(spillway.Intent{Verb: spillway.VerbDeploy, Release: n})
		}
		return r.release(words[1:])
	default:
		return r.verb(spillway.Verb(verb), words[1:])
	}
	return nil
}

// verb asks for one of the user's verbs.
func (r *Run) verb(verb spillway.Verb, words []string) error {
	in := spillway.Intent{Verb: verb, By: "ann"}
	if verb == spillway.VerbRollback && len(words) > 0 {
		in.Release, _ = strconv.Atoi(words[0])
	}
	if len(words) > 0 && (verb == spillway.VerbScale || verb == spillway.VerbRestart) {
		in.Service = words[0]
	}
	if len(words) > 1 {
		in.Auto = words[1] == "auto"
		in.Replicas, _ = strconv.Atoi(words[1])
	}
	return r.ask(in)
}

// fault arms a fault, or does it at once.
func (w *World) fault(s *Store, kind string, words []string) error {
	word := strings.Join(words, " ")
	if kind == "kill" {
		w.kill(word)
		return nil
	}
	switch kind + " " + word {
	case "crash before-save":
		s.CrashPre = true
	case "crash after-save":
		s.CrashEnd = true
	case "apply fails":
		w.failApply = 1
	case "apply half":
		w.halfApply = 1
	case "apply twice":
		w.twice = 1
	case "clock +1h", "clock -1h":
		d, _ := time.ParseDuration(word)
		w.Now, w.jumped = w.Now.Add(d), w.real
	case "load ", "load long": // a slow moment: what has just started takes longer
		for _, g := range w.sortedGroups() {
			for _, x := range w.groups[g].replicas {
				x.due += map[string]int{"": 3, "long": 60}[word]
			}
		}
	default:
		n, err := strconv.Atoi(words[len(words)-1])
		if err != nil {
			return fmt.Errorf("unknown action %s %s", kind, word)
		}
		if kind == "stale" {
			w.stale = n
		} else {
			w.down = n
		}
	}
	return nil
}

// kill ends one ready replica of a service, "www", or of a group, "www.2"; the platform starts it again.
func (w *World) kill(name string) {
	for _, g := range w.sortedGroups() {
		s := w.groups[g]
		for _, x := range s.replicas {
			if g.Service != name && g.String() != name || !x.ready || x.draining {
				continue
			}
			x.ready, x.due = false, w.tickNo+1
			s.restarts++
			w.killed = w.real
			return
		}
	}
}
