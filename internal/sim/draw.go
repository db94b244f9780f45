package sim

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/spillway-dev/spillway"
)

// Action is one line of a scenario: a verb and its words, "deploy www errors=1 strategy=canary".
type Action string

// life draws the actions of a seed. Users are rarer than rounds, faults rarer than users' patience.
type life struct {
	rng    *rand.Rand
	faults bool
	tracks []string // words of the app file; most releases have them
	auto   bool     // most releases have autoscalers
	nodes  int      // instances of the gateway of a cluster; 0 = it is one machine
}

// newLife draws what stays the same in the life of a seed: every second one has tracks.
func newLife(seed uint64, rng *rand.Rand) *life {
	l := &life{rng: rng, faults: seed%4 != 0, auto: seed%16 == 9 || seed%16 == 10}
	if n := seed % 16; n >= 10 && n < 14 {
		l.nodes = 1 + int(seed/16%3)
	}
	if seed%2 == 1 {
		l.tracks = [][]string{
			{"track=canary:10%"}, {"track=canary:auto"}, {"track=canary:0%:rule"}, {"track=canary:10%:rule:host:x2"},
			{"track=canary:20%:host:rule", "track=legacy:30%:url"}, {"track=canary:0%:rule", "track=legacy:100%:url"}, {"track=canary:5%:x2", "track=beta:10%:rule"},
		}[rng.IntN(7)]
	}
	return l
}

func (l *life) one(of ...string) string { return of[l.rng.IntN(len(of))] }

// first are the actions that a life begins with.
func (l *life) first() []Action {
	var world []Action
	if l.nodes > 0 {
		world = []Action{Action(fmt.Sprintf("cluster %d", l.nodes))}
	}
	return append(world, Action("traffic "+l.one("0", "8", "16")), Action("ruled "+l.one("0", "0.1")), l.deploy(""))
}

// draw picks the next action, when there are so many releases.
func (l *life) draw(releases int) Action {
	if l.auto && l.rng.IntN(40) == 0 {
		return Action(fmt.Sprintf("demand %s %d", l.service(), 1+l.rng.IntN(10)))
	}
	release := 1 + l.rng.IntN(max(1, releases))
	switch pick := l.rng.IntN(1000); {
	case pick < 420:
		return Action("tick " + l.one("100ms", "1s", "1s", "3s", "10s", "30s"))
	case pick < 840 || !l.faults && pick < 920:
		return "once"
	case pick < 846:
		return Action("traffic " + l.one("0", "1", "5", "20", "60"))
	case pick < 850:
		return Action("reading " + l.one("ok", "ok", "broken", "nodata", "silent", "flips"))
	case pick < 920:
		return l.fault()
	case pick < 939:
		return l.deploy("")
	case pick < 945:
		return l.deploy(l.track())
	case pick < 952:
		return Action(fmt.Sprintf("deploy %d", release)) + Action(l.when())
	case pick < 958:
		return Action(fmt.Sprintf("scale %s %d", l.service(), 1+l.rng.IntN(6)))
	case pick < 961:
		return Action("scale " + l.service() + " auto")
	case pick < 966:
		return Action("restart " + l.service())
	}
	return l.steer(release)
}

// steer is one of the verbs of the people who watch.
func (l *life) steer(release int) Action {
	switch pick := l.rng.IntN(34); {
	case pick < 5:
		release *= l.rng.IntN(2)
		if release%4 == 3 { // whatever is known against it
			return Action(fmt.Sprintf("rollback %d force", release))
		}
		return Action(fmt.Sprintf("rollback %d", release))
	case pick < 7:
		return "rollback " + Action(l.track())
	case pick < 11:
		return "abort"
	case pick < 12:
		return "abort " + Action(l.track())
	case pick < 18:
		return "pause"
	case pick < 24:
		return "resume"
	case pick < 28:
		return "promote"
	case pick < 30:
		return "promote " + Action(l.track())
	case pick < 32:
		return "cancel"
	case pick < 33:
		return Action("legacy " + l.one("up", "down"))
	}
	return "destroy"
}

func (l *life) service() string { return l.one("www", "backend") }

// track is the name of one that holds releases.
func (l *life) track() string { return l.one("canary", "canary", "canary", "beta") }

// when is mostly "", else when a deploy may begin.
func (l *life) when() string {
	switch l.rng.IntN(8) {
	case 0:
		return " at=" + l.one("30s", "5m")
	case 1:
		return " force"
	}
	return ""
}

func (l *life) fault() Action {
	if l.nodes > 0 && l.rng.IntN(2) == 0 {
		return Action(fmt.Sprintf(l.one("write %d refused", "write %d dies", "write %d late", "behind %d", "foreign %d"), 1+l.rng.IntN(6)))
	}
	return Action(l.one(
		"crash before-save", "crash after-save", "apply fails", "apply half", "apply twice",
		"stale 1", "stale 3", "proxy down 3", "kill www", "kill backend", "clock +1h", "clock -1h", "load",
	))
}

// deploy is a new release of the app file, for stable or for a track.
func (l *life) deploy(track string) Action {
	words := []string{"deploy", l.one("www", "backend", "both", "none")}
	words = append(words, "strategy="+string(spillway.Strategies[l.rng.IntN(4)]), "tier="+string(spillway.Strategies[l.rng.IntN(4)]))
	words = append(words, "scale="+strconv.Itoa(1+l.rng.IntN(5)), "watch="+l.one("0s", "20s", "2m"))
	words = append(words, l.one("errors=1", "errors=0.3", "never", "crash", "fatal", "errors=0.01", "errors=0.01", "errors=0.01"))
	maybe := func(in int, of ...string) {
		if l.rng.IntN(in) == 0 {
			words = append(words, l.one(of...))
		}
	}
	maybe(4, "start=1", "start=5", "start=20")
	maybe(4, "pause")
	maybe(3, "thin=promote")
	maybe(4, "standby=20s", "standby=2m", "standby=0s")
	maybe(5, "task", "task=:www", "task=slow", "task=slow:www", "task=fails", "task=hangs")
	maybe(5, "gate=query", "gate=query:for=20s", "gate=http:from=25%", "gate=run:dry", "gate=rps:for=1m", "gate=cpu", "gate=memory:for=10s:dry")
	maybe(8, "gate=latency", "gate=latency:from=25%")
	maybe(8, "cpu=0.9", "memory=500Mi", "slow=3")
	maybe(9, "front=web", "alone", "cache") // services come and go
	maybe(12, "freeze=2m", "delay=30s", "synthetic", "max=4")
	if l.rng.IntN(6) > 0 {
		words = append(words, l.tracks...)
	}
	if l.auto && l.rng.IntN(6) > 0 {
		words = append(words, "auto")
	}
	if track != "" {
		words = append(words, "track="+track)
	}
	return Action(strings.Join(words, " ") + l.when())
}
