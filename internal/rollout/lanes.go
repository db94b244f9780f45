package rollout

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spillway-dev/spillway"
)

// setLane replaces what is remembered of a track.
func (t *turn) setLane(track string, lane Lane) {
	if t.st.Lanes == nil {
		t.st.Lanes = map[string]Lane{}
	}
	t.st.Lanes[track] = lane
	if lane.Release == 0 && lane.Queue == nil && len(lane.Good) == 0 {
		delete(t.st.Lanes, track)
	}
}

// file is the release whose app file says which tracks there are: stable's, and the candidate's from the
// moment on at which it has all of stable's users or there is no stable.
func (t *turn) file() spillway.Release {
	if in := t.incoming(); in.Number != 0 && (t.weight() == spillway.Whole || t.st.Stable == 0) {
		return in
	}
	return t.stable()
}

// laneSwitched reports whether the running rollout of a track has given its users to the candidate.
func (t *turn) laneSwitched() bool {
	r := t.st.Rollout
	return r != nil && r.Track != "" && t.st.Phase != spillway.RollingBack && (r.Routed || t.st.Phase == spillway.Promoting)
}

// laneServing is the release to which the users of a track are given; the zero Release when they are stable's:
// it holds none, or the one that stable has.
func (t *turn) laneServing(track string) spillway.Release {
	n := t.st.Lanes[track].Release
	if t.laneSwitched() && t.st.Rollout.Track == track {
		n = t.st.Rollout.Release
	}
	if n == t.st.Stable {
		return spillway.Release{}
	}
	return t.spec.Releases[n]
}

// laneReleases are the releases of a track that have replicas: the one that it holds, and the one tried.
func (t *turn) laneReleases(track string) []spillway.Release {
	var list []spillway.Release
	if release, ok := t.spec.Releases[t.st.Lanes[track].Release]; ok {
		list = append(list, release)
	}
	if in := t.laneIncoming(); in.Number != 0 && t.st.Rollout.Track == track {
		list = append(list, in)
	}
	return list
}

// laneIncoming is the candidate for a track as far as it may have replicas.
func (t *turn) laneIncoming() spillway.Release {
	if r := t.st.Rollout; r == nil || r.Track == "" || t.st.Phase == spillway.RollingBack {
		return spillway.Release{}
	}
	return t.candidate()
}

// shared reports whether a service of a release beside stable is run by stable's replicas: nothing about it
// differs, or there can be only one at a time.
func (t *turn) shared(service string, g spillway.Group) bool {
	old, ok := t.stable().Group(service)
	s, _ := t.stable().Config.Service(service)
	return ok && (old == g || s.Strategy == spillway.Recreate)
}

// besideGroup is the group that serves a service to callers of a release beside stable.
func (t *turn) besideGroup(release spillway.Release, service string) (spillway.Group, bool) {
	g, ok := release.Group(service)
	if ok && t.shared(service, g) {
		return t.stable().Group(service)
	}
	return g, ok
}

// trackShare is the part of the users of a service that a track gets without a rule.
func (t *turn) trackShare(s spillway.Service, track spillway.Track) spillway.Share {
	if track.Auto {
		n := max(1, track.Replicas)
		return shareOf(n, n+t.size(s))
	}
	return track.Share
}

// laneSize is how many replicas a track has of a service: as its file says, or for a service that does not
// know the track what the greatest share of the track needs.
func (t *turn) laneSize(track string, s spillway.Service) int {
	most := spillway.Share(0)
	file := t.file()
	if !slices.Contains(file.Config.Lanes(), track) {
		file = t.stable() // it goes with the release that has it
	}
	for _, known := range file.Config.Services {
		def, ok := known.Track(track)
		if ok && known.Name == s.Name {
			return max(1, def.Replicas)
		}
		if ok {
			most = max(most, t.trackShare(known, def))
		}
	}
	return max(1, most.Of(t.size(s)))
}

// laneWants adds the replicas of tracks to those of stable and its candidate. A group that a track and the
// candidate for stable have in common has the replicas of both.
func (t *turn) laneWants(wants map[spillway.Group]Want) {
	for _, track := range t.tracks() {
		counted := map[spillway.Group]bool{} // by the release before it
		for _, release := range t.laneReleases(track) {
			for _, s := range release.Config.Services {
				g, _ := release.Group(s.Name)
				if t.shared(s.Name, g) || counted[g] {
					continue
				}
				n := t.laneSize(track, s)
				if release.Number == t.laneIncoming().Number {
					n = t.laneStart(s, g, n)
				}
				counted[g] = true
				w := wants[g]
				wants[g] = Want{Group: g, Replicas: n + w.Replicas, Release: max(release.Number, w.Release), Restart: t.st.Restart[s.Name]}
			}
		}
	}
}

// lanePart is how many replicas of a group tracks have that hold a release which is being tried for stable: they
// are there for the tracks' users, and not for those whom the candidate is given.
func (t *turn) lanePart(g spillway.Group) int {
	if r := t.st.Rollout; r == nil || r.Track != "" || t.shared(g.Service, g) {
		return 0
	}
	n := 0
	for _, track := range t.tracks() {
		release := t.spec.Releases[t.st.Lanes[track].Release]
		if s, ok := release.Config.Service(g.Service); ok && release.Groups[g.Service] == g.Release {
			n += t.laneSize(track, s)
		}
	}
	return n
}

// tracks are those that have replicas: of the file that counts, and until the way back is closed of stable's.
func (t *turn) tracks() []string {
	tracks := append(t.file().Config.Lanes(), t.stable().Config.Lanes()...)
	slices.Sort(tracks)
	return slices.Compact(tracks)
}

// laneStart is how many of n replicas of a candidate for a track may run now: see prepared and needsReady.
func (t *turn) laneStart(s spillway.Service, g spillway.Group, n int) int {
	switch {
	case !t.mayStart(s):
		return 0
	case !t.needsReady(s) && !t.laneSwitched():
		o := t.group(g)
		return min(n, o.Running-o.Draining)
	}
	return n
}

// addTracks divides the users of a public edge between what it has and the tracks of a service.
func (t *turn) addTracks(edge *spillway.Edge, s spillway.Service) {
	var tracks []spillway.Backend
	var rules []spillway.Rule
	taken, outside := spillway.Share(0), -1
	for _, def := range s.Tracks {
		b, ok := t.trackBackend(s, def)
		to := def.Name
		if !ok {
			to = "" // its users are stable's, whatever share other tracks have
		}
		for _, m := range def.Match {
			rules = append(rules, spillway.Rule{Match: m, Track: to})
		}
		if !ok {
			continue
		}
		if len(b.URLs) > 0 && outside < 0 {
			outside = len(tracks)
		}
		b.Weight = min(b.Weight, spillway.Whole-taken) // by size, tracks may ask for more than there is
		taken += b.Weight
		tracks = append(tracks, b)
	}
	switch {
	case len(tracks) == 0:
		return
	case len(edge.Backends) > 0:
		edge.Backends = append(tracks, scaled(edge.Backends, spillway.Whole-taken)...)
	case outside < 0:
		return // closed: a track is no replacement for what is being replaced
	default: // servers that Spillway does not run go on alone
		tracks[outside].Weight += spillway.Whole - taken
		edge.Backends, edge.Closed = tracks, ""
	}
	edge.Rules = rules
}

// trackBackend is what a track gives its users, with its share; false when they are stable's.
func (t *turn) trackBackend(s spillway.Service, def spillway.Track) (spillway.Backend, bool) {
	b := spillway.Backend{Track: def.Name, Weight: t.trackShare(s, def)}
	if len(def.URLs) > 0 {
		b.URLs = slices.Clone(def.URLs)
		return b, true
	}
	release := t.laneServing(def.Name)
	g, ok := release.Group(s.Name)
	b.Group, b.Release = g, release.Number
	if !ok || t.shared(s.Name, g) {
		return b, false
	}
	return b, t.ready(g) > 0 || t.hasTrack(def.Name, g) // users that it has are left to those who stand in
}

// hasTrack reports whether the route asked for last gives a group to the users of a track.
func (t *turn) hasTrack(track string, g spillway.Group) bool {
	return slices.ContainsFunc(t.st.Route.Edges, func(e spillway.Edge) bool {
		return e.From == (spillway.Group{}) && slices.ContainsFunc(e.Backends, func(b spillway.Backend) bool { return b.Track == track && b.Group == g })
	})
}

// scaled makes the weights of backends, which sum to the whole, sum to left, and keeps them as the parts
// within. What is lost in rounding is the first one's, which is stable.
func scaled(backends []spillway.Backend, left spillway.Share) []spillway.Backend {
	list := slices.Clone(backends)
	rest := left
	for i := range list {
		list[i].Within = list[i].Weight
	}
	for i := len(list) - 1; i > 0; i-- {
		list[i].Weight = list[i].Weight * left / spillway.Whole
		rest -= list[i].Weight
	}
	list[0].Weight = rest
	return list
}

// trackEdges are the ways in by the own hosts of tracks. See targetEdges for those that have none.
func (t *turn) trackEdges() []spillway.Edge {
	var edges []spillway.Edge
	for _, s := range t.file().Config.Services {
		for _, def := range s.Tracks {
			if len(def.Host) == 0 {
				continue
			}
			edge := t.edge(s.Name, true, true) // as long as its users are stable's
			if b, ok := t.trackBackend(s, def); ok {
				b.Weight = spillway.Whole
				edge = spillway.Edge{Service: s.Name, Only: def.Name, Backends: []spillway.Backend{b}}
			}
			edge.Hosts, edge.TLS = slices.Sorted(slices.Values(def.Host)), s.TLS
			edge.Target = spillway.Target{Service: s.Name, Track: def.Name}.Name()
			edges = append(edges, edge)
		}
	}
	return edges
}

// besideEdges lead the groups of releases beside stable and its candidate to their own peers: the tracks', and
// the dark colour's.
func (t *turn) besideEdges(have []spillway.Edge) []spillway.Edge {
	known := map[spillway.Group]bool{}
	for _, e := range have {
		known[e.From] = true
	}
	var releases []spillway.Release
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		releases = append(releases, t.laneReleases(track)...)
	}
	if in := t.laneIncoming(); in.Number != 0 {
		releases = append(releases, in) // a track's first has no lane yet
	}
	if t.st.Standby != nil {
		releases = append(releases, t.spec.Releases[t.st.Standby.Release])
	}
	var edges []spillway.Edge
	for _, release := range releases {
		for _, s := range release.Config.Services {
			from, _ := release.Group(s.Name)
			if known[from] || t.shared(s.Name, from) {
				continue
			}
			known[from] = true
			for _, need := range s.Needs {
				edge := t.besideEdge(release, from, need)
				speak(&edge, need, release)
				edges = append(edges, edge)
			}
		}
	}
	return edges
}

func (t *turn) besideEdge(release spillway.Release, from spillway.Group, need string) spillway.Edge {
	g, ok := t.besideGroup(release, need)
	edge := spillway.Edge{Service: need, From: from, Closed: fmt.Sprintf("%s is not in release %d", need, release.Number)}
	own, _ := release.Group(need)
	if t.shared(need, own) && (own != g || t.recreates(need)) { // it is stable's, and may be replaced just now
		edge = t.edge(need, true, true)
		edge.From = from
		return edge
	}
	if ok {
		edge.Closed = ""
		edge.Backends = []spillway.Backend{{Group: g, Release: release.Number, Weight: spillway.Whole}}
	}
	return edge
}

// besidePeer reports whether a group of the candidate has users beside stable already, whose calls go to stable's
// replicas because there was only one of that service at a time: they stay there until the candidate's are ready.
func (t *turn) besidePeer(from spillway.Group, need string) bool {
	var releases []spillway.Release
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		releases = append(releases, t.laneReleases(track)...)
	}
	if t.st.Standby != nil {
		releases = append(releases, t.spec.Releases[t.st.Standby.Release])
	}
	old, _ := t.stable().Group(need)
	return slices.ContainsFunc(releases, func(release spillway.Release) bool {
		own, ok := release.Group(need)
		return ok && own != old && release.Groups[from.Service] == from.Release && !t.shared(from.Service, from) && t.shared(need, own)
	})
}

// laneMissing says which capacity of the candidate for a track is not ready, in words.
func (t *turn) laneMissing() string {
	var lacks []string
	for _, s := range t.candidate().Config.Services {
		if g, _ := t.candidate().Group(s.Name); !t.shared(s.Name, g) {
			lacks = append(lacks, t.lack(s, g, t.candidateCapacity(s)))
		}
	}
	return joined(lacks)
}

// candidateCapacity is how many ready replicas of a service the present step asks the candidate for.
func (t *turn) candidateCapacity(s spillway.Service) int {
	if track := t.st.Rollout.Track; track != "" {
		return t.laneSize(track, s)
	}
	g, _ := t.candidate().Group(s.Name)
	return t.capacity(s, t.step().Candidate) + t.lanePart(g)
}

// closeTrack gives the users of a track back to stable.
func (t *turn) closeTrack(track string) {
	lane := t.st.Lanes[track]
	lane.Release = 0
	t.setLane(track, lane)
}

// rethinkTracks makes the tracks fit a new stable release: one that held it is empty, because its users are
// stable's now; one whose replicas are not there, because stable's served it until now, begins again; and one that
// the new file does not know is forgotten.
func (t *turn) rethinkTracks() {
	known := t.stable().Config.Lanes()
	for _, track := range slices.Sorted(maps.Keys(t.st.Lanes)) {
		lane := t.st.Lanes[track]
		switch {
		case !slices.Contains(known, track):
			if q := lane.Queue; q != nil {
				e := t.event(spillway.EventFinished, q.Release, "release %d was waiting for track %s, which release %d does not have", q.Release, track, t.st.Stable)
				e.Outcome, e.Track, e.Rollout = spillway.Cancelled, track, 0
			}
			t.event(spillway.EventStep, lane.Release, "track %s is gone: release %d does not have it", track, t.st.Stable).Track = track
			delete(t.st.Lanes, track)
			continue
		case lane.Release == t.st.Stable:
			t.event(spillway.EventStep, lane.Release, "track %s is empty: its release is stable", track).Track = track
			lane.Release, lane.Good = 0, t.remembered(lane.Good, lane.Release, 0)
		case t.laneGone(track):
			if lane.Queue == nil {
				lane.Queue = &Queued{Release: lane.Release, Track: track, Force: true, Intent: t.st.Intent}
			}
			lane.Release = 0
		}
		t.setLane(track, lane)
	}
}

// laneGone reports whether a service that the release of a track should run by itself has no replica.
func (t *turn) laneGone(track string) bool {
	release := t.spec.Releases[t.st.Lanes[track].Release]
	return slices.ContainsFunc(release.Config.Services, func(s spillway.Service) bool {
		g, _ := release.Group(s.Name)
		return !t.shared(s.Name, g) && t.group(g).Running == 0
	})
}

// remembered puts a release in front of those that a track had before, if it is not bad.
func (t *turn) remembered(good []int, was, is int) []int {
	if _, bad := t.st.Bad[was]; was != 0 && !bad {
		good = append([]int{was}, good...)
	}
	good = slices.DeleteFunc(slices.Clone(good), func(n int) bool { return n == is })
	return good[:min(len(good), keepGood)]
}
