package rollout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spillway-dev/spillway"
)

// standbyRelease is the release of the dark colour: the candidate until it has the users, then what they had.
func (t *turn) standbyRelease() spillway.Release {
	r := t.st.Rollout
	switch {
	case r != nil && r.Track == "" && t.weight() == 0 && t.st.Phase != spillway.RollingBack:
		return t.candidate()
	case r != nil && r.Track == "" && t.weight() > 0:
		return t.stable()
	case t.st.Standby != nil:
		return t.spec.Releases[t.st.Standby.Release]
	}
	return spillway.Release{}
}

// standbyEdges are the ways in to the dark colours of blue-green services.
func (t *turn) standbyEdges() []spillway.Edge {
	var edges []spillway.Edge
	for _, s := range t.file().Config.Services {
		if s.Standby == nil || len(s.Standby.Host) == 0 {
			continue
		}
		edge := spillway.Edge{Service: s.Name, Only: "standby", TLS: s.TLS, Hosts: slices.Sorted(slices.Values(s.Standby.Host)), Closed: "there is no dark colour of " + s.Name + " now"}
		release := t.standbyRelease()
		live, _ := t.stable().Group(s.Name)
		if t.weight() > 0 {
			live, _ = t.candidate().Group(s.Name)
		}
		switch g, ok := release.Group(s.Name); {
		case !ok || g == live:
		case t.ready(g) == 0 && !t.hasDark(g):
			edge.Closed = fmt.Sprintf("the dark colour of %s, release %d, is being started", s.Name, release.Number)
		default:
			edge.Closed = ""
			edge.Backends = []spillway.Backend{{Group: g, Release: release.Number, Weight: spillway.Whole, Color: t.color(s, g)}}
		}
		edges = append(edges, edge)
	}
	return edges
}

// hasDark reports whether the route asked for last leads from the host of the dark colour to a group.
func (t *turn) hasDark(g spillway.Group) bool {
	return slices.ContainsFunc(t.st.Route.Edges, func(e spillway.Edge) bool {
		return e.Only == "standby" && len(e.Backends) > 0 && e.Backends[0].Group == g
	})
}

// color is the colour of a group of a blue-green service: the one that the route has for it, else the other
// one than that of the group that serves; "" for other services. The route is the only place where it is kept.
func (t *turn) color(s spillway.Service, g spillway.Group) string {
	if s.Strategy != spillway.BlueGreen {
		return ""
	}
	if known := t.colorIn(t.st.Route, g); known != "" {
		return known
	}
	live, serves := t.stable().Group(s.Name)
	other := cmp.Or(t.colorIn(t.st.Route, live), t.taken(s.Name, g))
	if serves && g != live { // of two that have none yet, the one that serves is blue
		other = cmp.Or(other, "blue")
	}
	if other == "blue" {
		return "green"
	}
	return "blue"
}

// taken is the colour that another group of a service has in the route; "" when none has one.
func (t *turn) taken(service string, g spillway.Group) string {
	for _, e := range t.st.Route.Edges {
		for _, b := range e.Backends {
			if b.Group.Service == service && b.Group != g && b.Color != "" {
				return b.Color
			}
		}
	}
	return ""
}

func (t *turn) colorIn(route spillway.Route, g spillway.Group) string {
	for _, e := range route.Edges {
		for _, b := range e.Backends {
			if b.Group == g && b.Color != "" {
				return b.Color
			}
		}
	}
	return ""
}

// keepStandby begins the time in which the release that went dark stays warm.
func (t *turn) keepStandby(old, new spillway.Release) {
	t.st.Standby = nil
	if keep := t.keepOf(old, new); keep > 0 && old.Number != 0 {
		t.st.Standby = &Standby{Release: old.Number, Left: keep}
	}
}

// keepOf is how long the file of the new release keeps the old one warm after the watch.
func (t *turn) keepOf(old, new spillway.Release) spillway.Duration {
	keep := spillway.Duration(0)
	for _, s := range Changed(old, new) {
		if s.Strategy == spillway.BlueGreen && s.Standby != nil {
			keep = max(keep, s.Standby.Keep)
		}
	}
	return keep
}

// ageStandby counts the time of the dark colour down, and lets it go when that is over.
func (t *turn) ageStandby() {
	s := t.st.Standby
	if s == nil {
		return
	}
	if s.Left -= t.dt; s.Left > 0 {
		t.after(s.Left)
		return
	}
	t.event(spillway.EventStep, s.Release, "release %d is not kept warm any longer", s.Release)
	t.st.Standby = nil
}

// standbyWants keeps the dark colour at the size that it needs to take all users at once.
func (t *turn) standbyWants(wants map[spillway.Group]Want) {
	if t.st.Standby == nil {
		return
	}
	release := t.spec.Releases[t.st.Standby.Release]
	for _, s := range release.Config.Services {
		g, _ := release.Group(s.Name)
		if t.shared(s.Name, g) {
			continue
		}
		n := max(t.size(s), wants[g].Replicas)
		wants[g] = Want{Group: g, Replicas: n, Release: max(release.Number, wants[g].Release), Restart: t.st.Restart[s.Name]}
	}
}
