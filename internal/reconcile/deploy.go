package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// Regroup fills in release.Groups: a service that is in every respect the same as in an earlier release
// keeps the group, and so the replicas, of that release; a changed one gets 0, which the store replaces by the
// new number. What the release's track has now is asked first, then what stable has, then the others from the
// newest on.
//
// In a release for a track a service also gets a group of its own when one that it needs has: its requests
// would leave the track otherwise. Where requests are divided at public edges only, that goes for every release.
func Regroup(release spillway.Release, saved Saved, at Division) spillway.Release {
	release.Groups = map[string]int{}
	earlier := saved.Spec.Releases
	order := []int{holds(saved.Status, release.Track), saved.Status.Stable}
	for n := newestOf(earlier); n > 0; n-- {
		order = append(order, n)
	}
	var group func(spillway.Service)
	group = func(s spillway.Service) {
		if _, done := release.Groups[s.Name]; done {
			return
		}
		release.Groups[s.Name] = 0
		for _, need := range s.Needs {
			if n, ok := release.Config.Service(need); ok {
				group(n)
			}
		}
		print := release.Fingerprint(s.Name)
		for _, n := range order {
			old, ok := earlier[n]
			if ok && old.Fingerprint(s.Name) == print && (release.Track == "" && at == EveryEdge || samePeers(release, old, s)) {
				release.Groups[s.Name] = old.Groups[s.Name]
				return
			}
		}
	}
	for _, s := range release.Config.Services {
		group(s)
	}
	return release
}

// samePeers reports whether what a service needs is run by the same replicas in both releases.
func samePeers(a, b spillway.Release, s spillway.Service) bool {
	return !slices.ContainsFunc(s.Needs, func(need string) bool { return a.Groups[need] == 0 || a.Groups[need] != b.Groups[need] })
}

// holds is the release that a track has; "" is stable.
func holds(st rollout.Status, track string) int {
	if track == "" {
		return st.Stable
	}
	return st.Lanes[track].Release
}

// Deploy stores a release with the intent to roll it out, and wakes the loop. same reports that the release
// that the track has, or that is being rolled out to it, is the same in everything: then nothing is stored, and
// that release is returned. A new number would end the watch and become what a rollback goes back from, to the
// very same thing. ErrConflict: another app has one of its hosts, or the app is being destroyed.
func (l *Loop) Deploy(ctx context.Context, release spillway.Release, intent spillway.Intent) (_ spillway.Release, _ spillway.Intent, same bool, err error) {
	if isPublic(release) { // so that of two that want a host at the same time one sees the other
		l.hosts.Lock()
		defer l.hosts.Unlock()
	}
	if err := l.HostsFree(ctx, release); err != nil {
		return release, intent, false, err
	}
	saved, err := l.store.Load(ctx, release.App)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return release, intent, false, err
	}
	if saved.Status.Destroy { // it would be forgotten with the app
		return release, intent, false, fmt.Errorf("app %s is being destroyed; deploy it again when it is gone: %w", release.App, spillway.ErrConflict)
	}
	release.Track = intent.Track
	st := saved.Status
	at, waits := holds(st, intent.Track), st.Queue
	if intent.Track != "" {
		waits = st.Lanes[intent.Track].Queue
	}
	if r := st.Rollout; r != nil && r.Track == intent.Track {
		at = 0
		if st.Phase != spillway.RollingBack {
			at = r.Release
		}
	}
	runs, known := saved.Spec.Releases[at]
	if known && waits == nil && len(saved.Spec.Intents) == 0 && SameContent(runs, release) {
		return runs, spillway.Intent{Seq: st.Intent}, true, nil
	}
	release, intent, err = l.store.AddRelease(ctx, Regroup(release, saved, l.divides), intent)
	if err != nil {
		return release, intent, false, err
	}
	l.Wake(release.App)
	return release, intent, false, nil
}

// Ask stores an intent and wakes the loop. ErrConflict: it names a release that has a host of another app. An app whose
// releases cannot be read can be destroyed all the same.
func (l *Loop) Ask(ctx context.Context, app spillway.Ref, intent spillway.Intent) (spillway.Intent, error) {
	if intent.Verb != spillway.VerbDestroy {
		saved, err := l.store.Load(ctx, app)
		if err != nil {
			return intent, err
		}
		if err := l.HostsFree(ctx, saved.Spec.Releases[targetOf(saved.Status, intent)]); err != nil {
			return intent, err
		}
	}
	intent, err := l.store.AddIntent(ctx, app, intent)
	if err == nil {
		l.Wake(app)
	}
	return intent, err
}

// targetOf is the release that an intent would bring back; 0 = none that does not run already.
func targetOf(st rollout.Status, in spillway.Intent) int {
	switch {
	case in.Verb == spillway.VerbRollback && in.Release == 0 && in.Track == "" && st.Rollout == nil && len(st.Good) > 0:
		return st.Good[0]
	case in.Verb == spillway.VerbPromote && in.Track != "":
		return st.Lanes[in.Track].Release
	}
	return in.Release
}

// SameContent reports whether two releases would run the same things in the same way.
func SameContent(a, b spillway.Release) bool {
	x, errA := json.Marshal(a.Config)
	y, errB := json.Marshal(b.Config)
	return errA == nil && errB == nil && string(x) == string(y) && !slices.ContainsFunc(a.Config.Services, func(s spillway.Service) bool {
		return a.Fingerprint(s.Name) != b.Fingerprint(s.Name)
	})
}

// isPublic reports whether a release has hosts or public addresses.
func isPublic(release spillway.Release) bool {
	return len(release.Config.Hosts()) > 0 || len(release.Config.Addresses()) > 0
}

// HostsFree checks that no other app has one of the release's hosts or public addresses: ErrConflict, with that
// app's name. What the app has already nobody else can have, so others are asked about nothing but what is new: one whose
// state cannot be read must not hold up the deploys, and the ways back, of all.
func (l *Loop) HostsFree(ctx context.Context, release spillway.Release) error {
	if !isPublic(release) {
		return nil // there is nothing to go through all apps for
	}
	own, err := l.store.Load(ctx, release.App)
	if err != nil && !errors.Is(err, spillway.ErrNotFound) {
		return err
	}
	if hasAll(own, release) {
		return nil
	}
	apps, err := l.store.Apps(ctx)
	if err != nil {
		return err
	}
	for _, other := range apps {
		saved, err := l.store.Load(ctx, other)
		if other == release.App || errors.Is(err, spillway.ErrNotFound) || saved.Status.Destroy {
			continue
		}
		if err != nil {
			return fmt.Errorf("whether app %s has one of the hosts or addresses of this release cannot be known: %w", other, err)
		}
		for _, n := range having(saved) {
			theirs := saved.Spec.Releases[n].Config
			for _, host := range theirs.Hosts() {
				if slices.Contains(release.Config.Hosts(), host) {
					return fmt.Errorf("host %s belongs to app %s (release %d); give this app another host, or destroy that app: %w", host, other, n, spillway.ErrConflict)
				}
			}
			for _, address := range theirs.Addresses() {
				if slices.ContainsFunc(release.Config.Addresses(), func(own string) bool { return spillway.Collide(own, address) }) {
					return fmt.Errorf("the address %s belongs to app %s (release %d); have this app listen at another port, or destroy that app: %w", address, other, n, spillway.ErrConflict)
				}
			}
		}
	}
	return nil
}

// having are the releases whose hosts and addresses an app has: tracks have those that stable's file gives them.
func having(saved Saved) []int { return []int{saved.Status.Stable, newestOf(saved.Spec.Releases)} }

// hasAll reports whether an app has all hosts and addresses of a release already.
func hasAll(saved Saved, release spillway.Release) bool {
	var names []string
	for _, n := range having(saved) {
		has := saved.Spec.Releases[n].Config
		names = slices.Concat(names, has.Hosts(), has.Addresses())
	}
	other := func(name string) bool { return !slices.Contains(names, name) }
	return !saved.Status.Destroy && !slices.ContainsFunc(slices.Concat(release.Config.Hosts(), release.Config.Addresses()), other)
}

func newestOf(releases map[int]spillway.Release) int {
	newest := 0
	for n := range releases {
		newest = max(newest, n)
	}
	return newest
}
