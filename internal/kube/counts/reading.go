package counts

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spillway-dev/spillway/internal/judge"
)

// instance is what one instance of a gateway had counted at one moment.
type instance struct {
	// At is a time at which the counters were not read yet: all that they grow by from here on was answered later.
	At       time.Time              `json:"at"`
	Started  float64                `json:"started,omitempty"` // when its process started, Unix seconds; 0 = not known
	Counters map[string]judge.Tally `json:"counters"`          // by cluster, and of rules by their name
}

// reading is what a source said, or did not, when it was asked once.
type reading struct {
	at        time.Time
	instances map[string]instance // those that answered
	failed    map[string]string   // those that did not, with the reason
	known     bool                // the metric is there, be it for other apps only
	// lagging: the counters were read by somebody else, at some time before.
	lagging bool
}

// since gives what an instance has answered after it was seen last, by cluster; nil when that is not known: it
// is another process, which was there before. A process that is new has counted since then only, and a counter
// that has become smaller too. A series that is new began at 0.
func (i instance) since(before instance) map[string]judge.Tally {
	const exact = 2 // seconds, of Started
	other := i.Started != 0 && before.Started != 0 && math.Abs(i.Started-before.Started) > exact
	if other && i.Started < float64(before.At.Unix()) {
		return nil
	}
	grown := map[string]judge.Tally{}
	for cluster, now := range i.Counters {
		was := before.Counters[cluster]
		if other || now.Failures < was.Failures || now.Requests-now.Failures < was.Requests-was.Failures {
			was = judge.Tally{}
		}
		if now != was {
			grown[cluster] = judge.Tally{Requests: now.Requests - was.Requests, Failures: now.Failures - was.Failures}
		}
	}
	return grown
}

// wanted are the names of the Services that somebody wants to know of.
type wanted map[string]bool

// series is one series of an exposition.
type series struct {
	labels
	value float64
}

// counted collects the series of one instance.
type counted struct {
	flavour Flavour
	want    wanted
	tallies map[string]judge.Tally
}

// add adds a series, if its backend is wanted, and gives the rule of the gateway that it belongs to.
func (c *counted) add(s series) (rule string, ok bool) {
	cluster := c.flavour.cluster(s.labels)
	for _, form := range c.flavour.forms(cluster) {
		if c.want[form.name] {
			c.count(cluster, s)
			return form.rule, true
		}
	}
	return "", false
}

// count adds a series to the tally of a cluster.
func (c *counted) count(cluster string, s series) {
	const most = 1 << 60 // nothing has so many; sums do not overflow
	t := c.tallies[cluster]
	t.Requests = min(t.Requests+int64(s.value), most)
	if c.flavour.failed(s.labels) {
		t.Failures = min(t.Failures+int64(s.value), most)
	}
	c.tallies[cluster] = t
}

// addRules adds what the rules that wanted backends are behind have counted themselves, under the name of the
// rule, and the other backends behind them: the failures that are missing there are those that no backend got.
func (c *counted) addRules(backends, routers []series) {
	rules := map[string]bool{}
	var others []series
	for _, s := range backends {
		if rule, ok := c.add(s); !ok {
			others = append(others, s)
		} else if rule != "" {
			rules[rule] = true
		}
	}
	for _, s := range others {
		cluster := c.flavour.cluster(s.labels)
		if slices.ContainsFunc(c.flavour.forms(cluster), func(f form) bool { return rules[f.rule] }) {
			c.count(cluster, s)
		}
	}
	for _, s := range routers {
		if rule, ok := strings.CutSuffix(s.of("router"), gatewayProvider); ok && rules[rule] {
			c.count(rule, s)
		}
	}
}
