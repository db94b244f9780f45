package rollout

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
)

// describeTracks lists the tracks of stable's file, and what the data plane gives each of them.
func (t *turn) describeTracks() []spillway.TrackOverview {
	byName := map[string]spillway.TrackOverview{}
	for _, s := range t.file().Config.Services {
		for _, def := range s.Tracks {
			o, known := byName[def.Name]
			if !known {
				lane := t.st.Lanes[def.Name]
				o = spillway.TrackOverview{Name: def.Name, Release: lane.Release, Good: lane.Good, URLs: def.URLs}
				if r := t.st.Rollout; t.laneSwitched() && r.Track == def.Name {
					o.Release = r.Release
				}
			}
			for _, m := range def.Match {
				o.Rules = append(o.Rules, fmt.Sprintf("%s %s=%s", m.Kind, m.Name, m.Value))
			}
			for _, host := range def.Host {
				o.Rules = append(o.Rules, "host "+host)
			}
			o.Share = max(o.Share, t.servedTrack(s.Name, def.Name))
			for _, url := range def.URLs {
				if why := t.obs.Dead[url]; why != "" {
					o.Problem = url + ": " + why
				}
			}
			byName[def.Name] = o
		}
	}
	var list []spillway.TrackOverview
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		o := byName[name]
		if o.Problem == "" {
			o.Problem = t.laneProblem(name)
		}
		list = append(list, o)
	}
	return list
}

// servedTrack is the share of a service's users that the data plane gives to a track by their bucket.
func (t *turn) servedTrack(service, track string) spillway.Share {
	share := spillway.Share(0)
	for _, e := range t.obs.Served.Edges {
		if e.Service != service || e.From != (spillway.Group{}) || e.Only != "" {
			continue
		}
		for _, b := range e.Backends {
			if b.Track == track {
				share = max(share, b.Weight)
			}
		}
	}
	return share
}

// laneProblem says which replicas a track lacks of the release that it holds, with the next step; "" = none.
func (t *turn) laneProblem(track string) string {
	release, ok := t.spec.Releases[t.st.Lanes[track].Release]
	if !ok || !slices.Contains(t.file().Config.Lanes(), track) {
		return ""
	}
	for _, s := range release.Config.Services {
		g, _ := release.Group(s.Name)
		if t.shared(s.Name, g) {
			continue
		}
		if lack := t.lack(s, g, t.laneSize(track, s)); lack != "" {
			instead := ""
			if s.Public() {
				instead = "; its users are given to stable while no replica is ready"
			}
			return fmt.Sprintf("track %s: %s%s%s", track, lack, instead, t.whereToLook(t.group(g)))
		}
	}
	return ""
}

// describeStandby is the dark colour: what was kept, or during the watch what users had until the switch.
func (t *turn) describeStandby() *spillway.StandbyOverview {
	dark, r := t.st.Standby, t.st.Rollout
	if keep := t.keepOf(t.stable(), t.candidate()); t.weight() == spillway.Whole && keep > 0 && r.Stable != 0 {
		left := max(0, t.candidate().Config.Watch-r.Elapsed)
		dark = &Standby{Release: r.Stable, Left: left + keep}
	}
	if dark == nil {
		return nil
	}
	release := t.spec.Releases[dark.Release]
	o := &spillway.StandbyOverview{Release: dark.Release, Left: max(0, dark.Left-t.dt), Ready: true}
	for _, s := range release.Config.Services {
		g, _ := release.Group(s.Name)
		if t.group(g).Ready < t.size(s) {
			o.Ready = false
		}
		if s.Public() && s.Strategy == spillway.BlueGreen {
			o.Color = t.color(s, g)
		}
	}
	for _, s := range t.file().Config.Services {
		if s.Standby != nil {
			o.Hosts = append(o.Hosts, s.Standby.Host...)
		}
	}
	return o
}

// liveColor is the colour of what the data plane gives most users of a blue-green service.
func (t *turn) liveColor() string {
	color, most := "", spillway.Share(0)
	for _, e := range t.obs.Served.Edges {
		for _, b := range e.Backends {
			if e.From == (spillway.Group{}) && e.Only == "" && b.Color != "" && b.Weight > most {
				color, most = b.Color, b.Weight
			}
		}
	}
	return color
}

// describeWaits lists the deploys that have not begun, and what each of them waits for.
func (t *turn) describeWaits() []spillway.Wait {
	var list []spillway.Wait
	for _, q := range t.waitingDeploys() {
		w := spillway.Wait{Release: q.Release, Track: q.Track, At: q.At, By: q.By}
		why, due := t.due(&q)
		switch {
		case !due:
			w.Reason = why
		case t.st.Rollout != nil:
			w.Reason = fmt.Sprintf("the rollout of release %d to end", t.st.Rollout.Release)
		default:
			w.Reason = "its turn"
		}
		list = append(list, w)
	}
	return list
}

// describeGates lists the gates that are not part of the evidence, as they were seen last.
func (t *turn) describeGates() []spillway.GateOverview {
	var list []spillway.GateOverview
	for _, g := range t.candidate().Config.Gates {
		state, seen := t.st.Rollout.Gates[g.Text]
		if !seen {
			continue
		}
		list = append(list, spillway.GateOverview{Text: g.Text, Verdict: state.Verdict, Reason: state.Reason, DryRun: g.DryRun})
	}
	return list
}
