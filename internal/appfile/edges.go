package appfile

import (
	"fmt"
	"strings"

	"github.com/spillway-dev/spillway"
)

// ruleKinds are the parts of a request that can send it to a track.
var ruleKinds = [...]string{"cookie", "header"}

// checkEdges reports what the keys of a service about its users say against each other.
func checkEdges(r *report, service entry, path string) {
	public := has(service.node, "host") || has(service.node, "listen")
	tcp := text(service.child("protocol"), "") == string(spillway.TCP) // checkProtocol says why not
	for _, name := range []string{"tls", "synthetic"} {
		if e, ok := find(service.node, name); ok && !public && !tcp {
			r.add(&node{place: e.key}, join(path, name), "is for public services, and "+service.name+" has no host", "give it a host, or remove "+name)
		}
	}
	checkTLS(r, service, path)
	if e, ok := find(service.node, "standby"); ok {
		checkStandby(r, service, e, path+".standby")
	}
	checkScale(r, service, path)
	tracks := service.child("tracks")
	if tracks == nil {
		return
	}
	for _, t := range tracks.entries {
		if _, outside := find(t.node, "urls"); !outside && text(service.child("strategy"), "") == string(spillway.Recreate) {
			r.add(&node{place: t.key}, join(path+".tracks", t.name), "there is only one "+service.name+" at a time, because its strategy is recreate: a track cannot have another",
				"choose another strategy, or remove the track")
			continue
		}
		if !t.bad && t.kind == aMapping {
			checkTrack(r, t, join(path+".tracks", t.name), service.name, public)
		}
	}
	checkShares(r, service, tracks, path+".tracks")
	checkRules(r, tracks, path+".tracks")
}

// checkScale reports what the keys of a range say against each other, and targets that there is nothing to measure by.
func checkScale(r *report, service entry, path string) {
	scale := service.child("scale")
	most, least := scale.child("max"), scale.child("min")
	if most != nil && whole(most, 0) < whole(least, defaultScale) {
		r.add(most, path+".scale.max", fmt.Sprintf("%s is below min, %d", most.text, whole(least, defaultScale)), "the largest number is at least the smallest")
	}
	if scale == nil || scale.kind != aMapping {
		return
	}
	if e, is := find(scale, "tolerance"); is && e.kind != aNull && !has(scale, "cpu") && !has(scale, "memory") {
		r.add(&node{place: e.key}, path+".scale.tolerance", "is of no use: no autoscaler chooses the size", "add what it aims at, cpu: 60%, or remove tolerance")
	}
	bounded := has(scale, "max")
	for _, of := range []string{"cpu", "memory"} {
		e, is := find(scale, of)
		if !is || e.kind == aNull {
			continue
		}
		at := &node{place: e.key}
		if !bounded {
			bounded = true // once is enough
			r.add(at, path+".scale.max", "is missing: an autoscaler has to know where to stop", "write max: 12, the largest number of replicas that you want to pay for")
		}
		if limits := service.child("limits"); limits == nil || limits.kind == aMapping && !has(limits, of) {
			example := map[string]string{"cpu": "500m", "memory": "256Mi"}[of]
			r.add(at, path+".limits."+of, "is missing: scale."+of+" is a share of it", fmt.Sprintf("write limits: {%s: %s}, what a replica may use", of, example))
		}
	}
}

// checkStandby reports a standby of a service that has no dark colour, and a public one of a private one.
func checkStandby(r *report, service, standby entry, path string) {
	strategy := service.child("strategy")
	known := strategy != nil || !has(service.node, "strategy")
	if written := text(strategy, string(defaultStrategy)); known && written != string(spillway.BlueGreen) {
		r.add(&node{place: standby.key}, path, "is for strategy blue-green, and this is "+written, "write strategy: blue-green, or remove the standby")
	}
	if host, ok := find(standby.node, "host"); ok && !has(service.node, "host") && text(service.child("protocol"), "") != string(spillway.TCP) {
		r.add(&node{place: host.key}, path+".host", "is for public services, and "+service.name+" has no host", "give the service a host, or remove this one")
	}
}

// checkTrack reports what the keys of one track say against each other, or against their service.
func checkTrack(r *report, track entry, path, service string, public bool) {
	_, outside := find(track.node, "urls")
	reached := false
	for _, e := range track.entries {
		at := &node{place: e.key}
		switch e.name {
		case "share", "cookie", "header", "host":
			reached = true
		}
		switch {
		case !public && e.name != "replicas":
			r.add(at, join(path, e.name), service+" has no host, and a private service follows the tracks of those that call it",
				"leave only replicas, or give "+service+" a host")
		case outside && (e.name == "replicas" || e.name == "branch"):
			r.add(at, join(path, e.name), "the track is servers that Spillway does not run: it has no release", "remove "+e.name+", or urls")
		case outside && e.name == "share" && e.text == "auto":
			r.add(e.node, join(path, e.name), "the share of servers that Spillway does not run follows from no replicas", "write a share: share: 10%")
		}
	}
	if public && !reached {
		r.add(&node{place: track.key}, path, "nobody reaches the track", "give it a share, a cookie, a header or a host")
	}
}

// checkShares reports shares of more than all users: auto counts as what it is at the service's smallest size.
func checkShares(r *report, service entry, tracks *node, path string) {
	scale := service.child("scale")
	if scale != nil && scale.kind == aMapping {
		scale = scale.child("min")
	}
	size := whole(scale, defaultScale)
	var sum spillway.Share
	for _, t := range tracks.entries {
		n := t.child("share")
		if n == nil {
			continue
		}
		share, err := spillway.ParseShare(n.text)
		name := n.text
		if replicas := whole(t.child("replicas"), defaultTrackReplicas); err != nil { // it is auto
			share = (spillway.Share(replicas)*spillway.Whole-1)/spillway.Share(replicas+size) + 1
			name = fmt.Sprintf("auto, %s when %s has %d replicas,", share, service.name, size)
		}
		if sum += share; sum > spillway.Whole {
			r.add(n, join(path, t.name)+".share", fmt.Sprintf("with %s the shares come to %s", name, sum), "what is left of 100% is stable's")
			return
		}
	}
}

// checkRules reports a rule that two tracks of a service have: a request must have one place to go.
func checkRules(r *report, tracks *node, path string) {
	owners := map[spillway.Match]string{}
	for _, t := range tracks.entries {
		for _, kind := range ruleKinds {
			list := t.child(kind)
			for i, item := range listed(list) {
				rule := matchOf(kind, item.text)
				if kind == "header" { // names of headers have no case
					rule.Name = strings.ToLower(rule.Name)
				}
				at := join(path, t.name) + "." + kind
				if list.kind == aList {
					at = fmt.Sprintf("%s[%d]", at, i)
				}
				switch owner, taken := owners[rule]; {
				case item.bad:
				case taken && owner == t.name:
					r.add(item, at, quote(item.text)+" is listed twice", "remove one")
				case taken:
					r.add(item, at, fmt.Sprintf("%s leads to the track %s already", quote(item.text), owner), "give each track its own")
				default:
					owners[rule] = t.name
				}
			}
		}
	}
}

// hostOwner is who has a public name.
type hostOwner struct {
	name string // "web", "the track canary of web"
	line int
}

// checkHosts reports a host name that is written twice: a request must have one place to go.
func checkHosts(r *report, services *node) {
	owners := map[string]hostOwner{}
	for _, s := range services.entries {
		path := join("services", s.name)
		claimHosts(r, owners, s.child("host"), s.name, path+".host")
		claimHosts(r, owners, s.child("standby").child("host"), "the standby of "+s.name, path+".standby.host")
		if tracks := s.child("tracks"); tracks != nil {
			for _, t := range tracks.entries {
				claimHosts(r, owners, t.child("host"), "the track "+t.name+" of "+s.name, join(path+".tracks", t.name)+".host")
			}
		}
	}
}

// claimHosts notes whose the names are and reports those that are somebody's.
func claimHosts(r *report, owners map[string]hostOwner, hosts *node, name, path string) {
	for i, host := range listed(hosts) {
		if host.bad {
			continue
		}
		at := path
		if hosts.kind == aList {
			at = fmt.Sprintf("%s[%d]", path, i)
		}
		switch o, taken := owners[host.text]; {
		case taken && o.name == name:
			r.add(host, at, quote(host.text)+" is listed twice", "remove one")
		case taken:
			r.add(host, at, fmt.Sprintf("%s is the host of %s already, in line %d", quote(host.text), o.name, o.line), "give each service its own")
		default:
			owners[host.text] = hostOwner{name, host.line}
		}
	}
}

// find gives a key with its value, be it good or not.
func find(n *node, name string) (entry, bool) {
	for _, e := range n.entries {
		if e.name == name {
			return e, true
		}
	}
	return entry{}, false
}

// has reports whether a key is there at all, with a good value or not.
func has(n *node, name string) bool {
	_, ok := find(n, name)
	return ok
}
