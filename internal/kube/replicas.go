package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/spillway-dev/spillway"
)

// Replicas lists the pods of an app as people see them, sorted by group and name.
func (p *Platform) Replicas(ctx context.Context, ref spillway.Ref) ([]spillway.Replica, error) {
	there, err := p.there(ctx, ref) // waits for the cache
	if err != nil {
		return nil, err
	}
	pods, err := p.pods(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 && len(there) == 0 {
		return nil, fmt.Errorf("app %s: %w", ref, spillway.ErrNotFound)
	}
	a := p.app(ref)
	a.mu.Lock()
	answers := maps.Clone(a.silent)
	a.mu.Unlock()
	var list []spillway.Replica
	for i := range pods {
		pod := &pods[i]
		g, ok := groupOf(pod.Labels)
		if !ok || over(pod) {
			continue
		}
		r := spillway.Replica{Name: pod.Name, Group: g, State: stateOf(pod), Address: pod.Status.PodIP, Restarts: endsOf(pod), Enforced: true}
		if pod.Status.StartTime != nil {
			r.Started = pod.Status.StartTime.Time
		}
		r.Problem, _ = podProblem(pod)
		r.Problem = answers[pod.UID].explained(pod, r.Problem)
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b spillway.Replica) int {
		return cmp.Or(cmp.Compare(a.Group.Service, b.Group.Service), cmp.Compare(a.Group.Release, b.Group.Release), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// stateOf is where a pod is in its life.
func stateOf(pod *corev1.Pod) spillway.ReplicaState {
	waits := slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Waiting != nil && c.State.Waiting.Reason == "CrashLoopBackOff" || c.State.Terminated != nil
	})
	switch {
	case pod.DeletionTimestamp != nil:
		return spillway.Draining // its Service does not lead to it; it is signalled when its last requests had their time
	case ready(pod):
		return spillway.Ready
	case waits:
		return spillway.Waiting
	case everReady(pod):
		return spillway.Unready
	}
	return spillway.Starting
}

// Halt does nothing: what runs on a cluster goes on when a server ends.
func (p *Platform) Halt(context.Context) error { return nil }
