package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/spillway-dev/spillway"
)

// Connect reads how a cluster is reached, as kubectl does: from the file or files named, from KUBECONFIG, from the user's own
// file, or, in a pod, from its service account. The namespace is the one named or else that of the context.
func Connect(kubeconfig, context, namespace string) (*rest.Config, string, error) {
	rules := filesOf(kubeconfig)
	overrides := &clientcmd.ConfigOverrides{CurrentContext: context}
	overrides.Context.Namespace = namespace
	found := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	c, err := found.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("find the cluster: %w: %w; name a file: --kubeconfig FILE", spillway.ErrInvalid, err)
	}
	if namespace, _, err = found.Namespace(); err != nil {
		return nil, "", fmt.Errorf("find the namespace: %w", err)
	}
	c.QPS = -1 // no limit of our own: the API server has fair queues
	c.UserAgent = "spillway"
	return c, namespace, nil
}

// filesOf says what is read for a kubeconfig: the file, or several that are named as KUBECONFIG names them; "" = as kubectl.
func filesOf(kubeconfig string) *clientcmd.ClientConfigLoadingRules {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if files := filepath.SplitList(kubeconfig); len(files) > 1 {
		rules.Precedence = files
	} else {
		rules.ExplicitPath = kubeconfig
	}
	return rules
}

// The times of leadership: who does not renew in leaseTime is not the leader any more, and knows it before others do.
const (
	leaseTime = 15 * time.Second
	renewTime = 6 * time.Second
	retryTime = 2 * time.Second
	writeTime = leaseTime - renewTime - retryTime - time.Second // the API server gives a request up before another leads
)

// limited is how a cluster is reached for single requests. The API server is told the limit too.
func limited(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.Timeout = writeTime
	return c
}

// ErrNotLeader is that another server leads now, so this one has to stop deciding.
var ErrNotLeader = errors.New("another server leads now")

// Lead waits until this process leads the namespace, runs until ctx ends, and fails with ErrNotLeader when it stops
// to lead before. id tells servers apart. run has to end when its context does; only then the lease is given back.
func Lead(ctx context.Context, c *rest.Config, namespace, id string, log *slog.Logger, run func(context.Context) error) error {
	clients, err := kubernetes.NewForConfig(c)
	if err != nil {
		return explain("connect to the cluster", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Name: leaseName, Namespace: namespace},
		Client:    clients.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: id},
	}
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	ended := make(chan struct{})
	var over atomic.Bool // or begun, whichever is first: the elector does not wait for what it starts, and may stop before that begins
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseTime, RenewDeadline: renewTime, RetryPeriod: retryTime,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) {
				if !over.CompareAndSwap(false, true) {
					return // it led for no time at all
				}
				defer close(ended)
				log.Info("leading", "namespace", namespace, "id", id)
				failed = run(ctx)
				if ctx.Err() == nil { // by itself, so there is nothing to lead for
					cancel()
				}
			},
			OnStoppedLeading: func() {
				if !over.CompareAndSwap(false, true) {
					<-ended
					giveBack(ctx, lock, log)
				}
			},
			OnNewLeader: func(leader string) {
				if leader != id {
					log.Info("another server leads; this one answers and waits", "leader", leader)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("lead namespace %s: %w", namespace, err)
	}
	elector.Run(leading)
	switch {
	case ctx.Err() != nil, failed != nil:
		return failed
	case leading.Err() != nil:
		return nil
	}
	return ErrNotLeader
}

// giveBack lets another server lead at once. The elector could do that by itself, and would do it while this server
// still decides: before it ends the context of what runs.
func giveBack(ctx context.Context, lock *resourcelock.LeaseLock, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTime)
	defer cancel()
	held, _, err := lock.Get(ctx)
	if err == nil && held.HolderIdentity == lock.Identity() {
		now := metav1.Now()
		err = lock.Update(ctx, resourcelock.LeaderElectionRecord{LeaderTransitions: held.LeaderTransitions, LeaseDurationSeconds: 1, AcquireTime: now, RenewTime: now})
	}
	if err != nil { // it ends by itself in leaseTime
		log.Info("the lease cannot be given back", "error", err)
	}
}
