package kube

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/spillway-dev/spillway"
	"github.com/spillway-dev/spillway/internal/kube/state"
	"github.com/spillway-dev/spillway/internal/kube/v1alpha1"
)

// definedEvery is how often a cluster that does not know App and Release is asked whether it does now.
const definedEvery = 2 * time.Second

// asksDefined asks the API server whether it knows App and Release.
func asksDefined(asks discovery.ServerResourcesInterface) (bool, error) {
	list, err := asks.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, explain("ask the cluster for App and Release", err)
	}
	has := func(kind string) bool {
		return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == kind })
	}
	return has("App") && has("Release"), nil
}

// isDefined reports whether the cluster is known to know App and Release. It does not go back to false.
func (p *Platform) isDefined() bool {
	select {
	case <-p.defined:
		return true
	default:
		return false
	}
}

// Defined waits until the cluster knows App and Release: without them there is nothing to decide. Run has to run.
func (p *Platform) Defined(ctx context.Context) error {
	select {
	case <-p.defined:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitDefinitions asks again and again whether the cluster knows App and Release, and watches Apps from then on. It
// ends then, or with ctx.
func (p *Platform) awaitDefinitions(ctx context.Context, asks discovery.ServerResourcesInterface) {
	p.log.Warn("the cluster does not know App and Release; this server begins when it does: run spillway kube install")
	tick := time.NewTicker(definedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		defined, err := asksDefined(asks)
		if err == nil && defined {
			err = p.watchApps(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.log.Warn("the cluster was not asked for App and Release", "error", err)
		case defined:
			p.log.Info("the cluster knows App and Release now")
			close(p.defined)
			return
		}
	}
}

// watchApps has the cache know the Apps.
func (p *Platform) watchApps(ctx context.Context) error {
	informer, err := p.cache.GetInformer(ctx, &v1alpha1.App{}, cache.BlockUntilSynced(false))
	if err == nil {
		_, err = informer.AddEventHandler(p.handler())
	}
	return explain("watch the apps", err)
}

// Store is what the cluster remembers of its apps. While it does not know them every answer is ErrUnavailable.
func (p *Platform) Store() *state.Store {
	return state.New(state.Config{Client: p.client, Live: p.live, Namespace: p.conf.Namespace, Recorder: &p.announcer, Log: p.log})
}

// Asked calls changed for every App at first and then whenever its resource may ask for something new, until ctx ends.
// It begins when the cluster knows them.
func (p *Platform) Asked(ctx context.Context, changed func(app spillway.Ref)) error {
	if err := p.Defined(ctx); err != nil {
		return fmt.Errorf("watch the apps: %w", err)
	}
	return state.Watch(ctx, p.cache, changed)
}

// Lost calls gone for each Release that is deleted, until ctx ends. It begins when the cluster knows them.
func (p *Platform) Lost(ctx context.Context, gone func(app spillway.Ref, release int)) error {
	if err := p.Defined(ctx); err != nil {
		return fmt.Errorf("watch the releases: %w", err)
	}
	c, err := metadata.NewForConfig(p.conf.Rest)
	if err != nil {
		return explain("connect to the cluster", err)
	}
	state.WatchGone(ctx, c, p.conf.Namespace, gone)
	return nil
}

// keepAuthors leaves the managed fields out of what is cached, but for Apps: they tell who wrote a spec.
func keepAuthors(o any) (any, error) {
	if _, app := o.(*v1alpha1.App); app {
		return o, nil
	}
	return cache.TransformStripManagedFields()(o)
}
