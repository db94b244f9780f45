package kube

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
	"github.com/spillway-dev/spillway/internal/rollout"
)

// lag is how long the cache may be behind a write of our own.
const lag = 5 * time.Second

// patience is how long the first look at everything may take.
const patience = 30 * time.Second

// Apply makes the cluster have exactly the objects that d means. What is there already is not written again. An object
// that is refused keeps none of the others from being applied: what a candidate lacks must not hold up the route that
// leads users away from it. As long as a route of users is refused nothing is deleted: they may still come by the old one.
func (p *Platform) Apply(ctx context.Context, ref spillway.Ref, releases map[int]spillway.Release, d rollout.Desired) (err error) {
	a := p.app(ref)
	defer func() {
		a.mu.Lock()
		a.failed, a.failedAt = err, time.Now()
		a.mu.Unlock()
	}()
	there, err := p.there(ctx, ref)
	if err != nil {
		return err
	}
	r := rendering{ref: ref, namespace: p.conf.Namespace, releases: releases, desired: d, gateway: p.conf.Gateway, publicType: corev1.ServiceType(p.conf.PublicType), pullSecret: p.conf.PullSecret, tracks: tracksOf(there)}
	r.addresses = p.names.of(ctx, ref, d.Route, hostsOf(placed(ref, d.Route, there)))
	if r.otherPulls, err = p.otherPulls(ctx, ref, there); err != nil {
		return err
	}
	if r.owner, err = p.owner(ctx, ref); err != nil {
		return err
	}
	sum, err := r.sum(there)
	if err != nil {
		return err
	}
	if a.did(sum) {
		p.ask(a, d.Route)
		return nil
	}
	wanted, err := r.objects()
	if err != nil {
		return err
	}
	p.ask(a, d.Route)
	acts := a.count(0)
	names, refused, held := p.placeAll(ctx, a, &r, wanted, there)
	if !held {
		another := len(d.Tasks) > 0 // release command: those before it need not be read any more, and may be what a quota has room for
		p.removeAll(ctx, a, there, refused, func(o client.Object) bool {
			return !names[key(o)] && o.GetDeletionTimestamp() == nil && (another || !leftToRead(o)) && !r.unknown(o) && !a.mayLead(o, d.Route.Generation)
		})
	}
	if len(refused) == 0 && a.count(0) == acts {
		a.settled(sum, names, there)
	}
	return together(refused)
}

// settled remembers that everything is as it should be, and forgets what is neither wanted nor there.
func (a *app) settled(sum string, names map[string]bool, there map[string]client.Object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = sum
	maps.DeleteFunc(a.applied, func(key string, _ applied) bool { return !names[key] && there[key] == nil })
	maps.DeleteFunc(a.sizes, func(key string, _ applied) bool { return !names[key] && there[key] == nil })
	maps.DeleteFunc(a.leads, func(name string, _ leading) bool { return !names["Service/"+name] && there["Service/"+name] == nil })
}

// count adds to the acts of all Applies of an app, and gives how many there were: writes, and those left to the cache
// to see.
func (a *app) count(more int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.acts += more
	return a.acts
}

// did reports whether an Apply with this sum found everything as it should be.
func (a *app) did(sum string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done == sum
}

// ask remembers what was asked for, and has the gateway asked whether it serves it.
func (p *Platform) ask(a *app, route spillway.Route) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked.Generation != route.Generation {
		a.begun, a.problem, a.refused = time.Now(), "", ""
		p.follow(a.ref, route, time.Time{}) // before it is written: see counts.Route
	}
	a.asked, a.parts, a.own = route, p.wantedParts(route), true
	if a.known && a.served.Generation == route.Generation {
		a.served = route // the memory and the terms of its trial may be newer, or it was adopted without
		p.follow(a.ref, a.served, a.since)
		return
	}
	if !a.asking {
		a.asking = true
		p.pending <- a
	}
}

// there is what the cache has of an app, by key.
func (p *Platform) there(ctx context.Context, ref spillway.Ref) (map[string]client.Object, error) {
	seeing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !p.cache.WaitForCacheSync(seeing) {
		return nil, fmt.Errorf("look at what runs of %s: the cluster has not told within %s what there is: %w", ref, patience, spillway.ErrUnavailable)
	}
	all := map[string]client.Object{}
	for _, kind := range p.kinds() {
		gvk, err := p.client.GroupVersionKindFor(kind)
		if err != nil {
			return nil, err
		}
		list, err := p.client.Scheme().New(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err != nil {
			return nil, err
		}
		err = p.ofApp(ctx, list.(client.ObjectList), v1alpha1.Label(ref))
		if err != nil {
			return nil, explain("look at what runs of "+string(ref), err)
		}
		err = meta.EachListItem(list, func(o runtime.Object) error {
			object := o.(client.Object)
			object.GetObjectKind().SetGroupVersionKind(gvk)
			all[key(object)] = object
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// key names an object among all of an app: "Deployment/castle-www-4".
func key(o client.Object) string {
	return o.GetObjectKind().GroupVersionKind().Kind + "/" + o.GetName()
}

// tracksOf are the tracks that groups were made for.
func tracksOf(there map[string]client.Object) map[spillway.Group]string {
	tracks := map[spillway.Group]string{}
	for _, o := range there {
		if g, ok := groupOf(o.GetLabels()); ok && o.GetLabels()[TrackLabel] != "" {
			tracks[g] = o.GetLabels()[TrackLabel]
		}
	}
	return tracks
}

// owner is the App that everything of it goes with; nil when the cluster has none. What the cache does not have, or has
// as one that goes, is looked for past it: another App of the name may be there already.
func (p *Platform) owner(ctx context.Context, ref spillway.Ref) (*metav1.OwnerReference, error) {
	at := client.ObjectKey{Namespace: p.conf.Namespace, Name: v1alpha1.Name(ref)}
	if p.isDefined() {
		var app v1alpha1.App
		err := p.client.Get(ctx, at, &app, client.UnsafeDisableDeepCopy) // only read
		if err == nil && app.DeletionTimestamp == nil {
			return ownedBy(&app), nil
		}
	}
	app := &metav1.PartialObjectMetadata{}
	app.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("App"))
	err := p.live.Get(ctx, at, app)
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return nil, nil
	case err != nil:
		return nil, explain("look for App "+v1alpha1.Name(ref), err)
	}
	return ownedBy(app), nil
}

func ownedBy(app metav1.Object) *metav1.OwnerReference {
	block := true
	return &metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "App", Name: app.GetName(), UID: app.GetUID(), BlockOwnerDeletion: &block}
}

// sum is that of everything which decides what Apply writes. Releases are in it by their numbers: they never change.
func (r *rendering) sum(there map[string]client.Object) (string, error) {
	given := sha256.New()
	if err := json.NewEncoder(given).Encode([]any{r.desired, r.owner, r.addresses, sortedKeys(r.otherPulls)}); err != nil { // maps are sorted
		return "", err
	}
	for _, name := range sortedKeys(there) {
		o := there[name]
		fmt.Fprintln(given, name, o.GetUID(), o.GetResourceVersion())
	}
	return string(given.Sum(nil)), nil
}

// ensure applies an object unless what is there is like it. there is nil when the cache has none.
func (p *Platform) ensure(ctx context.Context, a *app, o, there client.Object) error {
	want, print, err := bare(o)
	if err != nil {
		return err
	}
	a.mu.Lock()
	last, before, edited := a.applied[key(o)], "", ""
	a.mu.Unlock()
	if there != nil {
		before = there.GetResourceVersion()
		now, err := runtime.DefaultUnstructuredConverter.ToUnstructured(there)
		if err != nil {
			return err
		}
		if there.GetAnnotations()[printAnnotation] == print {
			if edited = lacking(now, want.Object); edited == "" {
				return nil
			}
		}
	}
	a.count(1)
	if last.print == print && last.before == before && time.Since(last.at) < lag {
		p.lookAgain(a) // the cache has not seen it yet, or somebody deleted it
		return nil
	}
	if there == nil {
		if err := p.free(ctx, a.ref, o); err != nil {
			return err
		}
	}
	want.SetResourceVersion(last.knows(before))
	err = p.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), client.FieldOwner(Manager), client.ForceOwnership)
	if err != nil {
		return explain("apply "+key(o), err)
	}
	a.mu.Lock()
	a.applied[key(o)] = applied{print: print, before: before, after: want.GetResourceVersion(), uid: want.GetUID(), at: time.Now()}
	a.mu.Unlock()
	if edited != "" && want.GetResourceVersion() != before { // else the API server has it in another form
		p.tellEdit(a, key(o), edited)
	}
	return nil
}

// lookAgain has a round when the cache must have seen what was written.
func (p *Platform) lookAgain(a *app) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.looks {
		return
	}
	a.looks = true
	time.AfterFunc(lag, func() { // it ends by itself: a round that is one too many costs nothing
		a.mu.Lock()
		a.looks = false
		a.mu.Unlock()
		p.watchers.Changed(a.ref)
	})
}

// knows is the version of an object that this server has seen or made, when the cache has it as it was before: a write
// is refused when somebody wrote it since. Who does not lead any more, and has something under way, changes nothing of
// what the next one wrote. "" = it was not there.
func (last applied) knows(before string) string {
	if last.before == before && last.after != "" && before != "" {
		return last.after
	}
	return before
}

// free checks that nobody else has an object of that name.
func (p *Platform) free(ctx context.Context, ref spillway.Ref, o client.Object) error {
	other := &metav1.PartialObjectMetadata{}
	other.SetGroupVersionKind(o.GetObjectKind().GroupVersionKind())
	err := p.live.Get(ctx, client.ObjectKeyFromObject(o), other)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return explain("look for "+key(o), err)
	case other.Labels[ManagedBy] != Manager || other.Labels[AppLabel] != v1alpha1.Label(ref):
		return p.foreign(ctx, ref, o)
	}
	return nil
}

// bare is an object as it is applied, with its own sum.
func bare(o client.Object) (*unstructured.Unstructured, string, error) {
	u, err := plain(o)
	if err != nil {
		return nil, "", err
	}
	text, err := json.Marshal(u.Object) // with sorted keys
	if err != nil {
		return nil, "", err
	}
	print := fmt.Sprintf("%.12x", sha256.Sum256(text))
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[printAnnotation] = print
	u.SetAnnotations(annotations)
	return u, print, nil
}

// prune removes what is null.
func prune(fields map[string]any) {
	for name, value := range fields {
		switch v := value.(type) {
		case nil:
			delete(fields, name)
		case map[string]any:
			prune(v)
		case []any:
			for _, item := range v {
				if m, ok := item.(map[string]any); ok {
					prune(m)
				}
			}
		}
	}
}

// covers reports whether everything that is wanted is there; what else is there does not matter.
func covers(there, want any) bool {
	switch w := want.(type) {
	case map[string]any:
		t, ok := there.(map[string]any)
		if !ok {
			return len(w) == 0
		}
		for name, value := range w {
			if !covers(t[name], value) {
				return false
			}
		}
		return true
	case []any:
		t, ok := there.([]any)
		if !ok || len(t) != len(w) {
			return len(w) == 0 && !ok
		}
		for i := range w {
			if !covers(t[i], w[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(there, want)
}
