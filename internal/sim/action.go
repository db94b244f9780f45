package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
)

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
	case "errors": // a release begins to fail so often: "errors 2 0.3"
		n, err := strconv.Atoi(arg)
		if err != nil || len(words) < 3 {
			return fmt.Errorf("unknown action %s", a)
		}
		b := r.World.behave[n]
		b.Errors, err = strconv.ParseFloat(words[2], 64)
		r.World.behave[n] = b
		return err
	case "ruled":
		share, err := strconv.ParseFloat(arg, 64)
		r.World.ruled = share
		return err
	case "reading":
		r.World.outside.says = strings.TrimSuffix(arg, "ok")
	case "legacy":
		r.World.outside.dead = arg == "down"
	case "users":
		n, err := strconv.Atoi(arg)
		r.World.users = n
		return err
	case "cluster", "write", "behind", "foreign":
		return r.World.clusterFault(verb, words[1:])
	case "crash", "apply", "stale", "proxy", "judge", "kill", "clock", "load", "demand", "server":
		return r.World.fault(r.Store, verb, words[1:])
	case "deploy":
		if n, err := strconv.Atoi(arg); err == nil {
			return r.again(n, words[2:])
		}
		return r.release(words[1:])
	default:
		return r.verb(spillway.Verb(verb), words[1:])
	}
	return nil
}

// again asks for a release that exists.
func (r *Run) again(n int, words []string) error {
	d := deploy{intent: spillway.Intent{Verb: spillway.VerbDeploy, Release: n}, now: r.World.Now}
	for _, word := range words {
		if err := d.set(word); err != nil {
			return err
		}
	}
	return r.ask(d.intent)
}

// verb asks for one of the user's verbs: "scale www 3", "rollback 2", "rollback canary", "promote canary".
func (r *Run) verb(verb spillway.Verb, words []string) error {
	in := spillway.Intent{Verb: verb, By: "ann"}
	if verb == spillway.VerbScale || verb == spillway.VerbRestart {
		if len(words) > 0 {
			in.Service = words[0]
		}
		if len(words) > 1 {
			in.Auto = words[1] == "auto"
			in.Replicas, _ = strconv.Atoi(words[1])
		}
		return r.ask(in)
	}
	for _, word := range words {
		n, err := strconv.Atoi(word)
		switch {
		case word == "force":
			in.Force = true
		case err == nil:
			in.Release = n
		default:
			in.Track = word
		}
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
	if kind == "demand" { // no fault: a service needs so many replicas, "demand www 5"
		n, err := strconv.Atoi(words[len(words)-1])
		w.demand[words[0]] = n
		return err
	}
	switch kind + " " + word {
	case "crash before-save":
		s.CrashPre = true
	case "crash after-save":
		s.CrashEnd = true
	case "server returns": // the next round is its first
		w.returned = true
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
		switch kind {
		case "stale":
			w.stale = n
		case "judge":
			w.blind, w.blinded = n, w.Now
		default:
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
			x.ready, x.fell, x.due = false, true, w.tickNo+1
			s.restarts++
			return
		}
	}
}
