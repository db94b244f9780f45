package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/reconcile"
)

// deploy is one deploy action being read: a release in the making, how it will behave, and the wish.
type deploy struct {
	behaviour Behaviour
	config    spillway.App
	www       spillway.Service
	tier      spillway.Strategy // of the services behind www
	own       bool              // only www has a release command
	intent    spillway.Intent
	now       time.Time
}

// release makes a new release that changes the services named, and asks for it.
func (r *Run) release(words []string) error {
	d := deploy{
		behaviour: Behaviour{Start: 1}, tier: spillway.Rolling, now: r.World.Now,
		intent: spillway.Intent{Verb: spillway.VerbDeploy, At: r.World.Now, By: "ann"},
		config: spillway.App{Name: string(app), Budget: spillway.DefaultBudget, Deadline: spillway.Duration(deadline)},
		www:    spillway.Service{Name: "www", Host: []string{"shop.test"}, Needs: []string{"backend"}, Scale: 2, Surge: spillway.Count{Share: spillway.Percent(25)}},
	}
	for _, word := range words[1:] {
		if err := d.set(word); err != nil {
			return err
		}
	}
	saved, err := r.Store.Load(context.Background(), app)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	release := spillway.Release{App: app, Config: d.file(), Created: r.World.Now, Track: d.intent.Track, Artefacts: map[string]spillway.Artefact{}}
	newest := saved.Spec.Releases[len(saved.Spec.Releases)]
	for _, s := range release.Config.Services {
		artefact, known := newest.Artefacts[s.Name]
		if changed := words[0] == "both" || words[0] == s.Name || words[0] == "www" && s.Public(); changed || !known {
			artefact.Digest = fmt.Sprintf("%s of %d", s.Name, len(saved.Spec.Releases)+1)
		}
		release.Artefacts[s.Name] = artefact
	}
	release, in, err := r.Store.AddRelease(context.Background(), reconcile.Regroup(release, saved, reconcile.EveryEdge), d.intent)
	r.World.releases[release.Number] = release
	r.World.behave[release.Number] = d.behaviour
	r.checks.asked(in)
	return err
}

// file is the app file of the release.
func (d *deploy) file() spillway.App {
	www := d.www
	if www.Strategy == spillway.Canary && www.Steps == nil {
		www.Steps = []spillway.StepSpec{{Weight: spillway.Percent(5)}, {Weight: spillway.Percent(25), Hold: spillway.Duration(holdTime)}, {Weight: spillway.Percent(50), Hold: spillway.Duration(holdTime)}}
	}
	if www.Strategy != spillway.BlueGreen {
		www.Standby = nil
	}
	if www.Autoscaled() {
		www.Max = max(www.Max, www.Scale+4)
	}
	www.Stop.Drain = spillway.Duration(drainLimit)
	d.config.Services = []spillway.Service{www}
	for _, name := range www.Needs {
		s := www
		s.Name, s.Strategy = name, d.tier
		if d.own {
			s.Release = spillway.Command{}
		}
		s.Host, s.Needs, s.Steps, s.Standby, s.Tracks, s.Synthetic = nil, nil, nil, nil, nil, nil
		d.config.Services = append(d.config.Services, s)
	}
	slices.SortFunc(d.config.Services, func(a, b spillway.Service) int { return strings.Compare(a.Name, b.Name) })
	return d.config
}

// set reads one word of a deploy action.
func (d *deploy) set(word string) (err error) {
	key, value, _ := strings.Cut(word, "=")
	for _, set := range []func(key, value string) (bool, error){d.setBehaviour, d.setService, d.setApp, d.setIntent} {
		if known, err := set(key, value); known || err != nil {
			return err
		}
	}
	return fmt.Errorf("unknown word %s", key)
}

func (d *deploy) setBehaviour(key, value string) (known bool, err error) {
	b := &d.behaviour
	switch key {
	case "errors":
		b.Errors, err = strconv.ParseFloat(value, 64)
	case "slow":
		b.Slow, err = strconv.ParseFloat(value, 64)
	case "start":
		b.Start, err = strconv.Atoi(value)
	case "never":
		b.Never = true
	case "crash":
		b.Crash = true
	case "fatal":
		b.Fatal = true
	case "cpu":
		b.CPU, err = strconv.ParseFloat(value, 64)
	case "memory":
		b.Memory, err = spillway.ParseBytes(value)
	case "task": // a release command of www, and of what is behind it: "", "slow", "slow:www" of www alone
		b.Task, d.own = strings.CutSuffix(value, ":www")
		d.www.Release = spillway.Command{Shell: "migrate"}
	default:
		return false, nil
	}
	return true, err
}

func (d *deploy) setService(key, value string) (known bool, err error) {
	www := &d.www
	switch key {
	case "scale":
		www.Scale, err = strconv.Atoi(value)
	case "max":
		www.Max, err = strconv.Atoi(value)
	case "auto": // with an autoscaler
		www.Targets.CPU = spillway.Percent(60)
	case "unavailable":
		www.Unavailable.N, err = strconv.Atoi(value)
	case "strategy":
		www.Strategy = spillway.Strategy(value)
	case "front": // another name for the public service
		www.Name = value
	case "alone": // without a tier behind it
		www.Needs = nil
	case "cache": // with one more tier
		www.Needs = []string{"backend", "cache"}
	case "tier": // the strategy of the services behind it
		d.tier = spillway.Strategy(value)
	case "pause":
		www.Steps = []spillway.StepSpec{{Weight: spillway.Percent(10)}, {Pause: true}, {Weight: spillway.Percent(50), Hold: spillway.Duration(holdTime)}}
	case "standby": // how long the dark colour stays warm
		www.Standby = &spillway.Standby{Host: []string{"dark.shop.test"}}
		err = www.Standby.Keep.UnmarshalText([]byte(value))
	case "synthetic":
		www.Synthetic = &spillway.Synthetic{Path: []string{"/"}, Rate: 10}
	case "track":
		if name, how, defines := strings.Cut(value, ":"); defines {
			err = d.setTrack(name, how)
		} else {
			d.intent.Track = name
		}
	default:
		return false, nil
	}
	return true, err
}

// ownHosts is the domain of the own hosts of tracks.
const ownHosts = ".own.test"

// setTrack adds a track to the file: "canary:10%:rule:host:x2", "canary:auto", "legacy:30%:url".
func (d *deploy) setTrack(name, how string) (err error) {
	t := spillway.Track{Name: name, Replicas: 1}
	for word := range strings.SplitSeq(how, ":") {
		switch {
		case word == "auto":
			t.Auto = true
		case word == "rule":
			t.Match = []spillway.Match{{KeySource: spillway.KeySource{Kind: "header", Name: "X-Track"}, Value: name}}
		case word == "host":
			t.Host = []string{name + ownHosts}
		case word == "url":
			t.URLs, t.Replicas = []string{legacy}, 0
		case strings.HasPrefix(word, "x"):
			t.Replicas, err = strconv.Atoi(word[1:])
		default:
			t.Share, err = spillway.ParseShare(word)
		}
		if err != nil {
			return err
		}
	}
	d.www.Tracks = append(d.www.Tracks, t)
	slices.SortFunc(d.www.Tracks, func(a, b spillway.Track) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (d *deploy) setApp(key, value string) (known bool, err error) {
	switch key {
	case "watch":
		err = d.config.Watch.UnmarshalText([]byte(value))
	case "thin":
		d.config.Thin = spillway.Thin(value)
	case "delay":
		err = d.config.Delay.UnmarshalText([]byte(value))
	case "freeze": // from now on, so long
		var length spillway.Duration
		err = length.UnmarshalText([]byte(value))
		d.config.Freeze = []spillway.Window{{Text: "the next " + value, Begin: d.now, End: d.now.Add(time.Duration(length))}}
	case "gate":
		err = d.setGate(value)
	case "rule":
		err = d.setRule(value)
	default:
		return false, nil
	}
	return true, err
}

// setRule adds a rule of routes: "shop.test/api:backend" leads to a service or SERVICE@TRACK, "shop.test/old:" away.
func (d *deploy) setRule(text string) error {
	match, to, ok := strings.Cut(text, ":")
	host, path, rooted := strings.Cut(match, "/")
	if !ok || !rooted {
		return fmt.Errorf("the rule %s is not HOST/PATH:SERVICE", text)
	}
	rule := spillway.HTTPRule{Hosts: []string{host}, Path: spillway.PathMatch{Kind: spillway.PathPrefix, Text: strings.TrimSuffix("/"+path, "/")}}
	if service, track, _ := strings.Cut(to, "@"); service != "" {
		rule.To = []spillway.Target{{Service: service, Track: track, Weight: 1}}
	} else {
		rule.Redirect = &spillway.Redirect{Prefix: "/new", Status: 302}
	}
	d.config.Routes = append(d.config.Routes, rule)
	return nil
}

// setGate adds a gate: "query", "cpu:for=30s", "rps:from=25%:dry", "latency".
func (d *deploy) setGate(text string) (err error) {
	metric, how, _ := strings.Cut(text, ":")
	g, known := map[string]spillway.Gate{
		"query":   {Op: ">", Source: "up"},
		"http":    {Source: "http://127.0.0.1:9/ok"},
		"run":     {Source: "./check.sh"},
		"rps":     {Op: ">", Value: 0.2},
		"cpu":     {Op: "<", Value: 0.8},
		"memory":  {Op: "<", Value: 400 << 20},
		"latency": {Op: "<", Factor: 150},
		"errors":  {Op: "<", Factor: 200},
	}[metric]
	if !known {
		return fmt.Errorf("unknown gate %s", metric)
	}
	g.Text, g.Metric = text, metric
	for word := range strings.SplitSeq(how, ":") {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "for":
			err = g.For.UnmarshalText([]byte(value))
		case "from":
			g.From, err = spillway.ParseShare(value)
		case "dry":
			g.DryRun = true
		}
		if err != nil {
			return err
		}
	}
	d.config.Gates = append(d.config.Gates, g)
	return nil
}

func (d *deploy) setIntent(key, value string) (known bool, err error) {
	switch key {
	case "at": // "+5m" from now
		after, failed := time.ParseDuration(value)
		d.intent.NotBefore, err = d.now.Add(after), failed
	case "force":
		d.intent.Force = true
	default:
		return false, nil
	}
	return true, err
}
