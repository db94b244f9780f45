package counts

import (
	"maps"
	"math"
	"slices"
	"strconv"
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
	// Times are the answers within a bound of a histogram, by cluster and then by bound in nanoseconds, 0 = all.
	Times map[string]map[time.Duration]int64 `json:"times,omitempty"`
	Timed bool                               `json:"timed,omitempty"` // Times were read
}

// reading is what a source said, or did not, when it was asked once.
type reading struct {
	at        time.Time
	instances map[string]instance // those that answered
	failed    map[string]string   // those that did not, with the reason
	known     bool                // the metric is there, be it for other apps only
	// lagging: the counters were read by somebody else, at some time before.
	lagging bool
	index   index // of the clusters of all instances
}

// index finds clusters by the names of the Services that they may be of, and by the rules that they are behind. Many trials
// share a reading, and none goes through all of it.
type index struct{ named, behind map[string][]string }

// index makes that of what instances have counted.
func (f Flavour) index(instances map[string]instance) index {
	x, done := index{named: map[string][]string{}, behind: map[string][]string{}}, map[string]bool{}
	for _, i := range instances {
		for cluster := range i.Counters {
			if done[cluster] {
				continue
			}
			done[cluster] = true
			for _, form := range f.forms(cluster) {
				x.named[form.name] = append(x.named[form.name], cluster)
				if form.rule != "" {
					x.behind[form.rule] = append(x.behind[form.rule], cluster)
				}
			}
		}
	}
	return x
}

// only is an instance with what it has counted of some clusters.
func (i instance) only(clusters map[string]bool) instance {
	all, times := i.Counters, i.Times
	i.Counters, i.Times = map[string]judge.Tally{}, nil
	for cluster := range clusters {
		if t, ok := all[cluster]; ok {
			i.Counters[cluster] = t
		}
		if t, ok := times[cluster]; ok {
			if i.Times == nil {
				i.Times = map[string]map[time.Duration]int64{}
			}
			i.Times[cluster] = t
		}
	}
	return i
}

// failure is the first instance that did not answer, with its reason; "" = all did.
func (r reading) failure() string {
	if len(r.failed) == 0 {
		return ""
	}
	first := slices.Min(slices.Collect(maps.Keys(r.failed)))
	return first + ": " + r.failed[first]
}

// succeeds reports whether the instance is another process than before; follows, whether what it has counted
// since it was seen last is known. It is not of a process that was there before and was not looked at.
func (i instance) succeeds(before instance) (other, follows bool) {
	other = i.Started != 0 && before.Started != 0 && !sameProcess(i.Started, before.Started)
	return other, !other || i.Started >= float64(before.At.Unix())
}

// since gives what an instance has answered after it was seen last, by cluster. A process that is new has counted
// since then only, and a counter that has become smaller too. A series that is new began at 0.
func (i instance) since(before instance) map[string]judge.Tally {
	other, follows := i.succeeds(before)
	grown := map[string]judge.Tally{}
	if !follows {
		return grown
	}
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

// timesSince is the same for the times of some clusters.
func (i instance) timesSince(before instance, clusters []string) (sum judge.Times) {
	other, follows := i.succeeds(before)
	if !follows || !before.Timed || !i.Timed {
		return judge.Times{}
	}
	for _, cluster := range clusters {
		now, was := i.Times[cluster], before.Times[cluster]
		if other || slices.ContainsFunc(slices.Collect(maps.Keys(now)), func(b time.Duration) bool { return now[b] < was[b] }) {
			was = nil
		}
		sum, _ = sum.Plus(histogram(now, was))
	}
	return sum
}

// timesOf is all that some clusters have answered.
func (i instance) timesOf(clusters []string) (sum judge.Times) {
	for _, cluster := range clusters {
		sum, _ = sum.Plus(histogram(i.Times[cluster], nil))
	}
	return sum
}

// histogram makes times of what numbers of answers within bounds have grown by.
func histogram(now, was map[time.Duration]int64) (t judge.Times) {
	if _, all := now[0]; !all || len(now) < 2 {
		return t
	}
	below := int64(0)
	for _, bound := range slices.Sorted(maps.Keys(now))[1:] {
		n := now[bound] - was[bound]
		t.Bounds, t.Counts = append(t.Bounds, bound), append(t.Counts, max(n-below, 0))
		below = max(below, n)
	}
	t.Counts = append(t.Counts, max(now[0]-was[0]-below, 0))
	return t
}

// wanted is what somebody wants to know: of Services by these names, how much and, if asked for, how fast.
type wanted struct {
	names map[string]bool
	times bool
}

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
		if c.want.names[form.name] {
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

// timesOf adds the series of a histogram up by cluster and bound, for clusters that are counted.
func (c *counted) timesOf(all []series, unit time.Duration) map[string]map[time.Duration]int64 {
	times := map[string]map[time.Duration]int64{}
	for _, s := range all {
		cluster, bound := c.flavour.cluster(s.labels), time.Duration(0)
		if _, ok := c.tallies[cluster]; !ok {
			continue
		}
		if s.labels["le"] != "+Inf" {
			le, err := strconv.ParseFloat(s.labels["le"], 64)
			if err != nil || le*float64(unit) < 1 || le*float64(unit) > math.MaxInt64/2 {
				continue
			}
			bound = time.Duration(le * float64(unit))
		}
		if times[cluster] == nil {
			times[cluster] = map[time.Duration]int64{}
		}
		times[cluster][bound] += int64(s.value)
	}
	return times
}
